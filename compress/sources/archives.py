# SPDX-License-Identifier: Apache-2.0
"""Arrays in an ``.npz`` file: whole, to be split here, or already in four splits."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.cutting import sizes_of, split_by_class, split_by_group
from compress.splits import NAMES, UNLABELLED, DataSplits, Split
from edge_contract.errors import DataError

__all__ = ["read_archive", "read_inputs", "read_labelled"]

ABOUT = "about_"
"""How the names of arrays with metadata begin."""
Arrays = dict[str, NDArray[Any]]


def read_archive(path: Path, *, seed: int) -> DataSplits:
    """Return the splits in an archive.

    Arrays ``x`` and ``y`` are split by class; with ``group`` (a person, a recording) so that no group stands in two
    splits; ``x`` alone is split at random. ``train_x``, ``train_y`` and so on are taken as they are. ``labels`` names
    the classes. ``about_site`` (or ``train_about_site`` …) is metadata called ``site``, and so is ``group``.

    Raises:
        DataError: No archive, arrays missing, or of different lengths.
    """
    arrays = _arrays(path)
    labels = tuple(str(name) for name in arrays.get("labels", ()))
    if "x" not in arrays:
        return _as_they_are(arrays, labels, path)
    x = arrays["x"]
    y = arrays.get("y", np.full(len(x), UNLABELLED))
    for name in ("y", "group"):
        if name in arrays and len(arrays[name]) != len(x):
            word = "labels" if name == "y" else "groups"
            what = f"{len(x)} inputs and {len(arrays[name])} {word}"
            raise DataError(what, where=str(path), fix=f"give one {word[:-1]} per input")
    words: dict[str, Any] = {"seed": seed, "labels": labels, "metadata": _metadata(arrays, ABOUT, len(x), path)}
    if "group" in arrays:
        words["metadata"].setdefault("group", arrays["group"])
        return split_by_group(x, _classes(y, path), arrays["group"], **words)
    return split_by_class(x, _classes(y, path), sizes_of(len(x)), **words)


def _metadata(arrays: Arrays, prefix: str, count: int, path: Path) -> Arrays:
    """Return the arrays whose names begin so, by the rest of their names."""
    found = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    for name, array in found.items():
        if array.shape != (count,):
            what = f"'{prefix}{name}' of shape {list(array.shape)} for {count} inputs"
            raise DataError(what, where=str(path), fix="give one value for each input")
    return found


def read_inputs(path: Path) -> NDArray[Any]:
    """Return the array ``x`` of an archive: inputs without labels.

    Raises:
        DataError: No archive, or no ``x`` in it.
    """
    arrays = _arrays(path)
    if "x" not in arrays:
        what = f"arrays {', '.join(sorted(arrays)) or 'none'}; x is missing"
        raise DataError(what, where=str(path), fix="write the inputs as x")
    return arrays["x"]


def read_labelled(path: Path) -> Split:
    """Return ``x`` with its classes ``y``, and ``about_name`` as what each input is called.

    Raises:
        DataError: No archive, one of both is missing, or they are of different lengths.
    """
    arrays = _arrays(path)
    missing = [name for name in ("x", "y") if name not in arrays]
    if missing or len(arrays["x"]) != len(arrays["y"]):
        what = f"{missing[0]} is missing" if missing else f"{len(arrays['x'])} inputs and {len(arrays['y'])} labels"
        raise DataError(what, where=str(path), fix="write it with numpy.savez(path, x=…, y=…)")
    return Split(arrays["x"], _classes(arrays["y"], path), _metadata(arrays, ABOUT, len(arrays["x"]), path))


def _arrays(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:
        fix = "write it with numpy.savez(path, x=…, y=…)"
        raise DataError(f"no .npz archive: {type(error).__name__}", where=str(path), fix=fix) from error
    for name, array in arrays.items():
        if not array.ndim:
            raise DataError(f"'{name}' is one number", where=str(path), fix="give an array with one row for each input")
    return arrays


def _classes(y: NDArray[Any], path: Path) -> NDArray[np.int64]:
    if y.dtype.kind not in "uif" or (y.dtype.kind == "f" and not (y == np.round(y)).all()):
        fix = "give whole numbers from 0, and the names as labels"
        raise DataError(f"labels of type {y.dtype} that are no classes", where=str(path), fix=fix)
    return y.astype(np.int64)


def _as_they_are(arrays: Arrays, labels: tuple[str, ...], path: Path) -> DataSplits:
    missing = [f"{name}_x" for name in NAMES if f"{name}_x" not in arrays]
    if missing:
        what = f"arrays {', '.join(sorted(arrays)) or 'none'}; {missing[0]} is missing"
        raise DataError(what, where=str(path), fix="give x and y, or train_x, train_y and so on for each split")
    parts = []
    for name in NAMES:
        x = arrays[f"{name}_x"]
        y = _classes(arrays.get(f"{name}_y", np.full(len(x), UNLABELLED)), path)
        parts.append(Split(x, y, _metadata(arrays, f"{name}_{ABOUT}", len(x), path)))
    return DataSplits(parts[0], parts[1], parts[2], parts[3], labels)
