# SPDX-License-Identifier: Apache-2.0
"""Tables in ``.csv`` and ``.csv.gz`` files: one input in each row, or one moment of a recording in each row."""

import csv
import gzip
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.cutting import sizes_of, split_by_class, split_by_group
from compress.named_sources import DataSource
from compress.recipe_table import nearest
from compress.splits import UNLABELLED, DataSplits
from edge_agent.runner.preprocess import cut
from edge_contract.errors import DataError
from edge_contract.preprocess import Preprocessing
from edge_contract.series import Series

__all__ = ["read_table"]

Array = NDArray[Any]


@dataclass(frozen=True)
class _Columns:
    """Where things stand: numbers of columns, -1 for what is not there."""

    features: list[int]
    label: int
    group: int


def read_table(path: Path, data: DataSource, preprocess: Preprocessing, *, seed: int) -> DataSplits:
    """Return the splits of a table.

    A first row of names is found by itself; without one the columns are called "0", "1", …. Classes may be whole
    numbers or names. The columns that are neither label nor group are the input, in their order, unless ``features``
    names them. Integers from 0 to 255 stay uint8, all else becomes float32.

    For a series with as many features as channels, each row is one moment: rows of one group and class that follow
    each other are a recording, which the preprocessing cuts into windows. Windows of one recording overlap, so they
    stay in one split.

    Raises:
        DataError: A column is missing, a cell is no number, a row is too short, or the shape does not fit.
    """
    names, has_names, delimiter = _head(path, data)
    columns = _columns(names, data, path)
    words = {"delimiter": delimiter, "skiprows": int(has_names)}
    values = _load(path, columns.features, np.float64, words)
    labels, y = _classes(path, columns.label, words, len(values))
    groups = None if columns.group < 0 else _load(path, [columns.group], np.str_, words)[:, 0]
    if isinstance(preprocess, Series) and not data.shape:
        x, y, groups = _windows(values, y, groups, preprocess, path)
    else:
        x = _shaped(values, data.shape, path)
    if groups is not None:
        metadata = {data.group: groups} if data.group else {}
        return split_by_group(x, y, groups, seed=seed, labels=labels, metadata=metadata)
    return split_by_class(x, y, sizes_of(len(x)), seed=seed, labels=labels)


def _open(path: Path) -> Any:
    return gzip.open(path, "rt", encoding="utf-8-sig") if path.suffix == ".gz" else path.open(encoding="utf-8-sig")


def _head(path: Path, data: DataSource) -> tuple[list[str], bool, str]:
    """Return the names of the columns, whether they stand in the first row, and what separates cells."""
    try:
        with _open(path) as file:
            lines = list(islice(file, 2))
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise DataError(f"cannot be read: {type(error).__name__}", where=str(path), fix="give text in UTF-8") from error
    if not lines:
        raise DataError("the table is empty", where=str(path), fix="give one row for each input")
    delimiter = max(",;\t", key=lines[0].count)
    first, *rest = csv.reader(lines, delimiter=delimiter)
    first = [cell.strip() for cell in first]
    second = rest[0] if rest else []
    # A name stands above numbers; a class that is a text has a text beneath it too.
    has_names = any(not _is_number(a) and _is_number(b) for a, b in zip(first, second, strict=False))
    has_names = has_names or (data.label in first and not _is_number(data.label))
    return (first if has_names else [str(i) for i in range(len(first))]), has_names, delimiter


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _columns(names: list[str], data: DataSource, path: Path) -> _Columns:
    label = data.label or ("label" if "label" in names else names[-1])
    if data.label == "none":
        label = ""
    wanted = data.features or tuple(name for name in names if name not in (label, data.group))
    for name in (*wanted, *filter(None, (label, data.group))):
        if name not in names:
            raise DataError(f"no column {name!r}", where=str(path), fix=nearest(name, names))
    place = {name: i for i, name in enumerate(names)}
    return _Columns([place[name] for name in wanted], place.get(label, -1), place.get(data.group, -1))


def _load(path: Path, columns: list[int], kind: Any, words: dict[str, Any]) -> Array:
    try:
        with _open(path) as file:
            return np.loadtxt(file, dtype=kind, usecols=columns, ndmin=2, quotechar='"', comments=None, **words)
    except (ValueError, OSError, EOFError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(
            f"not a table of numbers: {reason}", where=str(path), fix="correct or remove that row"
        ) from error


def _classes(path: Path, column: int, words: dict[str, Any], count: int) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the names of the classes, if they are not numbers, and the class of every row."""
    if column < 0:
        return (), np.full(count, UNLABELLED)
    cells = np.char.strip(_load(path, [column], np.str_, words)[:, 0])
    empty = np.flatnonzero(cells == "")
    if len(empty):
        what = f"{len(empty)} rows without a class (the first is number {empty[0] + 1})"
        raise DataError(what, where=str(path), fix="label or remove them")
    names = sorted(set(cells.tolist()))
    if not all(_is_number(name) and float(name) == int(float(name)) for name in names):
        return tuple(names), np.searchsorted(np.array(names), cells).astype(np.int64)
    return (), cells.astype(np.float64).astype(np.int64)


def _shaped(values: Array, shape: tuple[int, ...], path: Path) -> Array:
    if not shape:
        fix = f"set shape in [data] for the {values.shape[1]} features, such as [28, 28]"
        raise DataError("no shape", where=str(path), fix=fix)
    if int(np.prod(shape)) != values.shape[1]:
        what = f"{values.shape[1]} features for a shape of {list(shape)}"
        raise DataError(what, where=str(path), fix="correct shape or features in [data]")
    return _smallest(values).reshape(len(values), *shape)


def _smallest(values: Array) -> Array:
    is_bytes = values.size and values.min() >= 0 and values.max() <= 255 and (values == np.round(values)).all()
    return values.astype(np.uint8 if is_bytes else np.float32)


def _windows(
    values: Array, y: NDArray[np.int64], groups: Array | None, preprocess: Series, path: Path
) -> tuple[Array, NDArray[np.int64], Array]:
    """Return windows [N, length, channels], their classes, and the group or recording of each."""
    if values.shape[1] == preprocess.channels * preprocess.length:  # each row is a window already
        x = values.reshape(len(values), preprocess.length, preprocess.channels).astype(np.float32)
        return x, y, np.arange(len(x)) if groups is None else groups
    if values.shape[1] != preprocess.channels:
        what = f"{values.shape[1]} features for {preprocess.channels} channels"
        raise DataError(what, where=str(path), fix="name them by features in [data]")
    marks = (
        y
        if groups is None
        else np.unique(np.stack([y.astype(str), groups.astype(str)]), axis=1, return_inverse=True)[1]
    )
    starts = [0, *(np.flatnonzero(np.diff(marks)) + 1).tolist(), len(y)]
    found = [(a, cut(preprocess, values[a:b])) for a, b in pairwise(starts) if b - a >= preprocess.length]
    if not found:
        fix = "record for longer, or shorten length in [preprocess]"
        raise DataError(f"no recording of {preprocess.length} rows", where=str(path), fix=fix)
    x = np.concatenate([windows for _, windows in found]).astype(np.float32)
    rows = np.concatenate([np.full(len(windows), start) for start, windows in found])
    return x, y[rows], rows if groups is None else groups[rows]
