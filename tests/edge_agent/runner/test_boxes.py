# SPDX-License-Identifier: Apache-2.0
"""Boxes: anchors and decoding against numbers worked out by hand, suppression against a brute-force rule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.runner.boxes import Found, anchors_of, decode, detect, overlap, suppress, to_raw
from edge_agent.runner.preprocess import apply
from edge_contract.boxes import AnchorLayer, Anchors, Boxes, Suppression
from edge_contract.postprocess import Postprocess
from edge_contract.preprocess import Preprocess

ONE = (1.0, 1.0)
FACE = Anchors((AnchorLayer(8, (ONE,) * 2), AnchorLayer(16, (ONE,) * 6)))


def test_anchors_of_a_face_detector_are_mediapipe_s():
    """Its graph: strides 8, 16, 16, 16, two anchors each, all of size 1: 16 × 16 × 2 + 8 × 8 × 6 = 896."""
    found = anchors_of(FACE, 128, 128)
    assert found.shape == (896, 4) == (FACE.count(128, 128), 4)
    assert found[0].tolist() == found[1].tolist() == [0.03125, 0.03125, 1.0, 1.0]
    assert found[2, :2].tolist() == [0.09375, 0.03125]  # the next column
    assert found[32, :2].tolist() == [0.03125, 0.09375]  # the next row
    assert found[512, :2].tolist() == [0.0625, 0.0625]  # the next layer
    assert found[-1, :2].tolist() == [0.9375, 0.9375]


def test_anchors_of_a_grid_that_does_not_divide_are_rounded_up():
    """SSD 300: stride 16 gives 19 × 19 cells, and centres are shares of the grid, not of the pixels."""
    found = anchors_of(Anchors((AnchorLayer(16, ((0.1, 0.2),)),)), 300, 300)
    assert len(found) == 19 * 19
    np.testing.assert_allclose(found[-1], [18.5 / 19, 18.5 / 19, 0.2, 0.1], rtol=1e-6)


def test_decoding_is_that_of_ssd():
    """Order y x h w, scales 10 10 5 5, e^size: the arithmetic of TFLite's detection post-process."""
    anchors = np.array([[0.5, 0.4, 0.2, 0.1]], np.float32)  # x, y, w, h
    numbers = np.array([[1.0, -2.0, 0.5, -0.25]], np.float32)  # y, x, h, w
    boxes, points = decode(Boxes("yxhw", (10.0, 10.0, 5.0, 5.0), exponential=True), numbers, anchors)
    y, x = 1.0 / 10 * 0.1 + 0.4, -2.0 / 10 * 0.2 + 0.5
    h, w = np.exp(0.5 / 5) * 0.1, np.exp(-0.25 / 5) * 0.2
    np.testing.assert_allclose(boxes, [[x - w / 2, y - h / 2, x + w / 2, y + h / 2]], rtol=1e-6)
    assert points.shape == (1, 0, 2)


def test_decoding_is_that_of_mediapipe():
    """Order x y w h in pixels of 128, plain sizes, keypoints behind."""
    anchors = np.array([[0.25, 0.75, 1.0, 1.0]], np.float32)
    numbers = np.array([[12.8, -12.8, 25.6, 51.2, 0.0, 12.8, -12.8, 0.0]], np.float32)
    boxes, points = decode(Boxes("xywh", (128.0,) * 4, keypoints=2), numbers, anchors)
    np.testing.assert_allclose(boxes, [[0.25, 0.45, 0.45, 0.85]], atol=1e-6)
    np.testing.assert_allclose(points, [[[0.25, 0.85], [0.15, 0.75]]], atol=1e-6)


@pytest.mark.parametrize(
    ("order", "numbers"),
    [("xyxy", [10, 20, 30, 40, 5, 6]), ("yxyx", [20, 10, 40, 30, 6, 5]), ("xywh", [20, 30, 20, 20, 5, 6])],
)
def test_direct_boxes_stand_for_themselves(order, numbers):
    boxes, points = decode(Boxes(order, (100.0,) * 4, keypoints=1), np.array([numbers]), None)
    np.testing.assert_allclose(boxes, [[0.1, 0.2, 0.3, 0.4]], atol=1e-6)
    np.testing.assert_allclose(points, [[[0.05, 0.06]]], atol=1e-6)


coordinates = st.integers(0, 12)


@st.composite
def corners(draw):
    x, y = draw(coordinates), draw(coordinates)
    return [x, y, x + draw(coordinates), y + draw(coordinates)]


def iou_by_counting(a, b):
    """Count the unit squares of a grid that lie in each box."""
    y, x = np.mgrid[0:30, 0:30]
    inside = [(x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3]) for box in (a, b)]
    either = (inside[0] | inside[1]).sum()
    return (inside[0] & inside[1]).sum() / either if either else 0.0


