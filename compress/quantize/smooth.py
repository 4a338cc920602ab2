# SPDX-License-Identifier: Apache-2.0
"""SmoothQuant: move the scale of outlier channels out of activations, where it hurts, into the weights behind them.

In transformers a few channels behind a LayerNorm are a hundred times the others, so one int8 scale for the tensor
leaves the others a few codes. Channel j is divided by s_j = max|x_j|^α / max|w_j|^(1 - α) in the layer that makes it,
and multiplied in the linear layers that read it; the function stays what it was.

The layers are found in the exported graph: a LayerNorm, or a linear layer (through ReLU and Dropout), all of whose
readers are linear layers on the same channels.

Reference:
    Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", 2023,
    equation 4.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from edge_contract.errors import ModelError, UnsupportedOperatorError, UsageError

__all__ = ["Migration", "migrations", "smooth", "smoothed"]

_ATEN = torch.ops.aten
_LINEAR = _ATEN.linear.default
_MAKERS: dict[Any, tuple[int, int]] = {
    _ATEN.layer_norm.default: (2, 3),
    _LINEAR: (1, 2),
}  # where weight and bias stand among the arguments
_SAME = (
    _ATEN.dropout.default,
    _ATEN.alias.default,
    _ATEN.detach.default,
    _ATEN.contiguous.default,
    _ATEN.clone.default,
)
_SHAPES = (_ATEN.view.default, _ATEN.reshape.default, _ATEN.transpose.int, _ATEN.permute.default, _ATEN.select.int)
_POSITIVE = (_ATEN.relu.default, _ATEN.relu_.default)  # f(s x) = s f(x)
_FINEST = 1e-5


@dataclass(frozen=True)
class Migration:
    """One producer and the linear layers behind it, by the names of their parameters; bias is empty where none is."""

    weight: str
    bias: str
    readers: tuple[str, ...]


def smooth(model: nn.Module, samples: Tensor, alpha: float = 0.5) -> nn.Module:
    """Return a copy of a model that computes the same in float and loses less in int8.

    Args:
        model: One tensor in, evaluated as in eval().
        samples: Calibration data, float32 [N, …]; seen one by one.
        alpha: Share of the difficulty that moves from activations to weights, 0 to 1.

    Raises:
        UsageError: An alpha outside 0 to 1, or no samples.
        ModelError: The model cannot be exported.
        UnsupportedOperatorError: No LayerNorm or linear layer is read by linear layers alone.
    """
    if not 0.0 <= alpha <= 1.0:
        raise UsageError(f"alpha {alpha} is not between 0 and 1", where="smooth", fix="use 0.5")
    if not len(samples):
        raise UsageError("no samples", where="smooth", fix="give typical inputs")
    made = copy.deepcopy(model).eval()
    program = _exported(made, samples[:1])
    found = _found(program)
    if not found:
        what = "no LayerNorm or linear layer that linear layers alone read"
        raise UnsupportedOperatorError(what, where="smooth", fix="use it for transformers, or leave it out")
    peaks = _peaks(program, {node: name.weight for node, name in found.items()}, samples)
    parameters = dict(made.named_parameters(remove_duplicate=False))
    hidden = {name for one in found.values() for name in (one.weight, *one.readers)} - parameters.keys()
    if hidden:
        raise ModelError("not a parameter of the module", where=f"smooth: {min(hidden)}", fix="leave it out")
    with torch.no_grad():
        for migration in found.values():
            _migrate(parameters, migration, peaks[migration.weight], alpha)
    return made


def smoothed(model: nn.Module, samples: Tensor, alpha: float | None) -> nn.Module:
    """Return what ``smooth`` makes of a model, or the model itself where no alpha asks for it."""
    return model if alpha is None else smooth(model, samples, alpha)


def migrations(model: nn.Module, example: Tensor) -> tuple[Migration, ...]:
    """Return what ``smooth`` would scale, in the order of computation, for one input [1, …]."""
    return tuple(_found(_exported(copy.deepcopy(model).eval(), example)).values())


def _exported(model: nn.Module, example: Tensor) -> GraphModule:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # a failed export logs whole tracebacks of what it also raises
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            module = torch.export.export(model, (example,)).module()
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise ModelError(f"cannot be exported: {reason}", where="smooth", fix="leave it out") from error
    finally:
        logging.disable(before)
    assert isinstance(module, GraphModule)
    return module


def _found(program: GraphModule) -> dict[Node, Migration]:
    """The node that makes each tensor, and its migration; a parameter that is used twice cannot be scaled once."""
    names = [node.target for node in program.graph.nodes if node.op == "get_attr" for _ in node.users]
    once = {str(name) for name in names if names.count(name) == 1}
    found: dict[Node, Migration] = {}
    for node in program.graph.nodes:
        migration = _migration(node) if node.target in _MAKERS else None
        if migration is not None and {migration.weight, *migration.readers, *filter(None, [migration.bias])} <= once:
            found[node] = migration
    return found


def _migration(maker: Node) -> Migration | None:
    weight, bias = (_parameter(maker, place) for place in _MAKERS[maker.target])
    readers = list(_readers(maker, _channels(maker), is_positive_too=maker.target is _LINEAR))
    if not weight or not readers or not all(readers):
        return None
    return Migration(weight, bias, tuple(readers))


def _readers(node: Node, channels: int, *, is_positive_too: bool) -> Iterator[str]:
    """Yield the weight of every linear layer behind a tensor, and an empty name for anything else that reads it."""
    for user in node.users:
        if user.target is _LINEAR and user.args[0] is node:
            yield _parameter(user, 1)
        elif _carries(user, channels, is_positive_too=is_positive_too):
            yield from _readers(user, channels, is_positive_too=is_positive_too)
        else:
            yield ""


def _carries(node: Node, channels: int, *, is_positive_too: bool) -> bool:
    """Whether a node hands channels on, each where it was: the last axis."""
    if node.target in _SAME or (is_positive_too and node.target in _POSITIVE):
        return True
    if node.target not in _SHAPES or _channels(node) != channels:
        return False
    arguments: list[Any] = list(node.args)
    last = len(arguments[0].meta["val"].shape) - 1
    if node.target is _ATEN.permute.default:
        return bool(arguments[1][-1] % (last + 1) == last)
    if node.target is _ATEN.transpose.int or node.target is _ATEN.select.int:
        axes = arguments[1:3] if node.target is _ATEN.transpose.int else arguments[1:2]
        return all(axis % (last + 1) != last for axis in axes)
    return True  # view, reshape: the size of the last axis is the same


def _channels(node: Node) -> int:
    return int(node.meta["val"].shape[-1])


def _parameter(node: Node, place: int) -> str:
    value: Any = node.args[place] if len(node.args) > place else None
    return str(value.target) if isinstance(value, Node) and value.op == "get_attr" else ""


class _Watch(Interpreter):
    """Runs the graph and keeps the largest magnitude of each channel of some nodes."""

    def __init__(self, program: GraphModule, names: dict[Node, str]) -> None:
        super().__init__(program)
        self._names = names
        self.peaks: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n in self._names:
            name, top = self._names[n], value.abs().flatten(0, -2).amax(0)
            self.peaks[name] = torch.maximum(self.peaks.get(name, top), top)
        return value


def _peaks(program: GraphModule, names: dict[Node, str], samples: Tensor) -> dict[str, Tensor]:
    watch = _Watch(program, names)
    with torch.no_grad():
        for sample in torch.split(samples, 1):
            watch.run(sample)
    return watch.peaks


def _migrate(parameters: dict[str, nn.Parameter], migration: Migration, peak: Tensor, alpha: float) -> None:
    readers = [parameters[name] for name in migration.readers]
    weights = torch.stack([reader.abs().amax(0) for reader in readers]).amax(0).double().clamp(min=_FINEST)
    scale = (peak.double().clamp(min=_FINEST) ** alpha / weights ** (1.0 - alpha)).clamp(min=_FINEST)
    for name in filter(None, (migration.weight, migration.bias)):
        wide = scale.view(-1, *[1] * (parameters[name].dim() - 1))
        parameters[name].copy_((parameters[name].double() / wide).to(parameters[name].dtype))
    for reader in readers:
        reader.copy_((reader.double() * scale).to(reader.dtype))
