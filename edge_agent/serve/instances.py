# SPDX-License-Identifier: Apache-2.0
"""From the bytes of a request to raw inputs, as strict as a type check: nothing is rounded, cut or guessed."""

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.array_bytes import DTYPES, MAGIC, dtype_of, from_npy, reshaped
from edge_agent.runner.pictures import decode
from edge_agent.runner.preprocess import is_single
from edge_contract.audio import Audio
from edge_contract.errors import DataError
from edge_contract.preprocess import Preprocess, Preprocessing

__all__ = ["DTYPES", "MAX_INSTANCES", "from_array_bytes", "from_json", "from_picture", "natural_dtype"]

Array = NDArray[Any]
MAX_INSTANCES: Final = 64


def natural_dtype(preprocess: Preprocessing) -> str:
    """Return the type of raw inputs where a request does not say: bytes of images, else reals."""
    return "uint8" if isinstance(preprocess, Preprocess) else "float32"


def _never(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def from_json(body: bytes, preprocess: Preprocessing) -> list[Array]:
    """Return the inputs of ``{"instances": [[…], …], "dtype": "uint8"}``; ``dtype`` may be left out.

    Raises:
        DataError: Not JSON, another form, ragged lists, values that the type cannot hold exactly, or too many.
    """
    try:
        document = json.loads(body, parse_constant=_never)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {error}"[:200], where="body") from error
    if not isinstance(document, dict) or not isinstance(document.get("instances"), list):
        raise DataError("no list 'instances'", where="body", fix='send {"instances": [ … ]}')
    if unknown := set(document) - {"instances", "dtype"}:
        raise DataError(f"unknown key '{min(unknown)}'", where="body", fix="send instances, and dtype if needed")
    dtype = document.get("dtype", natural_dtype(preprocess))
    rows = document["instances"]
    _limit(len(rows))
    return [_array(row, dtype_of(dtype), f"instances[{i}]") for i, row in enumerate(rows)]


def _limit(count: int) -> None:
    if not 1 <= count <= MAX_INSTANCES:
        raise DataError(f"{count} inputs", where="body", fix=f"send 1 to {MAX_INSTANCES} in one request")


def _array(row: Any, dtype: "np.dtype[Any]", where: str) -> Array:
    """Return nested lists of numbers as an array; each number must survive the type."""
    try:
        found = np.asarray(row)
    except (ValueError, RecursionError, OverflowError) as error:  # ragged, or nested too deep
        raise DataError("lists of different lengths", where=where) from error
    if found.dtype.kind not in "iuf":
        raise DataError("not numbers alone", where=where, fix="send nested lists of numbers")
    if dtype.kind == "f":
        return found.astype(dtype)
    limits = np.iinfo(dtype)
    if found.size and (found.dtype.kind == "f" or found.min() < limits.min or found.max() > limits.max):
        fix = 'send whole numbers, or "dtype": "float32"'
        raise DataError(f"values that are no {dtype}", where=where, fix=fix)
    return found.astype(dtype)


def from_array_bytes(body: bytes, preprocess: Preprocessing, query: Mapping[str, str]) -> list[Array]:
    """Return the inputs in an .npy file, or in plain bytes whose ``shape`` and ``dtype`` the query says.

    Raises:
        DataError: Neither; or more or fewer bytes than the shape needs.
    """
    array = from_npy(body) if body.startswith(MAGIC) else _plain(body, query, natural_dtype(preprocess))
    if is_single(preprocess, array):
        return [array]
    _limit(len(array) if array.ndim else 0)
    return list(array)


def _plain(body: bytes, query: Mapping[str, str], dtype: str) -> Array:
    text = query.get("shape", "")
    sides = text.split(",")
    if not all(side.isascii() and side.isdigit() and len(side) <= 9 for side in sides):
        fix = "add ?shape=28,28 to the address, or send an .npy file"
        raise DataError(f"shape {text!r}"[:60], where="query", fix=fix)
    return reshaped(body, tuple(map(int, sides)), dtype_of(query.get("dtype", dtype)))


def from_picture(body: bytes, preprocess: Preprocessing) -> list[Array]:
    """Return the input in a JPEG, PNG or other picture file.

    Raises:
        DataError: The model takes no images, or the file is none.
        MissingDependencyError: Nothing that reads pictures is installed.
    """
    if isinstance(preprocess, Audio) or not isinstance(preprocess, Preprocess):
        raise DataError("the model takes no images", where="body", fix="send JSON or an .npy file")
    return [decode(body, is_gray=preprocess.colour == "gray")]
