# SPDX-License-Identifier: Apache-2.0
"""What a compressed model's folder gives to the exporter."""

from dataclasses import replace

import numpy as np
import pytest

from edge_contract.errors import StropError
from export.bundle import material


@pytest.fixture
def carried(compressed, samples, tmp_path):
    """A model whose recipe names its data beside itself, in another folder than the result."""
    place = tmp_path / "recipes" / "bars.toml"
    place.parent.mkdir()
    np.savez(place.with_name("bars.npz"), x=samples.raw, y=samples.labels)
    text = compressed.recipe_text.replace("strop_export_task:load", "bars.npz")
    place.write_text(text)
    replace(compressed, recipe_text=text, recipe_path=place).save(tmp_path / "out")
    return tmp_path / "out"


def test_data_beside_the_recipe_is_found_from_the_result(carried):
    found, samples = material.open_folder(carried)
    assert found.recipe_path == carried.parent / "recipes" / "bars.toml"
    assert samples.raw.shape[1:] == (16, 16)
    assert len(samples.raw) == len(samples.labels) > 0


def test_data_that_is_gone_is_named_in_one_line(carried):
    (carried.parent / "recipes" / "bars.npz").unlink()
    with pytest.raises(StropError, match=r"bars\.npz") as refusal:
        material.open_folder(carried)
    assert "\n" not in str(refusal.value)


def test_folder_without_its_recipe_uses_the_copy_in_it(carried):
    (carried.parent / "recipes" / "bars.toml").unlink()
    (carried.parent / "recipes" / "bars.npz").rename(carried / "bars.npz")
    _, samples = material.open_folder(carried)
    assert len(samples.labels) > 0
