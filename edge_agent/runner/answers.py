# SPDX-License-Identifier: Apache-2.0
"""What a model says of one raw input: a class, boxes, or plain numbers.

All three have ``cls`` and ``confidence``, so that results can be reported without asking which of them it is.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.boxes import overlap

__all__ = ["NO_CLASS", "Answer", "Detections", "Inference", "Values", "agree", "facts"]

Array = NDArray[Any]
NO_CLASS: Final = -1
_SAME_BOX: Final = 0.5
"""Intersection over union from which two models mean the same object: the usual threshold of PASCAL VOC."""
_SAME_VALUE: Final = 0.05
"""Share of the largest value by which two models' numbers may differ and still agree."""


class Inference:
    """One answer of a classifier.

    Attributes:
        cls: Index of the class, into ``Model.labels``.
        confidence: See ``postprocess.decide``.
        codes: role → the artefact's own integers (or floats) [K], [D].
        latency_us: From the raw input to the answer.
    """

    __slots__ = ("_reals", "_threshold", "cls", "codes", "confidence", "latency_us")

    def __init__(
        self,
        decided: tuple[int, float],
        codes: dict[str, Array],
        reals: Mapping[str, Callable[[Array], Array]],
        latency_us: float,
        threshold: float,
    ) -> None:
        self.cls, self.confidence = decided
        self.codes, self._reals, self.latency_us, self._threshold = codes, reals, latency_us, threshold

    @property
    def is_sure(self) -> bool:
        """Whether the confidence reaches the threshold of the description."""
        return self.confidence >= self._threshold

    @property
    def logits(self) -> Array:
        """Real values [K], float32; made of the codes when asked for."""
        return self._reals["logits"](self.codes["logits"])

    @property
    def embedding(self) -> Array | None:
        """Real values [D], float32; None where the artefact shows none."""
        real = self._reals.get("embedding")
        return None if real is None else real(self.codes["embedding"])


class Detections(NamedTuple):
    """One answer of a detector, best box first.

    Attributes:
        boxes: [M, 4] left, top, right, bottom, as shares of the raw image's width and height; float32.
        scores: [M], 0 to 1.
        classes: [M], indices into ``Model.labels``.
        keypoints: [M, P, 2] x and y, as shares of the raw image.
        codes: role → the artefact's own integers (or floats), flat.
        latency_us: From the raw input to the answer.
    """

    boxes: Array
    scores: Array
    classes: Array
    keypoints: Array
    codes: dict[str, Array]
    latency_us: float

    @property
    def cls(self) -> int:
        """The class of the best box, NO_CLASS without one."""
        return int(self.classes[0]) if len(self.classes) else NO_CLASS

    @property
    def confidence(self) -> float:
        """The score of the best box, 0 without one."""
        return float(self.scores[0]) if len(self.scores) else 0.0


class Values(NamedTuple):
    """One answer of any other model.

    Attributes:
        values: key → real values as float32, in the artefact's shape without the batch; keys as ``Artefact.keyed``.
        codes: key → the artefact's own integers (or floats), flat.
        latency_us: From the raw input to the answer.
    """

    values: dict[str, Array]
    codes: dict[str, Array]
    latency_us: float

    @property
    def cls(self) -> int:
        """NO_CLASS: numbers have none."""
        return NO_CLASS

    @property
    def confidence(self) -> float:
        """0: numbers say nothing of it."""
        return 0.0


Answer = Inference | Detections | Values


def agree(first: Answer, second: Answer) -> bool:
    """Tell whether two models say the same of one input.

    Classifiers: the same class. Detectors: as many boxes, each with a partner of its class that it shares half of its
    area with. Others: the same outputs, equal within 5 % of the first one's largest value.
    """
    match first, second:
        case Detections(), Detections():
            return len(first.boxes) == len(second.boxes) and _all_paired(first, second)
        case Values(), Values():
            return first.values.keys() == second.values.keys() and all(
                _is_close(values, second.values[key]) for key, values in first.values.items()
            )
    return type(first) is type(second) and first.cls == second.cls


def facts(answer: Answer, labels: tuple[str, ...]) -> dict[str, Any]:
    """Return an answer in plain words and numbers, as ``strop agent predict`` prints it."""
    spent = {"latency_us": float(answer.latency_us)}
    match answer:
        case Detections():
            rows = zip(answer.classes.tolist(), answer.scores.tolist(), answer.boxes.tolist(), strict=True)
            return {"boxes": [_box(cls, score, box, labels) for cls, score, box in rows], **spent}
        case Values():
            return {"values": {key: values.tolist() for key, values in answer.values.items()}, **spent}
    named = {"class": int(answer.cls), "label": labels[answer.cls]}
    return {**named, "confidence": float(answer.confidence), **({} if answer.is_sure else {"is_sure": False}), **spent}


def _box(cls: int, score: float, box: list[float], labels: tuple[str, ...]) -> dict[str, Any]:
    label = labels[cls] if 0 <= cls < len(labels) else str(cls)
    return {"class": cls, "label": label, "score": score, "box": box}


def _all_paired(first: Detections, second: Detections) -> bool:
    """Give each box of the first its best free partner, in the order of their scores."""
    is_free = np.ones(len(second.boxes), bool)
    for box, cls in zip(first.boxes, first.classes, strict=True):
        shared = np.where(is_free & (second.classes == cls), overlap(box, second.boxes), 0.0)
        if not shared.max(initial=0.0) >= _SAME_BOX:
            return False
        is_free[int(shared.argmax())] = False
    return True


def _is_close(first: Array, second: Array) -> bool:
    if first.shape != second.shape:
        return False
    return bool(np.abs(first - second).max(initial=0.0) <= _SAME_VALUE * np.abs(first).max(initial=0.0))
