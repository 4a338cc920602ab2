# SPDX-License-Identifier: Apache-2.0
"""What drift windows say in a gate: is the new bundle less at home with what its devices see than the old one was?

Two measures, each the change from before the update to after it, less the same change of the control devices over the
same hours: how unlike its own reference a device's windows are (z of the family's p-value, one scale for all
profiles), and the accuracy that each bundle's own profile estimates, where the estimate is valid.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from fleet.core.evidence import DeviceEvidence, Moments, Span
from fleet.core.gate_findings import ALONE, MIN_CONTROLS, Decision, Finding, alpha_of_one
from fleet.core.gate_limits import GateLimits
from fleet.core.sequential import looks_threshold, student_threshold

__all__ = ["judge_windows"]

_MIN_WINDOWS: Final = 2
"""Drift windows of updated devices together, below which nothing is said."""


@dataclass(frozen=True)
class _Window:
    """How a measure of drift windows is read; a growth is bad."""

    title: str
    moments: Callable[[Span], Moments]
    limit: Callable[[GateLimits], float]
    unit: str
    scale: float

    def bounds(self, limits: GateLimits, *, has_controls: bool) -> float:
        """Return what is tolerated; without controls a change of the world would be held against the bundle."""
        return self.limit(limits) * (1.0 if has_controls else ALONE)

    def text(self, *values: float) -> str:
        estimate, low, high = (self.scale * value for value in values)
        return f"{self.title} {estimate:+.1f} {self.unit} [{low:+.1f}, {high:+.1f}]"


def _lost(span: Span) -> Moments:
    """Accuracy turned round, so that a growth is a loss."""
    m = span.accuracy
    return replace(m, first=-m.first, last=-m.last, total=-m.total)


_WINDOWS: Final[Mapping[str, _Window]] = {
    "drift": _Window(
        "unlike the reference by", lambda span: span.drift, lambda limits: limits.drift, "deviations", 1.0
    ),
    "accuracy": _Window("estimated accuracy lost", _lost, lambda limits: limits.accuracy, "points", 100.0),
}


def judge_windows(devices: Sequence[DeviceEvidence], limits: GateLimits) -> list[Finding | None]:
    """Return what drift windows say of updated devices and controls; None for a measure with too few.

    They come once an hour, so nobody waits for them.
    """
    return [_judge(name, devices, limits) for name in _WINDOWS]


def _judge(name: str, devices: Sequence[DeviceEvidence], limits: GateLimits) -> Finding | None:
    measure = _WINDOWS[name]
    known = [d for d in devices if measure.moments(d.before).n > 1 and measure.moments(d.after).n >= 1]
    mine = [one for one in known if one.treated]
    theirs = [one for one in known if not one.treated]
    theirs = theirs if len(theirs) >= MIN_CONTROLS else []
    looks = sum(measure.moments(one.after).n for one in mine)
    if looks < _MIN_WINDOWS or len(mine) + len(theirs) < 2:
        return None
    estimate = _mean([_delta(measure, d) for d in mine]) - _mean([_delta(measure, d) for d in theirs])
    error, df = _window_error(measure, mine, theirs)
    threshold = looks_threshold(looks / len(mine), alpha_of_one(limits))
    reach = error * student_threshold(round(threshold, 3), df)
    low, high = estimate - reach, estimate + reach
    tolerated = measure.bounds(limits, has_controls=bool(theirs))
    text = measure.text(estimate, low, high)
    decision: Decision = "pass"
    if low > tolerated:
        decision, text = "fail", f"{text}: more than {measure.scale * tolerated:+.1f} {measure.unit}"
    if name == "drift":
        text += _unusual(mine)
    if not theirs:
        text += ", against the same devices before: no controls, so a change of the world would show, too"
    return Finding(name, decision, estimate, low, high, len(mine), len(theirs), text)


def _window_error(
    measure: _Window, mine: Sequence[DeviceEvidence], theirs: Sequence[DeviceEvidence]
) -> tuple[float, int]:
    """Return the standard error and its degrees of freedom: the larger of what windows and what devices spread.

    A device with one window after has no spread of its own: it takes the mean one of all windows.
    """
    spans = [measure.moments(span) for d in (*mine, *theirs) for span in (d.before, d.after)]
    df = sum(max(m.n - 1, 0) for m in spans)
    pooled = sum(m.squares for m in spans) / max(df, 1)
    within = 0.0
    for group in (mine, theirs):
        both = [(measure.moments(d.before), measure.moments(d.after)) for d in group]
        single = [max(b.error, pooled / b.n) + max(a.error, pooled / a.n) for b, a in both]
        within += sum(single) / max(len(group), 1) ** 2
    groups = [Moments.of(_delta(measure, d) for d in group) for group in (mine, theirs)]
    free = sum(max(group.n - 1, 0) for group in groups)
    if free < 2:
        return math.sqrt(within), max(df, 1)
    between = sum(g.squares for g in groups) / free * sum(1 / g.n for g in groups if g.n)
    return (math.sqrt(between), free) if between > within else (math.sqrt(within), max(df, 1))


def _unusual(mine: Sequence[DeviceEvidence]) -> str:
    after, before = (_mean([span.unusual_share for span in spans]) for spans in zip(*_spans(mine), strict=True))
    return f"; {after:.0%} of windows unusual, {before:.0%} before"


def _spans(devices: Sequence[DeviceEvidence]) -> list[tuple[Span, Span]]:
    return [(one.after, one.before) for one in devices]


def _delta(measure: _Window, one: DeviceEvidence) -> float:
    return measure.moments(one.after).mean - measure.moments(one.before).mean


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
