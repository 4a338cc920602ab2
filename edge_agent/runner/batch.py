# SPDX-License-Identifier: Apache-2.0
"""Summarise batches of answers and inputs into integers, for ``edge_agent.runner.observe``."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.features import InputStatistics, input_statistics, output_statistics, share_statistics
from edge_agent.runner.series_looks import series_statistics
from edge_contract import counts
from edge_contract.counts import BINS, BLOCK, COMPONENTS, LATENCY_BUCKETS, LEVELS, PLAIN, Counters
from edge_contract.latency import BUCKETS, FIRST_US, PER_OCTAVE
from edge_contract.profile import INPUTS, ReferenceProfile

__all__ = ["Batch"]

Array = NDArray[Any]


class Batch:
    """Summarises batches into one vector of counters, in the order of the fields of ``Counters``."""

    def __init__(self, profile: ReferenceProfile) -> None:
        self._profile = profile
        self._slots = profile.counters.slots
        self._slot_of = np.array([profile.slot_of(label) for label in range(len(profile.labels))])
        self._edges = {
            "levels": np.array(profile.edges.levels),
            "confidence": np.array(profile.edges.confidence),
            "energy": np.array(profile.edges.energy),
        }
        self._input_edges = [np.array(edges) for edges in profile.edges.inputs]
        p = profile.projection
        self._weights = np.array(p.weights, dtype=np.float64).reshape(p.components, p.dimension)
        self._vector = np.zeros(Counters.length(self._slots), dtype=np.int64)
        self._form = profile.counters.form
        self._sensors = np.zeros(2 * self._form.sensors, dtype=np.int64)
        self._said = share_statistics if profile.scores == "shares" else output_statistics
        self.times = np.zeros(BUCKETS, dtype=np.int64)
        self._open = np.zeros(0, dtype=np.int64)  # energies of the block that is not full yet
        self._last: tuple[int, int] | None = None  # energy and class slot of the newest inference

    def counters(self) -> Counters:
        if self._form == PLAIN:
            return Counters.from_vector(self._slots, self._vector.tolist())
        flat = [*self._vector.tolist(), *[0] * sum(self._form.tables), *self._sensors.tolist()]
        return Counters.from_vector(self._slots, flat, self._form)

    def add(self, logits: Array, embedding: Array | None, good: Array | None, latency: Array) -> None:
        """Count outputs [n, …]; ``good`` tells which of them are finite, None that all are."""
        total = len(logits)
        if good is not None and not good.all():
            logits, latency = logits[good], latency[good]
            embedding = None if embedding is None else embedding[good]
        n = len(logits)
        self._vector[:4] += (total, n, total - n, 0)
        if n:
            said, ended = self._outputs(logits, embedding), _ended(latency)
            self._vector[4 : 4 + len(said)] += said
            self._vector[-len(ended) :] += ended
            self.times += np.bincount(_fine_buckets(latency), minlength=BUCKETS)

    def look(self, pixels: Array) -> None:
        """Count images [n, …]."""
        if not len(pixels):
            return
        seen, found = self._looks(pixels), np.zeros(len(INPUTS) * BINS + 2, dtype=np.int64)
        for i, (edges, values) in enumerate(zip(self._input_edges, seen.values, strict=True)):
            found[i * BINS : (i + 1) * BINS] = _histogram(edges, values)
        for at, share in ((-2, seen.dark), (-1, seen.bright)):
            found[at] = np.rint(share * counts.SHARE_UNIT).astype(np.int64).sum()
        end = len(self._vector) - LATENCY_BUCKETS - 1
        self._vector[end - len(found) : end] += found
        if seen.sensors is not None and len(self._sensors):
            z = seen.sensors.clip(-counts.EMBEDDING_CLIP, counts.EMBEDDING_CLIP)
            both = np.concatenate([z, z * z], axis=1) * counts.EMBEDDING_UNIT
            self._sensors += np.rint(both).astype(np.int64).sum(axis=0)

    def _looks(self, raw: Array) -> InputStatistics:
        look = self._profile.look
        return input_statistics(raw) if look.kind == "images" else series_statistics(look, raw)

    def _outputs(self, logits: Array, embedding: Array | None) -> Array:
        said = self._said(logits)
        slots = self._slot_of[said.classes]
        levels = self._edges["levels"].searchsorted(said.confidence, "right")
        sure = np.rint(np.exp(said.confidence) * counts.CONFIDENCE_UNIT).astype(np.int64).sum()
        pieces = (
            np.bincount(slots * LEVELS + levels, minlength=self._slots * LEVELS),
            _histogram(self._edges["confidence"], said.confidence),
            np.array([sure]),
            _histogram(self._edges["energy"], said.energy),
            self._energy(said.energy, slots),
            self._project(logits, embedding),
        )
        return np.concatenate(pieces)

    def _energy(self, energy: Array, slots: Array) -> Array:
        """Return sum, squares, blocks, block sum, block squares, pairs, lag and repeats."""
        clip = counts.ENERGY_CLIP
        unit = ((energy - self._profile.energy_mean) / self._profile.energy_deviation).clip(-clip, clip)
        e = np.rint(unit * counts.ENERGY_UNIT).astype(np.int64)
        waiting = np.concatenate([self._open, e])
        full = len(waiting) // BLOCK
        sums = waiting[: full * BLOCK].reshape(full, BLOCK).sum(axis=1)
        self._open = waiting[full * BLOCK :]
        chain, line = e, slots
        if self._last is not None:
            chain, line = np.concatenate([[self._last[0]], e]), np.concatenate([[self._last[1]], slots])
        self._last = int(e[-1]), int(slots[-1])
        repeats = np.count_nonzero(line[1:] == line[:-1])
        lag = chain[1:] @ chain[:-1]
        return np.array([e.sum(), e @ e, full, sums.sum(), sums @ sums, len(chain) - 1, lag, repeats])

    def _project(self, logits: Array, embedding: Array | None) -> Array:
        p = self._profile.projection
        found = np.zeros((2, COMPONENTS), dtype=np.int64)
        if p.components:
            seen = logits if embedding is None else embedding
            z = (seen @ self._weights.T) * np.array(p.scale) - np.array(p.offset)
            z = z.clip(-counts.EMBEDDING_CLIP, counts.EMBEDDING_CLIP)
            for row, power in enumerate((z, z * z)):
                found[row, : p.components] = np.rint(power * counts.EMBEDDING_UNIT).astype(np.int64).sum(axis=0)
        return found.reshape(-1)


def _histogram(edges: Array, values: Array) -> Array:
    return np.bincount(edges.searchsorted(values, "right"), minlength=BINS)


def _ended(latency_us: Array) -> Array:
    """Return the histogram of latencies and their sum."""
    buckets = np.array([counts.latency_bucket(value) for value in latency_us.tolist()])
    return np.append(np.bincount(buckets, minlength=LATENCY_BUCKETS), int(latency_us.sum()))


def _fine_buckets(latency_us: Array) -> Array:
    """The same as ``latency.bucket_of`` for many [n]."""
    octaves = np.log2(np.maximum(latency_us, FIRST_US) / FIRST_US)
    found: Array = np.minimum(np.floor(octaves * PER_OCTAVE), BUCKETS - 1).astype(np.int64)
    return found
