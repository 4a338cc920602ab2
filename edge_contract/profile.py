# SPDX-License-Identifier: Apache-2.0
"""The reference profile: what a model's answers look like where nothing has drifted.

It is computed from the quantized artefact on its runtime (``export.bundle.reference``), because quantization itself
would otherwise show as drift, and it travels, signed, in the bundle. Canonical JSON of at most 16 KB; arrays
are base-85 text: float32 little-endian, int8, or packed counts.
"""

import math
import struct
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from edge_contract import canonical
from edge_contract.arrays import floats, raw, text
from edge_contract.counts import BINS, COMPONENTS, LEVELS, MAX_SLOTS, Counters
from edge_contract.errors import ContractError, ProfileError
from edge_contract.fields import Fields
from edge_contract.packing import Cursor, pack_counts
from edge_contract.summary import decode_counters, encode_counters

__all__ = ["ATC_LEVEL", "INPUTS", "MAX_PROFILE_BYTES", "SCHEMA", "Edges", "Projection", "ReferenceProfile"]

SCHEMA: Final = "strop.profile/1"
MAX_PROFILE_BYTES: Final = 16 * 1024
ATC_LEVEL: Final = 2
"""Levels of confidence from this one on lie above the ATC threshold."""
INPUTS: Final = ("brightness", "contrast", "sharpness")


@dataclass(frozen=True)
class Edges:
    """Inner edges of every histogram, ascending; a value on an edge falls into the bin above it.

    Attributes:
        levels: On the log of max-prob; the second one is the ATC threshold [LEVELS - 1].
        confidence: On the log of max-prob [BINS - 1].
        energy: On logsumexp of the logits [BINS - 1].
        inputs: Brightness, contrast and sharpness [3][BINS - 1].
    """

    levels: tuple[float, ...]
    confidence: tuple[float, ...]
    energy: tuple[float, ...]
    inputs: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Projection:
    """Whitened principal components: z = scale × (weights · e) - offset, 0 mean and unit variance on the reference.

    Attributes:
        source: ``embedding``, ``logits`` (the artefact shows no embedding) or ``none``.
        dimension: d, the length of e.
        weights: int8 [components × d], row by row.
        scale, offset: One each per component.
        whitener: Lower triangle, row by row, of L⁻¹, where LLᵀ is the covariance of (z, z²) over the reference
            [2k(2k+1)/2]: z² of different components are not independent of each other.
        class_means: Mean of z over the reference samples of each predicted class, zeros for a class that was never
            predicted [slots × k]. They tell another mix of classes from other images.
    """

    source: str
    dimension: int
    weights: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    whitener: tuple[float, ...]
    class_means: tuple[float, ...]

    @property
    def components(self) -> int:
        """k, the number of components in use, at most 8."""
        return len(self.scale)


