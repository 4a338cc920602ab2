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
from typing import Final

from edge_contract.profile import ReferenceProfile
from edge_contract.summary import decode_counters, encode_counters
from fleet.core.cohort import Counted, effective_size, nothing_of
from fleet.core.drift_groups import Group, HourSum, Key, Member, Seen

__all__ = ["BLOCK_S", "HOUR_S", "KEPT_HOURS", "Board"]

BLOCK_S: Final = 6 * 3600.0
HOUR_S: Final = 3600.0
KEPT_HOURS: Final = 48
_WITH_HISTORY: Final = 500
"""Most cohorts whose hours are kept."""


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
