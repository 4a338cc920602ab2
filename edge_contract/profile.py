# SPDX-License-Identifier: Apache-2.0
"""The reference profile: what a model's answers look like where nothing has drifted.

It is computed from the quantized artefact on its runtime (``export.bundle.reference``), because quantization itself
would otherwise show as drift, and it travels, signed, in the bundle. Canonical JSON of at most 16 KB; arrays
are base-85 text: float32 little-endian, int8, or packed counts.
"""

import math
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from edge_contract import canonical
from edge_contract.arrays import floats, raw, text
from edge_contract.counts import BINS, LEVELS, MAX_SLOTS, Counters
from edge_contract.errors import ContractError, ProfileError
from edge_contract.fields import Fields
from edge_contract.packing import Cursor, pack_counts
from edge_contract.profile_parts import (
    IMAGES,
    INPUTS,
    NO_PARTS,
    Edges,
    InputLook,
    Projection,
    TaskParts,
    read_edges,
    read_look,
    read_parts,
    read_projection,
)
from edge_contract.summary import decode_counters, encode_counters
from edge_contract.tasks import CLASSIFY, TASKS, Form

__all__ = [
    "ATC_LEVEL",
    "INPUTS",
    "MAX_PROFILE_BYTES",
    "SCHEMA",
    "Edges",
    "InputLook",
    "Projection",
    "ReferenceProfile",
    "TaskParts",
]

SCHEMA: Final = "strop.profile/1"
MAX_PROFILE_BYTES: Final = 16 * 1024
ATC_LEVEL: Final = 2
"""Levels of confidence from this one on lie above the ATC threshold."""
SCORES: Final = ("logits", "shares")


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
        task: One of ``edge_contract.tasks.TASKS``; labels, cells, hits and confusion are ``classify``'s alone, and the
            energy of another task is its signal.
        scores: ``logits``, or ``shares`` where the artefact ends in a softmax: then the energy is ln(largest / second).
        look: What inputs are.
        parts: What the task counts.
        design: How many successive reference samples say as much as one independent sample, as the workstation saw it
            in features over long series; at least 1. The counters tell of short ones (``edge_contract.effective``).
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
    task: str = CLASSIFY
    scores: str = "logits"
    look: InputLook = IMAGES
    parts: TaskParts = NO_PARTS
    design: float = 1.0
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def blank(cls, labels: tuple[str, ...], task: str = CLASSIFY) -> "ReferenceProfile":
        """Return a profile without a reference: counts inferences and classes, and is never judged.

        Example:
            >>> ReferenceProfile.blank(("cat", "dog")).size
            0
        """
        none = (0.0,) * (BINS - 1)
        counters = Counters.zero(len(labels), Form(task))
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
            task=task,
        )

    @property
    def size(self) -> int:
        """m, the number of reference samples."""
        return self.counters.n_sampled

    @property
    def accuracy(self) -> float:
        """Accuracy of the artefact on the reference; 0 for an empty one."""
        return sum(self.hits) / self.size if self.size else 0.0

    def fits(self, counters: Counters) -> bool:
        """Return whether counters have the classes, tables and sensors of the reference; an older agent has none of
        the latter two.
        """
        own, form = self.counters.form, counters.form
        has_kin = form.tables in ((), own.tables) and form.sensors in (0, own.sensors)
        return counters.slots == self.counters.slots and form.task == own.task and has_kin

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
        return {
            **self.unrecognized,
            **self._beyond_classes(),
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
            "projection": self.projection.to_json(),
            "counters": text(encode_counters(self.counters)),
            "hits": text(pack_counts(self.hits)),
            "confusion": text(pack_counts(self.confusion)),
            "calibration_error": self.calibration_error,
        }

    def _beyond_classes(self) -> dict[str, Any]:
        """Return what a classifier of images that gives logits leaves out, as all profiles did before."""
        found: dict[str, Any] = {}
        if self.task != CLASSIFY:
            found.update(task=self.task, parts=self.parts.to_json())
        if self.scores != "logits":
            found["scores"] = self.scores
        if self.look != IMAGES:
            found["inputs"] = self.look.to_json()
        if self.design != 1.0:
            found["design"] = self.design
        return found

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
            edges=read_edges(f.object("edges")),
            energy_mean=f.number("energy_mean"),
            energy_deviation=f.number("energy_deviation"),
            projection=read_projection(f.object("projection"), counters.slots),
            counters=counters,
            hits=counts["hits"].counts(len(counters.cells)),
            confusion=counts["confusion"].counts(counters.slots**2),
            calibration_error=f.number("calibration_error"),
            task=f.text("task", CLASSIFY, among=TASKS),
            scores=f.text("scores", "logits", among=SCORES),
            look=read_look(document),
            parts=read_parts(document),
            design=f.number("design", 1.0),
            unrecognized={key: value for key, value in f.rest().items() if key not in ("inputs", "parts")},
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
        sizes = self.counters.form.tables
        if self.counters.task != self.task or len(self.parts.edges) != len(sizes):
            raise ProfileError(f"counters of task '{self.counters.task}', not '{self.task}'", where="profile.task")
        for edges, size in zip(self.parts.edges, sizes, strict=True):
            if edges and len(edges) != size - 1:
                raise ProfileError(f"{len(edges)} edges for {size} bins", where="profile.parts.edges")
        if not self.energy_deviation > 0 or not 0 <= self.calibration_error <= 1 or not 1 <= self.design < math.inf:
            raise ProfileError("a deviation or error out of range", where="profile")
