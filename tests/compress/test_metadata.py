# SPDX-License-Identifier: Apache-2.0
"""What is known of each sample beside its class travels with it through every kind of split."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compress import recipe, sources
from compress.cutting import split_by_class, split_by_group
from compress.separation import separate
from compress.sources.archives import read_archive
from compress.splits import NAMES, DataSplits, SealedSplit, Split
from edge_contract.errors import DataError
from tests.compress.conftest import RECIPE

X = np.arange(80 * 4, dtype=np.uint16).reshape(80, 2, 2)
Y = np.arange(80) % 4
SITES = np.array([f"s{int(x[0, 0]) // 4 % 3}" for x in X])


def follows(split):
    """Every sample still has the site that belongs to its input."""
    return all(site == f"s{int(x[0, 0]) // 4 % 3}" for x, site in zip(split.x, split.metadata["site"], strict=True))


@pytest.mark.parametrize("by", ["class", "group"])
def test_metadata_follow_their_samples(by):
    sizes = {"train": 40, "calibration": 8, "validation": 12, "test": 20}
    about = {"site": SITES}
    if by == "class":
        found = split_by_class(X, Y, sizes, seed=1, metadata=about)
    else:
        found = split_by_group(X, Y, np.arange(80) // 4, seed=1, metadata=about)
    assert all(follows(split) and len(split.metadata["site"]) == len(split) for _, split in found.items())
    assert follows(found.train.take_first(3)) and len(found.train.take_first(3)) == 3


def test_archives_have_metadata_by_the_names_of_their_arrays(tmp_path):
    np.savez(tmp_path / "whole.npz", x=X, y=Y, group=np.arange(80) // 4, about_site=SITES)
    found = read_archive(tmp_path / "whole.npz", seed=1)
    assert set(found.validation.metadata) == {"site", "group"}
    assert follows(found.validation)
    parts = {f"{name}_{key}": value for name in NAMES for key, value in (("x", X), ("y", Y), ("about_site", SITES))}
    np.savez(tmp_path / "parts.npz", **parts)
    assert follows(read_archive(tmp_path / "parts.npz", seed=1).test)
    np.savez(tmp_path / "short.npz", x=X, y=Y, about_site=SITES[:3])
    with pytest.raises(DataError, match=r"'about_site' of shape \[3\] for 80 inputs; give one value for each input"):
        read_archive(tmp_path / "short.npz", seed=1)


def test_the_group_of_a_table_is_metadata(tmp_path):
    rows = ["a,b,label,person", *(f"{i},{i + 1},{i % 2},p{i // 8}" for i in range(64))]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    text = RECIPE.replace('source  = "strop_tiny_task:load"', 'source = "t.csv"\nshape = [1, 2]\ngroup = "person"')
    data, _ = sources.load_data(recipe.parse(text, Path(tmp_path / "r.toml")))
    assert data.validation.metadata["person"].tolist() == [f"p{int(x[0, 0]) // 8}" for x in data.validation.x]


def splits_with(**about):
    parts = [Split(X[a : a + 20], Y[a : a + 20], {k: v[a : a + 20] for k, v in about.items()}) for a in (0, 20, 40, 60)]
    return DataSplits(*parts)


def test_metadata_change_no_digest():
    """Two versions of a model stay comparable when somebody learns where the samples were taken."""
    assert separate(splits_with(site=SITES), where="d")[0].digest == separate(splits_with(), where="d")[0].digest


def test_metadata_of_another_length_are_refused():
    parts = splits_with(site=SITES)
    parts = replace(parts, validation=Split(X[:20], Y[:20], {"site": SITES[:3]}))
    with pytest.raises(DataError, match=r"\(validation split\): metadata 'site' \[3\] for labels \[20\]"):
        separate(parts, where="d")


def test_a_sealed_split_gives_digests_and_stays_closed():
    sealed = SealedSplit(Split(X[:3], Y[:3]))
    assert sealed.digests(lambda raw: [bytes([int(one[0, 0])]) for one in raw]) == [b"\0", b"\4", b"\x08"]
    assert sealed.openings == 0
