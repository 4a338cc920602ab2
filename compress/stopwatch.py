# SPDX-License-Identifier: Apache-2.0
"""Measure a latency table with a stopwatch of the target.

Theory of operation: a layer alone in a file costs more than in its place, because the runtime enters, leaves and
reorders memory around it. So each entry is a difference: three copies of the layer side by side, added up, against
one; what surrounds them is the same in both and drops out. What the whole network takes beyond the sum of its layers
(activations, pools, the call itself) is kept as a rest that no pruning removes.
"""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from compress.latency import LatencyTable, Place, Points, Widths, places
from compress.prune.layers import is_depthwise, widths
from edge_contract.errors import MeasurementError, ModelError

__all__ = ["Stopwatch", "build"]

Stopwatch = Callable[[nn.Module, Tensor], float]
"""(network in eval mode, one input) → milliseconds of one inference on the target."""
COPIES: Final = 3
SHARES: Final = (0.25, 0.5, 0.75, 1.0)


class _Branches(nn.Module):
    """Copies of one layer on one input, added up."""

    def __init__(self, layer: nn.Module, copies: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_like(layer, *widths(layer)) for _ in range(copies))

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.layers[0](x)
        for layer in self.layers[1:]:
            total = total + layer(x)
        return total


def _like(layer: nn.Module, inputs: int, outputs: int) -> nn.Module:
    """Return a fresh layer of other widths; with a bias, which folded normalisation gives every layer."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(inputs, outputs)
    words: dict[str, Any] = {key: getattr(layer, key) for key in ("kernel_size", "stride", "padding", "dilation")}
    return type(layer)(inputs, outputs, groups=outputs if is_depthwise(layer) else 1, **words)


def _grid(width: int, block: int) -> list[int]:
    points = {min(width, -(-round(width * share) // block) * block) for share in SHARES}
    return sorted(point for point in points if point)


def _points(place: Place, block: int) -> Iterator[Widths]:
    inputs, outputs = (_grid(width, block) for width in place.widths)
    return ((o, o) for o in outputs) if place.site.is_depthwise else itertools.product(inputs, outputs)


def _example(place: Place, inputs: int) -> Tensor:
    size = place.site.size
    return torch.zeros(1, *size, inputs) if place.site.kind == "Linear" else torch.zeros(1, inputs, *size)


def _difference(stopwatch: Stopwatch, place: Place, at: Widths) -> float:
    """Return what one more copy of the layer adds, in ms."""
    layer, x = _like(place.module, *at), _example(place, at[0])
    several, one = (stopwatch(_Branches(layer, n).eval(), x) for n in (COPIES, 1))
    return max(0.0, (several - one) / (COPIES - 1))


def build(
    model: nn.Module,
    example: Tensor,
    stopwatch: Stopwatch,
    *,
    round_to: int = 8,
    about: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> LatencyTable:
    """Measure every layer of a network at a quarter, half, three quarters and all of its inputs and outputs.

    Layers of the same kind, size and widths are measured once.

    Args:
        model: The unpruned network.
        example: One input, float32 [1,C,H,W].
        stopwatch: Milliseconds of a network on the target; it should return a median.
        round_to: Measured widths are multiples of it, as the pruned ones will be: kernels work in blocks.
        about: Kept with the table.
        progress: Told how many of how many points are done.

    Raises:
        ModelError: The network has no layer to measure.
        MeasurementError: The stopwatch returns nothing positive.
    """
    found = places(model, example)
    if not found:
        raise ModelError("no convolution and no linear layer", where="latency table", fix="give the network itself")
    whole = stopwatch(copy.deepcopy(model).eval(), example)
    if not whole > 0:
        raise MeasurementError(f"the stopwatch returned {whole} ms", where="latency table", fix="return milliseconds")
    distinct = {(place.site, place.widths): place for place in found}.values()
    wanted = [(place, at) for place in distinct for at in _points(place, round_to)]
    grids: dict[Place, dict[Widths, float]] = {place: {} for place in distinct}
    for number, (place, at) in enumerate(wanted, 1):
        grids[place][at] = _difference(stopwatch, place, at)
        if progress is not None:
            progress(number, len(wanted))
    return _fitted(grids, found, whole, about)


def _fitted(grids: Mapping[Place, Points], found: Sequence[Place], whole: float, about: str) -> LatencyTable:
    """Return the table whose sum over the measured network is what the network took."""
    table = LatencyTable({(place.site, place.widths): points for place, points in grids.items()}, 0.0, about)
    layers = sum(table.layer_ms(place.site, *place.widths) for place in found)
    if layers <= whole:
        return LatencyTable(table.grids, whole - layers, about)
    scaled = {key: {at: ms * whole / layers for at, ms in points.items()} for key, points in table.grids.items()}
    return LatencyTable(scaled, 0.0, about)
