# SPDX-License-Identifier: Apache-2.0
"""What came of a comparison: the verdict, and whether its launches may be believed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.gates import Finding, check
from benchmarks.record import Measurement
from benchmarks.result.surroundings import board_key
from benchmarks.stats import Verdict, floor_of, judge, launch_medians, median, variance_split
from edge_contract.errors import MeasurementError

__all__ = ["Outcome", "outcome_of", "times_of"]

_DECIDES: Final = frozenset({"throttled", "clock", "memory", "golden", "launches"})
"""Findings that take a verdict its ground. A trend does not: launches in turns lay it on both sides."""


@dataclass(frozen=True)
class Outcome:
    """A comparison.

    Attributes:
        names: Of A and B, as a person gave them.
        sides: Their launches.
        stage: Which times were compared.
        verdict: On B against A.
        findings: Of the validity gates, with the side.
        command: What makes the comparison again.
    """

    names: tuple[str, str]
    sides: tuple[Measurement, Measurement]
    stage: str
    verdict: Verdict
    findings: tuple[tuple[str, Finding], ...]
    command: str

    def to_json(self) -> dict[str, Any]:
        """Return everything but the single runs as a JSON object."""
        sides = zip("ab", self.names, self.sides, strict=True)
        return {
            "schema": "strop.compare/2",
            **{key: _side_json(name, one, self.stage) for key, name, one in sides},
            "stage": self.stage,
            "verdict": self.verdict.to_json(),
            "findings": [
                {"side": side, "kind": f.kind, "status": f.status, "words": f.words} for side, f in self.findings
            ],
            "board": self.sides[0].preflight.to_json(),
            "command": self.command,
        }

    def to_text(self) -> str:
        """Return it for people."""
        v = self.verdict
        lines = [
            _side_text(label, name, one, self.stage)
            for label, name, one in zip("AB", self.names, self.sides, strict=True)
        ]
        floor = f"noise floor {100 * v.noise:.1f} %" if v.noise is not None else "noise floor unknown: strop bench aa"
        lines.append(
            f"B/A  {v.ratio.point:.4f} [{v.ratio.low:.4f}, {v.ratio.high:.4f}] at 95 %, "
            f"p = {v.p:.2g} (Mann-Whitney); {floor}"
        )
        lines += [f"{side}: {one.status}: {one.words}" for side, one in self.findings]
        notes = dict.fromkeys(note for one in self.sides for note in one.notes)
        lines += [f"note: {note}" for note in notes]
        return "\n".join([*lines, v.words, f"command: {self.command}"])


def times_of(measurement: Measurement, stage: str) -> list[tuple[int, ...]]:
    """Return the times of a stage, nanoseconds, of each launch.

    Raises:
        MeasurementError: The launches do not have the stage.
    """
    found = [one.stages_ns.get(stage, ()) for one in measurement.launches]
    if not found or not all(found):
        known = ", ".join(measurement.launches[0].stages_ns) if measurement.launches else "none"
        raise MeasurementError(f"no times of '{stage}'", where=measurement.plan.artefact, fix=f"use one of {known}")
    return found


def outcome_of(
    names: tuple[str, str],
    sides: tuple[Measurement, Measurement],
    *,
    stage: str = "total",
    floors: Path | None = None,
    command: str = "",
) -> Outcome:
    """Return what launches of two sides allow to say.

    Args:
        names: As a person gave them.
        sides: A and B.
        stage: Which times count.
        floors: Folder with the noise floors of boards.
        command: What makes the comparison again.

    Raises:
        MeasurementError: A side without times of the stage, or a file of noise floors that cannot be read.
    """
    a, b = (times_of(one, stage) for one in sides)
    plan, key = sides[0].plan, board_key(sides[0].preflight)
    noise = None
    if floors is not None:
        noise = floor_of(key, floors, artefact=plan.sha256, configuration=plan.configuration)
    found = _findings(sides)
    return Outcome(names, sides, stage, _grounded(judge(a, b, noise=noise), found), found, command)


def _findings(sides: Sequence[Measurement]) -> tuple[tuple[str, Finding], ...]:
    """Return what the gates say of each side; what they say of both, once."""
    first, second = (check(one) for one in sides)
    both = [("A and B", one) for one in first if one in second]
    alone = [
        (name, one)
        for name, found, other in (("A", first, second), ("B", second, first))
        for one in found
        if one not in other
    ]
    return (*both, *alone)


def _grounded(verdict: Verdict, findings: Sequence[tuple[str, Finding]]) -> Verdict:
    """Return the verdict, or INCONCLUSIVE where a finding has taken its ground."""
    worst = [(side, one) for side, one in findings if one.status == "invalid" and one.kind in _DECIDES]
    if not worst or verdict.kind == "INCONCLUSIVE":
        return verdict
    side, one = worst[0]
    words = f"INCONCLUSIVE: it would be {verdict.kind}, but the launches of {side} are invalid: {one.words}"
    return replace(verdict, kind="INCONCLUSIVE", needs=None, words=words)


def _side_json(name: str, side: Measurement, stage: str) -> dict[str, Any]:
    times = times_of(side, stage)
    return {
        "name": name,
        "sha256": side.plan.sha256,
        "configuration": side.plan.configuration,
        "launch_medians_ns": launch_medians(times),
        "runs": [len(one) for one in times],
    }


def _side_text(label: str, name: str, side: Measurement, stage: str) -> str:
    times = times_of(side, stage)
    split = variance_split(times)
    return (
        f"{label}  {name}: median {median(launch_medians(times)) / 1e6:.4g} ms of {len(times)} launches, "
        f"{sum(map(len, times))} runs of {stage}; spread {100 * split.between:.1f} % between launches, "
        f"{100 * split.within:.1f} % within ({side.plan.configuration}, {side.plan.sha256[:12]})"
    )
