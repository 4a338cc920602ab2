# SPDX-License-Identifier: Apache-2.0
"""A decoded TFLite file while it is rewritten: find tensors, constants, readers; add tensors and operators."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import ModelError
from export.tflite.schema import ENUMS, OPERATORS, TABLES, is_scalar
from export.tflite.view import NO_OFFSET
from export.tflite.walk import Table, Walker

__all__ = ["NEW", "Draft", "Graph", "Quantized", "blank", "quantization"]

_NUMPY = {"int8": np.int8, "int32": np.int32, "int64": np.int64, "float32": np.float32}
_CUSTOM = OPERATORS.index("CUSTOM")
NEW: Final = 0  # the version of an operator that a pass made, until versions are set


class Quantized:
    """How a tensor's integers mean real numbers: scales and zero points [1] or [channels]."""

    def __init__(self, table: Table | None) -> None:
        table = table or {}
        self.scales: tuple[float, ...] = table.get("scale") or ()
        self.zero_points: tuple[int, ...] = table.get("zero_point") or (0,) * len(self.scales)
        self.axis: int = table.get("quantized_dimension") or 0

    @property
    def is_per_tensor(self) -> bool:
        return len(self.scales) == 1 and len(self.zero_points) == 1


def blank(kind: str) -> Table:
    """Return a table of a kind whose fields are all absent."""
    return {field.name: field.default if is_scalar(field) else None for field in TABLES.get(kind, ())}


def quantization(scales: Sequence[float], zero_points: Sequence[int], axis: int = 0) -> Table:
    """Return a QuantizationParameters table; scales beyond float32 become infinite, which the last check refuses."""
    with np.errstate(over="ignore"):
        scale = tuple(np.asarray(scales, np.float64).astype(np.float32).tolist())
    fields = {"scale": scale, "zero_point": tuple(zero_points), "quantized_dimension": axis}
    return blank("QuantizationParameters") | fields


class Graph:
    """One subgraph of a draft; its tables may be changed in place."""

    def __init__(self, draft: "Draft", table: Table) -> None:
        self._draft, self.table = draft, table
        self.tensors: list[Table] = list(table["tensors"] or [])
        self.operators: list[Table] = list(table["operators"] or [])
        self.shown: frozenset[int] = frozenset()
        """Numbers of the tensors that callers see: inputs and outputs."""
        self._readers: dict[int, list[Table]] = {}
        self._writer: dict[int, Table] = {}
        self._replaced: dict[int, Sequence[Table]] = {}
        self.settle()

    def settle(self) -> None:
        """Put replacements into the operators' order, and note anew who reads and writes each tensor.

        Called once after each pass, so that a pass takes time in proportion to the operators.
        """
        old = self.operators
        self.operators = [new for op in old for new in self._replaced.get(id(op), (op,))]
        self._readers, self._writer, self._replaced = {}, {}, {}
        self.shown = frozenset((*(self.table["inputs"] or ()), *(self.table["outputs"] or ())))
        for op in self.operators:
            for tensor in dict.fromkeys(op["inputs"] or ()):
                self._readers.setdefault(tensor, []).append(op)
            self._writer.update(dict.fromkeys(op["outputs"] or (), op))

    def readers(self, tensor: int) -> list[Table]:
        """The operators that read a tensor, as of the last ``settle``."""
        return self._readers.get(tensor, [])

    def writer(self, tensor: int) -> Table | None:
        """The operator that writes a tensor, as of the last ``settle``; None for inputs and constants."""
        return self._writer.get(tensor)

    def dtype(self, tensor: int) -> str:
        return ENUMS["TensorType"][self.tensors[tensor]["type"]].lower()

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Sizes with -1 for those that are free until run time."""
        table = self.tensors[tensor]
        return tuple(table["shape_signature"] or table["shape"] or ())

    def quantized(self, tensor: int) -> Quantized:
        return Quantized(self.tensors[tensor]["quantization"])

    def raw(self, tensor: int) -> bytes | None:
        """A constant's bytes, or None."""
        return self._draft.buffers[self.tensors[tensor]["buffer"]]["data"] or None

    def numbers(self, tensor: int) -> NDArray[Any] | None:
        """A dense constant as an array, or None if it is none or of another type."""
        raw, dtype, table = self.raw(tensor), self.dtype(tensor), self.tensors[tensor]
        if raw is None or dtype not in _NUMPY or table["sparsity"] is not None:
            return None
        return np.frombuffer(raw, np.dtype(_NUMPY[dtype]).newbyteorder("<")).reshape(table["shape"] or ())

    def copy(self, tensor: int, **changes: Any) -> int:
        """Add a tensor like another one with some fields changed; return its number."""
        self.tensors.append({**self.tensors[tensor], **changes})
        return len(self.tensors) - 1

    def like(self, tensor: int, shape: Sequence[int], quantized: Table | None) -> int:
        """Add an activation of another's type; return its number. A free first size is written as 1."""
        sizes = tuple(shape)
        free = sizes if -1 in sizes else None
        changes = {"shape": tuple(max(size, 1) for size in sizes), "shape_signature": free, "quantization": quantized}
        return self.copy(tensor, name=b"", buffer=0, is_variable=False, **changes)

    def constant(self, values: NDArray[Any], quantized: Table | None = None) -> int:
        """Add a constant of values int8, int32, int64 or float32; return its number."""
        buffer = self._draft.add_buffer(values.astype(values.dtype.newbyteorder("<")).tobytes())
        kind = ENUMS["TensorType"].index(values.dtype.name.upper())
        fields = {"shape": values.shape, "type": kind, "buffer": buffer, "name": b"", "quantization": quantized}
        self.tensors.append(blank("Tensor") | fields)
        return len(self.tensors) - 1

    def replace(self, old: Table, new: Sequence[Table]) -> None:
        """Put operators in the place of one, at the next ``settle``."""
        self._replaced[id(old)] = new


