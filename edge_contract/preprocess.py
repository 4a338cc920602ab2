# SPDX-License-Identifier: Apache-2.0
"""The closed vocabulary of preprocessing and post-processing that travels with a model.

Order is fixed, so that one description has one meaning: colour → resize → crop → scale → (x - mean) / std.
The one numpy implementation is ``edge_agent.runner.preprocess``; training, calibration, evaluation and the
device all call it.
"""

from dataclasses import dataclass
from typing import Any

from edge_contract.errors import ManifestError, StropError
from edge_contract.fields import Fields

__all__ = ["COLOURS", "POSTPROCESS", "Preprocess"]

COLOURS = ("gray", "rgb")
POSTPROCESS = ("softmax", "argmax", "none")


@dataclass(frozen=True)
class Preprocess:
    """How raw pixels become the model's float input.

    Attributes:
        colour: ``gray`` (1 channel) or ``rgb`` (3 channels) after conversion.
        resize: (height, width) in pixels, bilinear with half-pixel centres; None keeps the size.
        crop: (height, width) of a centre crop after the resize; None keeps everything.
        scale: Factor on raw values, such as 1/255.
        mean: Subtracted per channel after scaling, length 1 or the number of channels.
        std: Divides per channel after the subtraction.

    Example:
        >>> Preprocess.from_json({"resize": [28, 28], "scale": 0.5}).to_json()["resize"]
        [28, 28]
    """

    colour: str = "gray"
    resize: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; sizes that are None are left out."""
        document: dict[str, Any] = {"colour": self.colour, "scale": self.scale}
        document.update(mean=list(self.mean), std=list(self.std))
        for key, size in (("resize", self.resize), ("crop", self.crop)):
            if size is not None:
                document[key] = list(size)
        return document

    @classmethod
    def from_json(
        cls, document: Any, where: str = "preprocess", error: type[StropError] = ManifestError
    ) -> "Preprocess":
        """Return the description in a JSON or TOML object.

        Raises:
            StropError: (as ``error``) a field of the wrong type, a size below 1, a crop beyond the resize, a zero
                ``std``, or an unknown key: to skip a step that one does not know would change every answer.
        """
        fields = Fields(document, where, error)

        def size(key: str) -> tuple[int, int] | None:
            values = fields.integers(key, ())
            if key not in document:
                return None
            if len(values) != 2 or min(values) < 1:
                raise error(f"{list(values)} is not [height, width]", where=f"{where}.{key}")
            return values[0], values[1]

        colour = fields.text("colour", "gray", among=COLOURS)
        mean, std = fields.numbers("mean", [0.0]), fields.numbers("std", [1.0])
        for key, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, 3 if colour == "rgb" else 1):
                raise error(f"{len(values)} values for colour '{colour}'", where=f"{where}.{key}")
        if 0.0 in std:
            raise error("a standard deviation of 0", where=f"{where}.std")
        found = cls(colour, size("resize"), size("crop"), fields.number("scale", 1.0), mean, std)
        if found.resize and found.crop and (found.crop[0] > found.resize[0] or found.crop[1] > found.resize[1]):
            raise error(f"{list(found.crop)} is larger than resize {list(found.resize)}", where=f"{where}.crop")
        for key in sorted(fields.rest()):
            raise error(f"unknown key '{key}'", where=where, fix="correct its spelling, or update Strop")
        return found
