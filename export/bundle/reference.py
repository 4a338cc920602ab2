# SPDX-License-Identifier: Apache-2.0
"""Compute the reference profile of an artefact, on its runtime, from validation data that nothing was fitted to.

Two passes. The first one asks the model for every answer and chooses edges and projection; the second one counts the
same answers with the very ``Observer`` that runs on the device, so that window and reference are counted by the same
code with the same rounded numbers.
"""

from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.features import input_statistics, output_statistics, stride_for
from edge_agent.runner.observe import Observer
from edge_contract.counts import BINS, COMPONENTS, EMBEDDING_CLIP, EMBEDDING_UNIT, LEVELS, MAX_SLOTS, Counters
from edge_contract.errors import DataError, ModelError, ProfileError
from edge_contract.profile import INPUTS, Edges, Projection, ReferenceProfile
from edge_contract.severity import estimate

__all__ = ["MIN_REFERENCE", "build_profile"]

MIN_REFERENCE: Final = 128
_MAX_WEIGHTS: Final = 10 * 1024  # int8 weights of the projection that leave room for the rest of the 16 KB
_HALVINGS: Final = 40
_RIDGE: Final = 1e-3

Array = NDArray[Any]


class Answers(Protocol):
    """What one inference gives."""

    @property
    def logits(self) -> Array: ...

    @property
    def embedding(self) -> Array | None: ...


class Answering(Protocol):
    """Any model with ``infer``: ``edge_agent.runner.model.Model``, or another."""

    def infer(self, raw: Array, /) -> Answers: ...


@dataclass(frozen=True)
class _Asked:
    """The answers to the reference inputs: logits [m, K], embedding [m, d] or None, raw inputs, true classes [m]."""

    logits: Array
    embedding: Array | None
    raw: Array
    truth: Array

    def take(self, rows: Array) -> "_Asked":
        embedding = None if self.embedding is None else self.embedding[rows]
        return _Asked(self.logits[rows], embedding, self.raw[rows], self.truth[rows])


def build_profile(
    model: Answering,
    raw: Array,
    labels: Array,
    *,
    names: tuple[str, ...] | None = None,
    artefact: str = "",
    runtime: str = "",
) -> ReferenceProfile:
    """Return the reference profile of a model as it answers validation data.

    Args:
        model: The quantized artefact in its runtime.
        raw: uint8 inputs as the source gives them [m, H, W] or [m, H, W, C]; at least 128, better thousands: the
            reference's own error is what limits how small a shift can be told (``edge_contract.statistics``).
        labels: True classes [m].
        names: Class names in the order of the logits; the model's ``labels``, or "0", "1" …, when not given.
        artefact: SHA-256 of the artefact.
        runtime: Name of its runtime.

    Raises:
        DataError: Fewer than 128 samples, or not as many labels.
        ModelError: An answer is not finite, or of another length than the names.
        ProfileError: The profile does not fit in 16 KB.
    """
    if len(raw) != len(labels) or len(raw) < MIN_REFERENCE:
        fix = f"give at least {MIN_REFERENCE} labelled samples"
        raise DataError(f"{len(raw)} inputs and {len(labels)} labels", where="reference profile", fix=fix)
    asked = _ask(model, np.asarray(raw), np.asarray(labels, dtype=np.int64))
    if names is None:
        names = tuple(getattr(model, "labels", ())) or tuple(str(i) for i in range(asked.logits.shape[1]))
    if asked.logits.shape[1] != len(names) or not 0 <= asked.truth.min() <= asked.truth.max() < len(names):
        what = f"{asked.logits.shape[1]} logits, {len(names)} names, labels up to {asked.truth.max()}"
        raise ModelError(what, where="reference profile")
    blank = replace(ReferenceProfile.blank(names), artefact=artefact, runtime=runtime)
    profile = _fit(blank, asked)
    return replace(profile, calibration_error=_calibration_error(blank, asked))


def _ask(model: Answering, raw: Array, truth: Array) -> _Asked:
    answers = [model.infer(one) for one in raw]
    logits = np.stack([np.asarray(answer.logits, dtype=np.float64) for answer in answers])
    seen = [answer.embedding for answer in answers]
    embedding = None if any(e is None for e in seen) else np.stack([np.asarray(e, dtype=np.float64) for e in seen])
    for name, values in (("logits", logits), ("embedding", embedding)):
        if values is not None and not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise ModelError(f"the {name} of sample {row} are not finite", where="reference profile")
    return _Asked(logits, embedding, raw, truth)


