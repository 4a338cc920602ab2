# SPDX-License-Identifier: Apache-2.0
"""The closed vocabulary of boxes: how a detector's numbers become boxes, and which of them stay."""

from dataclasses import dataclass
from typing import Any

from edge_contract.closed import bounded, refuse_unknown
from edge_contract.errors import StropError
from edge_contract.fields import Fields

__all__ = ["ORDERS", "AnchorLayer", "Anchors", "Boxes", "Suppression"]

ORDERS = ("xywh", "yxhw", "xyxy", "yxyx")
_MAX_LAYERS, _MAX_SIZES, _MAX_STRIDE, _MAX_KEYPOINTS, _MAX_KEPT = 16, 64, 4096, 512, 10_000


@dataclass(frozen=True)
class AnchorLayer:
    """The anchors of one feature map: the same sizes in every cell.

    Attributes:
        stride: Input pixels from one cell to the next.
        sizes: (height, width) of each anchor of a cell, as shares of the input's sides.
    """

    stride: int
    sizes: tuple[tuple[float, float], ...]

    def to_json(self) -> dict[str, Any]:
        return {"stride": self.stride, "sizes": [list(size) for size in self.sizes]}

    @classmethod
    def from_json(cls, document: Any, where: str, error: type[StropError]) -> "AnchorLayer":
        fields = Fields(document, where, error)
        stride, items = bounded(fields, "stride", _MAX_STRIDE), fields.items("sizes")
        if not 1 <= len(items) <= _MAX_SIZES:
            raise error(f"{len(items)} sizes, not 1 to {_MAX_SIZES}", where=f"{where}.sizes")
        sizes = [Fields({"size": item}, f"{where}.sizes[{i}]", error).numbers("size") for i, item in enumerate(items)]
        for i, size in enumerate(sizes):
            if len(size) != 2 or min(size) <= 0:
                raise error(f"{list(size)} is not [height, width]", where=f"{where}.sizes[{i}]")
        refuse_unknown(fields)
        return cls(stride, tuple((size[0], size[1]) for size in sizes))


@dataclass(frozen=True)
class Anchors:
    """Prior boxes, in the order of the model's outputs: layer by layer, row by row, cell by cell, size by size.

    Attributes:
        layers: One for each feature map; its grid is ⌈height / stride⌉ × ⌈width / stride⌉ of the model's input.
        offset: Where in its cell an anchor's centre is: (column + offset) / columns of the grid.

    Example:
        >>> face = Anchors((AnchorLayer(8, ((1.0, 1.0),) * 2), AnchorLayer(16, ((1.0, 1.0),) * 6)))
        >>> face.count(128, 128)
        896
    """

    layers: tuple[AnchorLayer, ...]
    offset: float = 0.5

    def count(self, height: int, width: int) -> int:
        """Return the number of anchors for an input of so many pixels."""
        return sum(-(-height // a.stride) * -(-width // a.stride) * len(a.sizes) for a in self.layers)

    def to_json(self) -> dict[str, Any]:
        return {"layers": [layer.to_json() for layer in self.layers], "offset": self.offset}

    @classmethod
    def from_json(cls, document: Any, where: str, error: type[StropError]) -> "Anchors":
        fields = Fields(document, where, error)
        items = fields.items("layers")
        if not 1 <= len(items) <= _MAX_LAYERS:
            raise error(f"{len(items)} layers, not 1 to {_MAX_LAYERS}", where=f"{where}.layers")
        layers = tuple(AnchorLayer.from_json(item, f"{where}.layers[{i}]", error) for i, item in enumerate(items))
        found = cls(layers, fields.number("offset", 0.5))
        refuse_unknown(fields)
        return found


@dataclass(frozen=True)
class Boxes:
    """How the output of role ``boxes`` [N, 4 + 2 × keypoints] becomes boxes.

    Attributes:
        order: Of the four numbers: ``xywh``, ``yxhw`` (centre and size), ``xyxy``, ``yxyx`` (two corners).
        scales: Four divisors in that order; with them the numbers are shares of the input's sides.
        anchors: With anchors, centres count from the anchor's centre in units of its size, and sizes are factors on its
            size; without them the numbers stand for themselves. Corners have no anchors.
        exponential: Sizes are e^(number / scale), as in SSD and Faster R-CNN.
        keypoints: Points [x, y] (or [y, x], as the order says) that follow the four numbers, decoded like centres.
    """

    order: str
    scales: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    anchors: Anchors | None = None
    exponential: bool = False
    keypoints: int = 0

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"order": self.order, "scales": list(self.scales)}
        if self.anchors is not None:
            document["anchors"] = self.anchors.to_json()
        if self.exponential:
            document["exponential"] = True
        if self.keypoints:
            document["keypoints"] = self.keypoints
        return document

    @classmethod
    def from_json(cls, document: Any, where: str, error: type[StropError]) -> "Boxes":
        fields = Fields(document, where, error)
        order = fields.text("order", among=ORDERS)
        scales = fields.numbers("scales", [1.0, 1.0, 1.0, 1.0])
        if len(scales) != 4 or min(scales) <= 0:
            raise error(f"{list(scales)} are not four divisors above 0", where=f"{where}.scales")
        anchors = None
        if "anchors" in document:
            anchors = Anchors.from_json(fields.object("anchors"), f"{where}.anchors", error)
        exponential = fields.flag("exponential", False)
        keypoints = bounded(fields, "keypoints", _MAX_KEYPOINTS) if "keypoints" in document else 0
        if order in ("xyxy", "yxyx") and (anchors is not None or exponential):
            fix = "leave anchors and exponential out, or use xywh or yxhw"
            raise error(f"corners ('{order}') have no anchors", where=where, fix=fix)
        refuse_unknown(fields)
        return cls(order, scales, anchors, exponential, keypoints)


@dataclass(frozen=True)
class Suppression:
    """Non-maximum suppression: of boxes that overlap, the one with the highest score stays.

    Attributes:
        iou: Boxes that share more than this (intersection over union) with a better one go.
        most: Boxes that stay at most, best first.
        per_class: Only boxes of one class compete.
    """

    iou: float = 0.5
    most: int = 100
    per_class: bool = True

    def to_json(self) -> dict[str, Any]:
        return {"iou": self.iou, "most": self.most, "per_class": self.per_class}

    @classmethod
    def from_json(cls, document: Any, where: str, error: type[StropError]) -> "Suppression":
        fields = Fields(document, where, error)
        iou = fields.number("iou", 0.5)
        if not 0 <= iou <= 1:
            raise error(f"{iou:g} is not in 0 to 1", where=f"{where}.iou")
        found = cls(iou, bounded(fields, "most", _MAX_KEPT, 100), fields.flag("per_class", True))
        refuse_unknown(fields)
        return found
