# SPDX-License-Identifier: Apache-2.0
"""From a window to a verdict: the same code on the device and on the server.

Levels: INSUFFICIENT below 64 effective samples (the window is carried over into the next one); WARN where the family
p-value is below 1e-3; ALARM where it is below 1e-6 in two successive windows, or where a channel's CUSUM reaches 10.
An alarm stays until every CUSUM has fallen below 5 and the windows look ordinary, so that it does not flap. These are
the default limits; ``edge_contract.alarm_rate`` makes others from a rate of false alarms.

How bad it is, is said by the estimated accuracy (``edge_contract.severity``), never by a p-value.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from edge_contract.alarm_rate import DEFAULT, AlarmLimits
from edge_contract.autocorrelation import design_effect
from edge_contract.channels import channels_of, evidence
from edge_contract.counts import Counters
from edge_contract.daytime import Daytime
from edge_contract.effective import effective_reference
from edge_contract.errors import ProfileError
from edge_contract.findings import ChannelVerdict, DriftState, Level, Verdict
from edge_contract.movement import describe
from edge_contract.priors import prior_shift
from edge_contract.profile import ReferenceProfile
from edge_contract.severity import Severity, estimate
from edge_contract.statistics import Evidence, cusum_step, holm
from edge_contract.summary import DriftSummary

__all__ = [
    "ALARM_P",
    "CUSUM_LIMIT",
    "MIN_EFFECTIVE",
    "WARN_P",
    "ChannelVerdict",
    "DriftState",
    "Level",
    "Verdict",
    "judge",
]

MIN_EFFECTIVE: Final = 64.0
WARN_P: Final = DEFAULT.warn_p
ALARM_P: Final = DEFAULT.alarm_p
CUSUM_LIMIT: Final = DEFAULT.cusum
_MAX_CARRIED: Final = 48


def judge(
    profile: ReferenceProfile,
    summary: DriftSummary,
    state: DriftState,
    limits: AlarmLimits = DEFAULT,
    daytime: Daytime | None = None,
) -> tuple[Verdict, DriftState]:
    """Return the verdict on a window and what to remember.

    Args:
        profile: The reference that the summary names.
        summary: One window; its own CUSUM is not read.
        state: What was remembered after the window before; of another profile, it is forgotten.
        limits: When to warn and to alarm.
        daytime: A second opinion on the inputs: what they look like at this hour on other days.

    Raises:
        ProfileError: The summary was counted with another profile.
        SummaryError: Counters that cannot come from one window.
    """
    if summary.profile_crc != profile.crc:
        what = f"window {summary.window} was counted with profile {summary.profile_crc:08x}, not {profile.crc:08x}"
        raise ProfileError(what, where="drift", fix="judge it with the profile of its own bundle")
    if not profile.fits(summary.counters):
        raise ProfileError(f"window {summary.window} counts what its profile does not", where="drift")
    if state.profile_crc != profile.crc:
        state = DriftState(profile_crc=profile.crc)
    summary.counters.check()
    if state.carried is not None and state.carried.form != summary.counters.form:  # of an agent before its update
        state = replace(state, carried=None, carried_windows=0)
    counters = summary.counters if state.carried is None else state.carried.merge(summary.counters)
    design = design_effect(counters)
    n_eff = counters.n_sampled / design
    if profile.size < MIN_EFFECTIVE or n_eff < MIN_EFFECTIVE:
        return _wait(profile, summary, counters, n_eff, state)
    return _decide(profile, summary, counters, state, design=design, limits=limits, daytime=daytime)


def _wait(
    profile: ReferenceProfile, summary: DriftSummary, counters: Counters, n_eff: float, state: DriftState
) -> tuple[Verdict, DriftState]:
    """Carry the window over, and say why it is not judged."""
    level, reason = Level.INSUFFICIENT, f"{n_eff:.0f} effective samples of the {MIN_EFFECTIVE:.0f} needed"
    if profile.size < MIN_EFFECTIVE:
        reason = f"the profile has {profile.size} reference samples, {MIN_EFFECTIVE:.0f} are needed"
    elif _is_constant(counters):
        level, reason = Level.WARN, f"{counters.n_sampled} times the same answer: is the source frozen?"
    names = channels_of(profile.task)
    channels = tuple(ChannelVerdict(name, None, 0.0, s, "") for name, s in zip(names, state.cusum, strict=False))
    severity = estimate(profile, counters, n_eff, {})
    verdict = _verdict(profile, summary, level, reason, channels, n=counters.n_sampled, n_eff=n_eff, severity=severity)
    carried = replace(state, carried=counters, carried_windows=state.carried_windows + 1)
    keep = carried.carried_windows < _MAX_CARRIED and profile.size >= MIN_EFFECTIVE
    verdict = replace(verdict, valid=False, since_ms=state.since_ms)
    return verdict, carried if keep else replace(state, carried=None, carried_windows=0)


def _is_constant(counters: Counters) -> bool:
    n = counters.n_sampled
    is_known = counters.noise == (0, 0)  # noised windows are without moments
    return is_known and n >= MIN_EFFECTIVE and counters.energy_squares * n == counters.energy_sum**2


def _decide(
    profile: ReferenceProfile,
    summary: DriftSummary,
    counters: Counters,
    state: DriftState,
    *,
    design: float,
    limits: AlarmLimits,
    daytime: Daytime | None = None,
) -> tuple[Verdict, DriftState]:
    found = evidence(effective_reference(profile), counters, design)
    if daytime is not None and "input" in found:
        found["input"] = daytime.weigh(found["input"], counters, design)
    adjusted = holm({name: e.p for name, e in found.items() if e is not None})
    p_family = min(adjusted.values(), default=1.0)
    after = _remember(found, p_family, summary.start_ms, state, limits)
    level = Level.ALARM if after.is_alarmed else Level.WARN if p_family < limits.warn_p else Level.OK
    moved = {name for name, p in adjusted.items() if p < limits.warn_p}
    crossed = [name for name, s in zip(found, after.cusum, strict=False) if s >= limits.cusum]
    moved |= set(crossed)
    channels = tuple(
        _channel(profile, counters, name, found[name], has_moved=name in moved, cusum=s)
        for name, s in zip(found, after.cusum, strict=False)
    )
    n_eff = counters.n_sampled / design
    since = after.since_ms or (summary.start_ms if level is Level.WARN else 0)
    severity = estimate(profile, counters, n_eff, found)
    reason = _reason(level, p_family, after, state, crossed)
    if severity is None and level is not Level.OK:
        what = "this task" if counters.noise == (0, 0) else "noised windows"
        reason = f"{reason}; no estimate of the accuracy for {what}"
    verdict = _verdict(profile, summary, level, reason, channels, n=counters.n_sampled, n_eff=n_eff, severity=severity)
    prior = prior_shift(profile, counters, design) if level is not Level.OK else None
    return replace(verdict, p_family=p_family, since_ms=since, prior=prior), after


def _remember(
    found: Mapping[str, Evidence | None], p_family: float, start_ms: int, state: DriftState, limits: AlarmLimits
) -> DriftState:
    """Move the CUSUMs one window on, and decide whether the alarm stands."""
    names = [*found, *[""] * (len(state.cusum) - len(found))]  # of some tasks fewer channels than places
    cusum = tuple(
        s if (e := found.get(name)) is None else cusum_step(s, e.p_beyond, limits.cap)
        for name, s in zip(names, state.cusum, strict=True)
    )
    rising = tuple(0 if not s else before or start_ms for s, before in zip(cusum, state.rising_ms, strict=True))
    strong = p_family < limits.alarm_p
    crossed = max(cusum) >= limits.cusum or (strong and state.is_strong)
    calm = max(cusum) < limits.calm and p_family >= limits.warn_p
    alarmed = crossed or (state.is_alarmed and not calm)
    # A CUSUM's last zero is the maximum-likelihood estimate of when the change began (Page 1954). Of several channels
    # the latest: the others may have been above zero by chance when it began.
    first = max((r for r, s in zip(rising, cusum, strict=True) if s >= limits.calm), default=start_ms)
    since = (state.since_ms or first) if alarmed else 0
    return replace(
        state,
        cusum=cusum,
        rising_ms=rising,
        windows=state.windows + 1,
        is_strong=strong,
        is_alarmed=alarmed,
        since_ms=since,
        carried=None,
        carried_windows=0,
    )


def _channel(
    profile: ReferenceProfile, counters: Counters, name: str, found: Evidence | None, *, has_moved: bool, cusum: float
) -> ChannelVerdict:
    text = describe(name, profile, counters) if has_moved else ""
    p, effect = (found.p, found.effect) if found else (None, 0.0)
    return ChannelVerdict(name, p, effect, cusum, text)


def _p(p: float) -> str:
    """A p-value for a sentence; one that underflows is not nought, only too small to say."""
    return f"p {p:.1g}" if p > 0 else "p below 1e-300"


def _reason(level: Level, p_family: float, after: DriftState, before: DriftState, crossed: list[str]) -> str:
    if level is Level.OK:
        return "as on the reference"
    if level is Level.WARN:
        return f"this window is unlike the reference ({_p(p_family)}); one window alone does not alarm"
    if after.is_strong and before.is_strong:
        return f"two successive windows unlike the reference ({_p(p_family)})"
    if crossed:
        return f"evidence added up over windows in {', '.join(crossed)}"
    return "still falling from an alarm"


def _verdict(
    profile: ReferenceProfile,
    summary: DriftSummary,
    level: Level,
    reason: str,
    channels: tuple[ChannelVerdict, ...],
    *,
    n: int,
    n_eff: float,
    severity: Severity | None,
) -> Verdict:
    telling = sorted((c for c in channels if c.text), key=lambda c: -c.effect)
    return Verdict(
        level=level,
        reason=reason,
        window=summary.window,
        n=n,
        n_eff=n_eff,
        p_family=1.0,
        channels=channels,
        reference_accuracy=profile.accuracy,
        estimated_accuracy=severity.accuracy if severity else None,
        low=severity.low if severity else None,
        high=severity.high if severity else None,
        valid=severity is not None and severity.is_valid,
        moved=tuple(dict.fromkeys(c.text for c in telling)),
    )