class Draft:
    """A file being rewritten. Operators carry their own code (number, custom name, version) until ``finish``.

    Raises:
        ModelError: The file uses what this version of Strop does not know, so that rewriting would lose it.
    """

    def __init__(self, root: Table, walker: Walker, where: str) -> None:
        self.root, self.where = root, where
        if walker.unknown or root["external_buffers"]:
            newer = f"it uses newer fields ({', '.join(sorted(walker.unknown))})"
            what = newer if walker.unknown else "its constants lie in other files"
            raise ModelError(f"cannot be rewritten: {what}", where=where, fix="use it as it is, or update Strop")
        self.buffers: list[Table] = list(root["buffers"] or [])
        self.outside = sum(self._inline(buffer, walker) for buffer in self.buffers)
        codes = [self._code(table) for table in root["operator_codes"] or []]
        self.graphs = [Graph(self, table) for table in root["subgraphs"]]
        for op in self.operators():
            op["code"] = codes[op["opcode_index"]]
            self._inline_options(op, walker)

    @staticmethod
    def _inline(buffer: Table, walker: Walker) -> bool:
        """Fetch a constant that lies behind the flatbuffer; return True if it did."""
        is_outside = not buffer["data"] and buffer["offset"] > NO_OFFSET
        if is_outside:
            buffer["data"] = walker.raw(buffer["offset"], buffer["size"])
        buffer["offset"] = buffer["size"] = 0
        return bool(is_outside)

    @staticmethod
    def _inline_options(op: Table, walker: Walker) -> None:
        if op["large_custom_options_offset"] > NO_OFFSET:
            op["custom_options"] = walker.raw(op["large_custom_options_offset"], op["large_custom_options_size"])
        op["large_custom_options_offset"] = op["large_custom_options_size"] = 0

    @staticmethod
    def _code(table: Table) -> tuple[int, bytes | None, int]:
        number = max(table["deprecated_builtin_code"], table["builtin_code"])
        return number, table["custom_code"] if number == _CUSTOM else None, table["version"]

    def add_buffer(self, data: bytes | None) -> int:
        """Add a buffer; return its number."""
        self.buffers.append(blank("Buffer") | {"data": data})
        return len(self.buffers) - 1

    def operators(self) -> Iterator[Table]:
        """Every operator of every subgraph."""
        return (op for graph in self.graphs for op in graph.operators)

    @staticmethod
    def kind(op: Table) -> str:
        number = op["code"][0]
        return OPERATORS[number] if number < len(OPERATORS) else f"BUILTIN_{number}"

    @staticmethod
    def operator(kind: str, inputs: Sequence[int], output: int, options: str, **fields: Any) -> Table:
        """Return an operator with a named options table; its version is decided at the end."""
        number, code = ENUMS["BuiltinOptions"].index(options), (OPERATORS.index(kind), None, NEW)
        chosen = {"builtin_options_type": number, "builtin_options": blank(options) | fields, "code": code}
        return blank("Operator") | chosen | {"inputs": tuple(inputs), "outputs": (output,)}

    def finish(self) -> Table:
        """Return the Model table, with one operator code for each kind and version in use."""
        for graph in self.graphs:
            graph.table["tensors"], graph.table["operators"] = graph.tensors, graph.operators
        codes: dict[Any, int] = {}
        for op in self.operators():
            op["opcode_index"] = codes.setdefault(op["code"], len(codes))
        self.root["operator_codes"] = [
            {
                "deprecated_builtin_code": min(number, 127),
                "builtin_code": number,
                "custom_code": name,
                "version": version,
            }
            for number, name, version in codes
        ]
        self.root["buffers"] = self.buffers
        return self.root