@given(corners(), corners())
def test_overlap_is_the_share_of_squares(a, b):
    found = overlap(np.array(a), np.array([b]))[0]
    assert found == pytest.approx(iou_by_counting(a, b), abs=1e-6)
    assert found == overlap(np.array(b), np.array([a]))[0]


def suppressed_by_definition(boxes, scores, iou, most):
    """A box stays unless a box that stays and comes before it (by score, then place) overlaps it too much."""
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    kept = []
    for i in order:
        if all(overlap(boxes[i], boxes[j][None])[0] <= np.float32(iou) for j in kept):
            kept.append(i)
    return kept[:most]


@given(st.lists(corners(), max_size=12), st.data(), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.integers(1, 12))
def test_suppression_is_its_definition(boxes, data, iou, most):
    scores = data.draw(st.lists(st.integers(0, 4), min_size=len(boxes), max_size=len(boxes)))  # many ties
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    found = suppress(boxes, np.array(scores), iou, most)
    assert found.tolist() == suppressed_by_definition(boxes, scores, iou, most)


LEFT, NEAR, RIGHT = [0.0, 0.0, 0.4, 0.4], [0.02, 0.0, 0.42, 0.4], [0.6, 0.6, 1.0, 1.0]


def run(post, scores, boxes=(LEFT, NEAR, RIGHT), classes=None):
    return detect(post, np.array(boxes), np.array(scores, np.float32), classes, None)


def described(**changes):
    return Postprocess(**{"scores": "none", "threshold": 0.5, "boxes": Boxes("xyxy"), **changes})


def test_weak_boxes_go_and_the_best_comes_first():
    found = run(described(), [[0.6], [0.4], [0.9]])
    np.testing.assert_allclose(found.scores, [0.9, 0.6])
    np.testing.assert_allclose(found.boxes, [RIGHT, LEFT], atol=1e-6)


def test_classes_compete_only_if_asked():
    scores = [[0.9, 0.0], [0.0, 0.8], [0.7, 0.0]]
    apart = run(described(suppression=Suppression(0.3, 10)), scores)
    assert apart.classes.tolist() == [0, 1, 0]
    together = run(described(suppression=Suppression(0.3, 10, per_class=False)), scores)
    assert together.classes.tolist() == [0, 0]
    assert len(run(described(suppression=Suppression(0.3, 2)), scores).boxes) == 2


def test_background_is_dropped_after_the_softmax():
    logits = [[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]]
    found = run(described(scores="softmax", background=True), logits)
    assert found.classes.tolist() == [0, 1]
    np.testing.assert_allclose(found.scores, np.exp(3) / (np.exp(3) + 2), rtol=1e-6)


def test_classes_that_the_model_chose_itself_are_taken():
    found = run(described(), [0.6, 0.4, 0.9], classes=np.array([[2.0, 0.0, 7.0]]))
    assert found.classes.tolist() == [7, 2]


def test_box_without_end_is_dropped():
    post = described(boxes=Boxes("xywh", exponential=True))
    found = run(post, [[0.9], [0.9], [0.9]], boxes=([0.5, 0.5, 500.0, 0.0], [0.5, 0.5, 0.0, 0.0], [np.nan] * 4))
    assert found.boxes.tolist() == [[0.0, 0.0, 1.0, 1.0]]


def test_nothing_gives_empty_arrays_of_the_right_shape():
    found = run(described(suppression=Suppression(), boxes=Boxes("xyxy", keypoints=0)), [[0.1], [0.1], [0.1]])
    assert [part.shape for part in found] == [(0, 4), (0,), (0,), (0, 0, 2)]


@pytest.mark.parametrize(
    "p",
    [
        Preprocess("gray", (64, 64), fit="letterbox"),
        Preprocess("gray", (64, 64), fit="cover"),
        Preprocess("gray", (64, 64), centre=(0.9,)),
        Preprocess("gray", (50, 70), crop=(40, 60), pad=(64, 64)),
        Preprocess("gray", (64, 64)),
    ],
)
def test_a_box_around_a_light_square_comes_back_to_it(p):
    """Light a square, look where it is in the model's input, and ask for the way back."""
    raw = np.zeros((120, 200), np.uint8)
    raw[40:80, 80:120] = 255
    light = np.argwhere(apply(p, raw)[..., 0] > 127)
    top, left = light.min(axis=0)
    bottom, right = light.max(axis=0) + 1
    height, width = apply(p, raw).shape[:2]
    box = np.array([[left / width, top / height, right / width, bottom / height]], np.float32)
    found = to_raw(p, Found(box, box[:, 0], np.zeros(1, np.int64), box[:, None, :2]), 120, 200)
    wanted = np.array([80 / 200, 40 / 120, 120 / 200, 80 / 120])
    # an edge is known to one pixel of the input, which is up to 200 / 64 raw ones
    np.testing.assert_allclose(found.boxes[0], wanted, atol=3.2 / 120)
    np.testing.assert_allclose(found.keypoints[0, 0], wanted[:2], atol=3.2 / 120)
