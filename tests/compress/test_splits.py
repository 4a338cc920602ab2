# SPDX-License-Identifier: Apache-2.0
"""The four splits, and that they stay apart."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.cutting import sizes_of, split_by_class, split_by_group
from compress.separation import separate
from compress.splits import NAMES, DataSplits, SealedSplit, Split, WorkingData
from edge_contract.errors import DataError
from examples.digits import data


def splits(n=12):
    x = np.arange(4 * n * 4, dtype=np.uint8).reshape(4 * n, 2, 2)
    x[:, 0, 0], x[:, 0, 1] = np.arange(4 * n) // 256, np.arange(4 * n) % 256  # every image is another one
    y = np.arange(4 * n) % 3
    return DataSplits(*(Split(x[i * n : (i + 1) * n], y[i * n : (i + 1) * n]) for i in range(4)))


def test_what_steps_see_has_no_test_split():
    assert "test" not in {field.name for field in fields(WorkingData)}
    work, sealed = separate(splits(), where="here")
    test = splits().test.x
    for field in fields(WorkingData):
        value = getattr(work, field.name)
        if isinstance(value, Split):
            assert not any((one == two).all() for one in value.x for two in test)
    assert sealed.openings == 0


def test_test_split_opens_once():
    _, sealed = separate(splits(), where="here")
    assert len(sealed.open()) == len(sealed) == 12
    with pytest.raises(DataError, match="the test split was already read; it is read once, at the end"):
        sealed.open()
    assert sealed.openings == 1


def test_sealed_split_does_not_print_its_content():
    assert "array" not in repr(SealedSplit(splits().test))


FAULTS = {
    "an input in two splits": (
        lambda s: replace(s, validation=s.train),
        r"here: 12 inputs of validation are also in train \(the first is number 0\); give each input to one split",
    ),
    "an empty split": (lambda s: replace(s, calibration=s.calibration.take_first(0)), r"calibration split\): .*empty"),
    "labels missing": (
        lambda s: replace(s, train=Split(s.train.x, s.train.y[:5])),
        r"train split\): inputs \[12, 2, 2\] and labels \[5\]",
    ),
    "a class that has no name": (lambda s: replace(s, labels=("a", "b")), "classes 0 to 2; use 0 to 1"),
    "a negative class": (lambda s: replace(s, test=Split(s.test.x, s.test.y - 1)), "classes -1 to 1; use 0 to 2"),
    "other shapes": (
        lambda s: replace(s, test=Split(s.test.x[:, :, :1], s.test.y)),
        "splits of different shapes",
    ),
    "not a number": (
        lambda s: replace(s, train=Split(np.full((12, 2, 2), np.nan, np.float32), s.train.y)),
        r"train split\): 12 inputs hold NaN or Inf \(the first is number 0\); clean the data",
    ),
    "texts for labels": (
        lambda s: replace(s, train=Split(s.train.x, s.train.y.astype(str))),
        "give numbers and whole-numbered classes",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faulty_splits_are_refused(name):
    spoil, message = FAULTS[name]
    broken = spoil(splits())
    with pytest.raises(DataError, match=message):
        separate(broken, where="here")


def test_digest_depends_on_every_split_and_on_the_labels():
    base = separate(splits(), where="")[0].digest
    assert separate(splits(), where="")[0].digest == base
    for name in NAMES:
        changed = splits()
        getattr(changed, name).x[3, 1, 1] ^= 255
        assert separate(changed, where="")[0].digest != base, name
        relabelled = splits()
        getattr(relabelled, name).y[0] = (getattr(relabelled, name).y[0] + 1) % 3
        assert separate(relabelled, where="")[0].digest != base, name


@given(st.integers(0, 10_000), st.integers(2, 7))
@settings(max_examples=30)
def test_split_by_class_gives_each_class_its_share_and_uses_no_sample_twice(seed, classes):
    y = np.random.default_rng(seed).integers(0, classes, 400)
    x = np.arange(400, dtype=np.int64).reshape(400, 1, 1)
    sizes = {"train": 200, "calibration": 40, "validation": 60, "test": 100}
    found = split_by_class(x, y, sizes, seed=seed)
    used = np.concatenate([split.x.ravel() for _, split in found.items()])
    assert len(set(used.tolist())) == 400
    for name, split in found.items():
        assert len(split) == sizes[name]
        assert (y[split.x.ravel()] == split.y).all()
        share = np.bincount(y, minlength=classes) / 400
        counts = np.bincount(split.y, minlength=classes)
        # Every stretch of the interleaved order holds each class in proportion, up to one at each end.
        assert (np.abs(counts - share * sizes[name]) <= 2).all()


def test_split_by_class_is_seeded():
    y = np.arange(100) % 5
    x = np.arange(100).reshape(100, 1, 1)
    sizes = {"train": 50, "calibration": 10, "validation": 20, "test": 20}
    one, again, other = (split_by_class(x, y, sizes, seed=seed).train.x for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()


@given(st.integers(0, 10_000), st.integers(4, 12), st.integers(1, 5))
@settings(max_examples=30)
def test_split_by_group_keeps_every_group_in_one_split_and_uses_every_sample(seed, groups, smallest):
    draw = np.random.default_rng(seed)
    who = draw.permutation(np.repeat(np.arange(groups), draw.integers(smallest, 20, groups)))
    x = np.arange(len(who)).reshape(-1, 1, 1)
    found = split_by_group(x, who % 3, who, seed=seed)
    people = [set(who[split.x.ravel()].tolist()) for _, split in found.items()]
    assert all(people) and sum(map(len, people)) == groups
    assert sorted(np.concatenate([split.x.ravel() for _, split in found.items()])) == list(range(len(who)))


def test_split_by_group_comes_as_near_to_the_shares_as_groups_allow():
    who = np.repeat(np.arange(40), 25)
    found = split_by_group(np.arange(1000).reshape(-1, 1, 1), who % 2, who, seed=3)
    wanted = sizes_of(1000)
    assert all(abs(len(split) - wanted[name]) <= 25 for name, split in found.items())


def test_split_without_labels_is_for_agreement_alone():
    bare = replace(splits(), **{name: Split.unlabelled(split.x) for name, split in splits().items()})
    work, sealed = separate(bare, where="here", needs_labels=False)
    assert work.labels == () and not work.train.is_labelled and len(sealed) == 12
    with pytest.raises(DataError, match="the split has no labels; give it labels, or set metric"):
        separate(bare, where="here")
    half = replace(splits(), train=Split(splits().train.x, np.where(np.arange(12) % 2, -1, 0)))
    with pytest.raises(DataError, match="classes -1 to 0"):
        separate(half, where="here", needs_labels=False)


def test_more_samples_than_there_are_is_refused():
    sizes = dict.fromkeys(NAMES, 30)
    with pytest.raises(DataError, match="120 samples asked for, 100 there"):
        split_by_class(np.zeros((100, 2, 2)), np.zeros(100, np.int64), sizes, seed=0)


def test_digits_are_split_as_the_story_says():
    found = data.load()
    assert {name: len(split) for name, split in found.items()} == data.SIZES
    assert found.train.x.dtype == np.uint8 and found.train.x.shape[1:] == (28, 28)
    assert all(np.bincount(split.y).tolist() == [len(split) // 10] * 10 for _, split in found.items())
    separate(found, where="digits")


def test_other_digits_have_the_form_of_the_first():
    other = data.load_other()
    assert other.x.shape == (1797, 28, 28) and other.x.dtype == np.uint8
    assert other.x.max() > 200 and other.x[:, :4].max() == 0
    assert set(other.y.tolist()) == set(range(10))
