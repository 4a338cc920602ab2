# SPDX-License-Identifier: Apache-2.0
"""Decode a detector's boxes, drop the weak ones, suppress those that overlap, and find them in the raw image.

Boxes are [left, top, right, bottom] as shares of the model input's sides until ``to_raw`` turns them into shares of the
raw image's. Everything is element by element in float32 (exponentials in double, rounded once), and equal scores are
ordered by their place, so every CPU finds the same boxes.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.geometry import geometry
from edge_agent.runner.postprocess import scores
from edge_contract.boxes import Anchors, Boxes, Suppression
from edge_contract.postprocess import Postprocess
from edge_contract.preprocess import Preprocess

__all__ = ["Found", "anchors_of", "decode", "detect", "overlap", "suppress", "to_raw"]

Array = NDArray[Any]
Floats = NDArray[np.float32]


class Found(NamedTuple):
    """Boxes that were found, best first.

    Attributes:
        boxes: [M, 4], left, top, right, bottom.
        scores: [M], 0 to 1.
        classes: [M], indices into the labels.
        keypoints: [M, P, 2], x and y.
    """

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]
    keypoints: Floats


def anchors_of(anchors: Anchors, height: int, width: int) -> Floats:
    """Return the anchors of an input of so many pixels: [A, 4], centre x, centre y, width, height, in shares.

    Example:
        >>> from edge_contract.boxes import AnchorLayer
        >>> anchors_of(Anchors((AnchorLayer(8, ((0.5, 1.0),)),)), 8, 16).tolist()
        [[0.25, 0.5, 1.0, 0.5], [0.75, 0.5, 1.0, 0.5]]
    """
    found = []
    for layer in anchors.layers:
        rows, columns = -(-height // layer.stride), -(-width // layer.stride)
        sizes = np.array(layer.sizes)
        y, x, each = np.meshgrid(np.arange(rows), np.arange(columns), np.arange(len(sizes)), indexing="ij")
        centres = ((x + anchors.offset) / columns, (y + anchors.offset) / rows)
        table = np.stack([*centres, sizes[each, 1], sizes[each, 0]], axis=-1)
        found.append(table.reshape(-1, 4))
    return np.concatenate(found).astype(np.float32)


def decode(p: Boxes, numbers: Array, anchors: Floats | None) -> tuple[Floats, Floats]:
    """Return boxes [N, 4] and keypoints [N, P, 2] of a model's numbers [N, 4 + 2 P] (more columns are ignored).

    With an anchor (x, y, w, h) and scales s, order ``xywh``: centre = number / s × w + x, size = number / s × w, or
    e^(number / s) × w with ``exponential``; the box reaches from centre - size / 2 to centre + size / 2.
    """
    real: Floats = np.asarray(numbers, np.float32)
    values: Floats = np.divide(real[:, :4], np.array(p.scales, np.float32))
    is_row_first = p.order.startswith("y")
    if is_row_first:
        values = values[:, [1, 0, 3, 2]]
    points: Floats = real[:, 4 : 4 + 2 * p.keypoints].reshape(len(real), p.keypoints, 2)
    first = np.array(p.scales[:2], np.float32)
    points = (points / first)[..., ::-1] if is_row_first else points / first
    if p.order in ("xyxy", "yxyx"):
        return values, points
    centre, size = values[:, :2], values[:, 2:]
    if p.exponential:
        with np.errstate(over="ignore"):  # a box without end is dropped by ``detect``
            size = np.exp(size.astype(np.float64)).astype(np.float32)
    if anchors is not None:
        centre, size = centre * anchors[:, 2:] + anchors[:, :2], size * anchors[:, 2:]
        points = points * anchors[:, None, 2:] + anchors[:, None, :2]
    half = size * np.float32(0.5)
    return np.concatenate([centre - half, centre + half], axis=1), points


def overlap(box: Array, boxes: Array) -> Floats:
    """Return the intersection over union of one box [4] with boxes [N, 4]; 0 where either has no area.

    Example:
        >>> overlap(np.array([0, 0, 2, 1]), np.array([[1, 0, 3, 1], [5, 5, 6, 6]])).round(3).tolist()
        [0.333..., 0.0]
    """
    box, boxes = np.asarray(box, np.float32), np.asarray(boxes, np.float32)
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    sides = np.maximum(sides, np.float32(0.0))
    shared = sides[:, 0] * sides[:, 1]
    own, other = _area(box[None])[0], _area(boxes)
    both = own + other - shared
    found: Floats = np.where(both > 0, shared / np.where(both > 0, both, np.float32(1.0)), np.float32(0.0))
    return found


def suppress(boxes: Array, ranks: Array, iou: float, most: int) -> NDArray[np.intp]:
    """Return the indices of the boxes that stay, best first: greedy non-maximum suppression.

    The box of the highest score stays, and every other one that shares more than ``iou`` with it goes; then the best of
    what is left, until ``most`` stay. Of equal scores the first box goes first.

    Args:
        boxes: [N, 4].
        ranks: Scores [N].
        iou: Intersection over union that is still allowed.
        most: Boxes that stay at most.
    """
    left = np.argsort(-np.asarray(ranks), kind="stable")
    kept: list[int] = []
    while len(left) and len(kept) < most:
        best, left = int(left[0]), left[1:]
        kept.append(best)
        left = left[overlap(boxes[best], boxes[left]) <= np.float32(iou)]
    return np.array(kept, np.intp)


def detect(p: Postprocess, numbers: Array, logits: Array, classes: Array | None, anchors: Floats | None) -> Found:
    """Return what a detector found, best first.

    Args:
        p: With boxes.
        numbers: Of role ``boxes`` [N, 4 + …], real values.
        logits: Of role ``scores``: [N, K], or [N] beside ``classes``.
        classes: Of role ``classes`` [N]; None where each box has a score for every class.
        anchors: See ``anchors_of``; None where the boxes have none.
    """
    if p.boxes is None:
        raise ValueError("a description without boxes")
    share = scores(p.scores, logits.reshape(len(numbers), -1))
    share = share[:, 1:] if p.background else share
    rows, columns = np.nonzero(share >= np.float32(p.threshold))
    boxes, points = decode(p.boxes, numbers, anchors)
    named = columns if classes is None else np.rint(classes.reshape(-1)[rows]).astype(np.int64)
    found = Found(boxes[rows], share[rows, columns], named.astype(np.int64), points[rows])
    whole = np.isfinite(found.boxes).all(axis=1)
    found = _take(found, np.flatnonzero(whole))
    order = np.argsort(-found.scores, kind="stable")
    return _take(found, order if p.suppression is None else _chosen(found, p.suppression))


def to_raw(p: Preprocess, found: Found, height: int, width: int) -> Found:
    """Return boxes and keypoints as shares of the raw image of so many pixels; a box may reach beyond 0 to 1."""
    tall, wide = geometry(p, height, width)
    (a, b), (c, d) = wide.way_back(), tall.way_back()
    factor, shift = np.array([a / width, c / height], np.float32), np.array([b / width, d / height], np.float32)
    boxes = found.boxes * np.tile(factor, 2) + np.tile(shift, 2)
    return found._replace(boxes=boxes, keypoints=found.keypoints * factor + shift)


def _chosen(found: Found, p: Suppression) -> NDArray[np.intp]:
    """Return the indices that stay, best first, over all classes together."""
    if not p.per_class:
        return suppress(found.boxes, found.scores, p.iou, p.most)
    kept = []
    for cls in np.unique(found.classes):
        own = np.flatnonzero(found.classes == cls)
        kept.append(own[suppress(found.boxes[own], found.scores[own], p.iou, p.most)])
    everything = np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.intp)
    order: NDArray[np.intp] = everything[np.argsort(-found.scores[everything], kind="stable")][: p.most]
    return order


def _take(found: Found, rows: NDArray[np.intp]) -> Found:
    return Found(found.boxes[rows], found.scores[rows], found.classes[rows], found.keypoints[rows])


def _area(boxes: Floats) -> Floats:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], np.float32(0.0))
    area: Floats = sides[:, 0] * sides[:, 1]
    return area
