# SPDX-License-Identifier: Apache-2.0
"""From the runner's counters to drift windows and heartbeat metrics.

The runner counts from its start; a window is the difference of two readings. A new epoch (the runner
restarted, or another bundle became active) closes the window with the last reading of the old one.
"""

import base64
import contextlib
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_agent.core.effects import Effect, Note, Save
from edge_agent.core.events import Instant, Sample
from edge_agent.core.privacy import FEW, Released, Spent, draws, released
from edge_agent.core.subwindows import PART_S, Ring, onset_ms
from edge_agent.core.twin import Settings
from edge_contract import latency
from edge_contract.alarm_setting import limits_of
from edge_contract.counts import Counters, latency_quantile_us
from edge_contract.errors import ContractError
from edge_contract.profile import ReferenceProfile
from edge_contract.summary import DriftSummary, Flag, Health, short_hash
from edge_contract.verdict import DriftState, judge

__all__ = ["Meter", "Windows", "close", "median_us", "observe"]

_MOST_WAITS: Final = 24
"""A window that samples too little stays open for so many times its time at most: a day of hours."""
_DEFAULT: Final = Settings()

Reading = tuple[int, str, Counters]


@dataclass(frozen=True)
class Windows:
    """The open window of one bundle.

    Attributes:
        device, boot: Whose windows.
        number: The window's number on this device, growing over restarts.
        bundle: What profile and drift belong to.
        base, latest: Readings at the window's start and now.
        opened: When it began.
        profile: The bundle's reference profile, None while unknown.
        drift: Evidence that is carried from window to window.
        warm: Lowest, sum, highest temperature and their number.
        ring: The last day in parts of ten minutes,
        part, part_opened: the reading at which the open part began, and when.
        spent: Of the budget of a day with noise.
    """

    device: str
    boot: str
    number: int = 1
    bundle: str = ""
    base: Reading | None = None
    latest: Reading | None = None
    opened: Instant = field(default_factory=lambda: Instant(0.0, 0.0))
    profile: ReferenceProfile | None = None
    drift: DriftState | None = None
    warm: tuple[float, float, float, int] | None = None
    ring: Ring = field(default_factory=Ring)
    part: Reading | None = None
    part_opened: Instant = field(default_factory=lambda: Instant(0.0, 0.0))
    spent: Spent = field(default_factory=Spent)

    @property
    def counted(self) -> Counters | None:
        """What the open window has counted, None if nothing."""
        if self.base is None or self.latest is None or self.latest[2].n_infer == self.base[2].n_infer:
            return None
        return self.latest[2].minus(self.base[2])


def observe(windows: Windows, sample: Sample, settings: Settings, at: Instant) -> tuple[Windows, list[Effect]]:
    """Take a reading in, and close the window if it is full, old, or belongs to an epoch that ended."""
    reading = sample.counters
    windows = _warmed(windows, sample.health.get("temperature_c"))
    if reading is None:
        return windows, []
    effects: list[Effect] = []
    if windows.base is None or windows.base[:2] != reading[:2]:
        windows, effects = close(windows, sample.health, at, settings, sample.seed)
        fresh = reading[1] != windows.bundle
        kept = replace(windows, bundle=reading[1], profile=None, drift=None, ring=Ring()) if fresh else windows
        # The runner's counters start at zero with an epoch, so nothing of its first second is lost.
        base = (reading[0], reading[1], reading[2].emptied())
        return replace(kept, base=base, latest=reading, opened=at, part=base, part_opened=at), effects
    windows = replace(windows, latest=reading)
    try:
        counted = windows.counted
    except ContractError as error:  # another process wrote the file, or memory rotted: begin again from here
        lost = Note("event", {"kind": "window_lost", "reason": str(error)[:300]})
        return replace(windows, base=reading, opened=at, part=reading, part_opened=at), [lost]
    if counted is None:
        return windows, []
    if _is_due(counted, settings, at.mono - windows.opened.mono):
        windows, effects = close(windows, sample.health, at, settings, sample.seed)
        return replace(windows, base=reading, opened=at), effects
    return (_parted(windows, at) if at.mono - windows.part_opened.mono >= PART_S else windows), []


