# SPDX-License-Identifier: Apache-2.0
"""Inputs to measure with: the bundle's golden ones, a person's own, or random ones when nothing else was asked for.

Real inputs differ from each other, so no cache and no branch predictor learns one by heart; some layers take shorter
on random noise or on zeros than on what a camera sees.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.bare import Slot
from benchmarks.plan import BenchPlan
from edge_agent.runner.contents import Contents
from edge_agent.runner.preprocess import is_single
from edge_agent.runner.tensors import Encoder
from edge_contract import canonical
from edge_contract.artefact import Artefact
from edge_contract.errors import DataError, UsageError
from edge_contract.preprocess import Preprocessing

__all__ = ["WANTED", "Described", "described", "feeds", "files_of", "raws", "read_file"]

Array = NDArray[Any]
Feed = tuple[Array, ...]
WANTED: Final = 64
"""Different inputs that a measurement should have."""
_MOST: Final = 256
_MOST_BYTES: Final = 64 * 1024 * 1024
_PICTURES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


class Described:
    """What a bundle says of the file: its tensors, its preprocessing, and its golden inputs."""

    def __init__(self, contents: Contents, artefact: Artefact) -> None:
        self.contents, self.artefact = contents, artefact
        self.preprocess: Preprocessing = contents.manifest.preprocess

    @property
    def dtype(self) -> str:
        """Type of the file's input."""
        return self.artefact.input.dtype

    def golden(self) -> list[Array]:
        """Return the golden inputs."""
        document = canonical.loads(self.contents.read(self.contents.manifest.golden))
        return list(self.contents.array(str(document["inputs"])))

    def encoder(self) -> Callable[[Array], Array]:
        """Return what makes the file's input [1, …] of a raw one; its result is good until the next call."""
        return Encoder(self.preprocess, self.artefact.input)


def described(plan: BenchPlan) -> Described | None:
    """Return what the plan's bundle says of the file, or None for a bare file.

    Raises:
        BundleError, ManifestError: The folder is no bundle.
        UsageError: The bundle has no such file.
    """
    if not plan.bundle:
        return None
    contents = Contents.open(Path(plan.bundle))
    name = Path(plan.artefact).resolve().relative_to(Path(plan.bundle).resolve()).as_posix()
    for artefact in contents.manifest.artefacts:
        if artefact.path == name:
            return Described(contents, artefact)
    raise UsageError(f"the bundle has no model file '{name}'", where=plan.bundle)


def files_of(folder: Path) -> list[Path]:
    """Return the pictures and .npy files of a folder, in the order of their names.

    Raises:
        DataError: There are none.
    """
    kinds = _PICTURES | {".npy"}
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in kinds and path.name[0] != ".")
    if not found:
        raise DataError(
            "no picture and no .npy file", where=str(folder), fix="give a folder of inputs, or an .npz file"
        )
    return found[:_MOST]


def read_file(path: Path) -> Array:
    """Return one raw input; raises DataError when it is neither picture nor array."""
    if path.suffix.lower() in _PICTURES:
        from edge_agent.runner.pictures import decode

        return decode(path.read_bytes(), where=str(path))
    return _array(path)


def raws(plan: BenchPlan, about: Described | None) -> list[Array]:
    """Return raw inputs: of the plan's data, else the golden ones.

    Raises:
        DataError: The data cannot be read, or hold nothing.
        UsageError: A bare file has no golden inputs.
    """
    if plan.data:
        return _bounded(_given(Path(plan.data), about))
    if about is None:
        what = "a bare file has no inputs of its own"
        raise UsageError(what, where=plan.artefact, fix="give --data, or --input random")
    return _bounded(about.golden())


def _given(path: Path, about: Described | None) -> Sequence[Array]:
    if path.is_dir():
        return [read_file(one) for one in files_of(path)]
    array = _array(path)
    if about is not None and is_single(about.preprocess, array):
        return [array]
    return list(array[:_MOST])


def _array(path: Path) -> Array:
    """Return an .npy file's array, or ``x`` of an .npz file."""
    try:
        found: Any = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"no array: {error}"[:200], where=str(path), fix="give .npy, or .npz with x") from error
    if isinstance(found, np.ndarray):
        return found
    with found:
        if "x" not in found:
            raise DataError(f"no array 'x' among {', '.join(found.files)}", where=str(path), fix="save the inputs as x")
        array: Array = found["x"]
        return array


def _bounded(values: Sequence[Array]) -> list[Array]:
    """Return so many that they stay in memory beside a model."""
    if not len(values):
        raise DataError("no input", where="bench", fix="give inputs")
    room = max(_MOST_BYTES // max(values[0].nbytes, 1), 1)
    return [np.ascontiguousarray(one) for one in values[: min(_MOST, room)]]


def feeds(plan: BenchPlan, slots: Sequence[Slot], about: Described | None) -> list[Feed]:
    """Return what the bare runtime is given: for each run one array for each input of the file.

    Raises:
        DataError: The data do not fit the file.
        UsageError: There are none.
    """
    if plan.input == "random":
        return _random(slots)
    given = raws(plan, about)
    if about is not None:
        encode = about.encoder()
        ones = [np.array(encode(raw)) for raw in given]
    else:
        ones = [_fitted(raw, slots, plan) for raw in given]
    batch = slots[0].shape[0] if slots[0].shape else 1
    return [(one,) for one in _batched(ones, batch)]


def _fitted(raw: Array, slots: Sequence[Slot], plan: BenchPlan) -> Array:
    """Return one input of a bare file; it must have the file's own shape and type already."""
    wanted = slots[0]
    if len(slots) > 1:
        raise DataError(f"the file has {len(slots)} inputs", where=plan.artefact, fix="use --input random")
    shape = raw.shape if raw.shape[:1] == (1,) and raw.ndim == len(wanted.shape) else (1, *raw.shape)
    if shape[1:] != wanted.shape[1:] or raw.dtype.name != wanted.dtype:
        what = f"inputs of {raw.dtype} {list(raw.shape)}, the file takes {wanted.dtype} {list(wanted.shape[1:])}"
        raise DataError(what, where=plan.data, fix="prepare them, or give the bundle, which knows how")
    return raw.reshape(shape)


def _batched(ones: Sequence[Array], batch: int) -> list[Array]:
    """Return batches that begin at each input, round the end: as many different ones as there are inputs."""
    if batch <= 1:
        return list(ones)
    return [np.concatenate([ones[(i + j) % len(ones)] for j in range(batch)]) for i in range(len(ones))]


def _random(slots: Sequence[Slot]) -> list[Feed]:
    draw = np.random.default_rng(0)
    size = sum(int(np.prod(slot.shape)) * np.dtype(slot.dtype).itemsize for slot in slots)
    return [
        tuple(_drawn(draw, slot) for slot in slots) for _ in range(max(min(WANTED, _MOST_BYTES // max(size, 1)), 1))
    ]


def _drawn(draw: np.random.Generator, slot: Slot) -> Array:
    """Return codes of the whole range, floats from 0 to 1, indices of 0 and 1."""
    kind = np.dtype(slot.dtype)
    if kind.kind == "f":
        return draw.random(slot.shape).astype(kind)
    if kind.itemsize == 1 and kind.kind in "iu":
        limits = np.iinfo(kind)
        return draw.integers(limits.min, limits.max, slot.shape, kind, endpoint=True)
    return draw.integers(0, 2, slot.shape).astype(kind)
