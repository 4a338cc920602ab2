# SPDX-License-Identifier: Apache-2.0
"""Gates of the board: throttling, clock, temperature, governor, other processes, power sensor. Standard library only.

Reference:
    Raspberry Pi documentation, get_throttled and frequency management: bits 0 to 3 now, 16 to 19 since boot; the
    firmware lowers the clock from 80 °C on, a Pi 3 B+ has a soft limit of 60 °C
"""

from collections.abc import Iterator
from typing import Final

from benchmarks.gates.finding import Finding
from benchmarks.record import Measurement, Reading

__all__ = ["clock", "company", "governor", "power_sensor", "temperature", "throttled"]

MOST_CLOCK_MOVE: Final = 0.02
_BITS: Final = ("under-voltage", "a capped clock", "throttling", "the soft temperature limit")
_CURES: Final = (
    "use the supply that was made for this board and a short cable",
    "let the board cool down, or cool it",
    "let the board cool down, or cool it",
    "let the board cool down, or cool it",
)
_NEAR: Final = 3.0
_STUCK: Final = 20


def _readings(measurement: Measurement) -> list[Reading]:
    return [one for launch in measurement.launches for one in launch.readings]


def _while_measuring(measurement: Measurement) -> list[Reading]:
    """Return the readings between the first and the last run of each launch."""
    return [
        one
        for launch in measurement.launches
        if launch.starts_ns
        for one in launch.readings
        if launch.starts_ns[0] <= one.at_ns <= launch.starts_ns[-1] + launch.stages_ns["total"][-1]
    ]


def throttled(measurement: Measurement) -> Iterator[Finding]:
    """Throttling bits that are set now, or have come since the start; a thermal counter that has risen."""
    readings = _readings(measurement)
    bits = [one.throttled for one in readings if one.throttled is not None]
    before = measurement.preflight.throttled
    if before is None and bits:
        before = bits[0] & 0xF0000
    for place, (name, cure) in enumerate(zip(_BITS, _CURES, strict=True)):
        now = sum(one >> place & 1 for one in bits)
        came = any(one >> (16 + place) & 1 for one in bits) and not (before or 0) >> (16 + place) & 1
        if now:
            words = f"{name} in {now} of {len(bits)} readings while it was measured; {cure}, and measure again"
            yield Finding("throttled", "invalid", words)
        elif came:
            words = f"{name} occurred between two readings (bit {16 + place} came up); {cure}, and measure again"
            yield Finding("throttled", "invalid", words)
    counts = [one.throttle_count for one in readings if one.throttle_count is not None]
    if counts and max(counts) > counts[0]:
        words = f"the processor throttled {max(counts) - counts[0]} times; cool it, and measure again"
        yield Finding("throttled", "invalid", words)
    old = (before or 0) & 0xF0000 if before is not None else 0
    if old:
        names = ", ".join(name for place, name in enumerate(_BITS) if old >> (16 + place) & 1)
        words = f"{names} occurred since boot, before the measurement; restart the board to see whether it comes back"
        yield Finding("throttled-before", "flag", words)


def clock(measurement: Measurement) -> Iterator[Finding]:
    """A clock that moved by more than 2 % while it was measured.

    Of several cores the fastest counts, since one that idles is slow by right. Where nothing but the governor's wish
    can be read (no firmware answers), a move makes the result uncontrolled and not invalid.
    """
    seen = [one for one in _while_measuring(measurement) if one.clock_khz and max(one.clock_khz) > 0]
    speeds = [max(one.clock_khz) for one in seen]
    if len(speeds) < 2:
        return
    slow, fast = min(speeds), max(speeds)
    if fast / slow - 1 <= MOST_CLOCK_MOVE:
        return
    is_measured = any(one.throttled is not None for one in seen)
    below = sum(one < fast * (1 - MOST_CLOCK_MOVE) for one in speeds)
    words = (
        f"the clock moved between {slow / 1000:.0f} and {fast / 1000:.0f} MHz ({100 * (fast / slow - 1):.0f} %), "
        f"{below} of {len(speeds)} readings were slower; hold it: governor performance, cooling, a good supply"
    )
    yield Finding("clock", "invalid" if is_measured else "uncontrolled", words)


def _limit(name: str) -> float | None:
    """Return where the firmware of a board begins to slow down, °C; None: not known."""
    if "3 Model B Plus" in name or "3 Model A Plus" in name:
        return 60.0
    return 80.0 if "Raspberry Pi" in name else None


def temperature(measurement: Measurement) -> Iterator[Finding]:
    """A board near or at the temperature at which its firmware lowers the clock."""
    seen = [one.temp_c for one in _readings(measurement) if one.temp_c is not None]
    limit = _limit(measurement.preflight.board)
    if not seen or limit is None or max(seen) < limit - _NEAR:
        return
    status = "uncontrolled" if max(seen) >= limit else "flag"
    words = (
        f"{max(seen):.1f} °C; this board slows down from {limit:.0f} °C on; cool it, or pause longer between launches"
    )
    yield Finding("temperature", status, words)


def governor(measurement: Measurement) -> Iterator[Finding]:
    """A governor that changes the clock, or one that cannot be read."""
    found = measurement.preflight.governor
    if found == "performance":
        return
    if found:
        words = f"governor '{found}' changes the clock with the load; set 'performance' (as root)"
    else:
        words = (
            "no governor can be read here (a virtual machine?): the clock is not under control; measure on the board"
        )
    yield Finding("governor", "uncontrolled", words)


def company(measurement: Measurement) -> Iterator[Finding]:
    """Other processes that took more than 5 % of a core before the first launch."""
    busy = sorted(measurement.preflight.busy, key=lambda one: -one[1])
    if busy:
        names = ", ".join(f"{name} {100 * share:.0f} %" for name, share in busy[:5])
        count = f"{len(busy)} other process{'es' if len(busy) > 1 else ''}"
        words = f"{count} above 5 % of a core ({names}); stop what can be stopped"
        yield Finding("company", "uncontrolled", words)


def power_sensor(measurement: Measurement) -> Iterator[Finding]:
    """A power sensor that was there and is gone, that answers nonsense, or always the same."""
    seen = [one.power_mw for one in _readings(measurement)]
    there = [one for one in seen if one is not None]
    if not there:
        return
    advice = "check its wiring; make no figure of energy from this"
    if gone := len(seen) - 1 - max(place for place, one in enumerate(seen) if one is not None):
        yield Finding(
            "power-sensor", "flag", f"it vanished: the last {gone} of {len(seen)} readings have no power; {advice}"
        )
    if wrong := sum(one <= 0 for one in there):
        words = f"{wrong} of {len(there)} readings say that no power was drawn; {advice}"
        yield Finding("power-sensor", "flag", words)
    elif len(there) >= _STUCK and len(set(there)) == 1:
        words = f"all {len(there)} readings are {there[0]:.0f} mW: it is stuck; {advice}"
        yield Finding("power-sensor", "flag", words)
