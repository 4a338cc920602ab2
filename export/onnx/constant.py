# SPDX-License-Identifier: Apache-2.0
"""A constant tensor of an ONNX file: views of the file's bytes until somebody asks for the numbers."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import ModelError
from export.onnx.wire import MalformedError, signed64, varints

__all__ = ["STORED", "TYPES", "Constant", "numbers", "whole"]

TYPES: Final = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
    17: "float8e4m3fn", 18: "float8e4m3fnuz", 19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4", 22: "int4",
    23: "float4e2m1",
}  # fmt: skip
_BITS: Final = {"bfloat16": 16, "uint4": 4, "int4": 4, "float4e2m1": 4}  # of types that numpy has not
STORED: Final = (4, 5, 7, 9, 10, 11)
"""Fields of a tensor that may hold its numbers: floats, int32, int64, the raw bytes, doubles, uint64."""
_FLOATS, _RAW, _DOUBLES = 4, 9, 10


@dataclass(frozen=True, eq=False)
class Constant:
    """One constant tensor.

    Attributes:
        name: Its name.
        dtype: numpy's name of the type, or ONNX's own where numpy has none (``bfloat16``, ``int4``).
        shape: Without meaning added; [] for a scalar.
        parts: (field, bytes or number) as the file has them.
        file: Name of the file that holds the bytes; empty if it is the model file.
        folder, offset, length: Where that file lies, and which bytes of it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[tuple[int, Any], ...] = field(repr=False)
    file: str = ""
    folder: Path | None = None
    offset: int = 0
    length: int | None = None

    @property
    def size(self) -> int:
        """Bytes that it takes in memory."""
        return (math.prod(self.shape) * _bits(self.dtype) + 7) // 8

    def array(self) -> NDArray[Any]:
        """Return the numbers in their shape; the stored bytes, uint8 [n], of a type that numpy has not.

        Raises:
            ModelError: Fewer or more numbers than the shape says, or a file beside the model that is missing,
                shorter than said, or outside the model's folder.
        """
        where = f"constant '{self.name}'"
        try:
            flat = self._flat()
        except MalformedError as error:
            raise ModelError(f"not readable: {error}", where=where) from error
        if not _is_in_numpy(self.dtype):
            return flat
        if flat.size != math.prod(self.shape):
            what = f"{flat.size} numbers for shape {list(self.shape)}"
            raise ModelError(what, where=where, fix="save the model again")
        return flat.reshape(self.shape)

    def _flat(self) -> NDArray[Any]:
        kind = np.dtype(self.dtype if _is_in_numpy(self.dtype) else np.uint8)
        if self.file:
            return whole(self._outside(), kind)
        raw = [part for number, part in self.parts if number == _RAW]
        if raw:
            return whole(raw[-1], kind)
        found = [numbers(number, part) for number, part in self.parts]
        flat = np.concatenate(found) if found else np.zeros(0, kind)
        if self.dtype == "float16":  # int32_data holds their bits
            return flat.astype(np.uint16).view(np.float16)
        return flat.astype(kind)

    def _outside(self) -> memoryview:
        where = f"constant '{self.name}' in '{self.file}'"
        if self.folder is None:
            raise ModelError("its weights lie in another file", where=where, fix="give the model's path")
        path, offset = (self.folder / self.file).resolve(), self.offset
        if not path.is_relative_to(self.folder.resolve()):
            raise ModelError("the file lies outside the model's folder", where=where, fix="save the model again")
        try:
            if self.length not in (None, self.size) or offset + self.size > path.stat().st_size:
                raise ModelError(f"no {self.size} bytes at {offset}", where=where, fix="save the model again")
            with path.open("rb") as file:
                file.seek(offset)
                return memoryview(file.read(self.size))
        except OSError as error:
            raise ModelError(
                f"cannot be read ({error.strerror})", where=where, fix="keep it beside the model"
            ) from error


def _is_in_numpy(dtype: str) -> bool:
    return dtype != "string" and dtype not in _BITS and not dtype.startswith("float8")


def _bits(dtype: str) -> int:
    return np.dtype(dtype).itemsize * 8 if _is_in_numpy(dtype) else _BITS.get(dtype, 8)


def whole(raw: memoryview, kind: "np.dtype[Any]") -> NDArray[Any]:
    """Return little-endian numbers, without a copy on machines of that kind.

    Raises:
        MalformedError: A part of a number is left.
    """
    if len(raw) % kind.itemsize:
        raise MalformedError(f"{len(raw)} bytes of {kind}")
    return np.frombuffer(raw, kind.newbyteorder("<")).astype(kind, copy=False)


def numbers(number: int, part: memoryview | int) -> NDArray[Any]:
    """Return the numbers of a repeated field, packed or single; ``number`` is one of ``STORED``, without raw bytes."""
    if number not in (_FLOATS, _DOUBLES):
        return np.array([signed64(part)], np.int64) if isinstance(part, int) else varints(part)
    if isinstance(part, int):
        raise MalformedError("an integer among floats")
    return whole(part, np.dtype(np.float32 if number == _FLOATS else np.float64))
