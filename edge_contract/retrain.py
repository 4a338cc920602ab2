# SPDX-License-Identifier: Apache-2.0
"""``RetrainSignal``: the server's word that a model's inputs have changed for long enough to be worth a new training.

It is made by the fleet server when drift alarms of a model's devices persist (``fleet/core/retrain.py`` has the
rule), shown to people, sent to webhooks, and taken up by ``strop loop run``. It says what moved, where, since when,
and what it probably costs. It does not say that the model is wrong (docs/drift.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edge_contract.errors import MessageError
from edge_contract.fields import Fields

__all__ = ["SCHEMA", "RetrainSignal"]

SCHEMA: Final = "strop.retrain/1"
_MOST_DEVICES: Final = 100_000


@dataclass(frozen=True)
class RetrainSignal:
    """One signal.

    Attributes:
        model: Name of the model.
        bundle: Id of the bundle that the devices run; the parent of the one that heals them.
        devices: Whose alarms persist, by name, sorted.
        since_ms: Start of the earliest window in which the evidence began to rise, Unix ms.
        until_ms: When the signal was made, Unix ms.
        channels: Channels of the drift summary that moved, the one seen on most devices first.
        moved: What moved, in the words of the device that has seen most.
        estimated_accuracy, low, high: Mean over the devices' newest windows, weighted by their samples; None when
            there is nothing to estimate from.
        valid: Every device's estimate may be believed.
        evidence: Why: ``rule`` in words, ``cohort`` (devices that run the bundle), ``reference_accuracy``, and
            ``windows``: the newest window of each device.
        number: The server's number of it, 0 before it is stored.

    Example:
        >>> made = RetrainSignal("digits", "ab" * 32, ("pi-1",), 1000, 2000, ("energy",), ("energy rose",))
        >>> RetrainSignal.from_json(made.to_json()) == made
        True
    """

    model: str
    bundle: str
    devices: tuple[str, ...]
    since_ms: int
    until_ms: int
    channels: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    estimated_accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    valid: bool = False
    evidence: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, as stored, sent to webhooks and kept by a loop's run."""
        return {
            "schema": SCHEMA,
            "number": self.number,
            "model": self.model,
            "bundle": self.bundle,
            "devices": list(self.devices),
            "since_ms": self.since_ms,
            "until_ms": self.until_ms,
            "channels": list(self.channels),
            "moved": list(self.moved),
            "estimated_accuracy": self.estimated_accuracy,
            "low": self.low,
            "high": self.high,
            "valid": self.valid,
            "evidence": dict(self.evidence),
        }

    @classmethod
    def from_json(cls, document: Any) -> "RetrainSignal":
        """Return the signal of a JSON form.

        Raises:
            MessageError: Malformed, of another schema, or it names no device.
        """
        f = Fields(document, "retrain signal", MessageError)
        if (schema := f.text("schema")) != SCHEMA:
            raise MessageError(f"schema {schema[:40]!r}, not {SCHEMA!r}", where="retrain signal", fix="update Strop")
        made = cls(
            f.text("model"),
            f.digest("bundle"),
            f.texts("devices"),
            f.integer("since_ms", minimum=0),
            f.integer("until_ms", minimum=0),
            f.texts("channels", []),
            f.texts("moved", []),
            _share(f, document, "estimated_accuracy"),
            _share(f, document, "low"),
            _share(f, document, "high"),
            f.flag("valid", False),
            f.object("evidence", {}),
            f.integer("number", 0, minimum=0),
        )
        if not made.model or not 0 < len(made.devices) <= _MOST_DEVICES:
            raise MessageError("names no model, no device, or too many", where="retrain signal")
        return made


def _share(f: Fields, document: Any, key: str) -> float | None:
    return None if document.get(key) is None else f.number(key)
