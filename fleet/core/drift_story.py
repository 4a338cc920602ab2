# SPDX-License-Identifier: Apache-2.0
"""A cohort as an operator reads it: who moved, which channel, by how much, since when, on which devices. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from edge_contract.counts import latency_quantile_us
from edge_contract.findings import Level
from edge_contract.priors import PriorShift
from edge_contract.profile import ReferenceProfile
from edge_contract.severity import Severity
from edge_contract.summary import decode_counters
from fleet.core.cohort import Cohort, CohortChannel, judge_rest, nothing_of
from fleet.core.drift_board import HOUR_S
from fleet.core.drift_groups import Group, HourSum, Member

__all__ = ["CohortView", "HourPoint", "OddDevice", "chosen", "hour_point", "story", "worst_first"]

_RANK: Final = {Level.WARN.value: 0, Level.OK.value: 1, Level.INSUFFICIENT.value: 2}
_SHOWN_CLASSES: Final = 3
_HOUR_MS: Final = 3_600_000


@dataclass(frozen=True)
class HourPoint:
    """One hour of a cohort.

    Attributes:
        start_s: Seconds since 1970.
        windows, n: Windows and samples in it.
        effects: Channel → squared distance from the reference beyond chance.
        has_moved: Whether the cohort was unlike the reference in this hour.
        p50_us, p95_us: Latency.
        temperature_c: Mean over the devices that have a sensor.
        levels: Level → windows.
        estimated, low, high, valid: Estimated accuracy.
        cohort: The hour's verdict.
    """

    start_s: float
    windows: int
    n: int
    effects: Mapping[str, float]
    has_moved: bool
    p50_us: float | None
    p95_us: float | None
    temperature_c: float | None
    levels: Mapping[str, int]
    estimated: float | None = None
    low: float | None = None
    high: float | None = None
    valid: bool = False
    cohort: Cohort | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        found = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "cohort"}
        return {**found, "effects": dict(self.effects), "levels": dict(self.levels)}


@dataclass(frozen=True)
class OddDevice:
    """A device that differs from its cohort.

    Attributes:
        device: Its id.
        words: How it differs from the others, over the last six to twelve hours.
        level, since_ms, estimated, valid: Of its own newest window.
        moved: What moved in its own newest window against the reference; empty where that is as ever.
    """

    device: str
    words: str
    level: str
    since_ms: int
    estimated: float | None
    valid: bool
    moved: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {**{one.name: getattr(self, one.name) for one in fields(self)}, "moved": list(self.moved)}


@dataclass(frozen=True)
class CohortView:
    """A cohort, ready to be shown.

    Attributes:
        model, version, bundle: What its devices run.
        by, value: Grouping and its value: ``site`` and ``hall``; for ``bundle`` the value is empty.
        devices: How many.
        level: WARN: it moved as a whole; OK; INSUFFICIENT.
        kind: ``moved``, ``differ`` (single devices), ``both``, ``calm``, ``few``.
        headline: One sentence.
        since_ms: Since when it has moved, or the first of its odd devices; 0 when calm.
        moved: What moved, in plain words.
        channels: Every channel against the reference.
        odd: Devices that differ from the others, the worst first.
        levels: Level → devices by their own newest window.
        inputs: Who decides about the inputs → devices.
        n, n_eff, p_family: Samples behind it, and the p-value of the family.
        reference, estimated, low, high, valid: Accuracy on the reference, and estimated here; of a cohort that has
            moved in its newest hour.
        mix: What became of the mix of classes, in words; empty where nothing did.
    """

    model: str
    version: str
    bundle: str
    by: str
    value: str
    devices: int
    level: str
    kind: str
    headline: str
    since_ms: int
    moved: tuple[str, ...]
    channels: tuple[CohortChannel, ...]
    odd: tuple[OddDevice, ...]
    levels: Mapping[str, int]
    inputs: Mapping[str, int]
    n: int
    n_eff: float
    p_family: float
    reference: float
    estimated: float | None
    low: float | None
    high: float | None
    valid: bool
    mix: str = ""
    p50_us: float | None = None
    p95_us: float | None = None
    names: tuple[str, ...] = field(default=(), repr=False)

    @property
    def key(self) -> str:
        """Its address: bundle, grouping and value."""
        return self.bundle[:16] if self.by == "bundle" else f"{self.bundle[:16]}/{self.by}/{self.value}"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        found = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "names"}
        found |= {"moved": list(self.moved), "levels": dict(self.levels), "inputs": dict(self.inputs)}
        found["channels"] = [one.to_json() for one in self.channels]
        return {**found, "odd": [one.to_json() for one in self.odd]}


def hour_point(profile: ReferenceProfile, hour: int, total: HourSum, excused: frozenset[str]) -> HourPoint:
    """Return an hour's sums as a point of the charts."""
    counters = decode_counters(total.counters)
    found = judge_rest(profile, counters, total.n_eff, excused)
    severity = found.severity
    return HourPoint(
        start_s=hour * HOUR_S,
        windows=total.windows,
        n=counters.n_sampled,
        effects={one.name: one.effect for one in found.channels if one.p is not None},
        has_moved=found.has_moved,
        p50_us=latency_quantile_us(counters.latency, 0.5),
        p95_us=latency_quantile_us(counters.latency, 0.95),
        temperature_c=total.warm_sum / total.warm if total.warm else None,
        levels=dict(total.levels),
        **_accuracy(severity),
        cohort=found,
    )


