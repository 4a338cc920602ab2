# SPDX-License-Identifier: Apache-2.0
"""Drift over a cohort: counts add, so a cohort is judged like one big device.

A cohort are the devices whose windows were counted with one reference profile (one artefact), perhaps at one site.
Two questions, two answers: *does a device differ from the rest of its cohort* (a dirty lens, a wrong crop, another
camera), and *has the rest moved against the reference* (the world or the model's time has changed). The first is asked
of every device, so it is corrected for asking often (Benjamini-Hochberg, q = 0.05); the second is asked of those that
are left, or one dirty lens of five would look as if all had moved.

With the samples of a thousand devices every small difference is "significant". So a cohort has moved only where the
difference is also beyond what does not matter (``edge_contract.statistics.IGNORED_EFFECT``).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Final

from edge_contract.autocorrelation import design_effect
from edge_contract.channels import evidence
from edge_contract.counts import Counters
from edge_contract.effective import effective_reference
from edge_contract.findings import Level
from edge_contract.movement import describe
from edge_contract.priors import MixChange, PriorShift, prior_shift
from edge_contract.profile import ReferenceProfile
from edge_contract.severity import Severity, estimate
from edge_contract.statistics import Evidence, benjamini_hochberg, holm
from edge_contract.verdict import MIN_EFFECTIVE, WARN_P
from fleet.core.drift import DeviceDrift
from fleet.core.feature_spread import times_wider

__all__ = [
    "Cohort",
    "CohortChannel",
    "Counted",
    "Told",
    "against_rest",
    "effective_size",
    "judge_cohort",
    "judge_counted",
    "judge_rest",
    "nothing_of",
    "odd_ones",
]

_BEYOND_P: Final = 0.01
_SAME: Final = re.compile(r"(\d+%) → \1(?!\d)")
"""A sentence whose figures do not differ once they are rounded says nothing."""


@dataclass(frozen=True)
class CohortChannel:
    """One channel of a cohort against the reference.

    Attributes:
        name: One of the contract's channels.
        p: Two-sample p-value; None when it was not tested.
        effect: Squared standardised distance beyond chance.
        moved: Whether it moved, by more than what does not matter.
        text: What moved, in plain words; empty where nothing did.
    """

    name: str
    p: float | None
    effect: float
    moved: bool
    text: str

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Cohort:
    """The verdict on a cohort.

    Attributes:
        devices: Who was merged.
        level: INSUFFICIENT, OK, or WARN: those that do not differ from each other have moved against the reference.
            A cohort does not alarm by itself, its devices do.
        n, n_eff: Samples of those that agree.
        p_family: Of them against the reference.
        severity: Their estimated accuracy.
        moved: What moved against the reference, in plain words.
        outliers: Devices that differ from the rest, and how.
        channels: Each channel of those that agree.
        prior: Which classes they saw, where that can be estimated.
    """

    devices: tuple[str, ...]
    level: Level
    n: int
    n_eff: float
    p_family: float
    severity: Severity | None
    moved: tuple[str, ...]
    outliers: Mapping[str, str]
    channels: tuple[CohortChannel, ...] = ()
    prior: PriorShift | None = None

    @property
    def has_moved(self) -> bool:
        """True if those that agree with each other are unlike the reference."""
        return self.level is Level.WARN

    @property
    def headline(self) -> str:
        """One sentence: who moved."""
        if self.level is Level.INSUFFICIENT:
            return f"{self.n_eff:.0f} effective samples are too few to judge the cohort"
        whole = "the whole cohort moved" if not self.outliers else "the others moved, too"
        if not self.outliers:
            return whole if self.has_moved else "the cohort is as on the reference"
        names = sorted(self.outliers)
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        verb = "differs" if len(names) == 1 else "differ"
        left = len(self.devices) - len(names)
        rest = whole if self.has_moved and left else "the others agree" if left else "no two agree"
        return f"{shown} {verb} from the cohort; {rest}"


def judge_cohort(profile: ReferenceProfile, devices: Sequence[DeviceDrift], last: int = 1) -> Cohort:
    """Return the verdict on the devices' last windows together.

    Args:
        profile: The one that all were counted with.
        devices: The cohort; devices whose last windows are not all of this profile are left out.
        last: Windows per device to merge.
    """
    counted = {}
    for device in devices:
        merged = device.counters(last)
        if merged is not None and device.windows[-1].summary.profile_crc == profile.crc:
            effective = sum(effective_size(one.summary.counters) for one in device.windows[-last:])
            counted[device.device] = Counted(merged, effective)
    return judge_counted(profile, counted)


@dataclass(frozen=True, slots=True)
class Counted:
    """Merged windows of one device, and how many independent samples they are worth.

    The effective sizes of the single windows add up. Read off the merged counters they would be wrong: a lens that got
    dirty at noon looks like a series that resembles itself.

    Attributes:
        excused: Channels in which the device may differ from the others: the inputs, where its own hours of the day say
            that they are as ever. Each camera has its own light.
    """

    counters: Counters
    n_eff: float
    excused: frozenset[str] = frozenset()

    @property
    def design(self) -> float:
        """How many successive samples say as much as one independent sample, n / n_eff; at least 1."""
        return max(1.0, self.counters.n_sampled / self.n_eff) if self.n_eff > 0 else 1.0


def nothing_of(profile: ReferenceProfile) -> Counters:
    """Return counters of nothing, of the shape that the profile's task has."""
    return profile.counters.minus(profile.counters)


