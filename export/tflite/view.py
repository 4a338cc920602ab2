# SPDX-License-Identifier: Apache-2.0
"""Turn decoded tables into a TFLiteModel, and refuse what contradicts itself.

What is checked, so that whoever computes with the result need not: indices name things that exist, shapes are not
negative, constants have as many bytes as their shape says, scales are finite, strides are positive, operators carry
their own options and the inputs that every version of them needs.
"""

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Final

from export.tflite.model import Operator, Signature, Subgraph, Tensor, TFLiteModel
from export.tflite.schema import ENUMS, MIN_INPUTS, OPERATORS, OPTIONS_OF, TABLES, TENSOR_BITS
from export.tflite.walk import Table, Walker

__all__ = ["NO_OFFSET", "view"]

MAX_RANK: Final = 32
SHOWN: Final = 80  # letters of a name in an error
NO_OFFSET: Final = 1  # Buffer.offset 0 and 1 mean: not outside the flatbuffer
_POSITIVE: Final = frozenset(
    f"{what}_{side}" for what in ("stride", "dilation", "filter") for side in ("w", "h", "d", "w_factor", "h_factor")
) | {"dilation_d_factor", "filter_width", "filter_height", "block_size"}


def view(root: Table, walker: Walker, size: int) -> TFLiteModel:
    """Return the checked, frozen form of a decoded file of ``size`` bytes.

    Raises:
        ModelError: The file contradicts itself.
    """
    return _View(root, walker).model(size)