def _is_due(counted: Counters, settings: Settings, age_s: float) -> bool:
    """Tell whether a window closes: when it is full, or old, but with few samples only after a day of waiting."""
    if counted.n_sampled >= max(settings.window_inferences, FEW):
        return True
    return age_s >= settings.window_s * (1 if counted.n_sampled >= FEW else _MOST_WAITS)


def _parted(windows: Windows, at: Instant) -> Windows:
    """End the open part of ten minutes."""
    part, latest, opened = windows.part, windows.latest, windows.part_opened
    if part is None or latest is None or latest[2].n_infer == part[2].n_infer:
        return replace(windows, part=latest, part_opened=at)
    start_ms = max(0, round((at.wall - max(0.0, at.mono - opened.mono)) * 1000))
    ring = windows.ring.add(start_ms, round(at.wall * 1000), latest[2].minus(part[2]))
    return replace(windows, ring=ring, part=latest, part_opened=at)


def close(
    windows: Windows, health: Mapping[str, Any], at: Instant, settings: Settings = _DEFAULT, seed: bytes = b""
) -> tuple[Windows, list[Effect]]:
    """Turn the open window into a drift row, and an alarm row when the verdict becomes an alarm.

    What is judged is what leaves: the server, which judges it again, comes to the same verdict.

    Args:
        windows: With the open window.
        health: Of the board.
        at: Now.
        settings: Whether the counts get noise.
        seed: Unpredictable bytes for it.
    """
    counted = windows.counted
    if counted is None:
        return windows, []
    closed = replace(windows, number=windows.number + 1, base=windows.latest, warm=None)
    try:
        closed = _parted(closed, at)
        shown = released(counted, settings, windows.spent, at.mono, draws(seed, windows.number))
        closed = replace(closed, spent=shown.spent)
        summary = _summary(windows, shown, health, at)
        body: dict[str, Any] = {"bundle": windows.bundle}
        if windows.profile is None:
            body["summary"] = base64.b64encode(summary.encode()).decode()
            return closed, [Note("drift", body), *_kept(shown)]
        limits = limits_of(settings.false_alarms_per_year, summary.duration_ms)
        verdict, drift = judge(windows.profile, summary, windows.drift or DriftState(), limits)
        body.update(summary=base64.b64encode(drift.stamp(summary).encode()).decode(), verdict=verdict.to_json())
    except (ContractError, ArithmeticError, ValueError) as error:  # counters that cannot be: say so, go on counting
        return closed, [Note("event", {"kind": "window_lost", "reason": str(error)[:300]})]
    effects: list[Effect] = [Note("drift", body), *_kept(shown)]
    if drift.is_alarmed and not (windows.drift and windows.drift.is_alarmed):
        told = {"kind": "drift", "bundle": windows.bundle, "verdict": verdict.to_json()}
        effects.append(Note("alarm", {**told, **_onset(closed, settings)}))
    return replace(closed, drift=drift), effects


def _kept(shown: Released) -> list[Effect]:
    """Return what keeps the budget over a power cut, where there is one."""
    return [Save()] if shown.flags & Flag.NOISED else []


def _onset(windows: Windows, settings: Settings) -> dict[str, int]:
    """Return since when the last parts of ten minutes are unlike the reference; with noise that stays here."""
    if windows.profile is None or settings.noise_epsilon:
        return {}
    try:
        since = onset_ms(windows.ring, windows.profile)
    except ContractError:  # parts of another profile
        return {}
    return {} if since is None else {"onset_ms": since}


