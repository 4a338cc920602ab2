# SPDX-License-Identifier: Apache-2.0
"""One device's counters and one cohort's sum of them: what ``fleet.core.drift_board`` adds up. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Final

from edge_contract.counts import Counters
from edge_contract.findings import Level
from edge_contract.profile import ReferenceProfile
from edge_contract.statistics import benjamini_hochberg
from edge_contract.summary import decode_counters, encode_counters
from fleet.core.cohort import Cohort, Counted, Told, against_rest, effective_size, judge_counted, judge_rest

__all__ = ["GROUPINGS", "SMALL", "Group", "HourSum", "Key", "Member", "Seen"]

GROUPINGS: Final = ("bundle", "site", "board")
"""By which cohorts are kept; any other label is grouped when somebody asks."""
SMALL: Final = 24
_MOVED_SHARE: Final = 0.5

Key = tuple[str, int, str, str]
"""(bundle, profile's CRC, grouping, value)."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One judged window, as the board needs it.

    Attributes:
        device, model, bundle, profile_crc: Whose.
        start_s: When it began, seconds since 1970.
        counters: What was counted.
        temperature_c: Mean, None without a sensor.
        level, since_ms, moved, reason: Of its verdict.
        estimated, valid: Estimated accuracy.
        inputs: Who decided about the inputs: reference, hours or learning; empty where nobody asked for the hour.
        has_inputs_moved: Whether the inputs moved by that.
    """

    device: str
    model: str
    bundle: str
    profile_crc: int
    start_s: float
    counters: Counters
    temperature_c: float | None = None
    level: str = Level.OK.value
    since_ms: int = 0
    moved: tuple[str, ...] = ()
    reason: str = ""
    estimated: float | None = None
    valid: bool = False
    inputs: str = ""
    has_inputs_moved: bool = False


@dataclass(slots=True)
class Member:
    """A device with one model: what it has counted lately, and its newest judged window.

    Attributes:
        places: Grouping → value: where it belongs.
        blocks: Six hours → packed counters and their effective size, at most two.
    """

    device: str
    model: str
    bundle: str
    profile_crc: int
    places: Mapping[str, str]
    blocks: dict[int, tuple[bytes, float]] = field(default_factory=dict)
    level: str = ""
    since_ms: int = 0
    moved: tuple[str, ...] = ()
    reason: str = ""
    estimated: float | None = None
    valid: bool = False
    inputs: str = ""
    has_inputs_moved: bool = False

    def counted(self) -> Counted | None:
        """Return the counters of its last six to twelve hours together."""
        found = [decode_counters(data) for data, _ in self.blocks.values()]
        n_eff = sum(size for _, size in self.blocks.values())
        return Counted(reduce(Counters.merge, found), n_eff, self.excused()) if found else None

    def excused(self) -> frozenset[str]:
        """The inputs, unless the hours of the day or the reference say that they moved."""
        has_hours = self.inputs in ("hours", "learning")
        is_as_ever = self.inputs == "learning" or not self.has_inputs_moved
        return frozenset({"input"}) if has_hours and is_as_ever else frozenset()

    def homes(self) -> list[Key]:
        """Return the cohorts that it belongs to."""
        return [(self.bundle, self.profile_crc, by, self.places.get(by, "")) for by in GROUPINGS]

    def hear(self, seen: Seen) -> None:
        """Take over what its newest window says; one too small to be judged changes nothing."""
        if seen.level == Level.INSUFFICIENT.value and self.level:
            return
        self.level, self.since_ms, self.moved, self.reason = seen.level, seen.since_ms, seen.moved, seen.reason
        self.estimated, self.valid = seen.estimated, seen.valid
        self.inputs, self.has_inputs_moved = seen.inputs, seen.has_inputs_moved


@dataclass(slots=True)
class HourSum:
    """An hour of a cohort: merged counters (packed), temperatures, and how many windows had which level."""

    counters: bytes = b""
    n_eff: float = 0.0
    windows: int = 0
    warm_sum: float = 0.0
    warm: int = 0
    levels: dict[str, int] = field(default_factory=dict)

    def add(self, seen: Seen) -> None:
        """Add a window."""
        mine = seen.counters if not self.counters else decode_counters(self.counters).merge(seen.counters)
        self.counters, self.windows = encode_counters(mine), self.windows + 1
        self.n_eff += effective_size(seen.counters)
        self.levels[seen.level] = self.levels.get(seen.level, 0) + 1
        if seen.temperature_c is not None:
            self.warm_sum, self.warm = self.warm_sum + seen.temperature_c, self.warm + 1


@dataclass(slots=True)
class Group:
    """One cohort.

    Attributes:
        total, n_eff: Counters of all its members, and their effective size.
        members: By device.
        dirty: Devices that were not compared since they sent something.
        told: Device → how it differs from the rest.
        odd: Outliers, and how they differ.
        hours: Hour since 1970 → its sum.
        version: Grows with every change.
        cohort: The newest verdict.
    """

    key: Key
    profile: ReferenceProfile
    total: Counters
    n_eff: float = 0.0
    members: dict[str, Member] = field(default_factory=dict)
    dirty: dict[str, None] = field(default_factory=dict)
    told: dict[str, Told] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    hours: dict[int, HourSum] = field(default_factory=dict)
    version: int = 0
    judged: int = -1
    design: float = 1.0
    cohort: Cohort | None = None

    def add(self, device: str, counted: Counted, sign: int = 1) -> None:
        """Add counters of a device, or take them out."""
        self.total = self.total.merge(counted.counters) if sign > 0 else self.total.minus(counted.counters)
        self.n_eff += sign * counted.n_eff
        self.version += 1
        if device in self.members:
            self.dirty[device] = None

    def leave(self, device: str) -> None:
        """Forget a device whose counters were taken out."""
        for place in (self.members, self.dirty, self.told, self.odd):
            place.pop(device, None)
        self.version += 1

    def excused(self) -> frozenset[str]:
        """The inputs do not count against the reference where the devices' hours of the day decide about them."""
        known = [one for one in self.members.values() if one.inputs]
        excused = sum(bool(one.excused()) for one in known)
        return frozenset({"input"}) if known and excused > _MOVED_SHARE * len(known) else frozenset()

    def judge(self, budget: int) -> int:
        """Bring the verdict up to date, with at most so many comparisons; return how many were made."""
        if self.judged == self.version and not self.dirty:
            return 0
        if len(self.members) <= SMALL:
            counted = {name: c for name, one in self.members.items() if (c := one.counted()) is not None}
            self.cohort = judge_counted(self.profile, counted, self.excused())
            self.odd, self.judged = dict(self.cohort.outliers), self.version
            self.dirty.clear()
            return len(counted)
        return self._follow(budget)

    def _follow(self, budget: int) -> int:
        agree = self._agree()
        asked = list(self.dirty)[:budget]
        for name in asked:
            self.dirty.pop(name)
            self._ask(name, agree.counters)
        chosen = benjamini_hochberg({name: told.p for name, told in self.told.items()})
        self.odd = {name: self.told[name].text for name in chosen}
        agree = self._agree()
        found = judge_rest(self.profile, agree.counters, agree.n_eff, self.excused())
        self.cohort = replace(found, devices=tuple(self.members), outliers=dict(self.odd))
        self.judged = self.version
        return len(asked)

    def _ask(self, name: str, agree: Counters) -> None:
        own = self.members[name].counted()
        told = None
        if own is not None:
            self.design = max(self.design, own.design)
            rest = agree if name in self.odd else agree.minus(own.counters)
            told = against_rest(self.profile, own, rest, self.design)
        if told is None:
            self.told.pop(name, None)
        else:
            self.told[name] = told

    def _agree(self) -> Counted:
        """Return the sum of the members that are not odd."""
        total, n_eff = self.total, self.n_eff
        for name in self.odd:
            if name in self.members and (own := self.members[name].counted()) is not None:
                total, n_eff = total.minus(own.counters), n_eff - own.n_eff
        return Counted(total, n_eff)
