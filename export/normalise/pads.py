# SPDX-License-Identifier: Apache-2.0
"""A PAD before an unpadded convolution becomes the convolution's own SAME padding, where both mean the same pixels.

One operator less, and one copy of the activation less. Both pad with the zero point, so the result is equal bit by bit.
"""

from typing import Final

from export.normalise.draft import Draft, Graph
from export.tflite.schema import ENUMS
from export.tflite.walk import Table

__all__ = ["fold_pads"]

_SAME, _VALID = (ENUMS["Padding"].index(name) for name in ("SAME", "VALID"))
_KERNEL_DIMENSIONS: Final = {"CONV_2D": (1, 2), "DEPTHWISE_CONV_2D": (1, 2)}  # height and width of the weights' shape


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return the pixels that SAME adds before and after; the odd one goes after.

    Example:
        >>> same_padding(96, 3, 2, 1), same_padding(95, 3, 2, 1), same_padding(28, 5, 1, 1)
        ((0, 1), (1, 1), (2, 2))
    """
    out = -(-size // stride)
    needed = max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return needed // 2, needed - needed // 2


def fold_pads(draft: Draft) -> list[str]:
    """Fold every PAD that can be; return what changed."""
    count = 0
    for graph in draft.graphs:
        for pad in [op for op in graph.operators if draft.kind(op) in ("PAD", "PADV2")]:
            count += _fold(draft, graph, pad)
        graph.settle()
    return [f"{count} PAD folded into the SAME padding of convolutions"] if count else []


def _fold(draft: Draft, graph: Graph, pad: Table) -> bool:
    """Fold one PAD into all its readers, or into none."""
    source, padded = pad["inputs"][0], pad["outputs"][0]
    readers = graph.readers(padded)
    if (
        padded in graph.shown
        or graph.writer(padded) is not pad
        or not readers
        or not _pads_with_zero(draft, graph, pad)
    ):
        return False
    if not all(_is_same(draft, graph, pad, reader) for reader in readers):
        return False
    for reader in readers:
        reader["inputs"] = (source, *reader["inputs"][1:])
        reader["builtin_options"]["padding"] = _SAME
    graph.replace(pad, [])
    return True


def _pads_with_zero(draft: Draft, graph: Graph, pad: Table) -> bool:
    """The padding means zero: a PAD between equal scales, or a PADV2 whose value is the zero point."""
    source, padded = (graph.quantized(tensor) for tensor in (pad["inputs"][0], pad["outputs"][0]))
    if (source.scales, source.zero_points) != (padded.scales, padded.zero_points):
        return False
    if draft.kind(pad) == "PAD":
        return True
    value = graph.numbers(pad["inputs"][2])
    zero = source.zero_points[0] if source.is_per_tensor else 0
    return value is not None and value.size == 1 and value.item() == zero


def _is_same(draft: Draft, graph: Graph, pad: Table, reader: Table) -> bool:
    kind, options = draft.kind(reader), reader["builtin_options"]
    if kind not in _KERNEL_DIMENSIONS or options is None or options["padding"] != _VALID:
        return False
    # The padded tensor must be the image alone, not weights or bias.
    if reader["inputs"][0] != pad["outputs"][0] or pad["outputs"][0] in reader["inputs"][1:]:
        return False
    table, shape = graph.numbers(pad["inputs"][1]), graph.shape(pad["inputs"][0])
    weights = graph.shape(reader["inputs"][1])
    if table is None or table.shape != (4, 2) or len(shape) != 4 or len(weights) != 4 or -1 in shape[1:3]:
        return False
    height, width = (
        same_padding(shape[d], weights[d], options[f"stride_{side}"], options[f"dilation_{side}_factor"])
        for d, side in ((1, "h"), (2, "w"))
    )
    return [tuple(row) for row in table.tolist()] == [(0, 0), height, width, (0, 0)]
