# SPDX-License-Identifier: Apache-2.0
"""What a trial is told and what it answers, as values that cross a process boundary. PyTorch is not needed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Result", "Rival", "Task"]


@dataclass(frozen=True)
class Rival:
    """A finished trial as others see it: its cost, and its validation accuracy after each step."""

    size_kb: float
    macs: int
    accuracies: tuple[float, ...]


@dataclass(frozen=True)
class Task:
    """What a trial is told.

    Attributes:
        text: Its recipe.
        path: Where the searched recipe lies; relative paths in it start from there.
        work: Folder of step results that all trials share.
        teacher_weights: As in ``pipeline.run``, or empty.
        stopwatch: ``module:callable`` of a ``pipeline.Stopwatch``, or empty.
        rivals: Finished trials.
        predictor: A file of ``strop bench predict learn``, ``module:callable`` of a ``predictors.Predictor``, or empty.
    """

    text: str
    path: str
    work: str
    teacher_weights: str = ""
    stopwatch: str = ""
    rivals: tuple[Rival, ...] = ()
    predictor: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Task":
        rivals = tuple(Rival(r["size_kb"], r["macs"], tuple(r["accuracies"])) for r in document["rivals"])
        return cls(**{**document, "rivals": rivals})


@dataclass(frozen=True)
class Result:
    """What a trial found.

    Attributes:
        state: ``complete``, ``stopped`` (early) or ``failed``.
        reason: Why it was stopped or failed, one line.
        values: Objective → value of the last step, measured on validation.
        steps: Accuracy after each step.
        seconds: Spent.
        measured: What each device gave that measured the latency: ``device``, ``board``, ``median_ms``, ``low_ms``,
            ``high_ms``, ``status``; empty where this machine measured, or nobody.
        predicted: What was expected of the latency before anything was trained: ``ms``, ``low``, and ``high`` where
            it is known; empty where nobody predicts.
    """

    state: str
    reason: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    steps: tuple[float, ...] = ()
    seconds: float = 0.0
    measured: tuple[Mapping[str, Any], ...] = ()
    predicted: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "steps": list(self.steps), "measured": [dict(one) for one in self.measured]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Result":
        lists = {"steps": tuple(document["steps"]), "measured": tuple(document.get("measured", ()))}
        return cls(**{**document, **lists})
