# SPDX-License-Identifier: Apache-2.0
"""The parts of a reference profile that all tasks have alike: edges at quantiles, the projection, what inputs are."""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.features import input_statistics, stride_for
from edge_agent.runner.series_looks import series_statistics
from edge_contract.counts import COMPONENTS, EMBEDDING_CLIP, EMBEDDING_UNIT
from edge_contract.preprocess import Preprocessing
from edge_contract.profile import InputLook, Projection, ReferenceProfile
from edge_contract.profile_parts import IMAGES
from edge_contract.tasks import MAX_SENSORS

__all__ = [
    "MAX_WEIGHTS",
    "Asked",
    "look_of",
    "looks",
    "principal_axes",
    "quantile_edges",
    "seen",
    "sensors_of",
    "slots_of",
    "with_projection",
]

MAX_WEIGHTS: Final = 10 * 1024
"""Int8 weights of the projection that leave room for the rest of the 16 KB."""
_RIDGE: Final = 1e-3
_RANGE: Final = (0.0005, 0.9995)

Array = NDArray[Any]


@dataclass(frozen=True)
class Asked:
    """The answers to the reference inputs: logits [m, K], embedding [m, d] or None, raw inputs, true classes [m]."""

    logits: Array
    embedding: Array | None
    raw: Array
    truth: Array

    def take(self, rows: Array) -> "Asked":
        embedding = None if self.embedding is None else self.embedding[rows]
        return Asked(self.logits[rows], embedding, self.raw[rows], self.truth[rows])


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


def look_of(preprocess: "Preprocessing | None", raw: Array) -> InputLook:
    """Return what raw inputs [m, …] are, and their reference's scale.

    Args:
        preprocess: Tells sound and series from images; None where nobody knows, and then they are taken for images.
        raw: The reference's inputs.
    """
    kind = type(preprocess).__name__
    if kind == "Audio":
        return InputLook("audio")
    if kind != "Series" or raw.ndim != 3:
        return IMAGES
    sensors = raw.shape[2]
    values = raw.reshape(-1, sensors if sensors <= MAX_SENSORS else 1).astype(np.float64)
    values = np.where(np.isfinite(values), values, np.nan)
    offset, deviation = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    scale = 1 / np.where(deviation > 0, deviation, 1.0)
    low, high = np.nanquantile((values - offset) * scale, _RANGE)
    kept = [tuple(numbers.astype(np.float32).tolist()) for numbers in (offset, scale)]
    return InputLook("vectors" if raw.shape[1] == 1 else "series", kept[0], kept[1], float(low), float(high))


def sensors_of(look: InputLook, raw: Array) -> int:
    """Return of how many sensors the means are counted; none where there are too many."""
    return raw.shape[2] if look.offset and raw.shape[2] == len(look.offset) else 0


def looks(look: InputLook, raw: Array) -> Array | None:
    """Return the input statistics [3, m], or None where the inputs have none."""
    if look.kind != "images":
        return series_statistics(look, raw).values
    if raw.dtype != np.uint8 or raw.ndim not in (3, 4):
        return None
    stride = stride_for(*raw.shape[1:3])
    return input_statistics(raw[:, ::stride, ::stride]).values


def seen(asked: Asked) -> Array:
    """Return what is projected [m, d]: the embedding, or the logits where the artefact hides it."""
    return asked.logits if asked.embedding is None else asked.embedding


def principal_axes(asked: Asked) -> Array:
    """Return the directions of largest variance, at most 8 and as many as may fit [k, d]; none of a constant."""
    centred = seen(asked) - seen(asked).mean(axis=0)
    m, d = centred.shape
    variance, axes = np.linalg.eigh(centred.T @ centred / m)
    order = np.argsort(-variance)[: min(COMPONENTS, d, max(1, MAX_WEIGHTS // d))]
    return axes[:, order[variance[order] > 1e-6 * max(variance.max(), 1e-12)]].T


def with_projection(profile: ReferenceProfile, asked: Asked, rows: Array) -> ReferenceProfile:
    """Return the profile with the whitened projection on some axes [k, d]."""
    if not len(rows):
        return profile
    peak = np.abs(rows).argmax(axis=1)
    rows = rows * np.sign(rows[np.arange(len(rows)), peak])[:, None]  # one sign for one axis: reproducible bytes
    weights = np.rint(rows / np.abs(rows).max(axis=1, keepdims=True) * 127)
    projected = seen(asked) @ weights.T
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


def _class_means(profile: ReferenceProfile, asked: Asked, z: Array) -> tuple[float, ...]:
    """Return the mean of clipped z per predicted class slot [slots × k], zeros where no class was predicted."""
    slots = slots_of(profile)[asked.logits.argmax(axis=1)]
    sums = np.zeros((profile.counters.slots, z.shape[1]))
    np.add.at(sums, slots, z.clip(-EMBEDDING_CLIP, EMBEDDING_CLIP))
    counts = np.bincount(slots, minlength=len(sums)).clip(1)
    return tuple((sums / counts[:, None]).astype(np.float32).reshape(-1).tolist())


def slots_of(profile: ReferenceProfile) -> Array:
    """Return the class slot of every class [K]."""
    return np.array([profile.slot_of(label) for label in range(len(profile.labels))])