def story(group: Group, model: str, version: str, points: Iterable[HourPoint] = ()) -> CohortView | None:
    """Return a cohort's view; None while it was never judged.

    Args:
        group: The cohort.
        model, version: Of its bundle.
        points: Its hours, the oldest first: they say since when it has moved.
    """
    if group.cohort is None:
        return None
    hours = list(points)
    found = _newest(group.cohort, hours)
    members, severity = group.members, found.severity
    odd = worst_first([_odd(members[name], words) for name, words in group.odd.items() if name in members])
    bundle, _, by, value = group.key
    return CohortView(
        model=model,
        version=version,
        bundle=bundle,
        by=by,
        value=value,
        devices=len(members),
        level=found.level.value,
        kind=_kind(found.level, bool(odd)),
        headline=found.headline,
        since_ms=_since(members.values(), odd, hours, has_moved=found.has_moved),
        moved=found.moved,
        channels=found.channels,
        odd=tuple(odd),
        levels=Counter(one.level for one in members.values() if one.level),
        inputs=Counter(one.inputs for one in members.values() if one.inputs),
        n=found.n,
        n_eff=found.n_eff,
        p_family=found.p_family,
        reference=group.profile.accuracy,
        **_present(_accuracy(severity), hours, has_moved=found.has_moved),
        mix=_mix(group.profile, found.prior),
        p50_us=latency_quantile_us(group.total.latency, 0.5),
        p95_us=latency_quantile_us(group.total.latency, 0.95),
        names=tuple(members),
    )


def _newest(merged: Cohort, hours: list[HourPoint]) -> Cohort:
    """Return the newest hour's verdict where it has moved: the hours before would hide that, or make it look smaller.

    Only where no device is odd: an hour's sum has them all in it.
    """
    last = next((one.cohort for one in reversed(hours) if one.effects), None)
    if merged.outliers or last is None or not last.has_moved:
        return merged
    return replace(last, devices=merged.devices)


def _accuracy(severity: Severity | None) -> dict[str, Any]:
    if severity is None:
        return {"estimated": None, "low": None, "high": None, "valid": False}
    return {"estimated": severity.accuracy, "low": severity.low, "high": severity.high, "valid": severity.is_valid}


def _present(merged: dict[str, Any], hours: list[HourPoint], *, has_moved: bool) -> dict[str, Any]:
    """Of a cohort that has moved the newest hour's accuracy: the hours before it moved would soften it."""
    newest = next((one for one in reversed(hours) if one.estimated is not None), None)
    return {name: getattr(newest, name) for name in merged} if has_moved and newest is not None else merged


def _kind(level: Level, has_odd: bool) -> str:  # noqa: FBT001 - two facts make the word
    if level is Level.INSUFFICIENT:
        return "few"
    if level is Level.WARN:
        return "both" if has_odd else "moved"
    return "differ" if has_odd else "calm"


def _odd(member: Member, words: str) -> OddDevice:
    own = (member.level, member.since_ms, member.estimated, member.valid)
    return OddDevice(member.device, words, *own, member.moved)


def worst_first(odd: Iterable[OddDevice]) -> list[OddDevice]:
    """Return devices in the order in which somebody should look: alarms first, the longest standing first."""
    rank = {Level.ALARM.value: 0, Level.WARN.value: 1}
    return sorted(odd, key=lambda one: (rank.get(one.level, 2), one.since_ms or 2**62, one.device))


def _since(members: Iterable[Member], odd: list[OddDevice], points: list[HourPoint], *, has_moved: bool) -> int:
    """The beginning of the run of hours in which it was unlike the reference; of single devices, their own word."""
    if has_moved:
        first = 0
        for point in reversed(points):
            if not point.has_moved:
                break
            first = int(1000 * point.start_s)
        own = [one.since_ms for one in members if one.since_ms and one.level == Level.ALARM.value]
        # An hour is coarse: the devices know the window.
        return min((one for one in own if one >= first - _HOUR_MS), default=first) if first else min(own, default=0)
    return min((one.since_ms for one in odd if one.since_ms), default=0)


def _mix(profile: ReferenceProfile, prior: PriorShift | None) -> str:
    """Say whether other classes came, or the inputs changed."""
    if prior is None:
        return ""
    kind = prior.kind.value
    if kind == "covariate shift":
        return "the inputs changed: another mix of classes does not explain it"
    if kind != "label shift":
        return "whether other classes came cannot be said: the model confuses too much"
    there = [count / profile.size for count in profile.counters.classes]
    apart = sorted(range(len(there)), key=lambda i: -abs(prior.shares[i] - there[i]))[:_SHOWN_CLASSES]
    shown = ", ".join(f"'{profile.slot_name(i)}' {there[i]:.0%} → {prior.shares[i]:.0%}" for i in apart)
    return f"other classes came, each looking as ever: {shown}"


def chosen(group: Group, names: frozenset[str]) -> Group:
    """Return a cohort of some of a cohort's devices, judged now; who is odd was decided among all of them."""
    members = {name: one for name, one in group.members.items() if name in names}
    part = Group(group.key, group.profile, nothing_of(group.profile), design=group.design)
    part.members, part.told = members, {name: told for name, told in group.told.items() if name in members}
    for name, one in members.items():
        if (counted := one.counted()) is not None:
            part.add(name, counted)
    if len(members) > len(part.told) > 0:
        part.dirty = {name: None for name in members if name not in part.told}
    elif part.told:
        part.dirty.clear()
    part.judge(budget=100)
    return part
