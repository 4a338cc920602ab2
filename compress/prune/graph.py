# SPDX-License-Identifier: Apache-2.0
"""Which channels of a network must go together: torch-pruning's dependency graph, behind our own words.

Only this file knows torch-pruning. It answers two questions: what are the groups of coupled channels, and
remove these channels of this group. Importance, targets and schedules are ours.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from edge_contract.errors import MissingDependencyError, ModelError, UnsupportedOperatorError

__all__ = ["Group", "Member", "Pruning", "PruningGraph", "replay"]

Pruning = tuple[str, tuple[int, ...]]
"""(layer that names the group, channels removed from it): enough to do the same to a fresh model."""


@dataclass(frozen=True)
class Member:
    """One side of one layer in a group.

    Attributes:
        layer: Its name in the model.
        module: The layer.
        side: ``out`` (rows of a weight, a BN's channels) or ``in`` (columns of a weight).
        channels: Channel of that side for each entry, [entries].
        roots: Channel of the group that the entry goes with, [entries]. A linear layer behind a flatten has
            several entries for one channel.
    """

    layer: str
    module: nn.Module = field(repr=False)
    side: str
    channels: tuple[int, ...]
    roots: tuple[int, ...]

    @property
    def per_channel(self) -> float:
        """Entries that go with one channel of the group, on average."""
        return len(self.channels) / len(set(self.roots))


@dataclass(frozen=True)
class Group:
    """Channels that must be removed together: ``width`` of them, named by the first layer that makes them."""

    name: str
    width: int
    members: tuple[Member, ...]


class PruningGraph:
    """The dependency graph of a model.

    Args:
        model: Traced once on ``example``, in ``eval`` mode.
        example: One input, float32 [1,C,H,W].
        keep: Names of layers whose outputs stay; the layers that make the model's output always do.

    Raises:
        ModelError: The model cannot be traced.
        UnsupportedOperatorError: A layer is coupled in a way that is not handled; named, with the reason.
    """

    def __init__(self, model: nn.Module, example: Tensor, keep: Sequence[str] = ()) -> None:
        self.model = model
        self._names = {module: name for name, module in model.named_modules()}
        _refuse_grouped(model)
        self._graph = _build(model, example)
        kept = {model.get_submodule(name) for name in keep} | set(_output_layers(model, example))
        self._groups = {group.name: (group, raw) for group, raw in self._read(kept)}

    @property
    def groups(self) -> tuple[Group, ...]:
        """Every group that may be pruned, in the order of the forward pass."""
        return tuple(group for group, _ in self._groups.values())

    def _read(self, kept: set[nn.Module]) -> Iterator[tuple[Group, Any]]:
        order = {module: place for place, module in enumerate(self.model.modules())}
        firsts = {self._first_maker(raw, order) for raw in self._graph.get_all_groups(ignored_layers=list(kept))}
        for module in sorted(firsts, key=order.__getitem__):
            pruner = self._graph.get_pruner_of_module(module)
            channels = list(range(pruner.get_out_channels(module)))
            raw = self._graph.get_pruning_group(module, pruner.prune_out_channels, channels)
            members = tuple(self._member(item) for item in raw if _weighs(item.dep.target.module))
            yield Group(self._names[module], len(channels), members), raw

    def _first_maker(self, raw: Any, order: dict[nn.Module, int]) -> nn.Module:
        """Return the first layer that makes the group's channels; torch-pruning starts from any of them."""
        makers: list[nn.Module] = [
            item.dep.target.module
            for item in raw
            if self._graph.is_out_channel_pruning_fn(item.dep.handler)
            and isinstance(item.dep.target.module, (nn.Conv2d, nn.Linear))
            and not _is_depthwise(item.dep.target.module)
        ]
        first: nn.Module = min(makers or [raw[0].dep.target.module], key=order.__getitem__)
        return first

    def _member(self, item: Any) -> Member:
        module = item.dep.target.module
        side = "out" if self._graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
        roots = getattr(item, "root_idxs", None) or item.idxs
        return Member(self._names[module], module, side, tuple(item.idxs), tuple(roots))

    def remove(self, name: str, channels: Sequence[int]) -> Pruning:
        """Remove channels of a group, in place, and return the replayable record.

        Raises:
            ModelError: No such group, a channel that is not there, or nothing would be left.
        """
        if name not in self._groups:
            raise ModelError("no such pruning group", where=name, fix=f"use one of {', '.join(self._groups)}")
        group, raw = self._groups[name]
        chosen = sorted(set(channels))
        if not chosen or chosen[0] < 0 or chosen[-1] >= group.width or len(chosen) >= group.width:
            raise ModelError(f"cannot remove {len(chosen)} of {group.width} channels", where=name)
        with _quiet():
            raw.prune(idxs=chosen)
        return name, tuple(chosen)


def replay(model: nn.Module, example: Tensor, prunings: Sequence[Sequence[Pruning]]) -> nn.Module:
    """Return the model after the same removals, stage by stage; weights are then loaded by the caller.

    Each stage was decided on one graph and is replayed on one.
    """
    for stage in prunings:
        graph = PruningGraph(model, example)
        for name, channels in stage:
            graph.remove(name, channels)
    return model


def _weighs(module: nn.Module) -> bool:
    """True for layers of which pruning removes weights; torch-pruning's nodes for views and adds are not."""
    return isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.BatchNorm1d))


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.out_channels > 1