class _View:
    """Turns tables into values; knows what the whole file offers, to check indices against."""

    def __init__(self, root: Table, walker: Walker) -> None:
        self._root, self._walker = root, walker
        self._buffers = [self._buffer(table) for table in root["buffers"] or []]
        self._codes = [self._code(table) for table in root["operator_codes"] or []]

    def model(self, size: int) -> TFLiteModel:
        root, graphs = self._root, self._root["subgraphs"] or []
        self._check(root["version"] == 3, f"schema version {root['version']} is not 3")
        self._check(bool(graphs), "it has no subgraph")
        subgraphs = tuple(self._subgraph(table, len(graphs)) for table in graphs)
        metadata = {}
        for entry in root["metadata"] or []:
            metadata[_text(entry["name"])] = self._at(self._buffers, entry["buffer"], "buffer")[0] or b""
        signatures = tuple(self._signature(table, subgraphs) for table in root["signature_defs"] or [])
        description = _text(root["description"])
        return TFLiteModel(3, subgraphs, MappingProxyType(metadata), signatures, size, description)

    def _check(self, claim: bool, what: str) -> None:  # noqa: FBT001  # reads as an assertion
        if not claim:
            raise self._walker.error(what)

    def _at(self, items: Sequence[Any], index: int, what: str) -> Any:
        self._check(0 <= index < len(items), f"{what} {index} does not exist, there are {len(items)}")
        return items[index]

    def _buffer(self, table: Table) -> tuple[bytes | None, bool]:
        """Return a buffer's bytes, None if it is empty, and whether they lie outside the flatbuffer."""
        if table["data"]:
            return table["data"], False
        if table["offset"] > NO_OFFSET:
            return self._walker.raw(table["offset"], table["size"]), True
        return None, False

    def _code(self, table: Table) -> tuple[str, int, bool]:
        """Return kind, version and whether it is custom. Old files have the number in the deprecated field alone."""
        number = max(table["deprecated_builtin_code"], table["builtin_code"])
        self._check(number >= 0, f"operator code {number} is negative")
        kind = OPERATORS[number] if number < len(OPERATORS) else f"BUILTIN_{number}"
        if kind == "CUSTOM":
            return _text(table["custom_code"]) or "CUSTOM", table["version"], True
        return kind, table["version"], False

    def _subgraph(self, table: Table, graphs: int) -> Subgraph:
        tensors = tuple(self._tensor(index, entry) for index, entry in enumerate(table["tensors"] or []))
        count = len(tensors)
        operators = tuple(
            self._operator(index, entry, count, graphs) for index, entry in enumerate(table["operators"] or [])
        )
        inputs = self._indices(table["inputs"], count, "input of the subgraph")
        outputs = self._indices(table["outputs"], count, "output of the subgraph")
        return Subgraph(_text(table["name"]), tensors, operators, inputs, outputs)

    def _indices(self, found: tuple[int, ...] | None, count: int, what: str, lowest: int = 0) -> tuple[int, ...]:
        for index in found or ():
            self._check(lowest <= index < count, f"{what}: tensor {index} does not exist, there are {count}")
        return tuple(found or ())

    def _tensor(self, index: int, table: Table) -> Tensor:
        name, shape = _text(table["name"]), table["shape"] or ()
        what = f"tensor {index} '{name[:SHOWN]}'"
        self._check(0 <= table["type"] < len(ENUMS["TensorType"]), f"{what} has the unknown type {table['type']}")
        self._check(len(shape) <= MAX_RANK and min(shape, default=0) >= 0, f"{what} has the shape {shape[:MAX_RANK]}")
        signature = table["shape_signature"] or shape
        self._check(len(signature) == len(shape), f"{what} has shapes of rank {len(shape)} and {len(signature)}")
        self._check(min(signature, default=0) >= -1, f"{what} has the shape {signature}")
        data, is_external = self._at(self._buffers, table["buffer"], f"{what}: buffer")
        scales, zero_points, axis = self._quantization(what, table["quantization"], shape)
        dtype = ENUMS["TensorType"][table["type"]].lower()
        tensor = Tensor(
            index, name, dtype, shape, signature, scales, zero_points, axis, data, table["is_variable"],
            is_external or bool(table["external_buffer"]),
        )  # fmt: skip
        is_plain = data is not None and dtype in TENSOR_BITS and table["sparsity"] is None
        size = len(data or b"")
        self._check(not is_plain or size == tensor.size, f"{what} has {size} bytes, its shape needs {tensor.size}")
        return tensor

    def _quantization(
        self, what: str, table: Table | None, shape: tuple[int, ...]
    ) -> tuple[tuple[float, ...], tuple[int, ...], int]:
        if table is None or not table["scale"]:
            return (), (), 0
        scales, axis = table["scale"], table["quantized_dimension"]
        zero_points = table["zero_point"] or (0,) * len(scales)
        self._check(all(0 <= scale < math.inf for scale in scales), f"{what} has a scale that is no positive number")
        self._check(len(zero_points) == len(scales), f"{what} has {len(scales)} scales, {len(zero_points)} zero points")
        if len(scales) > 1 and table["details"] is None:
            fits = 0 <= axis < len(shape) and shape[axis] == len(scales)
            self._check(fits, f"{what} has {len(scales)} scales along dimension {axis} of {list(shape)}")
        return scales, zero_points, axis

    def _operator(self, index: int, table: Table, tensors: int, graphs: int) -> Operator:
        kind, version, is_custom = self._at(self._codes, table["opcode_index"], f"operator {index}: code")
        what = f"operator {index} {kind[:SHOWN]}"
        inputs = self._indices(table["inputs"], tensors, f"{what}: input", -1)
        outputs = self._indices(table["outputs"], tensors, f"{what}: output")
        self._indices(table["intermediates"], tensors, f"{what}: intermediate", -1)
        needed = 0 if is_custom else MIN_INPUTS.get(kind, 0)
        self._check(len(inputs) >= needed and -1 not in inputs[:needed], f"{what} lacks an input")
        self._check(bool(outputs) or not needed, f"{what} has no output")
        options = self._custom(table) if is_custom else self._options(what, kind, table, graphs)
        return Operator(index, kind, version, inputs, outputs, MappingProxyType(options), is_custom)

    def _custom(self, table: Table) -> dict[str, Any]:
        if table["large_custom_options_offset"] > NO_OFFSET:
            raw = self._walker.raw(table["large_custom_options_offset"], table["large_custom_options_size"])
            return {"custom": raw}
        return {"custom": table["custom_options"] or b""}

    def _options(self, what: str, kind: str, table: Table, graphs: int) -> dict[str, Any]:
        union = "BuiltinOptions2" if table["builtin_options2"] is not None else "BuiltinOptions"
        field = "builtin_options2" if union.endswith("2") else "builtin_options"
        names = ENUMS[union]
        number, raw = table[f"{field}_type"], table[field]
        name = names[number] if number < len(names) else ""
        wanted = OPTIONS_OF.get(kind, name)
        self._check(raw is None or name == wanted, f"{what} carries {name} instead of {wanted}")
        fields = TABLES.get(wanted, ())
        raw = raw if raw is not None else {f.name: None if f.is_vector else f.default for f in fields}
        found = {f.name: _named(f.enumeration, raw[f.name]) for f in fields}
        for key, value in found.items():
            self._check(key not in _POSITIVE or value > 0, f"{what} has {key} {value}")
            is_graph = key.endswith("subgraph_index") or (kind == "CALL" and key == "subgraph")
            named = (value,) if is_graph else (value or ()) if key.endswith("subgraph_indices") else ()
            for graph in named:
                self._check(0 <= graph < graphs, f"{what}: subgraph {graph} does not exist")
        return found

    def _signature(self, table: Table, subgraphs: tuple[Subgraph, ...]) -> Signature:
        key = _text(table["signature_key"])
        graph = self._at(subgraphs, table["subgraph_index"], f"signature '{key[:SHOWN]}': subgraph")
        maps = []
        for side in ("inputs", "outputs"):
            entries = table[side] or []
            for entry in entries:
                self._at(graph.tensors, entry["tensor_index"], f"signature '{key[:SHOWN]}': tensor")
            maps.append(MappingProxyType({_text(entry["name"]): entry["tensor_index"] for entry in entries}))
        return Signature(key, table["subgraph_index"], *maps)


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="backslashreplace")


def _named(enumeration: str, value: Any) -> Any:
    """Return the name of an enumeration's number; plain values as they are."""
    if not enumeration:
        return value
    names = ENUMS[enumeration]
    return names[value] if 0 <= value < len(names) else f"UNKNOWN_{value}"
