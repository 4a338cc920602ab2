# SPDX-License-Identifier: Apache-2.0
"""Collect float operations while an exported graph is walked; name the layer of what cannot become integers."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.fx import Node

from compress.quantize.graph import FloatOp
from edge_contract.errors import UnsupportedOperatorError

__all__ = ["Arguments", "Handler", "Reader", "Node", "canonical", "layer_of", "shape_of", "unsupported"]

Arguments = dict[str, Any]
_REWRITES = {
    "gelu": "use ReLU or hard-swish",
    "leaky_relu": "use ReLU",
    "prelu": "use ReLU",
    "tanh": "use hardtanh(0, 6), a sigmoid, or leave it to the post-processing",
    "softmax": "leave it to the post-processing, and return the logits",
    "conv_transpose2d": "use an upsampling outside the model",
    "upsample_nearest2d": "use an upsampling outside the model",
    "upsample_bilinear2d": "use an upsampling outside the model",
    "layer_norm": "use BatchNorm2d, which folds into the convolution",
    "scaled_dot_product_attention": "export it in float or with dynamic int8 for ONNX Runtime",
    "matmul": "export it in float or with dynamic int8 for ONNX Runtime",
    "bmm": "export it in float or with dynamic int8 for ONNX Runtime",
    "lstm": "export it in float or with dynamic int8 for ONNX Runtime",
    "gru": "export it in float or with dynamic int8 for ONNX Runtime",
}


class Reader:
    """Walks the exported graph once; every handler turns one node into operations or an alias.

    Args:
        constants: Parameters and buffers by their name in the graph.
        handlers: Operator → what it becomes.
    """

    def __init__(self, constants: dict[str, Tensor], handlers: "dict[Any, Handler]") -> None:
        self.constants, self.handlers = constants, handlers
        self.operations: list[FloatOp] = []
        self.alias: dict[str, str] = {}

    def name(self, node: Node) -> str:
        return self.alias.get(node.name, node.name)

    def tensor(self, node: Any) -> Tensor | None:
        return None if node is None else self.constants.get(node.name)

    def read(self, node: Node) -> None:
        handler = self.handlers.get(node.target)
        if handler is None:
            raise unsupported(node, f"operator {node.target} cannot become integers")
        handler(self, node, arguments(node))

    def emit(self, node: Node, kind: str, inputs: tuple[Any, ...], **fields: Any) -> None:
        shape = canonical(tuple(node.meta["val"].shape[1:]))
        for source in inputs:
            if not isinstance(source, Node) or source.name in self.constants:
                fix = "make it part of a layer's weight or bias"
                raise unsupported(node, f"{node.target} with a constant operand cannot become integers", fix)
        names = tuple(self.name(source) for source in inputs)
        self.operations.append(FloatOp(kind, layer_of(node), names, node.name, shape, **fields))

    def skip(self, node: Node, source: Node) -> None:
        self.alias[node.name] = self.name(source)


def arguments(node: Node) -> Arguments:
    """Arguments by the operator's own names, every default filled in."""
    signature = node.target._schema.arguments  # type: ignore[union-attr]  # noqa: SLF001  # no public way to a schema
    given = dict(zip((argument.name for argument in signature), node.args, strict=False))
    return {a.name: given.get(a.name, node.kwargs.get(a.name, a.default_value)) for a in signature}


def shape_of(node: Any) -> tuple[int, ...]:
    """Return the shape of a node's result, batch included."""
    return tuple(node.meta["val"].shape)


def canonical(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the plan's shape of a tensor without batch: a series [C, L] is a map of height 1.

    Example:
        >>> canonical((8, 100)), canonical((8, 3, 3)), canonical((8,))
        ((8, 1, 100), (8, 3, 3), (8,))
    """
    return (shape[0], 1, shape[1]) if len(shape) == 2 else shape


def layer_of(node: Node) -> str:
    """Return the module path of a node, such as ``blocks.1.conv``; ``forward`` for the outermost module."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return (stack[-1][0].removeprefix("L['self'].") if stack else "") or "forward"


def unsupported(node: Node, what: str, fix: str = "") -> UnsupportedOperatorError:
    """Return the error for a node: the layer, what it is, and the rewrite."""
    short = str(node.target).split(".")[1] if "." in str(node.target) else str(node.target)
    return UnsupportedOperatorError(
        what, where=f"layer '{layer_of(node)}'", fix=fix or _REWRITES.get(short.rstrip("_"), "keep this layer in float")
    )


Handler = Callable[[Reader, Node, Arguments], None]
