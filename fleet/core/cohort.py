# SPDX-License-Identifier: Apache-2.0
"""Drift over a cohort: counts add, so a cohort is judged like one big device.

A cohort are the devices whose windows were counted with one reference profile (one artefact), perhaps at one site.
Two questions, two answers: *has the cohort moved against the reference* (the world or the model's time has changed),
and *does a device differ from the rest of its cohort* (a dirty lens, a wrong crop, another camera). The second is asked
of every device, so it is corrected for asking often (Benjamini-Hochberg, q = 0.05).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from edge_contract.autocorrelation import design_effect
from edge_contract.channels import evidence
from edge_contract.counts import Counters
from edge_contract.findings import Level
from edge_contract.movement import describe
from edge_contract.profile import ReferenceProfile
from edge_contract.severity import Severity, estimate
from edge_contract.statistics import benjamini_hochberg, holm
from edge_contract.verdict import MIN_EFFECTIVE, WARN_P
from fleet.core.drift import DeviceDrift

__all__ = ["Cohort", "judge_cohort"]


@dataclass(frozen=True)
class Cohort:
    """The verdict on a cohort.

    Attributes:
        devices: Who was merged.
        level: INSUFFICIENT, OK, WARN (p_family < 1e-3); a cohort does not alarm by itself, its devices do.
        n, n_eff: Samples merged.
        p_family: Against the reference.
        severity: Estimated accuracy.
        moved: What moved against the reference, in plain words.
        outliers: Devices that differ from the rest, and how.
    """

    devices: tuple[str, ...]
    level: Level
    n: int
    n_eff: float
    p_family: float
    severity: Severity | None
    moved: tuple[str, ...]
    outliers: Mapping[str, str]

    @property
    def headline(self) -> str:
        """One sentence: who moved."""
        names = ", ".join(sorted(self.outliers))
        if self.level is Level.INSUFFICIENT:
            return f"{self.n_eff:.0f} effective samples are too few to judge the cohort"
        if self.outliers:
            rest = "the others agree" if len(self.outliers) < len(self.devices) else "no two agree"
            return f"{names} {'differs' if len(self.outliers) == 1 else 'differ'} from the cohort; {rest}"
        return "the whole cohort moved" if self.level is Level.WARN else "the cohort is as on the reference"


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
            counted[device.device] = merged
    total = reduce(Counters.merge, counted.values(), Counters.zero(profile.counters.slots))
    # Devices are independent of each other, so their effective sizes add; a merged series has no order.
    n_eff = sum(c.n_sampled / design_effect(c) for c in counted.values())
    if n_eff < MIN_EFFECTIVE or profile.size < MIN_EFFECTIVE:
        names = tuple(counted)
        return Cohort(names, Level.INSUFFICIENT, total.n_sampled, n_eff, 1.0, None, (), {})
    found = evidence(profile, total, total.n_sampled / n_eff)
    adjusted = holm({name: e.p for name, e in found.items() if e is not None})
    p_family = min(adjusted.values(), default=1.0)
    moved = tuple(dict.fromkeys(describe(c, profile, total) for c, p in adjusted.items() if p < WARN_P))
    return Cohort(
        devices=tuple(counted),
        level=Level.WARN if p_family < WARN_P else Level.OK,
        n=total.n_sampled,
        n_eff=n_eff,
        p_family=p_family,
        severity=estimate(profile, total, n_eff, found),
        moved=moved,
        outliers=_outliers(profile, counted),
    )


def _outliers(profile: ReferenceProfile, counted: Mapping[str, Counters]) -> dict[str, str]:
    """Return the devices that differ from the rest, with the channel that says so most clearly.

    One bad device pulls every other one's "rest" towards itself, so that with thousands of samples the healthy ones
    would differ too. Therefore the most extreme go first, and the others are asked again without them.
    """
    inside, found = dict(counted), dict[str, str]()
    while len(inside) > 1:
        telling = _against_rest(profile, inside)
        chosen = benjamini_hochberg({name: told.p for name, told in telling.items()})
        if not chosen:
            break
        extreme = max(telling[name].effect for name in chosen)
        for name in [n for n in chosen if telling[n].effect >= extreme / 2]:
            found[name] = telling[name].text
            del inside[name]
    return found


@dataclass(frozen=True)
class _Told:
    p: float
    effect: float
    text: str


def _against_rest(profile: ReferenceProfile, counted: Mapping[str, Counters]) -> dict[str, _Told]:
    """Compare each device with the others together: they take the reference's place in the same tests."""
    total = reduce(Counters.merge, counted.values())
    designs = {name: design_effect(counters) for name, counters in counted.items()}
    worst = max(designs.values())
    telling = {}
    for name, own in counted.items():
        rest = total.minus(own)
        if min(own.n_sampled, rest.n_sampled) / worst < MIN_EFFECTIVE:
            continue
        # Of two devices each differs as much from the other: the reference decides which one moved.
        against = replace(profile, counters=rest)
        found = {c: e for c, e in evidence(against, own, worst).items() if e is not None}
        apart = evidence(profile, own, worst) if len(counted) == 2 else found
        adjusted = holm({c: e.p for c, e in found.items()})
        channel = min(adjusted, key=lambda c: (adjusted[c], -found[c].effect))
        effect = max((e.effect for e in apart.values() if e is not None), default=0.0)
        telling[name] = _Told(adjusted[channel], effect, describe(channel, against, own))
    return telling
