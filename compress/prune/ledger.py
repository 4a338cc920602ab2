# SPDX-License-Identifier: Apache-2.0
"""What a model costs once its groups have shrunk to given widths; nothing is copied or cut to find out.

A layer keeps (kept outputs / outputs) × (kept inputs / inputs) of its products; its latency is looked up for those
widths in a table.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn

from compress.cost import LayerCost, measure
from compress.latency import LatencyTable, Place, places
from compress.prune.graph import Group
from compress.prune.layers import LAYERS, NORMS, PER_CHANNEL, is_depthwise, widths
from edge_contract.errors import MeasurementError

__all__ = ["KINDS", "Kept", "Ledger"]

Kept = Mapping[str, int]
"""Channels that stay, by group; a group left out stays whole."""
KINDS: Final = ("macs", "parameters", "latency")


@dataclass(frozen=True)
class _Entry:
    """One use of a layer in the forward pass."""

    layer: LayerCost
    module: nn.Module | None
    place: Place | None


class Ledger:
    """Costs of one model as functions of its groups' widths.

    Args:
        model: The uncut model; the ledger is read before anything is removed.
        example: One input, float32 [1,C,H,W].
        groups: Its groups.
        table: For ``latency``.
    """

    def __init__(
        self, model: nn.Module, example: Tensor, groups: tuple[Group, ...], table: LatencyTable | None = None
    ) -> None:
        self.groups, self.table = groups, table
        cost = measure(model, example)
        modules = {member.layer: member.module for group in groups for member in group.members}
        found = {place.name: place for place in places(model, example)} if table is not None else {}
        self._entries = [_Entry(one, modules.get(one.name), found.get(one.name)) for one in cost.layers]
        self._layers = {group.name: {member.layer for member in group.members} for group in groups}
        listed = {one.name: one.parameters for one in cost.layers}
        self._rest = {
            "macs": 0.0,
            "parameters": float(cost.parameters - sum(listed.values())),
            "latency": table.rest_ms if table is not None else 0.0,
        }

    def neighbours(self, name: str) -> set[str]:
        """Return the groups whose savings change when this one shrinks: those with a layer in common."""
        return {other for other, layers in self._layers.items() if layers & self._layers[name]}

    def total(self, kind: str, kept: Kept) -> float:
        """Return MACs, parameters, or milliseconds.

        Raises:
            MeasurementError: Latency is asked for and there is no table, or a layer is not in it.
        """
        if kind == "latency" and self.table is None:
            fix = "build one with compress.stopwatch.build and a stopwatch of the target"
            raise MeasurementError("a latency target without a latency table", where="prune", fix=fix)
        return self._sum(kind, kept, self._entries) + self._rest[kind]

    def saved(self, kind: str, kept: Kept, name: str, width: int) -> float:
        """Return what a group's shrinking to ``width`` saves, all others being as in ``kept``."""
        entries = [entry for entry in self._entries if entry.layer.name in self._layers[name]]
        return self._sum(kind, kept, entries) - self._sum(kind, {**kept, name: width}, entries)

    def _sum(self, kind: str, kept: Kept, entries: Sequence[_Entry]) -> float:
        wanted = {entry.layer.name for entry in entries}
        gone: dict[tuple[str, str], float] = defaultdict(float)
        for group in self.groups:
            channels = group.width - kept.get(group.name, group.width)
            for member in group.members if channels else ():
                if member.layer in wanted:
                    gone[member.layer, member.side] += channels * member.per_channel
        return sum(self._one(kind, e, gone[e.layer.name, "in"], gone[e.layer.name, "out"]) for e in entries)

    def _one(self, kind: str, entry: _Entry, in_gone: float, out_gone: float) -> float:
        if kind == "latency":
            if entry.place is None or self.table is None:
                return 0.0
            inputs, outputs = entry.place.widths
            name = entry.layer.name
            return self.table.layer_ms(entry.place.site, inputs - in_gone, outputs - out_gone, where=name)
        whole = float(entry.layer.macs if kind == "macs" else entry.layer.parameters)
        return whole if entry.module is None else _of_layer(whole, entry.module, in_gone, out_gone, kind)


def _of_layer(whole: float, module: nn.Module, in_gone: float, out_gone: float, kind: str) -> float:
    if isinstance(module, PER_CHANNEL):
        channels = module.num_features if isinstance(module, NORMS) else module.num_parameters
        return whole * (1 - out_gone / channels) if kind == "parameters" and channels > 1 else whole
    assert isinstance(module, LAYERS)
    inputs, outputs = widths(module)
    out_kept = 1 - out_gone / outputs
    in_kept = 1.0 if is_depthwise(module) else 1 - in_gone / inputs
    if kind == "macs":
        return whole * out_kept * in_kept
    bias = 0 if module.bias is None else module.bias.numel()
    return (whole - bias) * out_kept * in_kept + bias * out_kept
