# SPDX-License-Identifier: Apache-2.0
"""Model inputs in an ``.npz`` or ``.npy`` file, for models that no recipe knows."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import DataError

__all__ = ["only", "read"]

_USUAL = ("x", "inputs", "calibration")


def read(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file by name, in its order; the one of an ``.npy`` file is called ``x``.

    Raises:
        DataError: It cannot be read, or holds no array.
    """
    fix = "write it with numpy.savez(path, x=…): the model's own inputs, batch first"
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {"x": found}
        with found as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except Exception as error:  # zipfile and numpy each fail in their own words
        raise DataError(f"no arrays: {type(error).__name__}", where=str(path), fix=fix) from error
    if not arrays or any(array.dtype.kind not in "fiub" for array in arrays.values()):
        raise DataError("no arrays of numbers", where=str(path), fix=fix)
    return arrays


def only(path: Path) -> NDArray[Any]:
    """Return the one array of a file, or the one called ``x``, ``inputs`` or ``calibration`` among several.

    Raises:
        DataError: As ``read``; or there are several and none has such a name.
    """
    arrays = read(path)
    named = [arrays[name] for name in _USUAL if name in arrays]
    if not named and len(arrays) > 1:
        what = f"arrays {', '.join(sorted(arrays))}: which one are the inputs?"
        raise DataError(what, where=str(path), fix="call it x")
    return named[0] if named else next(iter(arrays.values()))
