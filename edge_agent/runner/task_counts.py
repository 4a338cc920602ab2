# SPDX-License-Identifier: Apache-2.0
"""Count the answers of detectors, regressions, anomaly detectors and segmentations beside what all tasks count.

Each answer becomes what ``Told`` holds: one number, its signal, which ``Observer`` counts where a classifier's energy
stands; perhaps a vector, which it projects; and rows of values for the task's tables (``edge_contract.tasks``).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.answers import Answer, Detections, Values
from edge_agent.runner.model import Model
from edge_agent.runner.observe import Observer
from edge_agent.runner.postprocess import softmax
from edge_agent.runner.tensors import dequantize
from edge_contract.counts import SHARE_UNIT, Counters
from edge_contract.profile import ReferenceProfile
from edge_contract.tasks import MAX_OUTPUTS

__all__ = ["TaskObserver", "Tell", "Told", "outputs", "shared", "telling"]

_LEAST_ERROR: Final = 1e-12

Array = NDArray[Any]


class Told(NamedTuple):
    """What an answer says, ready to be counted.

    Attributes:
        signal: See ``edge_contract.tasks``.
        vector: What is projected [d], or None.
        rows: One array of values for each table: numbers for a histogram, class indices, or shares of each class.
    """

    signal: float
    vector: Array | None
    rows: tuple[Array, ...]


Tell = Callable[[Array, Answer], Told]


class TaskObserver(Observer):
    """Counts inferences of a task against a reference profile; arguments as for ``Observer``."""

    def __init__(self, profile: ReferenceProfile, **how: Any) -> None:
        super().__init__(profile, **how)
        self._edges = [np.array(edges) for edges in profile.parts.edges]
        self._tables = [np.zeros(size, np.int64) for size in profile.counters.form.tables]

    def take(self, told: Told, raw: Array | None, latency_us: float) -> None:
        """Count one inference; one whose numbers are not finite is an error."""
        values = (told.vector, *told.rows) if told.vector is not None else told.rows
        if not math.isfinite(told.signal) or not all(np.isfinite(value).all() for value in values):
            self.error()
            return
        if not self.observe(np.array([told.signal]), told.vector, raw, latency_us):
            return
        for table, edges, row in zip(self._tables, self._edges, told.rows, strict=False):
            if len(edges):
                found = edges.searchsorted(np.atleast_1d(row), "right")
                table += np.bincount(found, minlength=len(table))
            elif row.dtype.kind == "i":  # classes; those beyond the table share its last place
                table += np.bincount(np.clip(row, 0, len(table) - 1), minlength=len(table))
            else:
                table += np.rint(row * SHARE_UNIT).astype(np.int64)

    def counters(self) -> Counters:
        """Return everything counted since the observer was made."""
        seen = super().counters()
        if not self._tables:
            return seen
        flat, form = seen.to_vector(), seen.form
        start = Counters.length(seen.slots)
        flat[start : start + sum(form.tables)] = np.concatenate(self._tables).tolist()
        return Counters.from_vector(seen.slots, flat, form)


def telling(model: Model, profile: ReferenceProfile) -> Tell:
    """Return what turns a raw input and a model's answer into what is counted, by the profile's task."""
    source = profile.projection.source
    if profile.task == "detect":
        return lambda raw, answer: _of_boxes(answer, source)
    if profile.task == "anomaly":
        return lambda raw, answer: _of_error(model, raw, answer, source)
    if profile.task == "segment":
        classes = len(profile.parts.names) or len(model.labels)
        return lambda raw, answer: _of_map(model, answer, classes, source)
    return lambda raw, answer: _of_outputs(answer, source)


def _embedding(answer: Answer) -> Array | None:
    found = _values(answer).get("embedding")
    return None if found is None else found.reshape(-1).astype(np.float64)


def _of_boxes(answer: Answer, source: str) -> Told:
    """Score of the best box; boxes per frame, and score, area and class of each."""
    if not isinstance(answer, Detections):
        raise TypeError("a detector answers with boxes")
    boxes = np.asarray(answer.boxes, np.float64).reshape(-1, 4)
    areas = np.sqrt(np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0))
    count = np.array([float(len(boxes))])
    scores, kinds = np.asarray(answer.scores, np.float64), np.asarray(answer.classes).astype(np.int64)
    vector = answer.codes.get("embedding")
    shown = None if vector is None or source == "none" else vector.astype(np.float64)
    return Told(answer.confidence, shown, (count, scores, areas, kinds))


def _of_outputs(answer: Answer, source: str) -> Told:
    """The output, or the mean of several; each of up to eight."""
    flat = outputs(answer)
    shown = flat if source == "outputs" else _embedding(answer) if source == "embedding" else None
    return Told(float(flat.mean()) if flat.size else 0.0, shown, tuple(flat[:MAX_OUTPUTS, None]))


def _values(answer: Answer) -> dict[str, Array]:
    return answer.values if isinstance(answer, Values) else {}


def outputs(answer: Answer) -> Array:
    """Return all numbers of an answer but its embedding, flat, in double."""
    parts = [value.reshape(-1) for key, value in _values(answer).items() if key != "embedding"]
    return np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)


def _of_error(model: Model, raw: Array, answer: Answer, source: str) -> Told:
    """The log of the mean squared error of a reconstruction; of a model that gives another number, that number."""
    flat = outputs(answer)
    spec = model.artefact.input
    if flat.size == int(np.prod(spec.shape[1:])) and flat.size > 1:
        given = dequantize(spec, model.encoded(raw)).reshape(-1).astype(np.float64)
        signal = math.log(float(np.mean((given - flat) ** 2)) + _LEAST_ERROR)
    else:
        signal = float(flat.mean()) if flat.size else 0.0
    shown = _embedding(answer) if source == "embedding" else None
    return Told(signal, shown, (np.array([signal]),))


def _of_map(model: Model, answer: Answer, classes: int, source: str) -> Told:
    """The mean confidence of the pixels; the share of the picture that each class takes."""
    key = next(key for key in _values(answer) if key != "embedding")
    found, spec = _values(answer)[key], model.keys[key]
    if _is_of_classes(found.shape, classes):
        rows = np.moveaxis(found, 0 if _is_first(found.shape, classes, spec.layout) else -1, -1).reshape(-1, classes)
        named = rows.argmax(axis=1)
        signal = float(_sure(rows).mean())
    else:  # the file chose the classes itself
        named = np.rint(found.reshape(-1)).astype(np.int64).clip(0, classes - 1)
        signal = 0.0
    areas = np.bincount(named, minlength=classes) / max(len(named), 1)
    if not _is_of_classes(found.shape, classes):
        signal = float(areas.max())
    return Told(signal, areas if source == "areas" else None, (shared(areas),))


def shared(areas: Array, most: int = 64) -> Array:
    """Return shares of at most 64 classes, those beyond together in the last.

    Example:
        >>> shared(np.array([0.5, 0.25, 0.25]), 2).tolist()
        [0.5, 0.5]
    """
    return areas if len(areas) <= most else np.append(areas[: most - 1], areas[most - 1 :].sum())


def _is_of_classes(shape: Sequence[int], classes: int) -> bool:
    return classes > 1 and len(shape) == 3 and classes in (shape[0], shape[-1])


def _is_first(shape: Sequence[int], classes: int, layout: str) -> bool:
    return shape[0] == classes and (shape[-1] != classes or layout == "NCHW")


def _sure(rows: Array) -> Array:
    """Return the largest share of each row [pixels, K]; of rows that are no shares yet by softmax."""
    low, total = float(rows.min()), rows.sum(axis=1)
    is_share = low >= 0 and bool(np.abs(total - 1).max() < 0.05)
    best: Array = rows.max(axis=1) if is_share else softmax(rows.astype(np.float64)).max(axis=1)
    return best
