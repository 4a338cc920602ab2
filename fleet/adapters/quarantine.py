# SPDX-License-Identifier: Apache-2.0
"""What a device in quarantine sends: acknowledged like everybody's, and kept apart until somebody has looked.

Without an acknowledgement its outbox would run over. Results, drift and metrics of a machine that may be a copy would
spoil what the fleet is judged by, so its rows wait in a table of their own.
"""

from collections.abc import Sequence

from edge_contract import canonical
from edge_contract.batches import TelemetryBatch, TelemetryRow
from edge_contract.errors import MessageError
from fleet.adapters import device_states
from fleet.adapters.batches import Unfold, keep_batches
from fleet.adapters.database import Connection

__all__ = ["accept", "counts", "forget", "keep", "keep_sorted", "prune"]

_BATCH = 100


def keep_sorted(
    db: Connection, batches: Sequence[TelemetryBatch], now: float, unfold: Unfold
) -> list[int | MessageError]:
    """Store batches, those of devices in quarantine apart; what is returned is as of ``keep_batches``."""
    held = device_states.quarantined(db)
    rest = iter(keep_batches(db, [batch for batch in batches if batch.device not in held], now, unfold))
    return [keep(db, batch, now) if batch.device in held else next(rest) for batch in batches]


def keep(db: Connection, batch: TelemetryBatch, now: float) -> int:
    """Store the rows of a batch apart, and return up to which one all is there.

    As with others the mark starts at what the device says was acknowledged before, and moves over rows without a gap.
    """
    key = (batch.device, batch.boot, batch.cls)
    statement = """INSERT INTO quarantined_rows (device, boot, class, seq, time, received, body) VALUES (?,?,?,?,?,?,?)
                   ON CONFLICT (device, boot, class, seq) DO NOTHING"""
    db.executemany(statement, ((*key, r.seq, r.time, now, canonical.dumps(r.body)) for r in batch.rows))
    mark = batch.after_seq
    following = """SELECT seq FROM quarantined_rows WHERE device = ? AND boot = ? AND class = ? AND seq > ?
                   ORDER BY seq"""
    for (seq,) in map(tuple, db.execute(following, (*key, mark))):
        if seq != mark + 1:
            break
        mark = seq
    return mark


def counts(db: Connection, device: str) -> dict[str, int]:
    """Return class → rows of a device that are kept apart."""
    statement = "SELECT class, COUNT(*) AS n FROM quarantined_rows WHERE device = ? GROUP BY class ORDER BY class"
    return {row["class"]: row["n"] for row in db.execute(statement, (device,))}


def accept(db: Connection, device: str, now: float, unfold: Unfold) -> int:
    """Take the rows of a device into the telemetry, as if they came now, and return how many there were."""
    statement = "SELECT * FROM quarantined_rows WHERE device = ? ORDER BY boot, class, seq"
    streams: dict[tuple[str, str], list[TelemetryRow]] = {}
    for row in db.execute(statement, (device,)).fetchall():
        body = canonical.loads(bytes(row["body"]))
        streams.setdefault((row["boot"], row["class"]), []).append(TelemetryRow(row["seq"], row["time"], body))
    for (boot, cls), rows in streams.items():
        for at in range(0, len(rows), _BATCH):
            some = tuple(rows[at : at + _BATCH])
            keep_batches(db, [TelemetryBatch(device, boot, cls, some[0].seq - 1, some)], now, unfold)
    forget(db, device)
    return sum(map(len, streams.values()))


def forget(db: Connection, device: str) -> int:
    """Delete what is kept apart of a device."""
    return db.execute("DELETE FROM quarantined_rows WHERE device = ?", (device,)).rowcount


def prune(db: Connection, before: float) -> int:
    """Delete what came before a time."""
    return db.execute("DELETE FROM quarantined_rows WHERE received < ?", (before,)).rowcount
