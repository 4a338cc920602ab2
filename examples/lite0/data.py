# SPDX-License-Identifier: Apache-2.0
"""Photographs without labels for calibration and agreement, and twenty labelled ones of ImageNet for the test.

The photographs are scikit-image's and scikit-learn's (BSD-3), the labelled ones foolbox's (MIT; the images under their
own terms); all lie in installed packages.
"""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from compress.sources import DataSplits, Split
from edge_contract.errors import MissingDependencyError

__all__ = ["load"]

SIDE = 256
COUNTS = {"train": 16, "calibration": 128, "validation": 128}
KNOWN = (  # show a class of ImageNet: a cat, a cup, a moped
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/motorcycle_left.png"),
)
OTHERS = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/hubble_deep_field.jpg"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
)


def _folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        fix = "run pip install 'strop[examples]'"
        raise MissingDependencyError(f"photographs are in the package {package}", fix=fix)
    return Path(found.origin).parent


def _photos(names: tuple[tuple[str, str], ...]) -> list[Any]:
    from PIL import Image

    return [Image.open(_folder(package) / name).convert("RGB") for package, name in names]


def _labelled() -> Split:
    """Return the twenty images of foolbox; the number of the class stands in the name."""
    from PIL import Image

    files = sorted(_folder("foolbox").joinpath("data").glob("imagenet_*"))
    images = [Image.open(file).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC) for file in files]
    y = [int(file.stem.rpartition("_")[2]) for file in files]
    return Split(np.stack([np.asarray(image) for image in images]), np.array(y, np.int64))


def _crops(photos: list[Any], count: int, draw: np.random.Generator) -> Split:
    """Return random square pieces, every other one mirrored, between half the shorter side and all of it."""
    from PIL import Image, ImageOps

    made = []
    for i in range(count):
        photo = photos[i % len(photos)]
        side = int(draw.integers(min(photo.size) // 2, min(photo.size) + 1))
        left, top = (int(draw.integers(0, length - side + 1)) for length in photo.size)
        box = (left, top, left + side, top + side)
        piece = photo.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
        made.append(np.asarray(ImageOps.mirror(piece) if i % 2 else piece))
    return Split.unlabelled(np.stack(made))


@cache
def load() -> DataSplits:
    """Return raw uint8 [N,256,256,3]; only the test split has labels.

    Train and calibration show pieces of eight photographs; validation of the three that show a class of ImageNet, since
    agreement is a matter of luck where the network itself does not know. It says how faithful the integers are, and
    nothing about how well the network sees.

    Raises:
        MissingDependencyError: A package is missing.
    """
    known, others = _photos(KNOWN), _photos(OTHERS)
    shown = {"train": known + others, "calibration": known + others, "validation": known}
    draw = np.random.default_rng(20_260)
    parts = {name: _crops(shown[name], count, draw) for name, count in COUNTS.items()}
    return DataSplits(**parts, test=_labelled(), labels=tuple(str(i) for i in range(1000)))