def _fit(blank: ReferenceProfile, asked: _Asked) -> ReferenceProfile:
    """Return the profile with as many components as fit into 16 KB."""
    shaped, axes = _with_edges(blank, asked), _principal_axes(asked)
    for components in range(COMPONENTS, 0, -1):
        try:
            return _filled(_with_projection(shaped, asked, axes[:components]), asked)
        except ProfileError:
            if components == 1:
                raise
    raise AssertionError("unreachable")


def _with_edges(blank: ReferenceProfile, asked: _Asked) -> ReferenceProfile:
    said = output_statistics(asked.logits)
    if blank.own_slots:
        frequent = np.argsort(-np.bincount(said.classes, minlength=len(blank.labels)), kind="stable")
        blank = replace(blank, own_slots=tuple(sorted(frequent[: MAX_SLOTS - 1].tolist())))
    even = [(i + 1) / BINS for i in range(BINS - 1)]
    looks = _looks(asked.raw)
    inputs = (quantile_edges(v, even) for v in looks) if looks is not None else [(0.0,) * (BINS - 1)] * len(INPUTS)
    edges = Edges(
        levels=_level_edges(said.confidence, said.classes == asked.truth),
        confidence=quantile_edges(said.confidence, even),
        energy=quantile_edges(said.energy, even),
        inputs=tuple(inputs),
    )
    deviation = max(float(said.energy.std()), 1e-6)
    return replace(blank, edges=edges, energy_mean=float(said.energy.mean()), energy_deviation=deviation)


def _looks(raw: Array) -> Array | None:
    """Return the input statistics [3, m], or None when the inputs are not uint8 images."""
    if raw.dtype != np.uint8 or raw.ndim not in (3, 4):
        return None
    stride = stride_for(*raw.shape[1:3])
    return input_statistics(raw[:, ::stride, ::stride]).values


def quantile_edges(values: Array, shares: list[float]) -> tuple[float, ...]:
    """Return edges that split the values [m] at the given shares, each half-way between two neighbouring values.

    Half-way, because an integer model answers with the same few values again and again: an edge on a value would
    let the last bit of a float decide on which side thousands of answers fall. Where a value fills more than a bin,
    edges coincide, and the bins between them stay empty.

    Example:
        >>> quantile_edges(np.array([1.0, 2.0, 2.0, 2.0, 4.0, 5.0]), [0.2, 0.5, 0.8])
        (1.5, 3.0, 4.5)
    """
    ranked = np.sort(values)
    steps = np.flatnonzero(np.diff(ranked) > 0) + 1  # places where the value changes
    if not len(steps):
        return (float(ranked[0]) - 1.0,) * len(shares)
    places = [int(steps[np.abs(steps - share * len(ranked)).argmin()]) for share in shares]
    return tuple(float(ranked[place - 1] + ranked[place]) / 2 for place in places)


def _level_edges(confidence: Array, right: Array) -> tuple[float, ...]:
    """Return the edges of the levels: the middle one is the ATC threshold.

    Above it lies a share of the reference equal to its accuracy. A model without an error has no such place: the
    threshold then lies below everything that the reference showed.
    """
    wrong = 1.0 - float(right.mean())
    halves = [max(wrong, 0.02) / 2, wrong, (1 + wrong) / 2]
    low, threshold, high = quantile_edges(confidence, halves)
    if wrong == 0.0:
        lowest = float(confidence.min())
        low, threshold = 2 * lowest - 1e-6, 1.5 * lowest - 1e-6
    return min(low, threshold), threshold, max(high, threshold)


def _seen(asked: _Asked) -> Array:
    """Return what is projected [m, d]: the embedding, or the logits where the artefact hides it."""
    return asked.logits if asked.embedding is None else asked.embedding


