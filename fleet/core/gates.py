# SPDX-License-Identifier: Apache-2.0
"""The gate after a wave: is the new bundle worse on the devices that have it than the old one on those that do not?

Theory of operation. The unit is a device, because rows of one device resemble each other. For each device the change
from before the update to after it is taken; the mean change of the updated devices is compared with that of the
control devices over the same hours. What the day, the load or the weather does to all of them falls out, and what is
special about a device falls out of its own change. The spread of the changes between devices says how sure that is.

Without three control devices, as in a last wave, the devices are compared with themselves alone, with the rows'
own spread and resemblance, and only a gross change counts: nothing guards against a change of the world.

A wave is looked at each second, so every interval holds at all times together (``sequential``): the chance that a
rollout of a harmless bundle is ever stopped is at most alpha over all measures, not per look.

Measures: runner crashes (devices that crashed, e-value of two streams), share of inferences that failed, median and
95th percentile of latency, the share of inputs on which the shadow answers otherwise, how unlike its reference each
device's drift windows are, and estimated accuracy. Another bundle has another profile, so windows are compared by what
has one scale for all: z of the family's p-value, and accuracy as each bundle's own profile estimates it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fleet.core.evidence import DeviceEvidence, Moments, Span
from fleet.core.gate_findings import ALONE, CRASH_SHARE, MIN_CONTROLS, Decision, Finding, WaveVerdict, alpha_of_one
from fleet.core.gate_limits import GateLimits
from fleet.core.gate_windows import judge_windows
from fleet.core.sequential import looks_threshold, rare_events_e_value, student_threshold

__all__ = ["Decision", "Finding", "WaveVerdict", "judge_wave"]

ENOUGH: Final = 8
"""Degrees of freedom from which the spread between devices is trusted alone."""


def judge_wave(devices: Sequence[DeviceEvidence], limits: GateLimits, waited_s: float = 0.0) -> WaveVerdict:
    """Return the verdict on what is known now.

    Args:
        devices: Updated devices and controls.
        limits: What is tolerated.
        waited_s: Since the wave's last device was in.
    """
    treated = [one for one in devices if one.treated]
    controls = [one for one in devices if not one.treated and one.after.rows >= limits.min_rows and one.before.rows > 1]
    ready = [one for one in treated if one.after.rows >= limits.min_rows]
    measures = [_crashes(treated, controls, limits), _disagreement(treated, limits)]
    if ready:
        measures += [_change(name, ready, controls, limits) for name in _CHANGES]
        measures += judge_windows(devices, limits)
    found = tuple(one for one in measures if one is not None)
    if failed := [one for one in found if one.decision == "fail"]:
        return WaveVerdict("fail", "; ".join(one.words for one in failed), found)
    missing = len(treated) - len(ready)
    if missing and waited_s < limits.timeout_s:
        slow = min((one for one in treated if one.after.rows < limits.min_rows), key=lambda one: one.after.rows)
        words = f"{missing} of {len(treated)} updated devices have sent too little; {slow.device} {slow.after.rows} of "
        return WaveVerdict("wait", f"{words}{limits.min_rows} rows", found)
    if waiting := [one for one in found if one.decision == "wait"]:
        if waited_s < limits.timeout_s:
            return WaveVerdict("wait", "; ".join(one.words for one in waiting), found)
        words = f"not proved within {limits.timeout_s / 3600:g} h: {waiting[0].words}"
        return WaveVerdict("fail", words, found)
    return WaveVerdict("pass", _passed(found, len(ready), len(controls)), found)


def _passed(found: Sequence[Finding], treated: int, controls: int) -> str:
    if not found:
        return "no metric rows to judge by"
    against = f"{controls} control devices" if controls >= MIN_CONTROLS else "the same devices before"
    shown = ", ".join(one.words for one in found if one.measure in ("p95", "errors", "accuracy"))
    return f"{treated} updated devices are not worse than {against}" + (f": {shown}" if shown else "")


@dataclass(frozen=True)
class _Change:
    """How a change of one measure is read and put into words.

    Attributes:
        moments: Of a span.
        is_relative: Logarithms, to be shown as growth in percent; otherwise shares, shown in points.
    """

    title: str
    moments: Callable[[Span], Moments]
    is_relative: bool

    def bounds(self, limits: GateLimits, *, has_controls: bool) -> tuple[float, float]:
        """Return what is tolerated and the margin of a proof, in the units of the moments.

        Without controls an afternoon's load looks like a slow model: only what is gross is held against it.
        """
        limit, margin = limits.errors, limits.error_margin
        if self.is_relative:
            limit, margin = limits.latency, limits.latency_margin
        if not has_controls:
            limit, margin = ALONE * margin, ALONE * margin
        return (math.log1p(limit), math.log1p(margin)) if self.is_relative else (limit, margin)

    def shown(self, value: float) -> float:
        return math.expm1(min(value, 50.0)) if self.is_relative else value

    def text(self, estimate: float, low: float, high: float) -> str:
        unit = "%" if self.is_relative else "points"
        return f"{self.title} {100 * estimate:+.1f} {unit} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _shares(span: Span) -> Moments:
    """The share of failed inferences, with the error of counting it.

    Half a failure and half a success are thought to be seen besides: a span without failures is not certain.
    """
    total, rows = span.inferences + span.errors, max(span.rows, 1)
    p = (span.errors + 0.5) / (total + 1)
    return Moments(rows, span.error_share, total_squares=(rows - 1) * rows * p * (1 - p) / max(total, 1))


_CHANGES: Final[Mapping[str, _Change]] = {
    "errors": _Change("failed inferences", _shares, is_relative=False),
    "p50": _Change("median latency", lambda span: span.p50, is_relative=True),
    "p95": _Change("p95 latency", lambda span: span.p95, is_relative=True),
}


def _change(
    name: str, treated: Sequence[DeviceEvidence], controls: Sequence[DeviceEvidence], limits: GateLimits
) -> Finding | None:
    """Compare the devices' changes of one measure."""
    measure = _CHANGES[name]
    mine = [one for one in treated if measure.moments(one.before).n > 1]
    if not mine:
        return None  # new devices: there is no before
    theirs = controls if len(controls) >= MIN_CONTROLS else []
    estimate = _mean([_delta(measure, one) for one in mine]) - _mean([_delta(measure, one) for one in theirs])
    error, df = _error(measure, mine, theirs)
    looks = sum(one.after.rows for one in mine) / len(mine)
    reach = error * student_threshold(round(looks_threshold(looks, alpha_of_one(limits)), 3), df)
    tolerated, margin = measure.bounds(limits, has_controls=bool(theirs))
    low, high = (measure.shown(estimate + side * reach) for side in (-1, 1))
    text = measure.text(measure.shown(estimate), low, high)
    decision: Decision = "pass"
    if estimate - reach > tolerated:
        decision, text = "fail", f"{text}: more than {measure.text(measure.shown(tolerated), 0, 0).split(' [')[0]}"
    elif limits.proof and estimate + reach > margin:
        decision, text = "wait", f"{text}: {_need(estimate, reach, margin, (len(mine), len(theirs)), looks)}"
    if not theirs:
        text += ", against the same devices before: no controls, so a change of the world would show, too"
    return Finding(name, decision, measure.shown(estimate), low, high, len(mine), len(theirs), text)


