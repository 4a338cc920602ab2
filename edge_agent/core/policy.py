# SPDX-License-Identifier: Apache-2.0
"""When an order may go on: maintenance windows, the update lock, metered links, battery and temperature.

A closed gate never ends an order: it waits, says for what and until when, and only its deadline or a cancel ends
the wait. Downloads look at the link, the work before them at battery and heat, the switch at windows and lock.
"""

from dataclasses import dataclass
from typing import Final

from edge_agent.core.events import Conditions, Instant, Sample
from edge_agent.core.settings import Settings
from edge_contract.maintenance import moment, next_open
from edge_contract.states import Phase

__all__ = ["Pace", "Wait", "gate", "pace"]

_CLOCK_SET_AFTER: Final = 1_735_689_600.0
"""2025-01-01: a clock before it was never set, and no window can be found by it."""


_BEGINNING: Final = (Phase.ACCEPTED, Phase.DOWNLOADING, Phase.STAGED, Phase.WAITING_WINDOW)
"""What a benchmark holds up: work that has not begun, and the switch. What is on trial goes on to its end."""


@dataclass(frozen=True)
class Wait:
    """Why an order does not go on.

    Attributes:
        kind: ``window``, ``clock``, ``lock``, ``metered``, ``battery``, ``temperature`` or ``storage``.
        text: The same for people; it does not change while the wait is the same.
        until: When it goes on, seconds since 1970; 0 where nobody knows.
    """

    kind: str
    text: str
    until: float = 0.0

    def to_json(self) -> dict[str, object]:
        return {"for": self.kind, "until": self.until} if self.until else {"for": self.kind}


@dataclass(frozen=True)
class Pace:
    """How fast downloads may go: kilobytes a second, 0 for no limit; ``held`` says why they may not go at all."""

    kbps: int = 0
    held: str = ""


def pace(settings: Settings, conditions: Conditions) -> Pace:
    """Return how fast downloads may go now.

    Example:
        >>> pace(Settings(bandwidth_kbps=500, metered_kbps=20), Conditions(is_metered=True)).kbps
        20
    """
    if conditions.storage:
        return Pace(held=conditions.storage)
    limits = [settings.bandwidth_kbps]
    if _is_metered(settings, conditions):
        if not settings.metered_kbps:
            return Pace(held="the link is metered")
        limits.append(settings.metered_kbps)
    return Pace(min((limit for limit in limits if limit), default=0))


def gate(phase: Phase, settings: Settings, sample: Sample, at: Instant) -> Wait | None:
    """Return what an order in this phase waits for, None if it may go on."""
    if sample.conditions.benchmark and phase in _BEGINNING:
        return Wait("lock", f"benchmark {sample.conditions.benchmark} measures, and nothing may disturb it")
    if phase in (Phase.ACCEPTED, Phase.DOWNLOADING) and sample.conditions.storage:
        return Wait("storage", f"{sample.conditions.storage}, downloads wait")
    if phase is Phase.ACCEPTED:
        return _power(settings, sample)
    if phase is Phase.DOWNLOADING:
        held = pace(settings, sample.conditions).held
        return Wait("metered", f"{held}, downloads wait") if held else None
    if phase in (Phase.STAGED, Phase.WAITING_WINDOW):
        return _window(settings, sample.conditions, at) or _lock(sample.conditions)
    return None


def _is_metered(settings: Settings, conditions: Conditions) -> bool:
    return settings.metered or conditions.is_metered


def _power(settings: Settings, sample: Sample) -> Wait | None:
    """An unknown sensor holds nobody up: most boards have no battery."""
    charge, heat = sample.conditions.battery_percent, sample.health.get("temperature_c")
    if settings.min_battery_percent and charge is not None and charge < settings.min_battery_percent:
        return Wait("battery", f"the battery is below {settings.min_battery_percent} %")
    if settings.max_temperature_c and heat is not None and heat > settings.max_temperature_c:
        return Wait("temperature", f"the board is hotter than {settings.max_temperature_c:g} °C")
    return None


def _window(settings: Settings, conditions: Conditions, at: Instant) -> Wait | None:
    if not settings.update_windows:
        return None
    if at.wall < _CLOCK_SET_AFTER:
        return Wait("clock", "the clock is not set, and updates have a maintenance window")
    is_utc = settings.update_clock == "utc"
    offset = 0 if is_utc else conditions.utc_offset_s
    until = next_open(settings.update_windows, at.wall, offset)
    if not until:
        return None
    when = f"{moment(until, offset)} {'UTC' if is_utc else 'local time'}"
    return Wait("window", f"the maintenance window opens {when}", until)


def _lock(conditions: Conditions) -> Wait | None:
    return Wait("lock", f"an application holds {conditions.locked_by}") if conditions.locked_by else None
