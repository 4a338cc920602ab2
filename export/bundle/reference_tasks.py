# SPDX-License-Identifier: Apache-2.0
"""Compute the reference profile of a detector, regression, anomaly detector or segmentation, on its runtime.

As for classifiers (``export.bundle.reference``) the answers choose edges and projection, and are then counted by the
code of the device. No labels are needed: what is estimated from them, the accuracy, only classifiers have.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.model import Model
from edge_agent.runner.task_counts import TaskObserver, Told, telling
from edge_contract.counts import BINS, COMPONENTS, LEVELS, MAX_SLOTS, Counters
from edge_contract.errors import DataError, ModelError, ProfileError
from edge_contract.profile import Edges, Projection, ReferenceProfile, TaskParts
from edge_contract.tasks import CLASSIFY, MAX_OUTPUTS, TAIL_BINS, WIDE_BINS, Form, task_of
from export.bundle.projection import (
    MAX_WEIGHTS,
    Asked,
    look_of,
    principal_axes,
    quantile_edges,
    sensors_of,
    with_projection,
)
from export.bundle.reference import MIN_REFERENCE, input_edges

__all__ = ["build_task_profile", "cluster_effect"]

_TAIL: Final = (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995)
_EVEN: Final = [(i + 1) / BINS for i in range(BINS - 1)]

Array = NDArray[Any]


def build_task_profile(model: Model, raw: Array, *, artefact: str = "", runtime: str = "") -> ReferenceProfile:
    """Return the reference profile of a model that is no classifier, as it answers validation data.

    Args:
        model: The quantized artefact in its runtime.
        raw: Inputs as the source gives them [m, …]; at least 128.
        artefact: SHA-256 of the artefact.
        runtime: Name of its runtime.

    Raises:
        DataError: Fewer than 128 inputs.
        ModelError: An answer is not finite, or the model is a classifier.
        ProfileError: The profile does not fit in 16 KB.
    """
    if len(raw) < MIN_REFERENCE:
        fix = f"give at least {MIN_REFERENCE}"
        raise DataError(f"{len(raw)} inputs", where="reference profile", fix=fix)
    task = task_of(model.task)
    if task == CLASSIFY:
        raise ModelError("a classifier needs labels", where="reference profile", fix="use build_profile")
    blank = ReferenceProfile.blank(("any",), task)
    look = look_of(model.description.preprocess, raw)
    source = _source(model, task)
    shaped = replace(
        blank,
        artefact=artefact,
        runtime=runtime,
        look=look,
        parts=TaskParts(names=tuple(model.labels)),
        projection=replace(blank.projection, source=source),
    )
    tell = telling(model, shaped)
    told = [tell(one, model.predict(one)) for one in raw]
    _refuse_nan(told)
    vectors = None if source == "none" else np.stack([np.asarray(one.vector) for one in told])
    return _fit(shaped, told, Asked(np.array([[one.signal] for one in told]), vectors, raw, np.zeros(len(raw), int)))


def _source(model: Model, task: str) -> str:
    """Return what is projected: the embedding where the file shows one, several outputs, or areas."""
    if task == "segment":
        return "areas" if len(model.labels) > 1 else "none"
    if "embedding" in model.keys:
        return "embedding"
    count = sum(model.dimensions.values())
    return "outputs" if task == "regress" and 1 < count <= MAX_WEIGHTS else "none"


def _refuse_nan(told: Sequence[Told]) -> None:
    for i, one in enumerate(told):
        values = (np.array(one.signal), *one.rows, *([] if one.vector is None else [one.vector]))
        if not all(np.isfinite(value).all() for value in values):
            raise ModelError(f"the answer to sample {i} is not finite", where="reference profile")


def _fit(blank: ReferenceProfile, told: Sequence[Told], asked: Asked) -> ReferenceProfile:
    """Return the profile with as many components as fit into 16 KB."""
    shaped = _with_tables(_with_edges(blank, asked), told, asked.raw)
    source = blank.projection.source
    axes = np.zeros((0, 0)) if source == "none" else principal_axes(asked)
    for components in range(COMPONENTS, 0, -1):
        try:
            projected = with_projection(shaped, asked, axes[:components])
            if len(axes):
                projected = replace(projected, projection=replace(projected.projection, source=source))
            return _filled(projected, told, asked.raw)
        except ProfileError:
            if components == 1 or not len(axes):
                raise
    raise AssertionError("unreachable")


def _with_edges(blank: ReferenceProfile, asked: Asked) -> ReferenceProfile:
    signal = asked.logits[:, 0]
    none, low = (0.0,) * (BINS - 1), (0.0,) * (LEVELS - 1)
    edges = Edges(low, none, quantile_edges(signal, _EVEN), input_edges(blank, asked.raw))
    deviation = max(float(signal.std()), 1e-6)
    unprojected = Projection("none", 0, (), (), (), (), ())
    mean = float(signal.mean())
    return replace(blank, edges=edges, energy_mean=mean, energy_deviation=deviation, projection=unprojected)


def _with_tables(profile: ReferenceProfile, told: Sequence[Told], raw: Array) -> ReferenceProfile:
    """Return the profile with edges for its tables, and with counters that have room for them."""
    rows = list(zip(*(one.rows for one in told), strict=True))
    names, clusters = profile.parts.names, [1.0] * len(rows)
    match profile.task:
        case "detect":
            edges = [
                _box_edges(np.concatenate(rows[0])),
                *(_edges(np.concatenate(row), _EVEN) for row in rows[1:3]),
                (),
            ]
            sizes = [BINS, BINS, BINS, min(max(len(names), 1), MAX_SLOTS)]
            binned = [*(_binned(row, own) for row, own in zip(rows[1:3], edges[1:3], strict=True)), rows[3]]
            clusters[1:] = [cluster_effect(one, size) for one, size in zip(binned, sizes[1:], strict=True)]
        case "regress":
            rows = rows[:MAX_OUTPUTS]
            size = WIDE_BINS if len(rows) == 1 else BINS
            shares = [(i + 1) / size for i in range(size - 1)]
            edges, sizes = [_edges(np.concatenate(row), shares) for row in rows], [size] * len(rows)
        case "anomaly":
            edges, sizes = [_edges(np.concatenate(rows[0]), list(_TAIL))], [TAIL_BINS]
        case _:
            edges, sizes = [()], [len(rows[0][0])]
    form = Form(profile.task, tuple(sizes), sensors_of(profile.look, raw))
    parts = TaskParts(names, tuple(edges), tuple(clusters[: len(sizes)]))
    return replace(profile, parts=parts, counters=Counters.zero(1, form))


def _edges(values: Array, shares: list[float]) -> tuple[float, ...]:
    return quantile_edges(values, shares) if len(values) else (0.0,) * len(shares)


def _box_edges(counts: Array) -> tuple[float, ...]:
    """Return edges of boxes per frame: one bin for each number below 15, or quantiles where there are more."""
    return tuple(i + 0.5 for i in range(BINS - 1)) if counts.max() < BINS else quantile_edges(counts, _EVEN)


def _binned(rows: Sequence[Array], edges: Sequence[float]) -> list[Array]:
    return [np.array(edges).searchsorted(row, "right") for row in rows]


def cluster_effect(frames: Sequence[Array], size: int) -> float:
    """Return how many boxes say as much as one independent box, at least 1.

    The mean generalised design effect of Rao and Scott: the variance of the shares over frames, against what as many
    independent boxes would have.

    Args:
        frames: The bins of each frame's boxes.
        size: Number of bins.

    Example:
        >>> twins = [np.array([k, k, k]) for k in (0, 1, 0, 1, 1, 0, 0, 1)]
        >>> round(cluster_effect(twins, 2), 1)
        3.4
    """
    counts = np.stack([np.bincount(np.clip(row, 0, size - 1), minlength=size) for row in frames]).astype(float)
    boxes, total = counts.sum(axis=1), counts.sum()
    used = counts.sum(axis=0) > 0
    if used.sum() < 2 or len(frames) < 2:
        return 1.0
    share = counts.sum(axis=0) / total
    apart = counts - share * boxes[:, None]
    variance = (apart**2).sum(axis=0) * len(frames) / (len(frames) - 1) / total**2
    return max(1.0, float((variance[used] * total / share[used]).sum() / (used.sum() - 1)))


def _filled(profile: ReferenceProfile, told: Sequence[Told], raw: Array) -> ReferenceProfile:
    """Return the profile with its reference counted, by the device's code and with the numbers that travel."""
    empty = replace(profile, hits=(0,) * LEVELS, confusion=(0,))
    rounded = ReferenceProfile.from_bytes(empty.to_bytes())
    observer = TaskObserver(rounded)
    for one, given in zip(told, raw, strict=True):
        observer.take(one, given, 0.0)
    seen = observer.counters()
    counters = replace(seen, latency=(0,) * len(seen.latency), latency_sum_us=0)
    filled = replace(rounded, counters=counters, confusion=(counters.n_sampled,))
    return ReferenceProfile.from_bytes(filled.to_bytes())