def _delta(measure: _Change, one: DeviceEvidence) -> float:
    return measure.moments(one.after).mean - measure.moments(one.before).mean


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _error(
    measure: _Change, treated: Sequence[DeviceEvidence], controls: Sequence[DeviceEvidence]
) -> tuple[float, int]:
    """Return the standard error of the difference, and the degrees of freedom with which it is known.

    Two ways: the spread of changes between devices, which holds whatever rows of one device have in common; and the
    rows' own spread within each. The larger counts where devices are few, and for shares, of which many are nought.
    """
    within, df = 0.0, 0
    for group in (treated, controls):
        errors = [measure.moments(one.after).error + measure.moments(one.before).error for one in group]
        within += sum(errors) / max(len(group), 1) ** 2
        df += sum(max(one.after.rows - 1, 1) for one in group)
    groups = [Moments.of(_delta(measure, one) for one in group) for group in (treated, controls)]
    free = sum(max(group.n - 1, 0) for group in groups)
    if free < 2:
        return math.sqrt(within), max(df, 1)
    pooled = sum(group.squares for group in groups) / free
    between = pooled * sum(1 / group.n for group in groups if group.n)
    if between > within or (measure.is_relative and free >= ENOUGH):
        return math.sqrt(between), free
    return math.sqrt(within), max(df, 1)


