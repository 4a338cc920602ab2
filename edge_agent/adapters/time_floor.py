# SPDX-License-Identifier: Apache-2.0
"""The earliest time that it can be: many boards have no clock battery and wake up in 1970.

The floor rises only by what the server *signed*, never by the system's own clock: a clock that jumps ten years
ahead and back must not lock updates out for ten years. Even a signed time lifts it by at most a year at once.
"""

import datetime as dt
from pathlib import Path
from typing import Final

from edge_contract import canonical, durable
from edge_contract.errors import ContractError, SignatureError

__all__ = ["BUILT_AFTER", "newest_signed", "remember", "trusted_now"]

BUILT_AFTER: Final = 1_735_689_600.0
"""2025-01-01: this program is younger, so an earlier clock is not set."""
_SLACK_S: Final = 86_400.0  # two honest clocks may differ; a day matters to no expiry of ours
_MAX_STEP_S: Final = 366 * 86_400.0
_NAME: Final = "time_floor.json"


def newest_signed(folder: Path) -> float:
    """Return the newest time that signed metadata has shown, in seconds since 1970; 0 when there is none."""
    try:
        document = canonical.loads((folder / _NAME).read_bytes())
        return canonical.as_float(document["newest_signed"])
    except (OSError, ContractError, KeyError, TypeError):
        return 0.0  # a damaged floor is no floor: TUF's own version numbers still hold


def trusted_now(folder: Path, system: float) -> float:
    """Return the time by which expiry is judged: the later of the system's clock and the floor.

    Raises:
        SignatureError: The clock is not set: it lies more than a day before the floor, or before 2025.

    Example:
        >>> trusted_now(Path("/nonexistent"), 1_800_000_000.0)
        1800000000.0
        >>> trusted_now(Path("/nonexistent"), 0.0)
        Traceback (most recent call last):
        edge_contract.errors.SignatureError: clock not set: it says 1970-01-01, it is at least 2025-01-01; set the clock (NTP), installs wait, inference goes on
    """  # noqa: E501 - the error is one line
    floor = max(newest_signed(folder), BUILT_AFTER)
    if system < floor - _SLACK_S:
        fix = "set the clock (NTP), installs wait, inference goes on"
        raise SignatureError(f"clock not set: it says {_day(system)}, it is at least {_day(floor)}", fix=fix)
    return max(system, floor)


def remember(folder: Path, signed_at: float, system: float) -> None:
    """Raise the floor to a signed time; lower or absurd ones change nothing or little."""
    candidate = min(signed_at, system + _MAX_STEP_S)
    if candidate > newest_signed(folder):
        durable.write(folder / _NAME, canonical.dumps({"newest_signed": float(candidate)}))


def _day(seconds: float) -> str:
    return dt.datetime.fromtimestamp(max(0.0, seconds), dt.UTC).strftime("%Y-%m-%d")
