# SPDX-License-Identifier: Apache-2.0
"""Exported programs (``.pt2``) as networks that can be trained and cut again.

``torch.export`` keeps operators and forgets layers, and fixes the mode in which it saw the model. Here every operator
that owns parameters becomes the layer it came from, under the name that its parameters have; batch normalisation keeps
its running statistics and learns again; dropout drops again in training. What has no layer stays a function. The
network is then compared with the program on random inputs, of one sample and of three.
"""

import operator
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from compress.quantize.reader import arguments
from compress.sources.assembly import Assembly, filled
from compress.sources.exported import load_exported
from compress.sources.program_layers import LAYERS, PLAIN
from compress.sources.program_recurrent import RECURRENT, call_recurrent, read_recurrent
from edge_contract.errors import ModelError, UnsupportedOperatorError

__all__ = ["load_program"]

aten = torch.ops.aten
_NOISE: Final = 1e-5
"""Largest difference from the program, as a share of its largest answer: other kernels add in another order."""
_EXPORT: Final = (
    "export it with torch.export.export(model.eval(), (x,), dynamic_shapes=({0: torch.export.Dim('batch')},))"
)
_RESHAPES: Final = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)  # noqa: SLF001
_CHECKS: Final = ("_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range", "sym_constrain_range_for_size")
_MODES: Final = {
    aten.batch_norm.default: "training",
    aten.dropout.default: "train",
    aten.dropout_.default: "train",
    aten.feature_dropout.default: "train",
    aten._native_batch_norm_legit.default: "training",  # noqa: SLF001
    aten._native_batch_norm_legit_functional.default: "training",  # noqa: SLF001
}
_TUPLES: Final = (aten._native_batch_norm_legit_no_training.default, aten.native_layer_norm.default)  # noqa: SLF001


def load_program(path: Path) -> fx.GraphModule:
    """Return the network in an exported program, in eval mode.

    Raises:
        ModelError: Missing, damaged, exported in training mode or for one batch size only, several inputs or outputs,
            another type than float32, NaN in a parameter, or answers that differ from the program's.
        UnsupportedOperatorError: An operator that is none of PyTorch's own, such as one of a quantized program.
    """
    program = _read(path)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            _check(program)
            network = _Rebuild(program).network()
            _compare(program, network)
    except (ModelError, UnsupportedOperatorError) as error:
        where = f"{path}, {error.where}" if error.where else str(path)
        raise type(error)(error.what, where=where, fix=error.fix) from error
    return network


