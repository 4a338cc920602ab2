# SPDX-License-Identifier: Apache-2.0
"""Compute the reference profile of an artefact, on its runtime, from validation data that nothing was fitted to.

Two passes. The first one asks the model for every answer and chooses edges and projection; the second one counts the
same answers with the very ``Observer`` that runs on the device, so that window and reference are counted by the same
code with the same rounded numbers.
"""

from dataclasses import replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.features import OutputStatistics, output_statistics, share_statistics
from edge_agent.runner.observe import Observer
from edge_contract.counts import BINS, COMPONENTS, LEVELS, MAX_SLOTS, Counters
from edge_contract.errors import DataError, ModelError, ProfileError
from edge_contract.postprocess import Postprocess, of
from edge_contract.preprocess import Preprocessing
from edge_contract.profile import INPUTS, Edges, ReferenceProfile
from edge_contract.severity import estimate
from edge_contract.tasks import Form
from export.bundle.projection import (
    Asked,
    look_of,
    looks,
    principal_axes,
    quantile_edges,
    sensors_of,
    slots_of,
    with_projection,
)
from export.bundle.recordings import series_design

__all__ = ["MIN_REFERENCE", "Answering", "build_profile", "input_edges", "quantile_edges"]

MIN_REFERENCE: Final = 128
_HALVINGS: Final = 40

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


def build_profile(
    model: Answering,
    raw: Array,
    labels: Array,
    *,
    names: tuple[str, ...] | None = None,
    artefact: str = "",
    runtime: str = "",
    preprocess: "Preprocessing | None" = None,
    postprocess: str | Postprocess = "softmax",
) -> ReferenceProfile:
    """Return the reference profile of a classifier as it answers validation data.

    Args:
        model: The quantized artefact in its runtime.
        raw: uint8 inputs as the source gives them [m, H, W] or [m, H, W, C]; at least 128, better thousands: the
            reference's own error is what limits how small a shift can be told (``edge_contract.statistics``).
        labels: True classes [m].
        names: Class names in the order of the logits; the model's ``labels``, or "0", "1" …, when not given.
        artefact: SHA-256 of the artefact.
        runtime: Name of its runtime.
        preprocess: Tells images, sound and series apart; images where it is not given.
        postprocess: ``none`` where the artefact gives shares: it ends in a softmax.

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
    look, blank = look_of(preprocess, asked.raw), ReferenceProfile.blank(names)
    counters = Counters.zero(len(names), Form(sensors=sensors_of(look, asked.raw)))
    scores = "shares" if _are_shares(of(postprocess), asked) else "logits"
    facts = {"artefact": artefact, "runtime": runtime, "scores": scores}
    blank = replace(blank, look=look, counters=counters, **facts)  # type: ignore[arg-type]  # texts only
    profile = _fit(blank, asked)
    told = {"calibration_error": _calibration_error(blank, asked), "design": series_design(profile, asked)}
    return replace(profile, **told)  # type: ignore[arg-type]  # numbers only


def _are_shares(postprocess: Postprocess, asked: Asked) -> bool:
    """Tell whether the file gives shares of one; int8 answers sum to one within a few steps of 1/256."""
    total = asked.logits.sum(axis=1)
    return postprocess.scores == "none" and asked.logits.min() >= 0 and bool(np.abs(total - 1).max() < 0.05)


def _said(blank: ReferenceProfile, asked: Asked) -> OutputStatistics:
    return (share_statistics if blank.scores == "shares" else output_statistics)(asked.logits)


def _ask(model: Answering, raw: Array, truth: Array) -> Asked:
    answers = [model.infer(one) for one in raw]
    logits = np.stack([np.asarray(answer.logits, dtype=np.float64) for answer in answers])
    seen = [answer.embedding for answer in answers]
    embedding = None if any(e is None for e in seen) else np.stack([np.asarray(e, dtype=np.float64) for e in seen])
    for name, values in (("logits", logits), ("embedding", embedding)):
        if values is not None and not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise ModelError(f"the {name} of sample {row} are not finite", where="reference profile")
    return Asked(logits, embedding, raw, truth)


def _fit(blank: ReferenceProfile, asked: Asked) -> ReferenceProfile:
    """Return the profile with as many components as fit into 16 KB."""
    shaped, axes = _with_edges(blank, asked), principal_axes(asked)
    for components in range(COMPONENTS, 0, -1):
        try:
            return _filled(with_projection(shaped, asked, axes[:components]), asked)
        except ProfileError:
            if components == 1:
                raise
    raise AssertionError("unreachable")


def _with_edges(blank: ReferenceProfile, asked: Asked) -> ReferenceProfile:
    said = _said(blank, asked)
    if blank.own_slots:
        frequent = np.argsort(-np.bincount(said.classes, minlength=len(blank.labels)), kind="stable")
        blank = replace(blank, own_slots=tuple(sorted(frequent[: MAX_SLOTS - 1].tolist())))
    even = [(i + 1) / BINS for i in range(BINS - 1)]
    edges = Edges(
        levels=_level_edges(said.confidence, said.classes == asked.truth),
        confidence=quantile_edges(said.confidence, even),
        energy=quantile_edges(said.energy, even),
        inputs=input_edges(blank, asked.raw),
    )
    deviation = max(float(said.energy.std()), 1e-6)
    return replace(blank, edges=edges, energy_mean=float(said.energy.mean()), energy_deviation=deviation)


def input_edges(profile: ReferenceProfile, raw: Array) -> tuple[tuple[float, ...], ...]:
    """Return the edges of the input statistics [3][BINS - 1], zeros where the inputs have none."""
    seen, even = looks(profile.look, raw), [(i + 1) / BINS for i in range(BINS - 1)]
    if seen is None:
        return ((0.0,) * (BINS - 1),) * len(INPUTS)
    return tuple(quantile_edges(values, even) for values in seen)


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


def _filled(profile: ReferenceProfile, asked: Asked) -> ReferenceProfile:
    """Return the profile with its reference counted, by the device's code and with the numbers that travel."""
    rounded = ReferenceProfile.from_bytes(profile.to_bytes())
    counters = _count(rounded, asked)
    said = _said(profile, asked)
    slot_of = slots_of(profile)
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


def _count(profile: ReferenceProfile, asked: Asked) -> Counters:
    observer = Observer(profile)
    for i, logits in enumerate(asked.logits):
        embedding = None if asked.embedding is None else asked.embedding[i]
        observer.observe(logits, embedding, asked.raw[i], 0.0)
    # Latency belongs to a board, not to a model: a profile without it is the same on every workstation.
    counters = observer.counters()
    return replace(counters, latency=(0,) * len(counters.latency), latency_sum_us=0)


def _calibration_error(blank: ReferenceProfile, asked: Asked) -> float:
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
