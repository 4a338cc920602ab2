# SPDX-License-Identifier: Apache-2.0
"""Read an ONNX file as frozen values, whoever wrote it: a damaged or hostile one gives a ModelError and costs little.

Weights stay views of the file's bytes until ``Constant.array`` is called. Weights in other files are read only from
the model's own folder and only inside those files. Field numbers: onnx/onnx.proto, IR version 13.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_contract.errors import ModelError
from export.onnx.constant import STORED, TYPES, Constant, numbers, whole
from export.onnx.model import OnnxGraph, OnnxModel, OnnxNode, OnnxValue
from export.onnx.wire import MalformedError, fields, signed64

__all__ = ["MAX_BYTES", "read", "read_file"]

MAX_BYTES: Final = 1 << 31  # protocol buffers' own limit; larger models keep their weights in other files
_MAX_PARTS: Final = 500_000  # nodes, tensors, names …: a decoder of 48 layers has 20 000
_MAX_RANK: Final = 64
_MAX_DEPTH: Final = 8  # graphs inside If and Loop


def read_file(path: Path) -> OnnxModel:
    """Return the model in a file; raises as ``read`` does, and when the file cannot be read."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path.stat().st_size} bytes, more than {MAX_BYTES}", where=str(path))
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", where=str(path)) from error
    return read(data, where=str(path), folder=path.parent)


def read(data: bytes, *, where: str, folder: Path | None = None) -> OnnxModel:
    """Return the model in a file's bytes.

    Args:
        data: The file.
        where: Its name, for errors.
        folder: Where it lies, for weights in other files; None if nowhere.

    Raises:
        ModelError: Not an ONNX file, truncated, of more parts than any real model, or nested too deeply.
    """
    try:
        return _Reader(folder).model(memoryview(data))
    except (MalformedError, UnicodeDecodeError) as error:
        fix = "give an .onnx or .tflite file"
        raise ModelError(f"not a model file: {error}", where=where, fix=fix) from error


