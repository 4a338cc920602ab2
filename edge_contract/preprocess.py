# SPDX-License-Identifier: Apache-2.0
"""The closed vocabulary of preprocessing that travels with a model: images here, sound and series beside it.

A description is one of three kinds: ``Preprocess`` (images; its JSON has no ``kind``), ``Audio`` and ``Series``. The
order of the steps is fixed, so that one description has one meaning. For images::

    colour → centre → resize (method, fit) → crop → pad → × scale → - mean → / std

The one numpy implementation is ``edge_agent.runner.preprocess``; training, calibration, evaluation and the device all
call it. A newer key at its default is left out of the JSON, so descriptions from before it existed keep their bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from typing import TYPE_CHECKING, Any, TypeAlias

from edge_contract.closed import check_factors, refuse_unknown
from edge_contract.errors import ManifestError, StropError
from edge_contract.fields import Fields

if TYPE_CHECKING:
    from edge_contract.audio import Audio
    from edge_contract.series import Series

__all__ = ["COLOURS", "FITS", "KINDS", "METHODS", "Preprocess", "Preprocessing", "keys", "parse"]

COLOURS = ("gray", "rgb", "bgr")
METHODS = ("bilinear", "bilinear-antialias", "bicubic", "area", "nearest")
FITS = ("stretch", "cover", "letterbox")
KINDS = ("image", "audio", "series")
_MAX_SIDE = 1 << 14


@dataclass(frozen=True)
class Preprocess:
    """How raw pixels become the model's float input.

    Attributes:
        colour: ``gray`` (1 channel), ``rgb`` or ``bgr`` (3 channels) after conversion; raw images are RGB or grey.
        resize: (height, width) in pixels; None keeps the size.
        crop: (height, width) of a centre crop after the resize; None keeps everything.
        scale: Factor on raw values, such as 1/255.
        mean: Subtracted per channel after scaling, length 1 or the number of channels.
        std: Divides per channel after the subtraction.
        method: How ``resize`` mixes pixels, one of METHODS; bilinear with half-pixel centres unless said otherwise.
        fit: What becomes of another aspect ratio: ``stretch``; ``cover`` keeps it and cuts off what hangs over;
            ``letterbox`` keeps it and fills the rest.
        centre: What is kept before the resize: one share of the shorter side gives a square, two give the shares of
            height and width; empty keeps everything.
        pad: (height, width) to which the image is filled up around its centre, after the crop.
        fill: Raw value of what ``letterbox`` and ``pad`` add, before ``scale``.

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
    method: str = "bilinear"
    fit: str = "stretch"
    centre: tuple[float, ...] = ()
    pad: tuple[int, int] | None = None
    fill: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; sizes that are None, and newer keys at their defaults, are left out."""
        document: dict[str, Any] = {"colour": self.colour, "scale": self.scale}
        document.update(mean=list(self.mean), std=list(self.std))
        for key, size in (("resize", self.resize), ("crop", self.crop), ("pad", self.pad)):
            if size is not None:
                document[key] = list(size)
        words = (("method", self.method, "bilinear"), ("fit", self.fit, "stretch"))
        document.update({key: value for key, value, default in words if value != default})
        if self.centre:
            document["centre"] = self.centre[0] if len(self.centre) == 1 else list(self.centre)
        if self.fill:
            document["fill"] = self.fill
        return document

    @classmethod
    def from_json(
        cls, document: Any, where: str = "preprocess", error: type[StropError] = ManifestError
    ) -> "Preprocess":
        """Return the description of images in a JSON or TOML object.

        Raises:
            StropError: (as ``error``) a field of the wrong type, a size below 1, a crop beyond the resize, a pad below
                either, a share outside (0, 1], a zero ``std``, or an unknown key: to skip a step that one does not know
                would change every answer.
        """
        fields = Fields(document, where, error)
        fields.text("kind", "image", among=("image",))
        colour = fields.text("colour", "gray", among=COLOURS)
        mean, std = check_factors(fields, (1,) if colour == "gray" else (1, 3), f"colour '{colour}'")
        found = cls(
            colour,
            _size(fields, document, "resize"),
            _size(fields, document, "crop"),
            fields.number("scale", 1.0),
            mean,
            std,
            fields.text("method", "bilinear", among=METHODS),
            fields.text("fit", "stretch", among=FITS),
            _centre(fields, document),
            _size(fields, document, "pad"),
            fields.number("fill", 0.0),
        )
        found._check_sizes(fields, document)
        refuse_unknown(fields)
        return found

    def _check_sizes(self, fields: Fields, document: Mapping[str, Any]) -> None:
        where, error = fields.where, fields.error
        if self.resize and self.crop and _exceeds(self.crop, self.resize):
            raise error(f"{list(self.crop)} is larger than resize {list(self.resize)}", where=f"{where}.crop")
        inner = self.crop or self.resize
        if self.pad and inner and _exceeds(inner, self.pad):
            raise error(f"{list(self.pad)} is smaller than {list(inner)}", where=f"{where}.pad")
        for key in ("method", "fit"):
            if key in document and self.resize is None:
                raise error("nothing is resized", where=f"{where}.{key}", fix=f"add resize, or leave {key} out")
        if "fill" in document and self.pad is None and self.fit != "letterbox":
            fix = 'add pad or fit = "letterbox", or leave fill out'
            raise error("nothing is filled up", where=f"{where}.fill", fix=fix)


Preprocessing: TypeAlias = "Preprocess | Audio | Series"
"""Any description; ``parse`` tells which. A name only: a control process that serves images loads no other kind."""


def parse(document: Any, where: str = "preprocess", error: type[StropError] = ManifestError) -> Preprocessing:
    """Return the description in a JSON or TOML object, of the kind that its ``kind`` names (``image`` without one).

    Raises:
        StropError: (as ``error``) as the ``from_json`` of each kind.

    Example:
        >>> parse({"kind": "series", "channels": 6, "length": 100}).hop
        100
        >>> parse({"kind": "video"})
        Traceback (most recent call last):
        edge_contract.errors.ManifestError: preprocess.kind: unknown value 'video'; use one of image, audio, series
    """
    kind = Fields(document, where, error).text("kind", "image", among=KINDS)
    return _class_of(kind).from_json(document, where, error)


def keys(kind: Any) -> tuple[str, ...]:
    """Return the keys of a kind of description; of an unknown one those of images.

    Example:
        >>> keys("series")[:3]
        ('kind', 'channels', 'length')
    """
    return ("kind", *(field.name for field in dataclass_fields(_class_of(kind))))


def _class_of(kind: Any) -> "type[Preprocess | Audio | Series]":
    if kind == "audio":
        from edge_contract.audio import Audio

        return Audio
    if kind == "series":
        from edge_contract.series import Series

        return Series
    return Preprocess


def _size(fields: Fields, document: Mapping[str, Any], key: str) -> tuple[int, int] | None:
    values = fields.integers(key, ())
    if key not in document:
        return None
    if len(values) != 2 or min(values) < 1:
        raise fields.error(f"{list(values)} is not [height, width]", where=f"{fields.where}.{key}")
    if max(values) > _MAX_SIDE:
        raise fields.error(f"{list(values)} is above {_MAX_SIDE} pixels", where=f"{fields.where}.{key}")
    return values[0], values[1]


def _centre(fields: Fields, document: Mapping[str, Any]) -> tuple[float, ...]:
    """Read one share or two."""
    value = document.get("centre")
    if not isinstance(value, list):
        shares: tuple[float, ...] = (fields.number("centre", 1.0),) if "centre" in document else ()
    else:
        shares = fields.numbers("centre")
    if (isinstance(value, list) and len(shares) != 2) or any(not 0 < share <= 1 for share in shares):
        fix = "give one share of the shorter side, or [height, width] shares, above 0 and up to 1"
        raise fields.error(f"{list(shares)} is no share", where=f"{fields.where}.centre", fix=fix)
    return shares


def _exceeds(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return inner[0] > outer[0] or inner[1] > outer[1]
