# SPDX-License-Identifier: Apache-2.0
"""What a person gives beside the files that are adopted: raw inputs, class names, pre- and post-processing."""

import hashlib
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract import preprocess as preprocesses
from edge_contract.audio import Audio
from edge_contract.errors import DataError, UsageError
from edge_contract.postprocess import POSTPROCESS, Postprocess
from edge_contract.preprocess import Preprocess, Preprocessing
from edge_contract.series import Series
from export.inspection import inspect

__all__ = ["Given", "Said", "choose", "random_inputs", "read_inputs", "read_labels", "read_roles", "read_said"]

_LEAST: Final = 4  # inputs: fewer cannot show that a runtime answers them alike
_MAX_BYTES: Final = 1 << 30
_RANDOM: Final = 16
_SAVE: Final = "write it with numpy.savez(path, x=…, y=…)"


@dataclass(frozen=True, eq=False)
class Given:
    """Raw inputs.

    Attributes:
        raw: [N, …] as the preprocessing takes them.
        labels: Right classes [N], or None.
        source: ``random``, or the file's name.
        digest: SHA-256 of the inputs.
    """

    raw: NDArray[Any]
    labels: NDArray[Any] | None
    source: str
    digest: str

    @classmethod
    def of(cls, raw: NDArray[Any], labels: NDArray[Any] | None, source: str) -> "Given":
        """Return inputs with their digest."""
        return cls(raw, labels, source, hashlib.sha256(np.ascontiguousarray(raw).tobytes()).hexdigest())


@dataclass(frozen=True)
class Said:
    """What a ``--preprocess`` file says; ``postprocess`` is None where it says nothing."""

    preprocess: Preprocessing
    postprocess: str | Postprocess | None


def read_inputs(path: Path) -> Given:
    """Return the inputs in an ``.npz`` (arrays ``x`` and, if known, ``y``) or ``.npy`` file.

    Raises:
        DataError: It is none, has no array ``x``, too few inputs, or labels that do not fit.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path.stat().st_size} bytes, more than {_MAX_BYTES}", where=str(path), fix=_SAVE)
        found = np.load(path, allow_pickle=False)
        arrays = {"x": found} if isinstance(found, np.ndarray) else _members(found, str(path))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"no array file: {error}", where=str(path), fix=_SAVE) from error
    raw, labels = arrays["x"], arrays.get("y")
    if raw.ndim < 2 or len(raw) < _LEAST:
        raise DataError(f"inputs of shape {list(raw.shape)}", where=str(path), fix=f"give at least {_LEAST}, [N, …]")
    if labels is not None and (labels.shape != raw.shape[:1] or labels.dtype.kind not in "iu"):
        what = f"{len(raw)} inputs and labels {labels.dtype} {list(labels.shape)}"
        raise DataError(what, where=str(path), fix="give one class number for each input")
    return Given.of(raw, None if labels is None else labels.astype(np.int64), path.name)


def _members(archive: Any, where: str) -> dict[str, NDArray[Any]]:
    with archive:
        if "x" not in archive.files:
            told = ", ".join(sorted(archive.files)) or "none"
            raise DataError(f"arrays {told}; 'x' is missing", where=where, fix=_SAVE)
        return {name: archive[name] for name in archive.files if name in ("x", "y")}


def random_inputs(preprocess: Preprocessing, shape: tuple[int, ...]) -> Given:
    """Return the same random inputs every time: images and sounds that look like nothing, so prefer real ones.

    Args:
        preprocess: Tells the kind of the raw inputs.
        shape: Of one input of the model, channels last where it is an image.
    """
    random = np.random.default_rng(0)
    if isinstance(preprocess, Audio):
        raw: NDArray[Any] = random.normal(0, 0.1, (_RANDOM, preprocess.length)).clip(-1, 1).astype(np.float32)
    elif isinstance(preprocess, Series):
        raw = random.normal(0, 1, (_RANDOM, preprocess.length, preprocess.channels)).astype(np.float32)
    else:
        raw = _noise(preprocess, random, shape)
    return Given.of(raw, None, "random")


def _noise(preprocess: Preprocess, random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return images of coarse patches: noise of single pixels looks alike to most networks."""
    height, width = preprocess.resize or (shape[1:3] if shape[0] in (1, 3) else shape[:2])
    patches = random.integers(0, 256, (_RANDOM, -(-height // 8), -(-width // 8), 3), np.uint8)
    return patches.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]


def read_labels(text: str) -> tuple[str, ...]:
    """Return class names: a file with one on each line, or names with commas between them.

    Raises:
        UsageError: A name is empty or stands twice.

    Example:
        >>> read_labels("cat, dog")
        ('cat', 'dog')
    """
    if not text:
        return ()
    path = Path(text)
    names = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    found = [name.strip() for name in names]
    while found and not found[-1]:
        found.pop()
    wrong = next((name for name in found if not name or found.count(name) > 1), None)
    if wrong is not None or not found:
        fix = "give each class once, with commas between them, or a file with one on each line"
        raise UsageError(f"class name {wrong or ''!r}", where="--labels", fix=fix)
    return tuple(found)


def read_said(path: Path) -> Said:
    """Return what a TOML file says: ``[preprocess]`` and, if it likes, ``postprocess`` (a word or a table).

    Raises:
        UsageError: It cannot be read, or says something else; names the key.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from error
    unknown = sorted(document.keys() - {"preprocess", "postprocess"})
    if unknown or not isinstance(document.get("preprocess"), dict):
        what = f"unknown key '{unknown[0]}'" if unknown else "no table [preprocess]"
        raise UsageError(what, where=str(path), fix="write [preprocess] and, if needed, [postprocess]")
    found = preprocesses.parse(document["preprocess"], f"{path} [preprocess]", UsageError)
    return Said(found, _postprocess(document.get("postprocess"), path))


def _postprocess(value: Any, path: Path) -> str | Postprocess | None:
    if value is None or value in POSTPROCESS:
        return value  # type: ignore[no-any-return]  # one of the words
    if not isinstance(value, dict):
        raise UsageError(f"unknown value {value!r}"[:80], where=f"{path} postprocess", fix="see docs/postprocessing.md")
    return Postprocess.from_json(value, f"{path} [postprocess]", UsageError)


def read_roles(options: list[str]) -> dict[str, str]:
    """Return output → role of options such as ``Identity_1=scores``; raises UsageError where one is not."""
    found = {}
    for option in options:
        output, _, role = option.rpartition("=")
        if not output:
            raise UsageError(f"{option!r} names no role", where="--role", fix="write OUTPUT=ROLE")
        found[output] = role
    return found


def choose(path: Path | None, preprocess: Preprocessing, models: Sequence[Path], *, is_random: bool) -> Given:
    """Return the inputs that a person asked for.

    Args:
        path: The file with real ones, or None.
        preprocess: Tells the kind of random ones.
        models: Tell their size.
        is_random: Random ones are asked for.

    Raises:
        UsageError: Both or neither.
        DataError, ModelError: A file that cannot be read.
    """
    if (path is not None) == is_random:
        raise UsageError("give either --inputs or --inputs-random", fix="real inputs prove more than random ones")
    if path is not None:
        return read_inputs(path)
    shapes = [shape for _, shape in inspect.describe(models[0]).inputs.values()]
    return random_inputs(preprocess, shapes[0][1:] if shapes else ())
