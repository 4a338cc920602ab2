# SPDX-License-Identifier: Apache-2.0
"""The parts of a reference profile, and what reads them: edges, projection, what inputs are, what a task counts."""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edge_contract.arrays import floats, raw, text
from edge_contract.counts import BINS, COMPONENTS, LEVELS
from edge_contract.errors import ProfileError
from edge_contract.fields import Fields
from edge_contract.tasks import MAX_OUTPUTS, MAX_SENSORS

__all__ = [
    "IMAGES",
    "INPUTS",
    "LOOKS",
    "NO_PARTS",
    "Edges",
    "InputLook",
    "Projection",
    "TaskParts",
    "numbers",
    "read_edges",
    "read_look",
    "read_parts",
    "read_projection",
]

INPUTS: Final = ("brightness", "contrast", "sharpness")
"""The three statistics of an input, named as those of an image are."""
LOOKS: Final = ("images", "series", "audio", "vectors")
SOURCES: Final = ("embedding", "logits", "none", "outputs", "areas")


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
        source: ``embedding``, ``logits`` (the artefact shows no embedding), ``outputs`` (of a regression), ``areas``
            (the classes' shares of a segmentation) or ``none``.
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

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "source": self.source,
            "dimension": self.dimension,
            "weights": text(struct.pack(f"<{len(self.weights)}b", *self.weights)),
            "scale": floats(self.scale),
            "offset": floats(self.offset),
            "whitener": floats(self.whitener),
            "class_means": floats(self.class_means),
        }


@dataclass(frozen=True)
class InputLook:
    """What raw inputs are, and so what their three statistics mean.

    Attributes:
        kind: One of LOOKS. Images: brightness, contrast, sharpness, and the shares of dark and bright pixels. Series
            and vectors: mean, deviation and roughness (vectors: largest value) of z, and the shares beyond the
            reference's range. Audio: level in dB, zero crossings, crest factor, and the shares of silence and of
            clipped samples.
        offset, scale: z = (value - offset) × scale, of each sensor or, of many, one for all [sensors or 1].
        low, high: The reference's range of z.
    """

    kind: str = "images"
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        ends = floats((self.low, self.high))
        return {"kind": self.kind, "offset": floats(self.offset), "scale": floats(self.scale), "range": ends}


IMAGES: Final = InputLook()


@dataclass(frozen=True)
class TaskParts:
    """What a task that is no classification counts beside its signal (``edge_contract.tasks``).

    Attributes:
        names: Of the classes of ``kinds`` or ``areas``, or of the outputs; those beyond the table share its last place.
        edges: Of each table that is a histogram of real numbers; empty for the others [tables].
        clusters: Of each table how many of its counts say as much as one independent count, at least 1: the boxes of a
            frame are alike [tables].
    """

    names: tuple[str, ...] = ()
    edges: tuple[tuple[float, ...], ...] = ()
    clusters: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        edges = [floats(edges) for edges in self.edges]
        return {"names": list(self.names), "edges": edges, "clusters": floats(self.clusters)}


NO_PARTS: Final = TaskParts()


def numbers(f: Fields, key: str, size: int) -> tuple[float, ...]:
    """Return ``size`` finite numbers.

    Raises:
        ProfileError: Not base 85, another number of them, or one that is not finite.
    """
    return _finite(raw(f.text(key), key), f"{f.where}.{key}", size)


def _finite(data: bytes, where: str, size: int = -1) -> tuple[float, ...]:
    count = len(data) // 4 if size < 0 else size
    if len(data) != 4 * count:
        raise ProfileError(f"{len(data)} bytes, not {4 * count}", where=where)
    values = struct.unpack(f"<{count}f", data)
    if not all(math.isfinite(value) for value in values):
        raise ProfileError("not a finite number", where=where)
    return values


def read_look(document: Mapping[str, Any]) -> InputLook:
    """Return what inputs are; a profile from before says nothing and means images."""
    if "inputs" not in document:
        return IMAGES
    f = Fields(document["inputs"], "profile.inputs", ProfileError)
    kind, data = f.text("kind", among=LOOKS), raw(f.text("offset"), "offset")
    offset = _finite(data, "profile.inputs.offset")
    if len(offset) > MAX_SENSORS:
        raise ProfileError(f"{len(offset)} sensors, more than {MAX_SENSORS}", where="profile.inputs")
    low, high = numbers(f, "range", 2)
    return InputLook(kind, offset, numbers(f, "scale", len(offset)), low, high)


def read_parts(document: Mapping[str, Any]) -> TaskParts:
    """Return what a task counts; nothing where the profile says nothing."""
    if "parts" not in document:
        return TaskParts()
    f = Fields(document["parts"], "profile.parts", ProfileError)
    encoded = f.texts("edges")
    if len(encoded) > MAX_OUTPUTS:
        raise ProfileError(f"{len(encoded)} tables", where="profile.parts")
    edges = tuple(_finite(raw(one, "edges"), "profile.parts.edges") for one in encoded)
    if any(list(one) != sorted(one) for one in edges):
        raise ProfileError("edges are not ascending", where="profile.parts.edges")
    clusters = numbers(f, "clusters", len(edges))
    if any(value < 1 for value in clusters):
        raise ProfileError("a cluster of less than one", where="profile.parts.clusters")
    return TaskParts(f.texts("names"), edges, clusters)


def read_edges(document: Any) -> Edges:
    """Return the edges; raises ProfileError."""
    f = Fields(document, "profile.edges", ProfileError)
    edges = Edges(
        numbers(f, "levels", LEVELS - 1),
        numbers(f, "confidence", BINS - 1),
        numbers(f, "energy", BINS - 1),
        tuple(numbers(f, name, BINS - 1) for name in INPUTS),
    )
    for values in (edges.levels, edges.confidence, edges.energy, *edges.inputs):
        if list(values) != sorted(values):
            raise ProfileError("edges are not ascending", where="profile.edges")
    return edges


def read_projection(document: Any, slots: int) -> Projection:
    """Return the projection for so many class slots; raises ProfileError."""
    f = Fields(document, "profile.projection", ProfileError)
    source = f.text("source", among=SOURCES)
    dimension = f.integer("dimension", minimum=0)
    k = len(raw(f.text("scale"), "scale")) // 4
    weights = raw(f.text("weights"), "weights")
    if k > COMPONENTS or len(weights) != k * dimension or (source == "none") != (k == 0):
        raise ProfileError(f"{len(weights)} weights for {k} × {dimension}", where="profile.projection")
    return Projection(
        source,
        dimension,
        struct.unpack(f"<{len(weights)}b", weights),
        numbers(f, "scale", k),
        numbers(f, "offset", k),
        numbers(f, "whitener", k * (2 * k + 1)),
        numbers(f, "class_means", slots * k),
    )
