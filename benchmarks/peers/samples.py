# SPDX-License-Identifier: Apache-2.0
"""What the rows are calibrated and judged on, the same for every tool.

The two small networks: Fashion-MNIST, 256 class-balanced training images against all 10 000 test images.
EfficientNet-Lite0: natural images out of three packages, the even ones for calibration, the odd ones for judgement;
crops of one image are correlated, so that 240 crops say less than 240 images would.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["CALIBRATION", "CROPS", "Samples", "fashion", "natural", "paths"]

CALIBRATION: Final = 256
CROPS: Final = 240
_SIZE: Final = 224
_SCIKIT_IMAGE: Final = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png")
_SCIKIT_IMAGE_MORE: Final = ("retina.jpg", "rocket.jpg")
_SCIKIT_LEARN: Final = ("china.jpg", "flower.jpg")


@dataclass(frozen=True, eq=False)
class Samples:
    """Preprocessed data of one network.

    Attributes:
        calibration: float32 [256, C, H, W] (or as many as were asked for).
        inputs: float32 [N, C, H, W], on which every file is judged.
        labels: int64 [N], -1 where no class is known.
        judged: bool [N], the samples that count for agreement and divergence.
    """

    calibration: NDArray[np.float32]
    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    judged: NDArray[np.bool_]


def fashion(calibration: int = CALIBRATION) -> Samples:
    """Return Fashion-MNIST's test images, and class-balanced training images for calibration."""
    from tests.zoo import data

    images, labels = data.load("t10k")
    inputs = np.asarray(data.scaled(images).numpy())
    return Samples(np.asarray(data.calibration(calibration).numpy()), inputs, labels, np.ones(len(labels), bool))


def paths() -> list[Path]:
    """Return the natural images' files: foolbox's twenty by number, then scikit-image's and scikit-learn's by name."""
    import foolbox
    import skimage
    import sklearn

    first = sorted((Path(foolbox.__file__).parent / "data").glob("imagenet_*.jpg"))
    second = [Path(skimage.__file__).parent / "data" / name for name in (*_SCIKIT_IMAGE, *_SCIKIT_IMAGE_MORE)]
    return first + second + [Path(sklearn.__file__).parent / "datasets/images" / name for name in _SCIKIT_LEARN]


def natural(calibration: int = CALIBRATION, crops: int = CROPS) -> Samples:
    """Return crops of natural images and, after them, foolbox's twenty whole images with their ImageNet classes."""
    files = paths()
    judged = _crops(files[1::2], crops, seed=1)
    labelled = [path for path in files if path.name.startswith("imagenet_")]
    whole = np.stack([_normalised(_centre(path)) for path in labelled])
    labels = [int(path.stem.rsplit("_", 1)[1]) for path in labelled]  # imagenet_00_243.jpg is of class 243
    return Samples(
        _crops(files[::2], calibration, seed=0),
        np.concatenate([judged, whole]),
        np.array([-1] * crops + labels, np.int64),
        np.arange(crops + len(labels)) < crops,
    )


def _centre(path: Path) -> NDArray[np.uint8]:
    """The published evaluation of EfficientNet-Lite: a centre crop of 87.5 % of the shorter side, bicubic to 224."""
    from PIL import Image

    with Image.open(path) as opened:
        image = opened.convert("RGB")
    side = int(_SIZE / (_SIZE + 32) * min(image.size))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return _resized(image, (left, top, left + side, top + side))


def _resized(image: object, box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    from PIL import Image

    assert isinstance(image, Image.Image)
    return np.asarray(image.crop(box).resize((_SIZE, _SIZE), Image.Resampling.BICUBIC), np.uint8)


def _crops(files: list[Path], count: int, seed: int) -> NDArray[np.float32]:
    """Random squares of 40 to 100 % of the shorter side, the files in turn, half of them mirrored: [count, 3, H, W]."""
    from PIL import Image

    generator, found = np.random.default_rng(seed), np.empty((count, 3, _SIZE, _SIZE), np.float32)
    for index in range(count):
        with Image.open(files[index % len(files)]) as opened:
            image = opened.convert("RGB")
        side = int(generator.uniform(0.4, 1.0) * min(image.size))
        left, top = (int(generator.integers(0, extent - side + 1)) for extent in image.size)
        crop = _normalised(_resized(image, (left, top, left + side, top + side)))
        found[index] = crop[:, :, ::-1] if generator.random() < 0.5 else crop
    return found


def _normalised(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(x - 127) / 128, channels first: what the published weights were trained with."""
    return ((image.astype(np.float32) - 127.0) / 128.0).transpose(2, 0, 1)


SAMPLES: Final[dict[str, Callable[..., Samples]]] = {
    "mobilenet-v2": fashion,
    "mobilenet-v3": fashion,
    "efficientnet-lite0": natural,
}
