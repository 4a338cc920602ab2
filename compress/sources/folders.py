# SPDX-License-Identifier: Apache-2.0
"""Folders of images: one folder for each class, or for each split with one for each class in it."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress.cutting import sizes_of, split_by_class
from compress.recipe_table import nearest
from compress.splits import NAMES, UNLABELLED, DataSplits, Split
from edge_agent.runner.images import arrange
from edge_contract.errors import DataError, MissingDependencyError
from edge_contract.preprocess import Preprocess, Preprocessing

__all__ = ["read_folder", "read_images", "read_labelled_images"]

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
Image = NDArray[np.uint8]
Named = list[tuple[Path, str]]
"""Files with the name of their class, empty for none."""


def read_folder(folder: Path, preprocess: Preprocessing, *, seed: int) -> DataSplits:
    """Return the splits of a folder ``CLASS/*.png``, or ``train/CLASS/*.png``, ``test/CLASS/*.png`` and so on.

    A folder without splits is split by class. ``train`` and ``test`` alone give calibration and validation from
    ``train``. Classes are numbered in the order of their names. Images without class folders have no labels.

    Images of different sizes are resized to the recipe's ``resize`` by the same code as on the device, and rounded to
    whole pixel values, so that resizing them once more changes nothing.

    Raises:
        DataError: An image cannot be read, stands in no class, in an unknown one, or twice; names the file.
        MissingDependencyError: Pillow is not installed.
    """
    kind = _check_kind(preprocess, folder)
    names = [name for name in NAMES if (folder / name).is_dir()]
    named = {name: _files(folder / name) for name in names} if names else {"": _files(folder)}
    labels = _labels(named, folder)
    x, y = _stacked([item for name in named for item in named[name]], labels, kind, folder)
    if not names:
        return split_by_class(x, y, sizes_of(len(x)), seed=seed, labels=labels)
    edges = np.cumsum([0, *(len(named[name]) for name in names)])
    parts = {n: Split(x[a:b], y[a:b]) for n, a, b in zip(names, edges, edges[1:], strict=False)}
    return _completed(parts, labels, seed, folder)


def read_images(folder: Path, preprocess: Preprocessing) -> NDArray[Any]:
    """Return every image of a folder, raw, whatever class folder it stands in: inputs without labels.

    Raises:
        DataError, MissingDependencyError: As ``read_folder``.
    """
    found = _check_kind(preprocess, folder)
    return _stacked([(path, "") for path, _ in _files(folder)], (), found, folder)[0]


def read_labelled_images(folder: Path, preprocess: Preprocessing, labels: tuple[str, ...]) -> Split:
    """Return the images of a folder ``CLASS/*.png`` with their classes, and their paths as metadata ``name``.

    Args:
        folder: Classes that it lacks are no fault.
        preprocess: Of the recipe.
        labels: Names of the classes, in the order of the model's outputs.

    Raises:
        DataError, MissingDependencyError: As ``read_folder``; or a class that the model does not know.
    """
    kind, named = _check_kind(preprocess, folder), _files(folder)
    unknown = next((name for _, name in named if name not in labels), None)
    if unknown is not None:
        what = f"class folder '{unknown}' is none of the model's classes" if unknown else "images without class folders"
        raise DataError(what, where=str(folder), fix=nearest(unknown, labels, verb="rename it to"))
    x, y = _stacked(named, labels, kind, folder)
    return Split(x, y, {"name": np.array([str(path.relative_to(folder)) for path, _ in named])})


def _check_kind(preprocess: Preprocessing, folder: Path) -> Preprocess:
    if not isinstance(preprocess, Preprocess):
        raise DataError("images for a model of another kind", where=str(folder), fix='use kind = "image"')
    return preprocess


def _files(folder: Path) -> Named:
    """Return every image with its class; an empty list if there is none."""
    direct = [(path, "") for path in _images(folder)]
    classes = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    inside = [(path, one.name) for one in classes for path in _images(one)]
    if direct and inside:
        what = f"{len(direct)} images stand beside the class folders (the first is {direct[0][0].name})"
        raise DataError(what, where=str(folder), fix="move each into the folder of its class")
    empty = [one.name for one in classes if not _images(one)]
    if empty:
        raise DataError(f"class folder '{empty[0]}' holds no image", where=str(folder), fix="fill or remove it")
    if not direct and not inside:
        fix = f"give CLASS/*.png; {', '.join(SUFFIXES)} are read"
        raise DataError("no images", where=str(folder), fix=fix)
    return direct or inside


def _images(folder: Path) -> list[Path]:
    found = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES)


def _labels(named: dict[str, Named], folder: Path) -> tuple[str, ...]:
    """Return the classes: those of the first labelled split, of which the others may have no new ones."""
    labels: tuple[str, ...] = ()
    for name, items in named.items():
        found = sorted({one for _, one in items if one})
        labels = labels or tuple(found)
        unknown = [one for one in found if one not in labels]
        if unknown:
            fix = f"{nearest(unknown[0], labels, verb='rename it to')}, or train on it too"
            raise DataError(f"class folder '{unknown[0]}' is new", where=f"{folder}/{name}", fix=fix)
    return labels


def _stacked(
    items: Named, labels: tuple[str, ...], preprocess: Preprocess, folder: Path
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    images = [_read(path) for path, _ in items]
    _check_twice(items, images, folder)
    if any(image.ndim == 3 for image in images):
        images = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in images]
    if len({image.shape for image in images}) > 1:
        images = list(_resized(images, preprocess, folder))
    y = [labels.index(name) if name else UNLABELLED for _, name in items]
    return np.stack(images), np.array(y, np.int64)


def _read(path: Path) -> Image:
    """Return an image as uint8 [H, W] or [H, W, 3], upright; a 16-bit one is refused."""
    try:
        from PIL import Image as Pillow
        from PIL import ImageOps
    except ImportError as error:
        raise MissingDependencyError("Pillow reads images", where=str(path), fix="run pip install pillow") from error
    try:
        with Pillow.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith(("I", "F")):
                raise DataError(f"pixels of type {image.mode}", where=str(path), fix="write it with 8 bits a channel")
            return np.asarray(image.convert("L" if image.mode in {"1", "L", "LA"} else "RGB"), np.uint8)
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds for a broken file
        what = f"no readable image: {type(error).__name__}"
        raise DataError(what, where=str(path), fix="write it again, or remove it") from error


def _check_twice(items: Named, images: list[Image], folder: Path) -> None:
    seen: dict[bytes, Path] = {}
    for (path, _), image in zip(items, images, strict=True):
        print_ = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).digest()
        if print_ in seen:
            first, second = (one.relative_to(folder) for one in (seen[print_], path))
            fix = "keep it once, in its own class and split"
            raise DataError(f"{first} and {second} are the same image", where=str(folder), fix=fix)
        seen[print_] = path


def _resized(images: list[Image], preprocess: Preprocess, folder: Path) -> Iterator[Image]:
    if preprocess.resize is None or preprocess.centre:
        what = "images of different sizes"
        fix = "set resize in [preprocess]" if preprocess.resize is None else "cut them before, and leave centre out"
        raise DataError(what, where=str(folder), fix=fix)
    geometry = replace(Preprocess(resize=preprocess.resize), method=preprocess.method, fit=preprocess.fit)
    for image in images:
        colour = "rgb" if image.ndim == 3 else "gray"
        found = arrange(replace(geometry, colour=colour, fill=preprocess.fill), image[None])[0]
        whole = np.clip(np.round(found), 0, 255).astype(np.uint8)
        yield whole if image.ndim == 3 else whole[..., 0]


def _completed(parts: dict[str, Split], labels: tuple[str, ...], seed: int, folder: Path) -> DataSplits:
    if "train" not in parts or "test" not in parts:
        missing = "train" if "train" not in parts else "test"
        raise DataError(f"no folder '{missing}'", where=str(folder), fix="make train/ and test/, or neither")
    lacking = [name for name in ("calibration", "validation") if name not in parts]
    if lacking:
        train, sizes = parts["train"], dict.fromkeys(NAMES, 0)
        share = sizes_of(len(train))
        sizes.update({name: share[name] for name in lacking})
        sizes["train"] = len(train) - sum(sizes.values())
        cut = dict(split_by_class(train.x, train.y, sizes, seed=seed).items())
        parts = {**parts, "train": cut["train"], **{name: cut[name] for name in lacking}}
    return DataSplits(**parts, labels=labels)
