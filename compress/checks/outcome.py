# SPDX-License-Identifier: Apache-2.0
"""What a check found, as values; JSON in and out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FAILED", "FEW", "PASSED", "CheckResult", "Row", "failed_of"]

PASSED, FAILED, FEW = "passed", "failed", "too few"


def _number(document: Mapping[str, Any], key: str) -> float | None:
    value = document.get(key)
    return None if value is None else float(value)


@dataclass(frozen=True)
class Row:
    """One part of what a check looked at, such as a class.

    Attributes:
        name: Which part.
        figure: What was found, in the unit of the check.
        low, high: Its 95 % interval, None where there is no sampling.
        samples: Over so many.
        verdict: ``passed``, ``failed``, or ``too few`` samples to be judged.
        words: What else there is to say, such as the change against the teacher.
    """

    name: str
    figure: float
    low: float | None
    high: float | None
    samples: int
    verdict: str = PASSED
    words: str = ""

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Row":
        low, high = _number(document, "low"), _number(document, "high")
        figure, samples = float(document["figure"]), int(document["samples"])
        return cls(str(document["name"]), figure, low, high, samples, str(document["verdict"]), str(document["words"]))


@dataclass(frozen=True)
class CheckResult:
    """One check of the recipe, with its figure and its limit.

    Attributes:
        name, kind: As in the recipe.
        passed: Whether the limit is kept.
        figure: What was found; of many parts the worst.
        low, high: Its 95 % interval, None where there is no sampling.
        limit: What was asked.
        is_least: The limit is the least that is allowed; else the most.
        unit: Of figure and limit: ``%``, ``points``, ``inputs`` or empty.
        words: One sentence with what was found and what was asked.
        rows: The parts.
        facts: What later runs may be compared with, such as the range of the training inputs.
    """

    name: str
    kind: str
    passed: bool
    figure: float
    limit: float
    unit: str
    words: str
    low: float | None = None
    high: float | None = None
    is_least: bool = False
    rows: tuple[Row, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def figure_text(self) -> str:
        """The figure with its interval, such as ``81.2 % [78.0, 84.1]``.

        Example:
            >>> CheckResult("a", "gap", True, 2.0, 5.0, "points", "", 0.5, 3.5).figure_text
            '2.00 points [0.50, 3.50]'
        """
        digits = {"%": 1, "points": 2}.get(self.unit, 0 if self.figure == int(self.figure) else 2)
        shown = f"{self.figure:.{digits}f} {self.unit}".strip()
        return (
            shown
            if self.low is None or self.high is None
            else f"{shown} [{self.low:.{digits}f}, {self.high:.{digits}f}]"
        )

    @property
    def limit_text(self) -> str:
        """The limit in words, such as ``at least 90 %``."""
        return f"at {'least' if self.is_least else 'most'} {self.limit:g} {self.unit}".strip()

    @property
    def verdict(self) -> str:
        """``passed`` or ``failed``."""
        return PASSED if self.passed else FAILED

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "rows": [row.to_json() for row in self.rows], "facts": dict(self.facts)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "CheckResult":
        """Return the result in a JSON object; raises KeyError, TypeError or ValueError where it is none."""
        return cls(
            str(document["name"]),
            str(document["kind"]),
            _flag(document, "passed"),
            float(document["figure"]),
            float(document["limit"]),
            str(document["unit"]),
            str(document["words"]),
            _number(document, "low"),
            _number(document, "high"),
            _flag(document, "is_least"),
            tuple(Row.from_json(row) for row in document["rows"]),
            dict(document["facts"]),
        )


def _flag(document: Mapping[str, Any], key: str) -> bool:
    value = document[key]
    if not isinstance(value, bool):
        raise TypeError(f"{key} is {value!r}")
    return value


def failed_of(results: Sequence[CheckResult]) -> tuple[CheckResult, ...]:
    """Return the checks that failed, in their order."""
    return tuple(one for one in results if not one.passed)