def effective_size(counters: Counters) -> float:
    """Return how many independent samples one window is worth."""
    return counters.n_sampled / design_effect(counters)


def judge_counted(
    profile: ReferenceProfile, counted: Mapping[str, Counted], excused: frozenset[str] = frozenset()
) -> Cohort:
    """Return the verdict on devices' counters; ``excused`` as in ``judge_rest``."""
    enough = sum(one.n_eff for one in counted.values()) >= MIN_EFFECTIVE and profile.size >= MIN_EFFECTIVE
    odd = odd_ones(profile, counted) if enough else {}
    agree = [one for name, one in counted.items() if name not in odd]
    if sum(one.n_eff for one in agree) < MIN_EFFECTIVE:  # no two agree: all of them, then
        agree = list(counted.values())
    total = reduce(Counters.merge, (one.counters for one in agree), nothing_of(profile))
    n_eff = sum(one.n_eff for one in agree)
    return replace(judge_rest(profile, total, n_eff, excused), devices=tuple(counted), outliers=odd)


def judge_rest(
    profile: ReferenceProfile, total: Counters, n_eff: float, excused: frozenset[str] = frozenset()
) -> Cohort:
    """Return the verdict on the merged counters of devices that agree with each other, against the reference.

    Args:
        profile: The reference.
        total: Their counters.
        n_eff: Effective samples behind them.
        excused: Channels that are shown but do not count: the inputs, where each device's hours of the day decide.
    """
    if n_eff < MIN_EFFECTIVE or profile.size < MIN_EFFECTIVE:
        return Cohort((), Level.INSUFFICIENT, total.n_sampled, n_eff, 1.0, None, (), {})
    design = total.n_sampled / n_eff
    found = evidence(effective_reference(profile), total, design)
    counting = {name: e for name, e in found.items() if e is not None and name not in excused}
    adjusted = holm({name: e.p for name, e in counting.items()})
    beyond = holm({name: e.p_beyond for name, e in counting.items()})
    has_moved = {name for name in counting if adjusted[name] < WARN_P and beyond[name] < _BEYOND_P}
    channels = tuple(_channel(profile, total, name, e, moved=name in has_moved) for name, e in found.items())
    telling = sorted((one for one in channels if one.moved), key=lambda one: -one.effect)
    return Cohort(
        devices=(),
        level=Level.WARN if has_moved else Level.OK,
        n=total.n_sampled,
        n_eff=n_eff,
        p_family=min(adjusted.values(), default=1.0),
        severity=estimate(profile, total, n_eff, found),
        moved=tuple(dict.fromkeys(one.text for one in telling if one.text)),
        outliers={},
        channels=channels,
        prior=_prior(profile, total, design) if has_moved else None,
    )


