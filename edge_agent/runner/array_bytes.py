# SPDX-License-Identifier: Apache-2.0
"""Arrays from bytes of somebody else: an .npy file or plain numbers, believed only as far as their length goes."""

import ast
import io
import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import DataError

__all__ = ["DTYPES", "MAGIC", "dtype_of", "from_npy", "reshaped"]

Array = NDArray[Any]
DTYPES: Final = ("uint8", "int16", "float32")
MAGIC: Final = b"\x93NUMPY"
_MAX_HEADER: Final = 4096


def dtype_of(name: Any) -> "np.dtype[Any]":
    """Return a type of raw inputs by its name; raises DataError with the choice."""
    if name not in DTYPES:
        raise DataError(f"type {name!r}"[:60], where="dtype", fix=f"use one of {', '.join(DTYPES)}")
    return np.dtype(str(name))


def from_npy(data: bytes) -> Array:
    """Return the array in an .npy file's bytes, read by its header; ``numpy.load`` makes room for what that claims.

    Raises:
        DataError: No .npy file of plain numbers in C order, or other bytes than its shape needs.

    Example:
        >>> stream = io.BytesIO()
        >>> np.save(stream, np.arange(3, dtype=np.uint8))
        >>> from_npy(stream.getvalue()).tolist()
        [0, 1, 2]
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        size = int.from_bytes(stream.read(2 if version == (1, 0) else 4), "little")
        if version not in ((1, 0), (2, 0)) or size > _MAX_HEADER:
            raise ValueError("another version")
        header = ast.literal_eval(stream.read(size).decode("latin1"))
        shape, dtype = tuple(header["shape"]), np.dtype(header["descr"])
        is_plain = not header["fortran_order"] and all(isinstance(side, int) and side >= 0 for side in shape)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise DataError(f"no .npy file: {error}"[:200], where="body") from error
    if not is_plain or dtype.kind not in "uif":
        raise DataError(f"an array of {dtype}"[:100], where="body", fix="send plain numbers in C order")
    return reshaped(data[stream.tell() :], shape, dtype)


def reshaped(data: bytes, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> Array:
    """Return plain bytes as an array; raises DataError when there are more or fewer than the shape needs."""
    wanted = math.prod(shape) * dtype.itemsize
    if wanted != len(data):
        raise DataError(f"{len(data)} bytes for {dtype} {list(shape)}, which has {wanted}"[:200], where="body")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