def _principal_axes(asked: _Asked) -> Array:
    """Return the directions of largest variance, at most 8 and as many as may fit [k, d]; none of a constant."""
    centred = _seen(asked) - _seen(asked).mean(axis=0)
    m, d = centred.shape
    variance, axes = np.linalg.eigh(centred.T @ centred / m)
    order = np.argsort(-variance)[: min(COMPONENTS, d, max(1, _MAX_WEIGHTS // d))]
    return axes[:, order[variance[order] > 1e-6 * max(variance.max(), 1e-12)]].T


def _with_projection(profile: ReferenceProfile, asked: _Asked, rows: Array) -> ReferenceProfile:
    """Return the profile with the whitened projection on some axes [k, d]."""
    if not len(rows):
        return profile
    peak = np.abs(rows).argmax(axis=1)
    rows = rows * np.sign(rows[np.arange(len(rows)), peak])[:, None]  # one sign for one axis: reproducible bytes
    weights = np.rint(rows / np.abs(rows).max(axis=1, keepdims=True) * 127)
    projected = _seen(asked) @ weights.T
    scale = (1 / projected.std(axis=0)).astype(np.float32).astype(np.float64)
    offset = (projected.mean(axis=0) * scale).astype(np.float32).astype(np.float64)
    z = projected * scale - offset
    projection = Projection(
        source="logits" if asked.embedding is None else "embedding",
        dimension=rows.shape[1],
        weights=tuple(int(w) for w in weights.reshape(-1)),
        scale=tuple(scale.tolist()),
        offset=tuple(offset.tolist()),
        whitener=_whitener(z),
        class_means=_class_means(profile, asked, z),
    )
    return replace(profile, projection=projection)


def _whitener(z: Array) -> tuple[float, ...]:
    """Return L⁻¹ of the covariance of (z, z²), clipped and rounded as the device does [lower triangle]."""
    z = z.clip(-EMBEDDING_CLIP, EMBEDDING_CLIP)
    both = np.rint(np.concatenate([z, z * z], axis=1) * EMBEDDING_UNIT) / EMBEDDING_UNIT
    covariance = np.cov(both, rowvar=False)
    covariance += _RIDGE * np.diag(np.diag(covariance).clip(_RIDGE))
    lower = np.linalg.inv(np.linalg.cholesky(covariance))
    return tuple(float(lower[i, j]) for i in range(len(lower)) for j in range(i + 1))


def _class_means(profile: ReferenceProfile, asked: _Asked, z: Array) -> tuple[float, ...]:
    """Return the mean of clipped z per predicted class slot [slots × k], zeros where no class was predicted."""
    slots = _slots_of(profile)[asked.logits.argmax(axis=1)]
    sums = np.zeros((profile.counters.slots, z.shape[1]))
    np.add.at(sums, slots, z.clip(-EMBEDDING_CLIP, EMBEDDING_CLIP))
    counts = np.bincount(slots, minlength=len(sums)).clip(1)
    return tuple((sums / counts[:, None]).astype(np.float32).reshape(-1).tolist())


def _slots_of(profile: ReferenceProfile) -> Array:
    """Return the class slot of every class [K]."""
    return np.array([profile.slot_of(label) for label in range(len(profile.labels))])


def _filled(profile: ReferenceProfile, asked: _Asked) -> ReferenceProfile:
    """Return the profile with its reference counted, by the device's code and with the numbers that travel."""
    rounded = ReferenceProfile.from_bytes(profile.to_bytes())
    counters = _count(rounded, asked)
    said = output_statistics(asked.logits)
    slot_of = _slots_of(profile)
    predicted, true, slots = slot_of[said.classes], slot_of[asked.truth], counters.slots
    levels = np.array(rounded.edges.levels).searchsorted(said.confidence, "right")
    right = said.classes == asked.truth
    filled = replace(
        rounded,
        counters=counters,
        hits=tuple(np.bincount((predicted * LEVELS + levels)[right], minlength=slots * LEVELS).tolist()),
        confusion=tuple(np.bincount(true * slots + predicted, minlength=slots * slots).tolist()),
    )
    return ReferenceProfile.from_bytes(filled.to_bytes())


def _count(profile: ReferenceProfile, asked: _Asked) -> Counters:
    observer = Observer(profile)
    for i, logits in enumerate(asked.logits):
        embedding = None if asked.embedding is None else asked.embedding[i]
        observer.observe(logits, embedding, asked.raw[i], 0.0)
    # Latency belongs to a board, not to a model: a profile without it is the same on every workstation.
    counters = observer.counters()
    return replace(counters, latency=(0,) * len(counters.latency), latency_sum_us=0)


def _calibration_error(blank: ReferenceProfile, asked: _Asked) -> float:
    """Return the 95 % quantile of |estimated - true| accuracy: from one half of the reference, on the other."""
    random, errors = np.random.default_rng(0), []
    for _ in range(_HALVINGS):
        rows = random.permutation(len(asked.truth))
        fitted, tried = asked.take(rows[::2]), asked.take(rows[1::2])
        half = _filled(_with_edges(blank, fitted), fitted)
        found = estimate(half, _count(half, tried), float(len(tried.truth)), {})
        true = float((tried.logits.argmax(axis=1) == tried.truth).mean())
        errors.append(abs(found.accuracy - true) if found else 1.0)
    return float(np.quantile(errors, 0.95))
