# SPDX-License-Identifier: Apache-2.0
"""The fleet's drift as it adds up window by window: cohorts by bundle, site and board. Pure.

Theory of operation. A device keeps its counters of the present six hours and of the six before (about 700 bytes); a
cohort keeps their sum. A window is added to both, a device that goes to another cohort is subtracted: integers, so
this is exact. Whether a device differs from its cohort is asked again when it has sent something, against the cohort
as it is then; who is an outlier is decided over all devices together (Benjamini-Hochberg, q = 0.05). Outliers are taken
out of what the others are compared with. So the work follows the windows that come in, whoever looks at the page.

A cohort of at most ``SMALL`` devices is judged anew as a whole instead, as ``judge_counted`` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Final

from edge_contract.counts import Counters
from edge_contract.findings import Level
from edge_contract.profile import ReferenceProfile
from edge_contract.statistics import benjamini_hochberg
from edge_contract.summary import decode_counters, encode_counters
from fleet.core.cohort import Cohort, Counted, Told, against_rest, effective_size, judge_counted, judge_rest, nothing_of

__all__ = ["GROUPINGS", "BLOCK_S", "Board", "Group", "HourSum", "Key", "Member", "Seen"]

BLOCK_S: Final = 6 * 3600.0
HOUR_S: Final = 3600.0
KEPT_HOURS: Final = 48
GROUPINGS: Final = ("bundle", "site", "board")
"""By which cohorts are kept; any other label is grouped when somebody asks."""
SMALL: Final = 24
_WITH_HISTORY: Final = 500
"""Most cohorts whose hours are kept."""
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


class Board:
    """All cohorts. Not safe to use from several threads: its owner locks.

    Example:
        >>> Board().groups
        {}
    """

    def __init__(self) -> None:
        self.groups: dict[Key, Group] = {}
        self.members: dict[tuple[str, str], Member] = {}
        self.windows, self._block = 0, 0

    def add(self, seen: Seen, places: Mapping[str, str], profile: ReferenceProfile) -> None:
        """Add one window of a device that belongs to these places."""
        block = int(seen.start_s // BLOCK_S)
        if block < self._block - 1:
            return  # sent late: its six hours are gone
        self._turn(block)
        member = self.members.get((seen.device, seen.model))
        mine = (seen.bundle, seen.profile_crc, dict(places))
        if member is None or (member.bundle, member.profile_crc, dict(member.places)) != mine:
            member = self._move(member, seen, places, profile)
        new, (before, size) = (
            Counted(seen.counters, effective_size(seen.counters)),
            member.blocks.get(block, (b"", 0.0)),
        )
        merged = decode_counters(before).merge(seen.counters) if before else seen.counters
        member.blocks[block] = encode_counters(merged), size + new.n_eff
        member.hear(seen)
        self.windows += 1
        for key in member.homes():
            group = self.groups[key]
            group.add(seen.device, new)
            self._add_hour(group, seen)

    def _move(self, member: Member | None, seen: Seen, places: Mapping[str, str], profile: ReferenceProfile) -> Member:
        """Put a device to its cohorts: with what it counted where only its place changed, empty with another bundle."""
        kept: dict[int, tuple[bytes, float]] = {}
        if member is not None:
            self.drop(member)
            if (member.bundle, member.profile_crc) == (seen.bundle, seen.profile_crc):
                kept = member.blocks
        new = Member(seen.device, seen.model, seen.bundle, seen.profile_crc, dict(places), kept)
        self.members[seen.device, seen.model] = new
        counted = new.counted()
        for key in new.homes():
            group = self.groups.get(key)
            if group is None:
                group = self.groups[key] = Group(key, profile, nothing_of(profile))
            group.members[seen.device] = new
            if counted is not None:
                group.add(seen.device, counted)
        return new

    def drop(self, member: Member) -> None:
        """Take a device out of its cohorts; empty cohorts go."""
        counted = member.counted()
        for key in member.homes():
            group = self.groups.get(key)
            if group is None or member.device not in group.members:
                continue
            if counted is not None:
                group.add(member.device, counted, -1)
            group.leave(member.device)
            if not group.members:
                del self.groups[key]
        self.members.pop((member.device, member.model), None)

    def keep(self, devices: frozenset[str]) -> None:
        """Forget devices that are no longer enrolled."""
        for member in [one for one in self.members.values() if one.device not in devices]:
            self.drop(member)

    def _turn(self, block: int) -> None:
        """Let go of the hours that are over, once a new block has begun."""
        if block <= self._block:
            return
        self._block = block
        for member in list(self.members.values()):
            old = [number for number in member.blocks if number < block - 1]
            for number in old:
                data, size = member.blocks.pop(number)
                counted = Counted(decode_counters(data), size)
                for key in member.homes():
                    self.groups[key].add(member.device, counted, -1)
            if old and not member.blocks:
                self.drop(member)

    def _add_hour(self, group: Group, seen: Seen) -> None:
        if not group.hours and len(self.groups) > _WITH_HISTORY:
            return
        hour = int(seen.start_s // HOUR_S)
        group.hours.setdefault(hour, HourSum()).add(seen)
        while len(group.hours) > KEPT_HOURS:
            del group.hours[min(group.hours)]

    def judge(self, budget: int = 200) -> int:
        """Bring cohorts up to date with at most about so many comparisons; return how many were made."""
        made = 0
        for group in list(self.groups.values()):
            if made >= budget:
                break
            made += group.judge(budget - made)
        return made
