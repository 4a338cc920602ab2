# SPDX-License-Identifier: Apache-2.0
"""Picture files to raw images, by OpenCV or Pillow, whichever is installed; neither is needed otherwise."""

import importlib
import io
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import DataError, MissingDependencyError

__all__ = ["MAX_PIXELS", "decode", "opencv"]

Array = NDArray[Any]
MAX_PIXELS: Final = 64_000_000
"""A picture of a few kilobytes may unpack to gigabytes; the largest camera module of the boards has 64 megapixels."""


def opencv() -> Any:
    """Return the module cv2.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise MissingDependencyError("OpenCV is not installed", fix="pip install opencv-python-headless") from error


def decode(data: bytes, *, is_gray: bool = False, where: str = "picture") -> NDArray[np.uint8]:
    """Return a picture's pixels, uint8 [H, W, 3] in the order red, green, blue; [H, W] for gray.

    Pillow is asked first: it tells the size before it unpacks anything.

    Raises:
        DataError: No picture, or more than ``MAX_PIXELS``.
        MissingDependencyError: Neither Pillow nor OpenCV is installed.
    """
    try:
        pillow = importlib.import_module("PIL.Image")
    except ImportError:
        return _by_opencv(data, is_gray=is_gray, where=where)
    try:
        with pillow.open(io.BytesIO(data)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"{picture.width} × {picture.height} pixels", where=where, fix="send a smaller picture")
            return np.array(picture.convert("L" if is_gray else "RGB"))
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
        raise DataError(f"no picture: {error}"[:200], where=where) from error


def _by_opencv(data: bytes, *, is_gray: bool, where: str) -> NDArray[np.uint8]:
    try:
        cv2 = opencv()
    except MissingDependencyError as error:
        raise MissingDependencyError("nothing here reads pictures", fix="pip install pillow") from error
    flag = cv2.IMREAD_GRAYSCALE if is_gray else cv2.IMREAD_COLOR
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if data else None
    except cv2.error as error:
        raise DataError(f"no picture: {error}"[:200], where=where) from error
    if found is None:
        raise DataError("no picture", where=where)
    return np.asarray(found if is_gray else cv2.cvtColor(found, cv2.COLOR_BGR2RGB), np.uint8)