def _summary(windows: Windows, shown: Released, health: Mapping[str, Any], at: Instant) -> DriftSummary:
    duration = max(0.0, at.mono - windows.opened.mono)
    return DriftSummary(
        device=short_hash(windows.device, 8),
        bundle=windows.bundle[:32],
        profile_crc=windows.profile.crc if windows.profile else 0,
        boot=short_hash(windows.boot, 4),
        window=windows.number,
        start_ms=max(0, round((at.wall - duration) * 1000)),
        duration_ms=round(duration * 1000),
        counters=shown.counters,
        health=_board(windows, health),
        flags=_remarks(shown.flags, health),
    )


def _remarks(flags: Flag, health: Mapping[str, Any]) -> Flag:
    return flags | (Flag.CLOCK_UNSYNCED if health.get("clock_quality") in (0, 1) else Flag.NONE)


def _board(windows: Windows, health: Mapping[str, Any]) -> Health:
    warm = windows.warm
    return Health(
        temperature_c=(warm[0], warm[1] / warm[3], warm[2]) if warm else None,
        rss_max_kb=health.get("rss_kb"),
        disk_free_mb=health.get("disk_free_mb"),
    )


def _warmed(windows: Windows, temperature: float | None) -> Windows:
    if temperature is None:
        return windows
    low, total, high, n = windows.warm or (temperature, 0.0, temperature, 0)
    warm = (min(low, temperature), total + temperature, max(high, temperature), n + 1)
    return replace(windows, warm=warm)


def median_us(sample: Sample, bundle: str) -> float:
    """Return a bundle's median latency as the active model, in µs; 0 while fewer than ``FEW`` answers say so."""
    if sample.counters is None or sample.counters[1] != bundle:
        return 0.0
    latency = sample.counters[2].latency
    return (latency_quantile_us(latency, 0.5) or 0.0) if sum(latency) >= FEW else 0.0


@dataclass(frozen=True)
class Totals:
    """Inferences and failures since the agent started, over every model and every restart of the runner.

    Counters begin at nought with each epoch, so what an ended epoch had counted is added up here.

    Attributes:
        epoch: Of the newest reading; None before the first.
        inferences, errors: All of them.
        ended: The same of ended epochs alone.
    """

    epoch: int | None = None
    inferences: int = 0
    errors: int = 0
    ended: tuple[int, int] = (0, 0)

    def after(self, sample: Sample) -> "Totals":
        """Return the totals after a reading.

        Example:
            >>> from dataclasses import replace as changed
            >>> ten = changed(Counters.zero(2), n_infer=10)
            >>> first = Totals().after(Sample(counters=(1, "a", ten)))
            >>> first.after(Sample(counters=(2, "b", changed(ten, n_infer=3)))).inferences
            13
        """
        if sample.counters is None:
            return self
        epoch, _, counted = sample.counters
        ended = self.ended if epoch == self.epoch else (self.inferences, self.errors)
        return Totals(epoch, ended[0] + counted.n_infer, ended[1] + counted.n_err, ended)


@dataclass(frozen=True)
class Meter:
    """What the heartbeat metrics count from: the reading at the last beat."""

    base: Reading | None = None
    since: float = 0.0
    times: tuple[int, ...] = ()

    def beat(self, sample: Sample, at: Instant) -> tuple["Meter", dict[str, Any]]:
        """Return the next meter and the metric row's body: inferences, errors and latency since the last beat."""
        body: dict[str, Any] = {"seconds": round(at.mono - self.since, 3), **sample.health}
        reading = sample.counters
        if reading is None:
            return Meter(None, at.mono), body
        counted, times = reading[2], sample.times
        if self.base is not None and self.base[:2] == reading[:2]:
            with contextlib.suppress(ContractError):  # the window that meets it says so
                counted = counted.minus(self.base[2])
            times = tuple(map(operator.sub, times, self.times))
        body.update(bundle=reading[1], n=counted.n_infer, errors=counted.n_err, dropped=counted.n_drop)
        for name, share in (("p50_us", 0.5), ("p95_us", 0.95), ("p99_us", 0.99)):
            quantile = latency.quantile_us(times, share) if any(times) else latency_quantile_us(counted.latency, share)
            if quantile is not None:
                body[name] = quantile
        return Meter(reading, at.mono, sample.times), body
