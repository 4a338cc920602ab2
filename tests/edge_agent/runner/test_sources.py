# SPDX-License-Identifier: Apache-2.0
"""Replays and their pace; time is a value here."""

import itertools

import numpy as np
import pytest

from edge_agent.runner.sources import BACKLOG_S, Pace, ReplaySpec, open_source
from edge_contract.errors import DataError, UsageError


@pytest.fixture
def images(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2))
    return path


def spec(file, **words):
    return {"kind": "replay", "path": str(file), "rate_hz": 20, **words}


def refs(source, count):
    return [taken[0] for taken in itertools.islice(iter(source.take, None), count)]


def test_replay_gives_each_image_once_with_its_reference(images):
    source = open_source("belt", spec(images))
    taken = list(iter(source.take, None))
    assert [one.ref for one in taken] == [f"belt:{i}" for i in range(5)]
    assert [one.raw[0, 0] for one in taken] == [0, 4, 8, 12, 16]
    assert source.take() is None  # and stays at its end


def test_loop_begins_again(images):
    assert refs(open_source("b", spec(images, loop=True)), 7) == [f"b:{i % 5}" for i in range(7)]


def test_shuffle_is_another_permutation_each_round_and_the_same_for_a_seed(images):
    first, second = (refs(open_source("b", spec(images, loop=True, shuffle_seed=7)), 50) for _ in range(2))
    assert first == second
    rounds = [first[i : i + 5] for i in range(0, 50, 5)]
    assert all(sorted(one) == [f"b:{i}" for i in range(5)] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 2
    assert refs(open_source("b", spec(images, loop=True, shuffle_seed=8)), 50) != first


def test_pace_counts_from_the_start_and_does_not_drift():
    pace, now = Pace(20.0, now=0.0), 0.0
    for _ in range(10_000):
        now = pace.due + 0.0037  # each inference begins a little late
        pace.taken(now)
    assert pace.due == pytest.approx(500.0)


def test_short_delay_is_caught_up_and_a_long_one_forgiven():
    pace = Pace(10.0, now=0.0)
    pace.taken(0.9)
    assert pace.due == pytest.approx(0.1)  # still due: caught up
    pace.taken(60.0)
    assert pace.due == 60.0
    pace.taken(60.0)
    assert pace.due == pytest.approx(60.1)
    assert BACKLOG_S == 1.0


def test_rate_of_zero_is_always_due():
    pace = Pace(0.0, now=5.0)
    for now in (5.0, 5.1, 99.0):
        pace.taken(now)
        assert pace.due <= now


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"kind": "lidar"}, "source 'n'.kind: unknown value 'lidar'; use one of replay"),
        ({"rate_hz": -1}, "source 'n'.rate_hz: a rate of -1 Hz; use 0 to 100000"),
        ({"rate_hz": "fast"}, "source 'n'.rate_hz: expected a number"),
        ({"path": 3}, "source 'n'.path: expected text"),
        ({"loop": "yes"}, "source 'n'.loop: expected"),
        ({"lop": True}, "source 'n': unknown key 'lop'; use kind, path, rate_hz, loop, shuffle_seed"),
        ({"shuffle_seed": -2}, "source 'n'.shuffle_seed: -2 is below 0"),
    ],
)
def test_specification_that_makes_no_sense_names_its_field(images, words, message):
    with pytest.raises(UsageError, match=message):
        open_source("n", spec(images, **words))


@pytest.mark.parametrize("missing", ["kind", "path", "rate_hz"])
def test_field_that_is_missing_is_named(images, missing):
    words = spec(images)
    del words[missing]
    with pytest.raises(UsageError, match=f"field '{missing}' is missing"):
        open_source("n", words)


def test_specification_reads_all_its_fields(images):
    found = ReplaySpec.from_json(spec(images, loop=True, shuffle_seed=3), "w")
    assert found == ReplaySpec(images, 20.0, loop=True, shuffle_seed=3)
    assert ReplaySpec.from_json(spec(images, shuffle_seed=None), "w").shuffle_seed is None


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 2, 2), np.uint8), r"no raw images but uint8 \[0, 2, 2\]"),
        (np.zeros((3, 2), np.uint8), r"no raw images but uint8 \[3, 2\]"),
        (np.array(["a"]), "no raw images but"),
    ],
)
def test_file_without_images_is_refused(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=message):
        open_source("n", spec(tmp_path / "x.npy"))


@pytest.mark.parametrize("data", [b"", b"no numpy file", b"\x93NUMPY\x01\x00"])
def test_file_of_another_kind_is_refused(tmp_path, data):
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(DataError, match=r"x.npy: not an .npy array"):
        open_source("n", spec(tmp_path / "x.npy"))


def test_missing_file_and_pickled_objects_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none.npy: No such file or directory; give an .npy file of raw images"):
        open_source("n", spec(tmp_path / "none.npy"))
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"not an .npy array"):
        open_source("n", spec(tmp_path / "x.npy"))


def test_archive_of_arrays_is_no_replay(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        np.savez(file, a=np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(DataError, match="no raw images but an archive"):
        open_source("n", spec(tmp_path / "x.npy"))