def _channel(
    profile: ReferenceProfile, total: Counters, name: str, e: Evidence | None, *, moved: bool
) -> CohortChannel:
    text = describe(name, profile, total) if moved else ""
    text = "" if _SAME.search(text) else text
    return CohortChannel(name, e.p if e else None, e.effect if e else 0.0, moved, text)


def _prior(profile: ReferenceProfile, total: Counters, design: float) -> PriorShift | None:
    found = prior_shift(profile, total, design) if len(profile.labels) > 1 else None
    return found if found is not None and found.kind is not MixChange.NONE else None


def odd_ones(profile: ReferenceProfile, counted: Mapping[str, Counted]) -> dict[str, str]:
    """Return the devices that differ from the rest, with the channel that says so most clearly.

    One bad device pulls every other one's "rest" towards itself, so that with thousands of samples the healthy ones
    would differ too. Therefore the most extreme go first, and the others are asked again without them.
    """
    inside, found = dict(counted), dict[str, str]()
    while len(inside) > 1:
        telling = _everyone(profile, inside)
        chosen = benjamini_hochberg({name: told.p for name, told in telling.items()})
        if not chosen:
            break
        extreme = max(telling[name].effect for name in chosen)
        for name in [n for n in chosen if telling[n].effect >= extreme / 2]:
            found[name] = telling[name].text
            del inside[name]
    return found


@dataclass(frozen=True, slots=True)
class Told:
    """How a device differs from the rest of its cohort: p-value, squared distance, and the channel's words."""

    p: float
    effect: float
    text: str


def _everyone(profile: ReferenceProfile, counted: Mapping[str, Counted]) -> dict[str, Told]:
    """Compare each device with the others together."""
    total = reduce(Counters.merge, (one.counters for one in counted.values()))
    worst = max(one.design for one in counted.values())
    telling = {}
    for name, one in counted.items():
        told = against_rest(profile, one, total.minus(one.counters), worst, has_rest=len(counted) > 2)
        if told is not None:
            telling[name] = told
    return telling


def against_rest(
    profile: ReferenceProfile, one: Counted, rest: Counters, design: float, *, has_rest: bool = True
) -> Told | None:
    """Compare a device with the others together: they take the reference's place in the same tests.

    Args:
        profile: The reference.
        one, rest: The device, and the counters of the others.
        design: n / n_eff, the largest of the cohort's.
        has_rest: False for two devices: each differs as much from the other, and the reference says which one moved.

    Returns:
        None where there are too few samples.
    """
    own = one.counters
    if min(own.n_sampled, rest.n_sampled) / design < MIN_EFFECTIVE:
        return None
    against = replace(profile, counters=rest)
    seen = dict(evidence(against, own, design))
    if (wider := times_wider(profile, rest)) > 1.0:
        calm = evidence(against, own, design * wider)
        seen |= {name: calm[name] for name in ("embedding", "area") if name in calm}
    found = {c: e for c, e in seen.items() if e is not None and c not in one.excused}
    if not found:
        return None
    told = evidence(effective_reference(profile), own, design) if not has_rest else found
    apart = {c: e for c, e in told.items() if c in found}
    # Two healthy cameras see different scenes: what is too small to matter is no reason to send somebody there.
    adjusted = holm({c: max(e.p, e.p_beyond) for c, e in found.items()})
    channel = min(adjusted, key=lambda c: (adjusted[c], -found[c].effect))
    effect = max((e.effect for e in apart.values() if e is not None), default=0.0)
    return Told(adjusted[channel], effect, describe(channel, against, own))
