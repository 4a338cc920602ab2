# SPDX-License-Identifier: Apache-2.0
"""Inputs that devices captured, as ``strop fleet capture export`` writes them: raw arrays, and what is known of each.

An exported ``.npz`` holds one array for each input and ``index``, a text array of one JSON line for each: ``name``,
``device``, ``number``, ``why``, ``time`` and more. A folder may hold several of them, and single inputs as ``.npy``;
the name of the folder that a ``.npy`` lies in stands for its device.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import DataError

__all__ = ["Captured", "holds_captures", "read_captured"]

INDEX: Final = "index"
_FIX: Final = "write it with strop fleet capture export"
_Sample = tuple[Mapping[str, Any], NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Captured:
    """Captured inputs, those of one device together and in the order in which it saw them.

    Attributes:
        x: Raw inputs [N, …].
        facts: Of each: ``device``, ``number``, ``why``, ``time`` and so on, where they are known.
    """

    x: NDArray[Any]
    facts: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def devices(self) -> dict[str, int]:
        """Device → inputs of it, the most first; empty for inputs that no device signs."""
        return dict(Counter(name for one in self.facts if (name := str(one.get("device", "")))).most_common())


def holds_captures(path: Path) -> bool:
    """True for a capture's ``.npz``, and for a folder with arrays in it instead of images."""
    if path.is_dir():
        return next(_files(path), None) is not None
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return INDEX in archive.files
    except Exception:  # a broken archive is refused by whoever reads it
        return False


def read_captured(path: Path) -> Captured:
    """Return the captured inputs in an ``.npz`` or in a folder of such.

    Raises:
        DataError: Nothing there, a damaged file, or inputs of different shapes or types; names the file or device.
    """
    files = list(_files(path)) if path.is_dir() else [path]
    samples = [
        sample for file in files for sample in (_archive(file) if file.suffix == ".npz" else _single(file, path))
    ]
    if not samples:
        raise DataError("no captured inputs", where=str(path), fix=_FIX)
    samples.sort(key=_place)
    _check_alike(samples, path)
    return Captured(np.stack([array for _, array in samples]), tuple(facts for facts, _ in samples))


def _files(folder: Path) -> Any:
    found = (path for path in sorted(folder.rglob("*")) if path.suffix in (".npz", ".npy"))
    return (path for path in found if path.is_file() and not path.name.startswith("."))


def _archive(path: Path) -> list[_Sample]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if INDEX not in archive.files:
                return [({}, one) for one in archive["x"]]
            facts = [json.loads(str(line)) for line in archive[INDEX]]
            return [(one, archive[one["name"]]) for one in facts]
    except Exception as error:
        what = f"no captured inputs: {type(error).__name__}: {error}"
        raise DataError(what, where=str(path), fix=_FIX) from error


def _single(path: Path, folder: Path) -> list[_Sample]:
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:
        raise DataError(f"no array: {type(error).__name__}", where=str(path), fix=_FIX) from error
    number = int(path.stem) if path.stem.isdigit() else 0
    device = path.parent.name if path.parent != folder else ""
    return [({"name": path.stem, "device": device, "number": number}, array)]


def _place(sample: _Sample) -> tuple[str, float, int]:
    facts = sample[0]
    return str(facts.get("device", "")), _number(facts, "time"), int(_number(facts, "number"))


def _number(facts: Mapping[str, Any], key: str) -> float:
    value = facts.get(key, 0)
    return float(value) if isinstance(value, int | float) else 0.0


def _check_alike(samples: list[_Sample], path: Path) -> None:
    kinds = Counter((array.shape, array.dtype.str) for _, array in samples)
    (shape, kind), _ = kinds.most_common(1)[0]
    for facts, array in samples:
        if (array.shape, array.dtype.str) != (shape, kind):
            name = facts.get("name", "an input")
            what = f"'{name}' is {array.dtype} {list(array.shape)}, most are {np.dtype(kind)} {list(shape)}"
            raise DataError(what, where=str(path), fix="capture from devices with one kind of source")
