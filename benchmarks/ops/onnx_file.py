# SPDX-License-Identifier: Apache-2.0
"""What an ONNX file says of its nodes, read from its bytes: a device has no ``onnx`` package.

Only what a profile needs: each node's name, operator, first output, and the shape of its weights. The optimiser leaves
this in the file that it can be told to write (``optimized_model_filepath``), so that a fused node, which the profile
calls ``_token_52``, gets the name of the tensor that it computes, and a depthwise convolution is known by its weights.

Reference: onnx/onnx.proto3 and the protocol buffers' encoding guide (varints, length-delimited fields)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_contract.errors import MeasurementError

__all__ = ["Node", "nodes"]

_GRAPH: Final = 7  # of ModelProto
_NODE, _INITIALIZER = 1, 5  # of GraphProto
_INPUT, _OUTPUT, _NAME, _OPERATOR = 1, 2, 3, 4  # of NodeProto
_DIMS, _TENSOR_NAME = 1, 8  # of TensorProto
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


@dataclass(frozen=True)
class Node:
    """One node: its name, its operator, the tensor that it computes first, the shapes of its constant inputs."""

    name: str
    operator: str
    output: str
    constants: tuple[tuple[int, ...], ...]

    @property
    def weights(self) -> tuple[int, ...]:
        """The constant of the highest rank; empty without any."""
        return max(self.constants, key=len, default=())


def nodes(path: Path) -> dict[str, Node]:
    """Return the nodes of the main graph by their names; nodes without a name are left out.

    Raises:
        MeasurementError: The bytes are no ONNX file.
    """
    try:
        return _nodes(memoryview(path.read_bytes()))
    except (IndexError, UnicodeDecodeError) as error:
        raise MeasurementError(f"no ONNX file ({error})", where=str(path)) from error


def _nodes(data: memoryview) -> dict[str, Node]:
    graph = [value for field, value in _fields(data) if field == _GRAPH and isinstance(value, memoryview)]
    parts = [part for piece in graph for part in _fields(piece)]
    constants = dict(
        _tensor(value) for field, value in parts if field == _INITIALIZER and isinstance(value, memoryview)
    )
    found = {}
    for field, value in parts:
        if field == _NODE and isinstance(value, memoryview):
            node = _node(value, constants)
            if node.name:
                found[node.name] = node
    return found


def _node(data: memoryview, constants: dict[str, tuple[int, ...]]) -> Node:
    texts: dict[int, list[str]] = {_INPUT: [], _OUTPUT: [], _NAME: [], _OPERATOR: []}
    for field, value in _fields(data):
        if field in texts and isinstance(value, memoryview):
            texts[field].append(bytes(value).decode())
    shapes = tuple(constants[name] for name in texts[_INPUT] if name in constants)
    return Node("".join(texts[_NAME]), "".join(texts[_OPERATOR]), next(iter(texts[_OUTPUT]), ""), shapes)


def _tensor(data: memoryview) -> tuple[str, tuple[int, ...]]:
    name, dims = "", list[int]()
    for field, value in _fields(data):
        if field == _DIMS:
            dims += [value] if isinstance(value, int) else _packed(value)
        elif field == _TENSOR_NAME and isinstance(value, memoryview):
            name = bytes(value).decode()
    return name, tuple(dims)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, varint or bytes); fixed-width numbers come as bytes. Raises IndexError past the end."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        size, at = _varint(data, at) if kind == _BYTES else ({_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(kind, 1 << 62), at)
        if at + size > len(data):
            raise IndexError(f"field {key >> 3} of kind {kind} ends behind the file")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _packed(data: memoryview) -> list[int]:
    at, found = 0, []
    while at < len(data):
        value, at = _varint(data, at)
        found.append(value)
    return found