def _need(estimate: float, reach: float, margin: float, groups: tuple[int, int], looks: float) -> str:
    """Say what would prove it: more devices where devices differ, more time where rows do."""
    room = margin - estimate
    if room <= 0:
        return "it cannot be proved while it looks like this"
    factor = (reach / room) ** 2
    more_time = f"about {math.ceil(looks * (factor - 1))} more rows of each device"
    treated, controls = groups
    floor = 1 / controls if controls else 0.0  # 1/n + 1/c shrinks at best to 1/c by more updated devices
    left = (1 / treated + floor) / factor - floor
    if left <= 0:
        return f"not proved yet; {more_time}"
    return f"not proved yet; {more_time}, or about {max(1, math.ceil(1 / left) - treated)} more devices"


def _crashes(
    treated: Sequence[DeviceEvidence], controls: Sequence[DeviceEvidence], limits: GateLimits
) -> Finding | None:
    """Devices that crashed: each counts once, because one bad device may crash for ever."""
    theirs = controls if len(controls) >= MIN_CONTROLS else []
    mine_s, theirs_s = (sum(one.after.seconds for one in group) for group in (treated, theirs))
    before_s = sum(one.before.seconds for one in treated) if not theirs else theirs_s
    if mine_s <= 0 or before_s <= 0:
        return None
    crashed = sum(one.after.crashed for one in treated)
    other = sum(one.after.crashed for one in theirs) if theirs else sum(one.before.crashed for one in treated)
    evidence = rare_events_e_value(crashed, other, mine_s / (mine_s + before_s))
    is_worse = evidence > 1 / (CRASH_SHARE * limits.alpha)
    versus = f"{other} of {len(theirs)} control devices" if theirs else f"{other} of the same devices before"
    words = f"the runner crashed on {crashed} of {len(treated)} updated devices, and on {versus}"
    share = crashed / len(treated) - other / len(theirs or treated)
    decision: Decision = "fail" if is_worse else "pass"
    return Finding("crashes", decision, share, -math.inf, math.inf, len(treated), len(theirs), words)


def _disagreement(treated: Sequence[DeviceEvidence], limits: GateLimits) -> Finding | None:
    """The share of inputs on which old and new model differ: one number for each device that compared."""
    seen = [one for one in treated if one.compared]
    if not seen:
        return None
    shares = Moments.of(1 - one.agreed / one.compared for one in seen)
    compared = sum(one.compared for one in seen)
    p = (sum(one.compared - one.agreed for one in seen) + 0.5) / (compared + 1)
    counted = p * (1 - p) / compared
    between = shares.variance / shares.n if shares.n > 2 else 0.0
    error, df = (math.sqrt(between), shares.n - 1) if between > counted else (math.sqrt(counted), max(compared - 1, 1))
    z = looks_threshold(compared / len(seen), alpha_of_one(limits))
    reach = error * student_threshold(round(z, 3), min(df, 1000))
    low, high = max(shares.mean - reach, 0.0), min(shares.mean + reach, 1.0)
    is_worse = low > limits.disagreement
    share = f"{100 * shares.mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    words = f"old and new model differ on {share} of {compared} inputs"
    return Finding("disagreement", "fail" if is_worse else "pass", shares.mean, low, high, len(seen), 0, words)