class _Reader:
    """Decodes messages and counts what it keeps."""

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._left = folder, _MAX_PARTS

    def _parts(self, data: Any) -> Iterator[tuple[int, Any]]:
        if isinstance(data, int):
            raise MalformedError("a number where a message is due")
        for number, value in fields(data):
            self._left -= 1
            if self._left < 0:
                raise MalformedError(f"more than {_MAX_PARTS} parts")
            yield number, value

    def model(self, data: memoryview) -> OnnxModel:
        found: dict[int, list[Any]] = {}
        for number, value in self._parts(data):
            found.setdefault(number, []).append(value)
        if 7 not in found:
            raise MalformedError("no graph")
        graph = self._graph(found[7][-1], 0)
        if not graph.nodes:
            raise MalformedError("no operator")
        return OnnxModel(
            len(data),
            _number(found.get(1, [0])[-1]),
            _text(found.get(2, [b""])[-1]),
            {_domain(_text(d)): _number(v) for d, v in (self._pair(entry, b"", 0) for entry in found.get(8, []))},
            {_text(k): _text(v) for k, v in (self._pair(entry, b"", b"") for entry in found.get(14, []))},
            graph,
            tuple(self._node(v, 1) for f in found.get(25, []) for number, v in self._parts(f) if number == 7),
        )

    def _pair(self, data: Any, first: Any, second: Any) -> tuple[Any, Any]:
        for number, value in self._parts(data):
            first = value if number == 1 else first
            second = value if number == 2 else second
        return first, second

    def _graph(self, data: Any, depth: int) -> OnnxGraph:
        if depth > _MAX_DEPTH:
            raise MalformedError(f"graphs inside graphs, more than {_MAX_DEPTH} deep")
        nodes: list[OnnxNode] = []
        constants: dict[str, Constant] = {}
        inputs: list[OnnxValue] = []
        outputs: list[OnnxValue] = []
        for number, value in self._parts(data):
            if number == 1:
                nodes.append(self._node(value, depth))
            elif number == 5:
                constant = self._tensor(value)
                constants[constant.name] = constant
            elif number in (11, 12):
                (inputs if number == 11 else outputs).append(self._value(value))
        free = tuple(value for value in inputs if value.name not in constants)
        return OnnxGraph(tuple(nodes), constants, free, tuple(outputs))

    def _node(self, data: Any, depth: int) -> OnnxNode:
        texts: dict[int, str] = {}
        inputs: list[str] = []
        outputs: list[str] = []
        attributes: dict[str, Any] = {}
        for number, value in self._parts(data):
            if number == 1:
                inputs.append(_text(value))
            elif number == 2:
                outputs.append(_text(value))
            elif number in (3, 4, 7):
                texts[number] = _text(value)
            elif number == 5:
                name, held = self._attribute(value, depth)
                attributes[name] = held
        kind, name, domain = (texts.get(number, "") for number in (4, 3, 7))
        return OnnxNode(kind, name, _domain(domain), tuple(inputs), tuple(outputs), attributes)

    def _attribute(self, data: Any, depth: int) -> tuple[str, Any]:
        name, held, several = "", None, []
        for number, value in self._parts(data):
            if number == 1:
                name = _text(value)
            elif number in (2, 3, 4, 5, 6):
                held = self._single(number, value, depth)
            elif number in (7, 8, 9, 10, 11):
                several += self._several(number, value, depth)
        return name, tuple(several) if several else held

    def _single(self, number: int, value: Any, depth: int) -> Any:
        if number == 2:
            return float(whole(_bytes(value), np.dtype(np.float32))[0])
        if number == 3:
            return signed64(_number(value))
        if number == 4:
            return bytes(_bytes(value)).decode(errors="replace")
        return self._tensor(value) if number == 5 else self._graph(value, depth + 1)

    def _several(self, number: int, value: Any, depth: int) -> list[Any]:
        if number in (9, 10, 11):
            return [self._single(number - 5, value, depth)]
        if not isinstance(value, int) and len(value) > 10 * self._left:
            raise MalformedError(f"more than {_MAX_PARTS} parts")
        found = numbers(4 if number == 7 else 7, value).tolist()
        self._left -= len(found)
        return list(found)

    def _tensor(self, data: Any) -> Constant:
        kind, name, is_outside = 0, "", False
        shape: list[int] = []
        parts: list[tuple[int, Any]] = []
        outside: dict[str, str] = {}
        for number, value in self._parts(data):
            if number == 1:
                shape += self._several(8, value, 0)
            elif number == 2:
                kind = _number(value)
            elif number == 8:
                name = _text(value)
            elif number in STORED:
                parts.append((number, value))
            elif number == 13:
                key, said = self._pair(value, b"", b"")
                outside[_text(key)] = _text(said)
            elif number == 14:
                is_outside = _number(value) == 1
        if kind not in TYPES or len(shape) > _MAX_RANK or any(size < 0 for size in shape):
            raise MalformedError(f"tensor '{name[:60]}' of type {kind} and shape {shape[:8]}")
        held = Constant(name, TYPES[kind], tuple(shape), tuple(parts))
        return replace(held, **self._place(outside, name)) if is_outside else held

    def _place(self, said: dict[str, str], name: str) -> dict[str, Any]:
        if not said.get("location"):
            raise MalformedError(f"tensor '{name[:60]}' lies in a file without a name")
        length = _decimal(said["length"]) if "length" in said else None
        offset = _decimal(said.get("offset", "0"))
        return {"file": said["location"], "folder": self._folder, "offset": offset, "length": length}

    def _value(self, data: Any) -> OnnxValue:
        name, kind = "", 0
        shape: list[int] = []
        for number, value in self._parts(data):
            if number == 1:
                name = _text(value)
            elif number == 2:
                for inner in (v for n, v in self._parts(value) if n == 1):  # tensor_type; others have no shape
                    for part, held in self._parts(inner):
                        kind = _number(held) if part == 1 else kind
                        shape = [self._dimension(v) for n, v in self._parts(held) if n == 1] if part == 2 else shape
        return OnnxValue(name, TYPES.get(kind, "none"), tuple(shape))

    def _dimension(self, data: Any) -> int:
        return next((max(0, signed64(_number(v))) for n, v in self._parts(data) if n == 1), 0)


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise MalformedError("bytes where a number is due")
    return value


def _bytes(value: Any) -> Any:
    if isinstance(value, int):
        raise MalformedError("a number where bytes are due")
    return value


def _text(value: Any) -> str:
    return bytes(_bytes(value)).decode()


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise MalformedError(f"{text[:20]!r} is not a number of bytes")
    return int(text)
