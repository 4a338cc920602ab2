# SPDX-License-Identifier: Apache-2.0
"""One operator where it stands: its tensors, what is constant, its options; what every Edge TPU rule asks."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from export.tflite.model import Operator, Subgraph, Tensor

__all__ = ["Site", "integers_in"]

_INTEGERS: Final = {"int8": "b", "uint8": "B", "int16": "h", "int32": "i", "int64": "q"}
_MOST_READ: Final = 64  # a shape, a permutation, a table of paddings: never more


@dataclass(frozen=True)
class Site:
    """One operator in its graph, for one runtime number.

    Attributes:
        operator: The operator.
        graph: Where its tensors lie.
        runtime: Number of the Edge TPU runtime library that is aimed at, 10 to 14.
    """

    operator: Operator
    graph: Subgraph
    runtime: int

    def input(self, position: int) -> Tensor | None:
        """The tensor at an input, or None if it is absent."""
        inputs = self.operator.inputs
        index = inputs[position] if position < len(inputs) else -1
        return self.graph.tensors[index] if index >= 0 else None

    @property
    def output(self) -> Tensor | None:
        """The first output, or None if there is none."""
        outputs = self.operator.outputs
        return self.graph.tensors[outputs[0]] if outputs and outputs[0] >= 0 else None

    def inputs(self) -> Iterator[Tensor]:
        """Inputs that are there."""
        return (self.graph.tensors[index] for index in self.operator.inputs if index >= 0)

    def outputs(self) -> Iterator[Tensor]:
        """Outputs that are there."""
        return (self.graph.tensors[index] for index in self.operator.outputs if index >= 0)

    def activations(self) -> Iterator[Tensor]:
        """Inputs and outputs that are computed at run time and hold no state."""
        both = (*self.inputs(), *self.outputs())
        return (tensor for tensor in both if tensor.data is None and not tensor.is_variable)

    def option(self, name: str, default: Any) -> Any:
        """A field of the operator's options; the default where the file says nothing."""
        return self.operator.options.get(name, default)

    def constant(self, position: int) -> tuple[int, ...] | None:
        """The integers of a small constant input; None if it is absent, computed or no integer."""
        tensor = self.input(position)
        return None if tensor is None else integers_in(tensor)

    def axes(self, position: int) -> tuple[int, ...] | None:
        """The dimensions that a constant input names, counted from the front of the first input; None if unknown."""
        named, first = self.constant(position), self.input(0)
        if named is None or first is None:
            return None
        rank = max(len(first.shape), 1)
        return tuple(axis % rank for axis in named)


def integers_in(tensor: Tensor) -> tuple[int, ...] | None:
    """Return the integers of a small constant; None if it is computed, long, or no integer type."""
    letter, data = _INTEGERS.get(tensor.dtype), tensor.data
    if letter is None or data is None or tensor.elements > _MOST_READ:
        return None
    count = len(data) // struct.calcsize(letter)
    return struct.unpack(f"<{count}{letter}", data[: count * struct.calcsize(letter)])
