# SPDX-License-Identifier: Apache-2.0
"""The lines of a compression report, as values; JSON in and out."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.cost import Cost
from compress.evaluate import Difference, Hits, Score
from compress.quantize.fidelity import Fidelity
from compress.quantize.sensitivity import Sensitivity

__all__ = ["BudgetLine", "ModelRow", "Point", "Rung", "StepReport", "pack", "unpack"]


def pack(hits: Hits) -> str:
    """Return right or wrong for each sample, bool [N], as base64 of one bit each: 10 000 samples are 1.7 KB.

    Example:
        >>> pack(np.array([True, False, True]))
        'oA=='
    """
    return base64.b64encode(np.packbits(hits).tobytes()).decode()


def unpack(text: str, samples: int) -> Hits | None:
    """Return what ``pack`` packed, bool [samples], or None for an empty text: an old report kept no hits.

    Raises:
        ValueError: Not base64, or of another number of samples.
    """
    if not text:
        return None
    octets = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    if len(octets) != (samples + 7) // 8:
        raise ValueError(f"hits of {8 * len(octets)} samples instead of {samples}")
    return np.unpackbits(octets, count=samples).astype(np.bool_)


def _number(document: Mapping[str, Any], key: str) -> float | None:
    value = document.get(key)
    return None if value is None else float(value)


@dataclass(frozen=True)
class Rung:
    """One attempt of the accuracy ladder, measured on the validation split.

    Attributes:
        rung: Which cure, such as ``adaptive rounding``.
        what: The choice within it, such as ``percentile``.
        drop: Points lost against the reference of the recipe.
        divergence: Mean KL divergence of the float model's answers from the plan's, nats.
        seconds: Spent on it.
        is_kept: Whether it was the best so far, so that the next rung built on it.
        score: Accuracy, or None where only the drop is known.
    """

    rung: str
    what: str
    drop: float
    divergence: float
    seconds: float
    is_kept: bool
    score: Score | None = None

    def to_json(self) -> dict[str, Any]:
        # whoever judged may have counted with numpy, whose booleans are no JSON
        is_kept, score = bool(self.is_kept), None if self.score is None else self.score.to_json()
        return {**vars(self), "is_kept": is_kept, "score": score}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Rung":
        drop, divergence, seconds = (float(document[key]) for key in ("drop", "divergence", "seconds"))
        score = None if document["score"] is None else Score.from_json(document["score"])
        words = str(document["rung"]), str(document["what"])
        return cls(*words, drop, divergence, seconds, bool(document["is_kept"]), score)


@dataclass(frozen=True)
class Point:
    """Another model on the same validation split, to be drawn beside the steps: a trial of a search.

    Attributes:
        name: What it is, in a few words.
        accuracy: 0 to 1; ``low`` and ``high`` are its 95 % interval if that is known.
        size_kb, macs, latency_ms: What it costs; None where nobody measured.
    """

    name: str
    accuracy: float
    low: float | None = None
    high: float | None = None
    size_kb: float | None = None
    macs: float | None = None
    latency_ms: float | None = None

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Point":
        keys = ("low", "high", "size_kb", "macs", "latency_ms")
        low, high, size_kb, macs, latency_ms = (_number(document, key) for key in keys)
        return cls(str(document["name"]), float(document["accuracy"]), low, high, size_kb, macs, latency_ms)


@dataclass(frozen=True)
class StepReport:
    """One step of the recipe, measured on the validation split.

    Attributes:
        number: 0 for the model that entered, else the step's number.
        kind, method: As in the recipe.
        score: Accuracy after the step.
        change: Against the model before the step, paired.
        drop: Points lost against the reference of the recipe; negative is a gain; None before there is one.
        cost: MACs, parameters, layers.
        size_kb: Bytes of the weights / 1000 (float32 with folded normalisation, or int8 with int32 biases).
        seconds: Wall-clock time of the step.
        losses: Mean training loss of each epoch.
        note: What was done, in one line.
        peak_kb: Activations that live at the same time at worst, bytes / 1000, on one input.
        zipped_kb: The weights after deflate, bytes / 1000.
        latency_ms: Of one input on the target, if a stopwatch was there.
        hits: Right or wrong for each validation sample (``pack``), so that two reports can be compared in pairs.
        ladder: What the accuracy ladder tried.
        fidelity: Layer by layer, the integers against the float network.
        sensitivity: What each layer alone costs.
    """

    number: int
    kind: str
    method: str
    score: Score
    change: Difference | None
    drop: float | None
    cost: Cost
    size_kb: float
    seconds: float
    losses: tuple[float, ...] = ()
    note: str = ""
    peak_kb: float | None = None
    zipped_kb: float | None = None
    latency_ms: float | None = None
    hits: str = ""
    ladder: tuple[Rung, ...] = ()
    fidelity: Fidelity | None = None
    sensitivity: Sensitivity | None = None

    @property
    def memory_kb(self) -> float:
        """``peak_kb``, or where it was not measured the inputs and output of the largest layer alone."""
        if self.peak_kb is not None:
            return self.peak_kb
        return self.cost.peak_elements * (1 if self.kind == "quantize" else 4) / 1000

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "kind": self.kind,
            "method": self.method,
            "validation": self.score.to_json(),
            "change": None if self.change is None else self.change.to_json(),
            "drop": self.drop,
            "cost": self.cost.to_json(),
            "size_kb": self.size_kb,
            "seconds": self.seconds,
            "losses": list(self.losses),
            "note": self.note,
            "peak_kb": self.peak_kb,
            "zipped_kb": self.zipped_kb,
            "latency_ms": self.latency_ms,
            "hits": self.hits,
            "ladder": [rung.to_json() for rung in self.ladder],
            "fidelity": None if self.fidelity is None else self.fidelity.to_json(),
            "sensitivity": None if self.sensitivity is None else self.sensitivity.to_json(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "StepReport":
        """Return the step in a JSON object; what schema 1 did not have may be missing."""
        change, fidelity, sensitivity = (document.get(key) for key in ("change", "fidelity", "sensitivity"))
        score, hits = Score.from_json(document["validation"]), str(document.get("hits", ""))
        unpack(hits, score.samples)
        return cls(
            int(document["number"]),
            str(document["kind"]),
            str(document["method"]),
            score,
            None if change is None else Difference.from_json(change),
            _number(document, "drop"),
            Cost.from_json(document["cost"]),
            float(document["size_kb"]),
            float(document["seconds"]),
            tuple(float(loss) for loss in document["losses"]),
            str(document["note"]),
            _number(document, "peak_kb"),
            _number(document, "zipped_kb"),
            _number(document, "latency_ms"),
            hits,
            tuple(Rung.from_json(rung) for rung in document.get("ladder", ())),
            None if fidelity is None else Fidelity.from_json(fidelity),
            None if sensitivity is None else Sensitivity.from_json(sensitivity),
        )


@dataclass(frozen=True)
class ModelRow:
    """One model on the test split, which was read once, after every decision.

    Attributes:
        name: ``teacher``, ``entering``, ``float`` or ``int8``.
        score: Accuracy.
        macs, parameters, size_kb: Cost.
        hits: Right or wrong for each test sample (``pack``); empty in reports of schema 1.
    """

    name: str
    score: Score
    macs: int
    parameters: int
    size_kb: float
    hits: str = ""

    def to_json(self) -> dict[str, Any]:
        cost = {"macs": self.macs, "parameters": self.parameters, "size_kb": self.size_kb}
        return {"name": self.name, "test": self.score.to_json(), **cost, "hits": self.hits}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "ModelRow":
        score, size_kb, hits = Score.from_json(document["test"]), float(document["size_kb"]), document.get("hits", "")
        unpack(hits, score.samples)
        return cls(str(document["name"]), score, int(document["macs"]), int(document["parameters"]), size_kb, hits)


@dataclass(frozen=True)
class BudgetLine:
    """One line of the budget: what was allowed, what came out."""

    name: str
    limit: float
    value: float

    @property
    def is_kept(self) -> bool:
        """True if the result costs no more than allowed."""
        return self.value <= self.limit

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "limit": self.limit, "value": self.value, "kept": self.is_kept}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "BudgetLine":
        return cls(str(document["name"]), float(document["limit"]), float(document["value"]))
