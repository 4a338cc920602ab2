# SPDX-License-Identifier: Apache-2.0
"""The last day in parts of ten minutes, kept on the device alone; what is sent are windows, which are sums of them.

They tell when a change began more finely than windows do, and they never leave. A part is kept in its wire form, about
300 bytes, so that a day of them takes 60 KB.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Final, NamedTuple

from edge_contract.autocorrelation import design_effect
from edge_contract.channels import evidence
from edge_contract.counts import Counters
from edge_contract.effective import effective_reference
from edge_contract.profile import ReferenceProfile
from edge_contract.statistics import holm
from edge_contract.summary import decode_counters, encode_counters

__all__ = ["PART_S", "PARTS", "Part", "Ring", "onset_ms"]

PART_S: Final = 600.0
PARTS: Final = 144
_LEAST: Final = 64.0
_UNLIKE: Final = 1e-3


class Part(NamedTuple):
    """Ten minutes: when they began and ended, Unix ms, and what was counted, packed."""

    start_ms: int
    end_ms: int
    packed: bytes

    @property
    def counters(self) -> Counters:
        """What was counted."""
        return decode_counters(self.packed)


@dataclass(frozen=True)
class Ring:
    """The newest parts, oldest first, at most 144.

    Example:
        >>> ring = Ring().add(0, 600_000, Counters.zero(2))
        >>> ring.merged(0) == Counters.zero(2), ring.merged(700_000)
        (True, None)
    """

    parts: tuple[Part, ...] = ()

    def add(self, start_ms: int, end_ms: int, counters: Counters) -> "Ring":
        """Return the ring with one part more, and without the oldest if it was full."""
        return Ring((*self.parts[1 - PARTS :], Part(start_ms, end_ms, encode_counters(counters))))

    def merged(self, since_ms: int) -> Counters | None:
        """Return the sum of the parts that began at a time or later; None where there is none."""
        found = [part.counters for part in self.parts if part.start_ms >= since_ms]
        return reduce(Counters.merge, found) if found else None


def onset_ms(ring: Ring, profile: ReferenceProfile) -> int | None:
    """Return since when the parts are unlike the reference, Unix ms; None where the newest are not.

    From the newest part backwards as many are put together as have 64 independent samples; the unbroken run of such
    groups with a family p-value below 1e-3 is the change.
    """
    since, group, profile = None, None, effective_reference(profile)
    for part in reversed(ring.parts):
        counters = part.counters
        group = counters if group is None else counters.merge(group)
        design = design_effect(group)
        if group.n_sampled / design < _LEAST:
            continue
        adjusted = holm({name: e.p for name, e in evidence(profile, group, design).items() if e is not None})
        if min(adjusted.values(), default=1.0) >= _UNLIKE:
            break
        since, group = part.start_ms, None
    return since
