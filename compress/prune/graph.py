# SPDX-License-Identifier: Apache-2.0
"""Which channels of a network must go together: torch-pruning's dependency graph, behind our own words.

Only this file knows torch-pruning. It answers two questions: what are the groups of coupled channels, and
remove these channels of this group. Importance, targets and schedules are ours.
"""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from compress.prune.layers import LAYERS, NORMS, PER_CHANNEL, TRANSPOSED, is_depthwise, refuse, whole_reason, widths
from compress.recipe_table import nearest
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

    Theory of operation: the graph follows operators, not what they mean; behind a reshape into attention heads, or a
    normalisation over channels, its couplings would be wrong. So every group is tried out before it is offered: on
    copies, the network with a channel cut away must answer as the network in which that channel is silent.

    Args:
        model: Traced on ``example``, in ``eval`` mode.
        example: One input, float32 [1,C,H,W].
        keep: Names of layers whose outputs stay; the layers that make the model's output always do.
        tries: False skips the trial, to replay what was decided on a graph that had it.

    Attributes:
        whole: Layers whose channels stay because pruning cannot handle them, with the reason.

    Raises:
        ModelError: The model cannot be traced, or has no layer of a name in ``keep``.
        UnsupportedOperatorError: A layer is coupled in a way that is not handled, or nothing can be removed; named,
            with the reason.
    """

    def __init__(self, model: nn.Module, example: Tensor, keep: Sequence[str] = (), *, tries: bool = True) -> None:
        self.model, self.whole = model, dict[str, str]()
        self._names = {module: name for name, module in model.named_modules()}
        refuse(model)
        self._graph = _build(model, example)
        kept = {self._named(name) for name in keep} | set(_output_layers(model, example))
        self._groups = {group.name: group for group in self._read(kept)}
        if tries:
            for name in unfaithful(model, example, self.groups):
                del self._groups[name]
                self.whole[name] = "without a channel of it the network does not answer as if that channel were silent"
        if not self._groups and self.whole:
            name, reason = next(iter(self.whole.items()))
            fix = "leave out the prune step; factorize or quantize such a network"
            raise UnsupportedOperatorError(f"no channel can be removed: {reason}", where=name, fix=fix)

    @property
    def groups(self) -> tuple[Group, ...]:
        """Every group that may be pruned, in the order of the forward pass."""
        return tuple(self._groups.values())

    def _named(self, name: str) -> nn.Module:
        known = [name for name in self._names.values() if name]
        if name not in known:
            raise ModelError("no such layer to keep", where=name or "''", fix=nearest(name, known))
        return self.model.get_submodule(name)

    def _read(self, kept: set[nn.Module]) -> Iterator[Group]:
        order = {module: place for place, module in enumerate(self.model.modules())}
        firsts = {self._first_maker(raw, order) for raw in self._graph.get_all_groups(ignored_layers=list(kept))}
        for module in sorted(firsts, key=order.__getitem__):
            width = self._graph.get_pruner_of_module(module).get_out_channels(module)
            raw = self._raw(module, range(width))
            reason = next(filter(None, (whole_reason(item.dep.target.module) for item in raw)), None)
            if reason is not None:
                self.whole[self._names[module]] = reason
                continue
            members = tuple(self._member(item) for item in raw if _weighs(item.dep.target.module))
            yield Group(self._names[module], width, members)

    def _raw(self, module: nn.Module, channels: Sequence[int]) -> Any:
        pruner = self._graph.get_pruner_of_module(module)
        with _quiet():
            return self._graph.get_pruning_group(module, pruner.prune_out_channels, list(channels))

    def _first_maker(self, raw: Any, order: dict[nn.Module, int]) -> nn.Module:
        """Return the first layer that makes the group's channels; torch-pruning starts from any of them."""
        makers: list[nn.Module] = [
            item.dep.target.module
            for item in raw
            if self._graph.is_out_channel_pruning_fn(item.dep.handler)
            and isinstance(item.dep.target.module, LAYERS)
            and not is_depthwise(item.dep.target.module)
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

        Each group is cut at most once; for more, a new graph is built.

        Raises:
            ModelError: No such group, a channel that is not there, or nothing would be left.
        """
        if name not in self._groups:
            raise ModelError("no such pruning group", where=name, fix=f"use one of {', '.join(self._groups)}")
        group = self._groups[name]
        chosen = sorted(set(channels))
        if not chosen or chosen[0] < 0 or chosen[-1] >= group.width or len(chosen) >= group.width:
            raise ModelError(f"cannot remove {len(chosen)} of {group.width} channels", where=name)
        # Asked anew: behind a concatenation, the places of these channels moved when other groups were cut.
        raw = self._raw(self.model.get_submodule(name), chosen)
        with _quiet():
            raw.prune()
        return name, tuple(chosen)


def replay(model: nn.Module, example: Tensor, prunings: Sequence[Sequence[Pruning]]) -> nn.Module:
    """Return the model after the same removals, stage by stage; weights are then loaded by the caller.

    Each stage was decided on one graph and is replayed on one.
    """
    for stage in prunings:
        graph = PruningGraph(model, example, tries=False)
        for name, channels in stage:
            graph.remove(name, channels)
    return model


def unfaithful(model: nn.Module, example: Tensor, groups: Sequence[Group]) -> list[str]:
    """Return the groups that cannot be cut as the graph says: all are tried together, and one by one if that fails."""
    if not groups or _is_faithful(model, example, groups):
        return []
    return [group.name for group in groups if not _is_faithful(model, example, [group])]


def _is_faithful(model: nn.Module, example: Tensor, groups: Sequence[Group]) -> bool:
    """Compare a copy in which one channel of each group is silent with one from which it was cut."""
    silent, cut = copy.deepcopy(model).eval(), copy.deepcopy(model).eval()
    x = torch.rand(example.shape, generator=torch.Generator().manual_seed(0))
    chosen = {group.name: group.width // 2 for group in groups if group.width > 1}
    try:
        for group in groups:
            for member in group.members if group.name in chosen else ():
                _silence(silent.get_submodule(member.layer), member, chosen[group.name])
        replay(cut, example, [[(name, (channel,)) for name, channel in chosen.items()]])
        with torch.no_grad():
            wanted, found = silent(x), cut(x)
    except Exception:  # a reshape that counts on the old width fails in PyTorch, in many ways; so do wrong places
        return False
    return wanted.shape == found.shape and bool((wanted - found).abs().max() <= 1e-3 * wanted.abs().max() + 1e-5)


@torch.no_grad()
def _silence(module: nn.Module, member: Member, channel: int) -> None:
    """Make one channel of a group neither say nor hear anything."""
    rows = [entry for entry, root in zip(member.channels, member.roots, strict=True) if root == channel]
    if isinstance(module, NORMS) and not module.affine:
        module.running_mean[rows] = 0.0  # type: ignore[index]
    if isinstance(module, nn.PReLU) or module.weight is None:
        return  # what is silent stays so
    weight, bias = cast("Tensor", module.weight), cast("Tensor | None", module.bias)
    if isinstance(module, LAYERS) and not is_depthwise(module):
        weight = weight.transpose(0, int((member.side == "in") != isinstance(module, TRANSPOSED)))
    weight[rows] = 0.0
    if member.side == "out" and bias is not None:
        bias[rows] = 0.0


def _weighs(module: nn.Module) -> bool:
    """True for layers of which pruning removes weights; torch-pruning's nodes for views and adds are not."""
    return isinstance(module, (*LAYERS, *PER_CHANNEL))


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
    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, LAYERS)]
    try:
        with torch.no_grad():
            output = model(example)
    finally:
        for hook in hooks:
            hook.remove()
    if id(output) in seen:
        return [seen[id(output)]]
    classes = {output.shape[1], output.shape[-1]} if output.ndim == 3 else {output.shape[1]}  # [N,T,K] or [N,C,T]
    # The last layer is followed by a reshape or an activation: keep what makes that many channels, latest first.
    makers = [m for m in seen.values() if widths(m)[1] in classes]
    return makers[-1:]
