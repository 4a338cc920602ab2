# SPDX-License-Identifier: Apache-2.0
"""Which operators become the one piece of the graph that runs on the Edge TPU.

The compiler is a TFLite delegate and cuts the graph as TFLite does: in rounds. A round takes every operator whose
inputs are there and that is of one sort, mappable or not; the first that is ready decides the sort. The first
mappable round is the piece; whatever is mappable later "is one subgraph too many". So operators in front (a float
QUANTIZE) cost only themselves, and an operator in the middle costs everything that hangs on it.

Reference: TFLite's partitioning of a graph into independent node subsets (``tflite/graph_info``); that the compiler
takes the first such piece is what the published compiles show (docs/targets.md).
"""

from collections.abc import Sequence

from export.tflite.model import Subgraph

__all__ = ["first_piece"]


def first_piece(graph: Subgraph, mappable: Sequence[bool]) -> frozenset[int]:
    """Return the numbers of the operators that run on the Edge TPU.

    Args:
        graph: The graph.
        mappable: Per operator [operators], whether it could be mapped by itself.
    """
    pending = list(range(len(graph.operators)))
    missing = {tensor for operator in graph.operators for tensor in operator.outputs if tensor >= 0}
    for _ in range(2):  # a round of what is not mappable may come first; the mappable one ends the search
        piece, sort = _round(graph, mappable, pending, missing)
        if sort or not piece:
            break
        pending = [index for index in pending if index not in piece]
    return frozenset(piece) if sort else frozenset()


def _round(graph: Subgraph, mappable: Sequence[bool], pending: list[int], missing: set[int]) -> tuple[set[int], bool]:
    """Take all ready operators of one sort; their outputs leave ``missing``.

    A file lists operators in the order in which they run, so one pass finds every operator that becomes ready.
    """
    piece: set[int] = set()
    sort: bool | None = None
    for index in pending:
        if not missing.isdisjoint(graph.operators[index].inputs):
            continue
        if sort is None:
            sort = mappable[index]
        if mappable[index] == sort:
            piece.add(index)
            missing.difference_update(graph.operators[index].outputs)
    return piece, bool(sort)
