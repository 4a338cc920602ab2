# SPDX-License-Identifier: Apache-2.0
"""The hours of the day that a device's inputs are compared with (``edge_contract.daytime``), in the database.

At most 24 rows of about 200 bytes for each device and set of bin edges; a new version of a model with the edges of the
old one goes on with what was learned.
"""

from contextlib import suppress
from typing import Final

from edge_contract.daytime import Daytime, Hour, place_of, scale_of
from edge_contract.errors import SummaryError
from edge_contract.profile import ReferenceProfile
from edge_contract.summary import DriftSummary, Flag
from fleet.adapters.database import Connection, upsert

__all__ = ["daytime_of", "forget_before", "learn"]

_LONGEST_MS: Final = 2 * 3_600_000
"""A longer window mixes hours, and has none."""


def daytime_of(db: Connection, device: str, profile: ReferenceProfile, summary: DriftSummary) -> Daytime | None:
    """Return what is known of a window's hour; None where the window belongs to no hour."""
    if summary.duration_ms > _LONGEST_MS or summary.flags & Flag.CLOCK_UNSYNCED:
        return None
    day, hour = place_of(summary.start_ms, summary.duration_ms)
    found = {}
    statement = "SELECT * FROM drift_hours WHERE device = ? AND scale = ?"
    for row in db.execute(statement, (device, scale_of(profile))):
        known = Hour(row["hour"], row["began"], row["day"], row["days"], effect=row["effect"], sway=row["sway"])
        with suppress(SummaryError):  # damaged: the hour is learned anew
            found[known.hour] = known.with_counts(bytes(row["counts"])) if _is_near(known.hour, hour) else known
    return Daytime(found, day, hour)


def _is_near(one: int, other: int) -> bool:
    """Only the window's hour and its neighbours are compared; of the others a few numbers are enough."""
    return (one - other) % 24 in (0, 1, 23)


def learn(db: Connection, device: str, profile: ReferenceProfile, hour: Hour) -> None:
    """Store an hour with a new window in it."""
    columns = ("began", "day", "days", "effect", "sway", "counts")
    values = (hour.began, hour.day, hour.days, hour.effect, hour.sway, hour.pack())
    statement = upsert("drift_hours", "device, scale, hour", *columns)
    db.execute(statement, (device, scale_of(profile), hour.hour, *values))


def forget_before(db: Connection, day: int) -> int:
    """Delete hours that saw nothing since a day (since 1970), and return how many."""
    return db.execute("DELETE FROM drift_hours WHERE day < ?", (day,)).rowcount