@dataclass(frozen=True)
class ReferenceProfile:
    """What a window is compared with.

    Attributes:
        labels: Class names in the order of the logits.
        own_slots: The classes that have their own slot when there are more than 64; empty otherwise.
        artefact, runtime: SHA-256 of the artefact, or empty, and the runtime that computed the profile.
        edges: Of the histograms.
        energy_mean, energy_deviation: Of the energy; they standardise it.
        projection: Of the embedding.
        counters: The reference counted like a window: m = ``counters.n_sampled``.
        hits: Right answers per class × level, the calibration table [slots × LEVELS].
        confusion: True slot × predicted slot [slots × slots].
        calibration_error: 95 % quantile of |estimated - true| accuracy over held-out halves of the reference.
    """

    labels: tuple[str, ...]
    own_slots: tuple[int, ...]
    artefact: str
    runtime: str
    edges: Edges
    energy_mean: float
    energy_deviation: float
    projection: Projection
    counters: Counters
    hits: tuple[int, ...]
    confusion: tuple[int, ...]
    calibration_error: float
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def blank(cls, labels: tuple[str, ...]) -> "ReferenceProfile":
        """Return a profile without a reference: counts inferences and classes, and is never judged.

        Example:
            >>> ReferenceProfile.blank(("cat", "dog")).size
            0
        """
        none = (0.0,) * (BINS - 1)
        counters = Counters.zero(len(labels))
        return cls(
            labels=labels,
            own_slots=tuple(range(MAX_SLOTS - 1)) if len(labels) > MAX_SLOTS else (),
            artefact="",
            runtime="",
            edges=Edges((0.0,) * (LEVELS - 1), none, none, (none,) * len(INPUTS)),
            energy_mean=0.0,
            energy_deviation=1.0,
            projection=Projection("none", 0, (), (), (), (), ()),
            counters=counters,
            hits=counters.cells,
            confusion=(0,) * counters.slots**2,
            calibration_error=1.0,
        )

    @property
    def size(self) -> int:
        """m, the number of reference samples."""
        return self.counters.n_sampled

    @property
    def accuracy(self) -> float:
        """Accuracy of the artefact on the reference; 0 for an empty one."""
        return sum(self.hits) / self.size if self.size else 0.0

    def slot_of(self, label: int) -> int:
        """Return the class slot of a class."""
        if not self.own_slots:
            return label
        return self.own_slots.index(label) if label in self.own_slots else len(self.own_slots)

    def slot_name(self, slot: int) -> str:
        """Return a slot's class name, or ``other``."""
        if not self.own_slots:
            return self.labels[slot]
        return self.labels[self.own_slots[slot]] if slot < len(self.own_slots) else "other"

    @cached_property
    def crc(self) -> int:
        """CRC-32 of the bytes; a summary names its profile by it."""
        return zlib.crc32(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the canonical bytes.

        Raises:
            ProfileError: More than 16 KB.
        """
        data = canonical.dumps(self.to_json())
        if len(data) > MAX_PROFILE_BYTES:
            fix = "use fewer components"
            raise ProfileError(f"{len(data)} bytes, more than {MAX_PROFILE_BYTES}", where="profile", fix=fix)
        return data

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, unknown fields included."""
        p = self.projection
        return {
            **self.unrecognized,
            "schema": SCHEMA,
            "labels": list(self.labels),
            "own_slots": list(self.own_slots),
            "artefact": self.artefact,
            "runtime": self.runtime,
            "edges": {
                "levels": floats(self.edges.levels),
                "confidence": floats(self.edges.confidence),
                "energy": floats(self.edges.energy),
                **{name: floats(e) for name, e in zip(INPUTS, self.edges.inputs, strict=True)},
            },
            "energy_mean": self.energy_mean,
            "energy_deviation": self.energy_deviation,
            "projection": {
                "source": p.source,
                "dimension": p.dimension,
                "weights": text(struct.pack(f"<{len(p.weights)}b", *p.weights)),
                "scale": floats(p.scale),
                "offset": floats(p.offset),
                "whitener": floats(p.whitener),
                "class_means": floats(p.class_means),
            },
            "counters": text(encode_counters(self.counters)),
            "hits": text(pack_counts(self.hits)),
            "confusion": text(pack_counts(self.confusion)),
            "calibration_error": self.calibration_error,
        }

    @classmethod
    def from_bytes(cls, data: bytes) -> "ReferenceProfile":
        """Return the profile in its bytes.

        Raises:
            ProfileError: Malformed, of another schema, or arrays that do not fit each other.
        """
        if len(data) > MAX_PROFILE_BYTES:
            raise ProfileError(f"{len(data)} bytes, more than {MAX_PROFILE_BYTES}", where="profile")
        try:
            profile = cls._from_json(canonical.loads(data, where="profile"))
            profile.__dict__["crc"] = zlib.crc32(data)  # of these bytes, also where a newer writer added to them
            return profile
        except ProfileError:
            raise
        except ContractError as error:
            raise ProfileError(error.what, where=error.where or "profile") from error

    @classmethod
    def _from_json(cls, document: Any) -> "ReferenceProfile":
        f = Fields(document, "profile", ProfileError)
        if (schema := f.text("schema")) != SCHEMA:
            raise ProfileError(f"schema {schema!r} is not {SCHEMA!r}", where="profile.schema", fix="update Strop")
        counters = decode_counters(raw(f.text("counters"), "counters"))
        counts = {name: Cursor(raw(f.text(name), name), f"profile.{name}") for name in ("hits", "confusion")}
        profile = cls(
            labels=f.texts("labels"),
            own_slots=f.integers("own_slots", ()),
            artefact=f.text("artefact", ""),
            runtime=f.text("runtime", ""),
            edges=_edges(f.object("edges")),
            energy_mean=f.number("energy_mean"),
            energy_deviation=f.number("energy_deviation"),
            projection=_projection(f.object("projection"), counters.slots),
            counters=counters,
            hits=counts["hits"].counts(len(counters.cells)),
            confusion=counts["confusion"].counts(counters.slots**2),
            calibration_error=f.number("calibration_error"),
            unrecognized=f.rest(),
        )
        profile._check()
        return profile

    def _check(self) -> None:
        slots = len(self.own_slots) + 1 if self.own_slots else len(self.labels)
        if slots != self.counters.slots or any(not 0 <= s < len(self.labels) for s in self.own_slots):
            raise ProfileError(f"{slots} class slots, counters have {self.counters.slots}", where="profile")
        if any(hit > cell for hit, cell in zip(self.hits, self.counters.cells, strict=True)):
            raise ProfileError("more right answers than answers", where="profile.hits")
        if sum(self.confusion) != self.size:
            raise ProfileError(f"{sum(self.confusion)} of {self.size} samples", where="profile.confusion")
        if not self.energy_deviation > 0 or not 0 <= self.calibration_error <= 1:
            raise ProfileError("a deviation or error out of range", where="profile")


def _numbers(f: Fields, key: str, size: int) -> tuple[float, ...]:
    data = raw(f.text(key), key)
    if len(data) != 4 * size:
        raise ProfileError(f"{len(data)} bytes, not {4 * size}", where=f"{f.where}.{key}")
    values = struct.unpack(f"<{size}f", data)
    if not all(math.isfinite(value) for value in values):
        raise ProfileError("not a finite number", where=f"{f.where}.{key}")
    return values


def _edges(document: Any) -> Edges:
    f = Fields(document, "profile.edges", ProfileError)
    edges = Edges(
        _numbers(f, "levels", LEVELS - 1),
        _numbers(f, "confidence", BINS - 1),
        _numbers(f, "energy", BINS - 1),
        tuple(_numbers(f, name, BINS - 1) for name in INPUTS),
    )
    for values in (edges.levels, edges.confidence, edges.energy, *edges.inputs):
        if list(values) != sorted(values):
            raise ProfileError("edges are not ascending", where="profile.edges")
    return edges


def _projection(document: Any, slots: int) -> Projection:
    f = Fields(document, "profile.projection", ProfileError)
    source = f.text("source", among=("embedding", "logits", "none"))
    dimension = f.integer("dimension", minimum=0)
    k = len(raw(f.text("scale"), "scale")) // 4
    weights = raw(f.text("weights"), "weights")
    if k > COMPONENTS or len(weights) != k * dimension or (source == "none") != (k == 0):
        raise ProfileError(f"{len(weights)} weights for {k} × {dimension}", where="profile.projection")
    return Projection(
        source,
        dimension,
        struct.unpack(f"<{len(weights)}b", weights),
        _numbers(f, "scale", k),
        _numbers(f, "offset", k),
        _numbers(f, "whitener", k * (2 * k + 1)),
        _numbers(f, "class_means", slots * k),
    )
