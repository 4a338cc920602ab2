# SPDX-License-Identifier: Apache-2.0
"""Count windows fast: what the ``Observer`` adds for each sample is kept as integers, and a window is a sum of rows.

A grid of power asks for tens of thousands of windows of the same few thousand samples. The device's ``Observer`` would
summarise each sample again in every window. Here each sample is summarised once; that both count alike, to the last
integer, is a test.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.features import output_statistics
from edge_contract import counts
from edge_contract.counts import BINS, BLOCK, COMPONENTS, LEVELS, Counters
from edge_contract.profile import ReferenceProfile

__all__ = ["Coded", "Seen", "code", "count", "joined"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Seen:
    """A model's answers to a pool of inputs.

    Attributes:
        logits: [n, K].
        embedding: [n, d].
        truth: True classes [n].
        looks: Brightness, contrast and sharpness [3, n]; none [3, 0] where the inputs are no images.
        saturated: Shares of dark and of bright pixels [2, n], or [2, 0].
        group: Which recording, writer or series a sample is of [n].
    """

    logits: Array
    embedding: Array
    truth: Array
    looks: Array
    saturated: Array
    group: Array

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, rows: Array) -> "Seen":
        """Return some of the samples, in this order."""
        looks, saturated = (a[:, rows] if a.shape[1] else a for a in (self.looks, self.saturated))
        return Seen(self.logits[rows], self.embedding[rows], self.truth[rows], looks, saturated, self.group[rows])

    @property
    def right(self) -> Array:
        """Which answers are right [n]."""
        found: Array = self.logits.argmax(axis=1) == self.truth
        return found


@dataclass(frozen=True, eq=False)
class Coded:
    """What each sample adds to the counters.

    Attributes:
        slots, cells: Class slot, and slot × level [n].
        bins: Of max-prob, energy and the three input statistics, -1 where there is none [n, 5].
        energy, sure: Standardised energy and max-prob in fixed point [n].
        z: Whitened components and their squares in fixed point [n, 2 × COMPONENTS].
        saturated: Dark and bright shares in fixed point [2, n], or [2, 0].
        classes: Slots of the profile.
    """

    slots: Array
    cells: Array
    bins: Array
    energy: Array
    sure: Array
    z: Array
    saturated: Array
    classes: int

    def __len__(self) -> int:
        return len(self.slots)


def code(profile: ReferenceProfile, seen: Seen) -> Coded:
    """Return what the observer of a profile adds for each sample."""
    said = output_statistics(seen.logits.astype(np.float64))
    slot_of = np.array([profile.slot_of(label) for label in range(len(profile.labels))])
    slots = slot_of[said.classes]
    levels = np.array(profile.edges.levels).searchsorted(said.confidence, "right")
    columns = [
        np.array(profile.edges.confidence).searchsorted(said.confidence, "right"),
        np.array(profile.edges.energy).searchsorted(said.energy, "right"),
    ]
    for edges, values in zip(profile.edges.inputs, seen.looks, strict=True):
        columns.append(np.array(edges).searchsorted(values, "right") if len(values) else np.full(len(seen), -1))
    unit = ((said.energy - profile.energy_mean) / profile.energy_deviation).clip(
        -counts.ENERGY_CLIP, counts.ENERGY_CLIP
    )
    return Coded(
        slots=slots,
        cells=slots * LEVELS + levels,
        bins=np.stack(columns, axis=1),
        energy=np.rint(unit * counts.ENERGY_UNIT).astype(np.int64),
        sure=np.rint(np.exp(said.confidence) * counts.CONFIDENCE_UNIT).astype(np.int64),
        z=_projected(profile, seen),
        saturated=np.rint(seen.saturated * counts.SHARE_UNIT).astype(np.int64),
        classes=profile.counters.slots,
    )


def joined(one: Coded, other: Coded) -> Coded:
    """Return both pools as one, the other's rows after the first one's."""
    columns = ("slots", "cells", "bins", "energy", "sure", "z")
    both = {name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in columns}
    saturated = np.concatenate([one.saturated, other.saturated], axis=1)
    return Coded(**both, saturated=saturated, classes=one.classes)


def _projected(profile: ReferenceProfile, seen: Seen) -> Array:
    """Return rounded z and z² side by side [n, 2 × COMPONENTS]."""
    p, found = profile.projection, np.zeros((len(seen), 2, COMPONENTS), np.int64)
    if p.components:
        weights = np.array(p.weights, dtype=np.float64).reshape(p.components, p.dimension)
        source = (seen.logits if p.source == "logits" else seen.embedding).astype(np.float64)
        z = (source @ weights.T) * np.array(p.scale) - np.array(p.offset)
        z = z.clip(-counts.EMBEDDING_CLIP, counts.EMBEDDING_CLIP)
        for i, power in enumerate((z, z * z)):
            found[:, i, : p.components] = np.rint(power * counts.EMBEDDING_UNIT)
    return found.reshape(len(seen), -1)


def count(coded: Coded, rows: Array) -> Counters:
    """Return the counters of a window of some samples, in this order."""
    n, slots, e = len(rows), coded.slots[rows], coded.energy[rows]
    full = n // BLOCK
    sums = e[: full * BLOCK].reshape(full, BLOCK).sum(axis=1)
    columns = coded.bins[rows]
    bins = [_histogram(column, BINS) for column in columns.T]
    z = coded.z[rows].sum(axis=0).tolist()
    dark, bright = coded.saturated[:, rows].sum(axis=1).tolist() if coded.saturated.shape[1] else (0, 0)
    return replace(
        Counters.zero(coded.classes),
        n_infer=n,
        n_sampled=n,
        cells=_histogram(coded.cells[rows], coded.classes * LEVELS),
        confidence=bins[0],
        confidence_sum=int(coded.sure[rows].sum()),
        energy=bins[1],
        energy_sum=int(e.sum()),
        energy_squares=int(e @ e),
        blocks=full,
        block_sum=int(sums.sum()),
        block_squares=int(sums @ sums),
        pairs=max(0, n - 1),
        lag=int(e[1:] @ e[:-1]),
        repeats=int(np.count_nonzero(slots[1:] == slots[:-1])),
        embedding_sum=tuple(z[:COMPONENTS]),
        embedding_squares=tuple(z[COMPONENTS:]),
        brightness=bins[2],
        contrast=bins[3],
        sharpness=bins[4],
        dark=int(dark),
        bright=int(bright),
    )


def _histogram(values: Array, bins: int) -> tuple[int, ...]:
    return tuple(np.bincount(values[values >= 0], minlength=bins).tolist())
