# SPDX-License-Identifier: Apache-2.0
"""The limits of a rollout: how fast it goes, when it may send orders, what it forgives, and when it stops."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edge_contract.errors import ContractError
from edge_contract.fields import Fields
from edge_contract.jobs import Probation
from edge_contract.maintenance import next_open, parse_window

__all__ = ["NO_LIMIT", "Limits", "Offline", "Rate", "Schedule"]

NO_LIMIT: Final = -1
"""``max_failures`` where only the shares decide."""


@dataclass(frozen=True)
class Rate:
    """How many devices of a wave get their order in a minute.

    Attributes:
        per_minute: At the wave's start.
        factor: By how much the rate grows; 1 keeps it.
        after: For each so many successes of the wave, once.
        most: Highest rate, 0 for none.
    """

    per_minute: float
    factor: float = 1.0
    after: int = 0
    most: float = 0.0

    def at(self, successes: int) -> float:
        """Return the rate after so many successes, in devices per minute.

        Example:
            >>> rate = Rate(10, factor=2, after=5, most=30)
            >>> [rate.at(n) for n in (0, 4, 5, 10)]
            [10, 10, 20, 30]
        """
        grown = self.per_minute
        if self.after and self.factor > 1.0:
            # Beyond 2^60 times the first rate nobody waits any more; the bound keeps the power finite.
            doublings = min(successes // self.after, int(60 / math.log2(self.factor)) + 1)
            grown = self.per_minute * self.factor**doublings
        return min(grown, self.most) if self.most else grown

    def to_json(self) -> dict[str, Any]:
        return {"per_minute": self.per_minute, "factor": self.factor, "after": self.after, "most": self.most}

    @classmethod
    def from_json(cls, document: Any) -> "Rate":
        f = Fields(document, "rollout.rate", ContractError)
        rate = cls(f.number("per_minute"), f.number("factor", 1.0), f.integer("after", 0, minimum=0))
        rate = cls(rate.per_minute, rate.factor, rate.after, f.number("most", 0.0))
        _no_more(f)
        if rate.per_minute <= 0 or rate.factor < 1 or rate.most < 0:
            raise ContractError("per_minute must be positive, factor at least 1, most not negative", where=f.where)
        return rate


@dataclass(frozen=True)
class Offline:
    """What becomes of devices that are away: ``wait`` until their deadline, which is then a failure; ``excuse``
    those that say nothing until then; or ``skip`` those that were not seen for ``after_s``, at their turn.
    """

    policy: str = "wait"
    after_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {"policy": self.policy, "after_s": self.after_s}

    @classmethod
    def from_json(cls, document: Any) -> "Offline":
        f = Fields(document, "rollout.offline", ContractError)
        offline = cls(f.text("policy", "wait", among=("wait", "excuse", "skip")), f.number("after_s", 0.0))
        _no_more(f)
        if (offline.policy == "skip") != (offline.after_s > 0):
            raise ContractError("after_s goes with policy 'skip', and must be positive", where=f.where)
        return offline


@dataclass(frozen=True)
class Schedule:
    """When orders go out; 0 and nothing: always.

    Attributes:
        start_at, end_at: Seconds since 1970. After the end nobody gets an order any more.
        windows: Spans of the week, such as ``Mon-Fri 22:00-05:00``.
        clock: ``utc``, or ``device`` for each device's local time.
    """

    start_at: float = 0.0
    end_at: float = 0.0
    windows: tuple[str, ...] = ()
    clock: str = "utc"

    def is_open(self, now: float, offset_s: float = 0.0) -> bool:
        """Return whether an order may go out now to a device whose clock is so far ahead of UTC.

        Example:
            >>> night = Schedule(windows=("22:00-05:00",), clock="device")
            >>> night.is_open(12 * 3600.0), night.is_open(12 * 3600.0, offset_s=11 * 3600)
            (False, True)
        """
        offset = int(offset_s) if self.clock == "device" else 0
        return not self.windows or next_open(self.windows, now, offset) == 0.0

    def is_over(self, now: float) -> bool:
        """Return whether the end has passed."""
        return 0 < self.end_at <= now

    def to_json(self) -> dict[str, Any]:
        return {
            "start_at": self.start_at,
            "end_at": self.end_at,
            "windows": list(self.windows),
            "clock": self.clock,
        }

    @classmethod
    def from_json(cls, document: Any) -> "Schedule":
        f = Fields(document, "rollout.schedule", ContractError)
        schedule = cls(
            f.number("start_at", 0.0),
            f.number("end_at", 0.0),
            f.texts("windows", []),
            f.text("clock", "utc", among=("utc", "device")),
        )
        _no_more(f)
        for i, window in enumerate(schedule.windows):
            try:
                parse_window(window)
            except ContractError as error:
                raise ContractError(error.what, where=f"{f.where}.windows[{i}]", fix=error.fix) from error
        if schedule.end_at and schedule.end_at <= schedule.start_at:
            raise ContractError("end_at is not after start_at", where=f.where)
        return schedule


@dataclass(frozen=True)
class Limits:
    """When a wave is done and when a rollout must stop.

    Attributes:
        soak_s: Seconds that a wave runs after its last success, before the next one starts.
        timeout_s: Seconds that a device has from its order to its result.
        grace_s: Seconds that the server waits longer than the device, so that its own word arrives first.
        max_failures: Failed devices that the whole rollout forgives; ``NO_LIMIT`` where only shares decide.
        probation: How a device judges the new model.
        shadow: How a device judges a model that runs beside the active one, in a wave of kind ``shadow``.
        max_failed_share: Of the finished devices of the rollout, looked at from ``min_finished`` on.
        max_wave_failed_share: Of the finished devices of one wave, looked at from ``min_wave_finished`` on.
        finished_share: Of a wave's devices, that must have finished before it soaks; the others go on meanwhile.
        retries: Further attempts for a device that failed, unless it rolled the model back.
        retry_wait_s: Before the first of them; it doubles.
        cancel_s: Seconds that a device has to confirm a cancel.
        on_failure: ``stop``, or ``roll-back`` what succeeded.
        gates: What ``fleet.core.gate_limits.GateLimits`` reads; None for a wave that nobody but its failures judges.
        gate_timeout_s: Longest wait for the gates' evidence after the soak; then the rollout pauses.
    """

    soak_s: float = 0.0
    timeout_s: float = 3600.0
    grace_s: float = 30.0
    max_failures: int = 0
    probation: Probation = field(default_factory=Probation)
    shadow: Probation = field(default_factory=Probation)
    max_failed_share: float = 1.0
    min_finished: int = 1
    max_wave_failed_share: float = 1.0
    min_wave_finished: int = 1
    finished_share: float = 1.0
    retries: int = 0
    retry_wait_s: float = 60.0
    cancel_s: float = 120.0
    on_failure: str = "stop"
    rate: Rate | None = None
    offline: Offline = field(default_factory=Offline)
    schedule: Schedule = field(default_factory=Schedule)
    gates: Mapping[str, Any] | None = None
    gate_timeout_s: float = 86_400.0

    def to_json(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in (*_SECONDS, *_SHARES, *_COUNTS, "on_failure")}
        return {
            **plain,
            "probation": self.probation.to_json(),
            "shadow": self.shadow.to_json(),
            "rate": self.rate.to_json() if self.rate else None,
            "offline": self.offline.to_json(),
            "schedule": self.schedule.to_json(),
            "gates": dict(self.gates) if self.gates is not None else None,
        }

    @classmethod
    def from_json(cls, document: Any) -> "Limits":
        """Return the limits; raises ContractError for a field of the wrong type or out of its range."""
        f, default = Fields(document, "rollout", ContractError), cls()
        has_share = "max_failed_share" in document or "max_wave_failed_share" in document
        plain: dict[str, Any] = {name: f.number(name, getattr(default, name)) for name in (*_SECONDS, *_SHARES)}
        plain |= {name: f.integer(name, getattr(default, name), minimum=0) for name in _COUNTS if name != _FAILURES}
        forgiven = f.integer(_FAILURES, NO_LIMIT if has_share else default.max_failures, minimum=NO_LIMIT)
        rate, gates = document.get("rate"), document.get("gates")
        limits = cls(
            **plain,
            max_failures=forgiven,
            probation=Probation.from_json(f.object("probation", {}), "rollout.probation"),
            shadow=Probation.from_json(f.object("shadow", {}), "rollout.shadow"),
            on_failure=f.text("on_failure", default.on_failure, among=("stop", "roll-back")),
            rate=Rate.from_json(rate) if rate is not None else None,
            offline=Offline.from_json(f.object("offline", {})),
            schedule=Schedule.from_json(f.object("schedule", {})),
            gates=f.object("gates") if gates is not None else None,
        )
        _check(limits)
        return limits


_FAILURES: Final = "max_failures"
_SECONDS: Final = ("soak_s", "timeout_s", "grace_s", "retry_wait_s", "cancel_s", "gate_timeout_s")
_SHARES: Final = ("max_failed_share", "max_wave_failed_share", "finished_share")
_COUNTS: Final = (_FAILURES, "min_finished", "min_wave_finished", "retries")


def _check(limits: Limits) -> None:
    if limits.timeout_s <= 0 or limits.soak_s < 0 or limits.grace_s < 0:
        raise ContractError("timeout_s must be positive, soak_s and grace_s not negative", where="rollout")
    for name in _SECONDS[3:]:
        if getattr(limits, name) < 0:
            raise ContractError("must not be negative", where=f"rollout.{name}")
    for name in _SHARES:
        if not 0.0 <= getattr(limits, name) <= 1.0:
            raise ContractError("is not a share between 0 and 1", where=f"rollout.{name}")
    if limits.finished_share == 0.0:
        raise ContractError("must be above 0", where="rollout.finished_share")


def _no_more(f: Fields) -> None:
    if rest := sorted(f.rest()):
        raise ContractError(f"unknown field '{rest[0]}'", where=f.where)
