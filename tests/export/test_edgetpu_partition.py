# SPDX-License-Identifier: Apache-2.0
"""Which operators become the one piece on the Edge TPU."""

import pytest

from export.edgetpu.partition import first_piece
from export.tflite.model import Operator, Subgraph


def chain(*sorts):
    """A graph of operators in a row: True is mappable."""
    operators = tuple(Operator(i, "ADD", 1, (i,), (i + 1,), {}, is_custom=False) for i in range(len(sorts)))
    return Subgraph("", (), operators, (0,), (len(sorts),))


@pytest.mark.parametrize(
    ("sorts", "piece"),
    [
        ((True, True, True), {0, 1, 2}),
        ((True, False, True), {0}),
        ((False, False, True, True, False, True), {2, 3}),  # operators in front cost themselves alone
        ((False,), set()),
        ((), set()),
    ],
)
def test_one_piece_is_mapped_the_first(sorts, piece):
    assert first_piece(chain(*sorts), sorts) == piece


def test_a_branch_that_does_not_hang_on_the_cut_is_mapped():
    # 0 → 1 (not mappable) → 3; 0 → 2; the piece is 0 and 2, in whatever order the file lists them.
    wires = [((0,), (1,)), ((1,), (2,)), ((1,), (3,)), ((2, 3), (4,))]
    operators = tuple(Operator(i, "ADD", 1, a, b, {}, is_custom=False) for i, (a, b) in enumerate(wires))
    assert first_piece(Subgraph("", (), operators, (0,), (4,)), [True, False, True, True]) == {0, 2}


def test_operators_that_wait_for_each_other_map_nothing():
    operators = (
        Operator(0, "ADD", 1, (1,), (0,), {}, is_custom=False),
        Operator(1, "ADD", 1, (0,), (1,), {}, is_custom=False),
    )
    assert first_piece(Subgraph("", (), operators, (), (1,)), [True, True]) == set()