def _refuse_grouped(model: nn.Module) -> None:
    handled = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.BatchNorm1d)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and 1 < module.groups < module.out_channels:
            what = f"a convolution of {module.groups} groups cannot lose single channels"
            raise UnsupportedOperatorError(what, where=name, fix="use groups = 1 or one group for each channel")
        if next(module.parameters(recurse=False), None) is not None and not isinstance(module, handled):
            what = f"pruning does not handle {type(module).__name__}"
            fix = "leave out the prune step, or build the model of Conv2d, BatchNorm and Linear"
            raise UnsupportedOperatorError(what, where=name or "the model itself", fix=fix)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # torch-pruning 1.6.1 warns of its own deprecated names and of torch's; the pin holds, so both are noise.
        warnings.simplefilter("ignore")
        yield


def _build(model: nn.Module, example: Tensor) -> Any:
    try:
        with _quiet():
            from torch_pruning.dependency import DependencyGraph
    except ImportError as error:
        fix = "run pip install torch-pruning==1.6.1"
        raise MissingDependencyError("pruning needs torch-pruning", fix=fix) from error
    model.eval()
    try:
        with _quiet(), torch.enable_grad():  # it follows autograd's graph
            return DependencyGraph().build_dependency(model, example_inputs=example)
    except Exception as error:
        fix = "check that it runs on one input of the recipe's preprocessing"
        raise ModelError(f"the model cannot be traced for pruning: {error}", fix=fix) from error


def _output_layers(model: nn.Module, example: Tensor) -> list[nn.Module]:
    """Return the layers whose channels are the model's outputs: without them the classes would go."""
    seen: dict[int, nn.Module] = {}

    def note(module: nn.Module, _: Any, output: Tensor) -> None:
        seen[id(output)] = module
        kept.append(output)  # so that ids stay theirs

    kept: list[Tensor] = []
    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    try:
        with torch.no_grad():
            output = model(example)
    finally:
        for hook in hooks:
            hook.remove()
    if id(output) in seen:
        return [seen[id(output)]]
    classes = output.shape[-1] if output.ndim == 2 else output.shape[1]
    # The last layer is followed by a reshape or an activation: keep what makes that many channels, latest first.
    makers = [m for m in seen.values() if getattr(m, "out_features", getattr(m, "out_channels", None)) == classes]
    return makers[-1:]