def _read(path: Path) -> Any:
    try:
        return load_exported(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError("no such file", where=str(path), fix="check the path of the model") from error
    except Exception as error:  # zipfile, json and torch each fail in their own words
        reason = (str(error).splitlines() or [""])[0][:150].rstrip(". ")
        fix = "write it with torch.export.save(torch.export.export(model.eval(), (x,)), path)"
        raise ModelError(f"no exported program: {type(error).__name__}: {reason}", where=str(path), fix=fix) from error


def _check(program: Any) -> None:
    signature = program.graph_signature
    if any(node.target in _MODES and arguments(node)[_MODES[node.target]] for node in program.graph.nodes):
        raise ModelError("was exported in training mode", fix=_EXPORT)
    if signature.buffers_to_mutate:
        raise ModelError(f"changes its own buffer '{next(iter(signature.buffers_to_mutate.values()))}'", fix=_EXPORT)
    if len(signature.user_inputs) != 1 or len(signature.user_outputs) != 1:
        what = f"{len(signature.user_inputs)} inputs and {len(signature.user_outputs)} outputs"
        raise ModelError(what, fix="export a model of one tensor that returns the logits alone")
    for name, value in program.state_dict.items():
        if value.is_floating_point() and value.dtype != torch.float32:
            what = f"of type {str(value.dtype).removeprefix('torch.')}"
            raise ModelError(what, where=f"weight '{name}'", fix="export model.float()")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelError("holds NaN or Inf", where=f"weight '{name}'", fix="train the model again")
    for node in program.graph.nodes:
        known = getattr(node.target, "namespace", "aten") == "aten" and not isinstance(node.target, str | None)
        if node.op == "call_function" and (not known or isinstance(node.target, torch._ops.HigherOrderOperator)):  # noqa: SLF001
            fix = "export the float model, without branches on values and without quantization"
            raise UnsupportedOperatorError(f"operator {node.target} is no layer", where=f"node '{node.name}'", fix=fix)


class _Rebuild:
    """Walks the program once; what it builds has no batch size of its own."""

    def __init__(self, program: Any) -> None:
        signature = program.graph_signature
        self.program, self.made = program, Assembly()
        paths = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        paths |= signature.inputs_to_lifted_tensor_constants
        stored = {**program.constants, **program.state_dict}
        self.constants = {name: (path, stored[path]) for name, path in paths.items()}
        self.parameters = set(signature.inputs_to_parameters)
        self.input = next(node for node in program.graph.nodes if node.name == signature.user_inputs[0])
        self.output = signature.user_outputs[0]
        self.shared: dict[str, tuple[str, str]] = {}
        self.values: dict[str, Any] = {self.input.name: self.made.input}

    def network(self) -> fx.GraphModule:
        for node in self.program.graph.nodes:
            if node.op == "call_function" and not any(word in str(node.target) for word in _CHECKS):
                self.values[node.name] = self._node(node)
        return self.made.module(self._value(self.output))

    def _find(self, node: Any) -> Tensor | None:
        found = self.constants.get(getattr(node, "name", ""))
        return None if found is None else found[1]

    def _value(self, item: Any) -> Any:
        """Return what stands for a node of the program, or for its name."""
        name = item.name if isinstance(item, fx.Node) else item
        if name not in self.values:
            path, tensor = self.constants[name]
            value = nn.Parameter(tensor.detach().clone()) if name in self.parameters else tensor.detach().clone()
            self.values[name] = self.made.constant(path, value)
        return self.values[name]

    def _node(self, node: Any) -> Any:
        if node.target is operator.getitem and isinstance(self.values[node.args[0].name], tuple):
            return self.values[node.args[0].name][node.args[1]]
        if node.target in LAYERS:
            found = self._layer(node)
            if found is not None:
                return (found, None, None) if node.target in _TUPLES else found
        if node.target in RECURRENT:
            return self._recurrent(node)
        if node.target in PLAIN:
            given = arguments(node)
            plain = PLAIN[node.target](given)
            if plain is not None:
                return self._named(node, plain, self._value(node.args[0]))
        if node.target is aten.sym_size.int:
            return self.made.method("size", self._value(node.args[0]), node.args[1])
        if node.target in _RESHAPES:
            return self._reshape(node)
        return self._function(node)

    def _layer(self, node: Any) -> fx.Node | None:
        key, read = LAYERS[node.target]
        given = arguments(node)
        found = read(given, self._find)
        if found is None:
            return None
        kind, places, words, values = found
        weight = given.get("weight") if "weight" in given else given.get("mat2")
        source: Any = weight
        if isinstance(weight, fx.Node) and weight.name not in self.constants:
            source = weight.args[0]  # what is transposed
        layer = filled(kind, *places, values=values, **words)
        if source is None:  # a normalisation without factors
            return self._named(node, layer, self._value(given[key]))
        owner = self.constants[source.name][0]
        if owner in self.shared:
            return self._again(node, owner, layer, given[key])
        path = self.made.free(owner.removesuffix(".weight") if owner != "weight" else "layer")
        counted = self.program.state_dict.get(f"{path}.num_batches_tracked")
        if counted is not None and hasattr(layer, "num_batches_tracked"):  # the graph does not read it
            layer.num_batches_tracked = counted.clone()
        self.shared[owner] = (path, repr(layer))
        return self.made.layer(path, layer, self._value(given[key]))

    def _recurrent(self, node: Any) -> tuple[fx.Node, ...]:
        given = arguments(node)
        layer = read_recurrent(node, given, self._find)
        owner = self.constants[given["params"][0].name][0]
        path = self.made.free(owner.rpartition(".")[0] or "layer")
        called = self.made.layer(path, layer, self._value(given["input"]))
        return call_recurrent(self.made, called, is_lstm=isinstance(layer, nn.LSTM))

    def _again(self, node: Any, owner: str, layer: nn.Module, source: Any) -> fx.Node:
        path, form = self.shared[owner]
        if repr(layer) != form:
            fix = "give each layer its own weights"
            raise UnsupportedOperatorError(
                f"used as {form} and as {layer!r}", where=f"weight '{owner}' in '{node.name}'", fix=fix
            )
        return self.made.call(path, self._value(source))

    def _named(self, node: Any, layer: nn.Module, x: fx.Node) -> fx.Node:
        """Add a layer without weights, named like its module, or like the operator in the module that calls it."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path, kind = stack[-1] if stack else ("", "")
        word = str(node.target).split(".")[1].rstrip("_")
        outer = str(path).removeprefix("L['self'].")
        is_its_module = outer and str(kind).rpartition(".")[2] == type(layer).__name__
        return self.made.layer(self.made.free(outer if is_its_module else f"{outer}.{word}".lstrip(".")), layer, x)

    def _reshape(self, node: Any) -> fx.Node:
        """Say by what it does to channels, not by numbers, so that the batch and pruned channels may change."""
        source: Any = node.args[0]
        before, after = (tuple(one.meta["val"].shape) for one in (source, node))
        x = self._value(source)
        if str(before[:1]) != str(after[:1]):
            return self._function(node)
        if len(after) == 2 and len(before) > 2:
            return self._named(node, nn.Flatten(), x)
        if before[:2] == after[:2] and all(size == 1 for size in (*before[2:], *after[2:])):
            return self._ones(x, len(before), len(after))
        if before[:2] == after[:2] and (len(before), len(after)) == (4, 3):
            return self._named(node, nn.Flatten(2), x)
        batch = self.made.method("size", x, 0)
        return self.made.function(torch.reshape, x, (batch, *self._arguments(list(node.args[1])[1:])))

    def _ones(self, x: fx.Node, before: int, after: int) -> fx.Node:
        for _ in range(before, after):
            x = self.made.function(torch.unsqueeze, x, -1)
        for _ in range(after, before):
            x = self.made.function(torch.squeeze, x, -1)
        return x

    def _function(self, node: Any) -> fx.Node:
        words = {key: self._arguments(value) for key, value in node.kwargs.items()}
        return self.made.function(node.target, *self._arguments(list(node.args)), **words)

    def _arguments(self, items: Any) -> Any:
        return fx.node.map_arg(items, self._value)


def _compare(program: Any, network: fx.GraphModule) -> None:
    """Refuse a network that answers otherwise than its program, or otherwise in a batch than alone."""
    meta = next(n for n in program.graph.nodes if n.name == program.graph_signature.user_inputs[0]).meta["val"]
    if not meta.is_floating_point():
        raise ModelError(f"the input is {meta.dtype}, not float32", fix="export a model of one float32 tensor")
    shape = [int(size) if isinstance(size, int) else int(size.node.hint or 2) for size in meta.shape]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    wanted, found = program.module()(x), network(x)
    _near(found, wanted, "the network that was made of it answers otherwise")
    try:
        rows = torch.randn([3, *shape[1:]], generator=generator)
        alone: Sequence[Tensor] = [network(row[None]) for row in rows]
        together = network(rows)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise ModelError(f"works for a batch of {shape[0]} only: {reason}", fix=_EXPORT) from error
    _near(together, torch.cat(list(alone)), "answers otherwise in a batch than alone")


def _near(found: Tensor, wanted: Tensor, what: str) -> None:
    if found.shape != wanted.shape:
        raise ModelError(f"{what}: {list(found.shape)}, not {list(wanted.shape)}", fix=_EXPORT)
    worst, size = float((found - wanted).abs().max()), float(wanted.abs().max())
    if not worst <= _NOISE * max(size, 1.0):
        raise ModelError(f"{what}: by {worst:.2g} where answers reach {size:.2g}", fix=_EXPORT)
