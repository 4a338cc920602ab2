# SPDX-License-Identifier: Apache-2.0
"""Put a network together from the layers of a Keras model, and compare each with what Keras computed.

Keras keeps channels last, PyTorch first. A tensor of the model is therefore a tensor of ours with its axes moved, and
one that was flattened has its numbers in another order: the next dense layer's weights are reordered instead.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from compress.sources.assembly import Assembly
from edge_contract.errors import ModelError, UnsupportedOperatorError

__all__ = ["Builder", "Step", "Value", "build"]

Array = NDArray[Any]
_NOISE: Final = 1e-4
"""Largest difference from Keras, as a share of the layer's largest value: a hundred layers in float32 add up in
another order."""


@dataclass(frozen=True)
class Step:
    """One call of a Keras layer.

    Attributes:
        id: By which later steps name its result.
        name, kind, config: Of the layer; ``kind`` is its class.
        inputs: Arguments in order: {"step": id}, {"number": …}, {"array": name among the weights} or {"other": text}.
        weights: Arrays by the layer's own names.
        shape: Of the result, without batch, channels last.
        outputs: How many results it has.
    """

    id: str
    name: str
    kind: str
    config: dict[str, Any]
    inputs: tuple[dict[str, Any], ...]
    weights: Mapping[str, Array]
    shape: tuple[int, ...]
    outputs: int = 1

    @property
    def where(self) -> str:
        """Name and class, for messages."""
        return f"layer '{self.name}' ({self.kind})"

    def unsupported(self, what: str, fix: str = "") -> UnsupportedOperatorError:
        """Return the error for this layer."""
        fix = fix or "replace the layer, or convert the file as it is with strop export keras"
        return UnsupportedOperatorError(what, where=self.where, fix=fix)


@dataclass(frozen=True)
class Value:
    """A tensor of the network.

    Attributes:
        node: What computes it.
        shape: As Keras has it, without batch: channels last.
        order: Shape before it was flattened, if its numbers still stand in our order and not in that of Keras.
        pooled, pooled_rank: The same numbers as a map [N, C, 1, 1] (or series), if a global pool made them; how many
            dimensions that has without the batch.
    """

    node: fx.Node
    shape: tuple[int, ...]
    order: tuple[int, ...] = ()
    pooled: fx.Node | None = None
    pooled_rank: int = 0


class Builder:
    """What the layers' recipes (``keras_layers``) use: the values so far, and places for new layers."""

    def __init__(self, output: str) -> None:
        self.made, self.output = Assembly(), output
        self.values: dict[str, Value] = {}
        self.notes: list[str] = []
        self.is_softmax_dropped = False
        self._paths: dict[tuple[str, str], tuple[str, str]] = {}

    def source(self, step: Step) -> Value:
        """Return the one tensor that a layer reads."""
        found = [item["step"] for item in step.inputs if "step" in item]
        if len(found) != 1:
            raise step.unsupported(f"{len(found)} inputs")
        return self.values[found[0]]

    def add(self, step: Step, layer: nn.Module, x: fx.Node, part: str = "") -> fx.Node:
        """Call a layer under the name of the Keras layer (with ``_part``); a shared one is called again."""
        key = (step.name, part)
        if key in self._paths:
            path, form = self._paths[key]
            if form != repr(layer):
                raise step.unsupported("shared by inputs that need other padding", "use one layer for each input")
            return self.made.call(path, x)
        words = [re.sub(r"\W", "_", word) or "_" for word in step.name.split("/")]
        path = self.made.free(".".join(words) + (f"_{part}" if part else ""))
        self._paths[key] = (path, repr(layer))
        return self.made.layer(path, layer, x)

    def keras_order(self, value: Value) -> Value:
        """Return a flattened tensor with its numbers in the order of Keras."""
        if not value.order:
            return value
        *sizes, channels = value.order
        x = self.made.function(torch.reshape, value.node, (-1, channels, *sizes))
        x = self.made.function(torch.flatten, self.made.function(torch.movedim, x, 1, -1), 1)
        return replace(value, node=x, order=())


def build(
    steps: list[Step],
    output: str,
    values: Mapping[str, Array],
    layers: Mapping[str, Callable[["Builder", Step], Value]],
) -> fx.GraphModule:
    """Return the network of a Keras model, after comparing it with what Keras computed.

    Args:
        steps: Calls of layers in order.
        output: Step whose result is the model's.
        values: What Keras computed: "input" and each step, float32 [2, …].
        layers: Kind of a step → how it is built (``keras_layers.LAYERS``).

    Raises:
        UnsupportedOperatorError: A layer that has no form here; names it.
        ModelError: A layer computes something else; names the first one.
    """
    builder = Builder(output)
    builder.values["input"] = Value(builder.made.input, tuple(values["input"].shape[1:]))
    for step in steps:
        if step.kind not in layers:
            raise step.unsupported("no form as a PyTorch layer here")
        if step.outputs != 1:
            raise step.unsupported(f"{step.outputs} results")
        found = layers[step.kind](builder, step)
        builder.values[step.id] = replace(found, shape=step.shape)
    last = builder.keras_order(builder.values[output])
    network = builder.made.module(last.node)
    network.meta["notes"] = tuple(dict.fromkeys(builder.notes))
    _compare(network, builder, steps, values)
    return network


class _Watched(fx.Interpreter):
    """Runs a network and keeps what some nodes compute."""

    def __init__(self, network: fx.GraphModule, wanted: set[str]) -> None:
        super().__init__(network)
        self.wanted, self.kept = wanted, dict[str, Tensor]()

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.wanted:
            self.kept[n.name] = result
        return result


@torch.no_grad()
def _compare(network: fx.GraphModule, builder: Builder, steps: list[Step], values: Mapping[str, Array]) -> None:
    watched = _Watched(network, {value.node.name for value in builder.values.values()})
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(values["input"], -1, 1)))
    watched.run(x)
    for step in steps:
        value = builder.values[step.id]
        if value.node.name not in watched.kept:  # leads to no output
            continue
        found = _as_keras(watched.kept[value.node.name], value.order)
        if step.id == builder.output and builder.is_softmax_dropped:
            found = found.softmax(-1)
        wanted = torch.from_numpy(values[step.id])
        if found.shape != wanted.shape:
            what = f"makes {list(found.shape)}, in Keras {list(wanted.shape)}"
            raise ModelError(what, where=step.where, fix="replace the layer")
        worst, size = float((found - wanted).abs().max()), float(wanted.abs().max())
        if not worst <= _NOISE * max(size, 1e-3):
            what = f"differs from Keras by {worst:.2g} where its values reach {size:.2g}"
            raise ModelError(what, where=step.where, fix="replace the layer, and tell us of it")


def _as_keras(found: Tensor, order: tuple[int, ...]) -> Tensor:
    """Return a value as Keras has it: channels last, flattened in that order."""
    if order:
        *sizes, channels = order
        return found.reshape(-1, channels, *sizes).movedim(1, -1).flatten(1)
    return found.movedim(1, -1) if found.dim() > 2 else found
