# SPDX-License-Identifier: Apache-2.0
"""What the drift page shows of a device, and how windows are merged: counts add."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

from edge_contract.counts import Counters, latency_quantile_us
from edge_contract.errors import ProfileError
from edge_contract.findings import Level, Verdict
from edge_contract.summary import CHANNELS, DriftSummary
from edge_contract.verdict import CUSUM_LIMIT

__all__ = ["DeviceDrift", "DeviceView", "Window", "by_profile", "merge", "view"]

_TREND: Final = 48


@dataclass(frozen=True)
class Window:
    """One window of a device, as it was sent, and the verdict on it."""

    summary: DriftSummary
    verdict: Verdict


@dataclass(frozen=True)
class DeviceDrift:
    """What the server knows of a device's drift.

    Attributes:
        device: Its id.
        windows: Newest last.
        true_accuracy: From labels that arrived later, over recent results; None without labels.
    """

    device: str
    windows: tuple[Window, ...]
    true_accuracy: float | None = None

    def counters(self, last: int = 1) -> Counters | None:
        """Return the last windows merged; None when there is none, or when they belong to several profiles."""
        recent = self.windows[-last:]
        if len({w.summary.profile_crc for w in recent}) != 1:
            return None
        return merge(w.summary for w in recent)


@dataclass(frozen=True)
class DeviceView:
    """A row of the drift page, ready to be shown.

    Attributes:
        device: Its id.
        level: The newest judged level; a window too small to judge does not end an alarm.
        reason: One sentence.
        since_ms: Since when it is not OK, Unix ms; 0 when OK.
        windows: How many windows were received.
        moved: What moved.
        channels: Channel → share of the way to a CUSUM alarm, 0 .. 1.
        trend: Estimated accuracy of the last windows, oldest first.
        reference_accuracy, estimated_accuracy, low, high, valid: See ``Verdict``.
        true_accuracy: From labels.
        latency_p50_us, latency_p95_us, temperature_c: Of the newest window.
    """

    device: str
    level: Level
    reason: str
    since_ms: int
    windows: int
    moved: tuple[str, ...]
    channels: Mapping[str, float]
    trend: tuple[float, ...]
    reference_accuracy: float | None
    estimated_accuracy: float | None
    low: float | None
    high: float | None
    valid: bool
    true_accuracy: float | None
    latency_p50_us: float | None
    latency_p95_us: float | None
    temperature_c: float | None

    @property
    def estimated_loss(self) -> float | None:
        """Reference accuracy less estimated accuracy, in shares; None without an estimate."""
        if self.estimated_accuracy is None or self.reference_accuracy is None:
            return None
        return self.reference_accuracy - self.estimated_accuracy

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form for the operator's API."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain = {"level": self.level.value, "moved": list(self.moved), "channels": dict(self.channels)}
        return {**fields, **plain, "trend": list(self.trend), "estimated_loss": self.estimated_loss}


def merge(summaries: Iterable[DriftSummary]) -> Counters:
    """Return the counters of several windows together; exact, in any order.

    Raises:
        ProfileError: None given, or counted with different profiles: their bins mean different things.
    """
    given = list(summaries)
    profiles = {summary.profile_crc for summary in given}
    if len(profiles) != 1:
        names = ", ".join(f"{crc:08x}" for crc in sorted(profiles)) or "none"
        raise ProfileError(f"windows of profiles {names} cannot be merged", where="drift", fix="group by profile")
    return reduce(Counters.merge, (summary.counters for summary in given))


def by_profile(devices: Iterable[DeviceDrift]) -> dict[int, list[DeviceDrift]]:
    """Return the devices with windows, grouped by the profile of their newest window."""
    groups: dict[int, list[DeviceDrift]] = defaultdict(list)
    for device in devices:
        if device.windows:
            groups[device.windows[-1].summary.profile_crc].append(device)
    return dict(groups)


def view(device: DeviceDrift) -> DeviceView:
    """Return a device's row of the drift page."""
    newest = device.windows[-1] if device.windows else None
    judged = [w for w in device.windows if w.verdict.level is not Level.INSUFFICIENT]
    shown = judged[-1] if judged else newest
    verdict = shown.verdict if shown else None
    trend = tuple(w.verdict.estimated_accuracy for w in judged[-_TREND:] if w.verdict.estimated_accuracy is not None)
    latency = newest.summary.counters.latency if newest else ()
    warm = newest.summary.health.temperature_c if newest else None
    return DeviceView(
        device=device.device,
        level=verdict.level if verdict else Level.INSUFFICIENT,
        reason=verdict.reason if verdict else "no window yet",
        since_ms=verdict.since_ms if verdict else 0,
        windows=len(device.windows),
        moved=verdict.moved if verdict else (),
        channels={c.name: min(1.0, c.cusum / CUSUM_LIMIT) for c in verdict.channels} if verdict else _still(),
        trend=trend,
        reference_accuracy=(verdict.reference_accuracy or None) if verdict else None,  # only classifiers have one
        estimated_accuracy=verdict.estimated_accuracy if verdict else None,
        low=verdict.low if verdict else None,
        high=verdict.high if verdict else None,
        valid=verdict.valid if verdict else False,
        true_accuracy=device.true_accuracy,
        latency_p50_us=latency_quantile_us(latency, 0.5),
        latency_p95_us=latency_quantile_us(latency, 0.95),
        temperature_c=warm[1] if warm else None,
    )


def _still() -> dict[str, float]:
    return dict.fromkeys(CHANNELS, 0.0)
