# SPDX-License-Identifier: Apache-2.0
"""Additions in lanes of long integers against numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.delta import lanes
from edge_agent.delta.container import MAX_CHUNK
from export.delta.coding import planes

WIDTHS = st.sampled_from([1, 2, 4, 8])


@settings(max_examples=60, deadline=None)
@given(WIDTHS, st.integers(1, 70), st.randoms(use_true_random=False))
def test_add_is_that_of_wrapping_integers(width, count, random):
    a, b = random.randbytes(width * count), random.randbytes(width * count)
    kind = np.dtype(f"<u{width}")
    with np.errstate(over="ignore"):
        expected = (np.frombuffer(a, kind) + np.frombuffer(b, kind)).tobytes()
    assert lanes.add(a, b, width) == expected


@settings(max_examples=60, deadline=None)
@given(WIDTHS, st.integers(1, 70), st.randoms(use_true_random=False))
def test_planes_come_back_as_the_difference(width, count, random):
    base, target = random.randbytes(width * count), random.randbytes(width * count)
    if width == 1:
        return
    difference = lanes.from_planes(planes(base, target, width), width)
    assert lanes.add(base, difference, width) == target


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_the_longest_run_and_its_extremes(width):
    rng = np.random.default_rng(width)
    base = rng.integers(0, 256, MAX_CHUNK, np.uint8).tobytes()
    target = (b"\x00" * width + b"\xff" * width) * (MAX_CHUNK // 2 // width)
    if width == 1:
        difference = (np.frombuffer(target, np.uint8) - np.frombuffer(base, np.uint8)).tobytes()
    else:
        difference = lanes.from_planes(planes(base, target, width), width)
    assert lanes.add(base, difference, width) == target


def test_small_differences_of_both_signs_leave_the_high_planes_empty():
    base = np.arange(1000, dtype="<i4")
    target = base + np.where(base % 2 == 0, 3, -3).astype("<i4")
    found = planes(base.tobytes(), target.tobytes(), 4)
    assert set(found[1000:]) == {0}
    assert set(found[:1000]) == {5, 6}
