# SPDX-License-Identifier: Apache-2.0
"""Answers of all three kinds: when two of them agree, and how they are told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.runner.answers import Detections, Inference, Values, agree, facts
from edge_agent.runner.postprocess import decide, scores, sigmoid


def inference(cls, confidence=0.75, threshold=0.0):
    reals = {"logits": lambda codes: codes.astype(np.float32)}
    return Inference((cls, confidence), {"logits": np.zeros(3, np.int8)}, reals, 12.5, threshold)


def detections(*boxes, classes=None):
    n = len(boxes)
    classes = np.array([0] * n if classes is None else classes, np.int64)
    ranks = np.linspace(0.9, 0.5, n, dtype=np.float32)
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), ranks, classes, np.zeros((n, 0, 2)), {}, 3.0)


def values(**arrays):
    return Values({key: np.array(value, np.float32) for key, value in arrays.items()}, {}, 5.0)


A, NEAR, B = [0.0, 0.0, 0.4, 0.4], [0.05, 0.0, 0.45, 0.4], [0.5, 0.5, 0.9, 0.9]


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (inference(1), inference(1, confidence=0.2), True),
        (inference(1), inference(2), False),
        (detections(), detections(), True),
        (detections(A, B), detections(B, NEAR), True),
        (detections(A), detections(B), False),
        (detections(A), detections(A, A), False),
        (detections(A, A), detections(A, B), False),
        (detections(A), detections(A, classes=[1]), False),
        (values(x=[1.0, 2.0]), values(x=[1.0, 2.05]), True),
        (values(x=[1.0, 2.0]), values(x=[1.2, 2.0]), False),
        (values(x=[1.0]), values(y=[1.0]), False),
        (values(x=[1.0]), values(x=[1.0, 1.0]), False),
        (inference(1), detections(A), False),
        (values(x=[1.0]), detections(), False),
    ],
)
def test_agreement(first, second, same):
    assert agree(first, second) is same
    assert agree(first, first)


def test_every_answer_has_a_class_and_a_confidence():
    assert (detections().cls, detections().confidence) == (-1, 0.0)
    assert detections(A, B, classes=[4, 2]).cls == 4
    assert detections(A, B).confidence == pytest.approx(0.9)
    assert (values(x=[1.0]).cls, values(x=[1.0]).confidence) == (-1, 0.0)


def test_answers_in_words():
    labels = ("cat", "dog", "eel")
    assert facts(inference(1), labels) == {"class": 1, "label": "dog", "confidence": 0.75, "latency_us": 12.5}
    assert facts(inference(1, threshold=0.8), labels)["is_sure"] is False
    (box,) = facts(detections(B, classes=[2]), labels)["boxes"]
    assert (box["class"], box["label"]) == (2, "eel")
    assert facts(detections(B, classes=[7]), labels)["boxes"][0]["label"] == "7"
    assert facts(values(x=[[1.0, 2.0]]), labels)["values"] == {"x": [[1.0, 2.0]]}


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=8))
def test_sigmoid_is_stable_and_symmetric(logits):
    with np.errstate(over="raise"):
        found, mirrored = sigmoid(np.array(logits)), sigmoid(-np.array(logits))
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(found + mirrored, 1.0, rtol=1e-12)
    assert decide("sigmoid", np.array(logits))[1] == pytest.approx(found.max())


def test_scores_are_rounded_once_from_double():
    logits = np.array([[0.1, 2.3, -1.7]], np.float32)
    exact = np.exp(logits.astype(float))
    assert (scores("softmax", logits) == (exact / exact.sum()).astype(np.float32)).all()
    assert (scores("sigmoid", logits) == (exact / (1 + exact)).astype(np.float32)).all()
    assert scores("none", logits).tolist() == logits.tolist()
