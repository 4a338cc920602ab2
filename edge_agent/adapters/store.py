# SPDX-License-Identifier: Apache-2.0
"""What survives a power cut beside the slots: the journal (one small file) and the outbox (SQLite).

The journal is replaced whole and fsynced before an effect begins. The outbox spares the SD card: rows wait in
memory for a second (metrics for a minute) and are committed together; a row that is acknowledged before that
never touches the disk. A crash costs at most the rows of that second.
"""

import contextlib
import sqlite3
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edge_agent.core.outbox import ROW_COST, Held
from edge_contract import canonical, durable
from edge_contract.batches import CLASSES, TelemetryRow
from edge_contract.errors import ContractError, StoreError

__all__ = ["Journal", "OutboxStore"]

COMMIT_S: Final = 1.0
COMMIT_METRIC_S: Final = 1800.0
COMMIT_ROWS: Final = 500
PENDING_BYTES: Final = 1_000_000
"""While the disk refuses, so many bytes of rows are kept in memory, the most important ones."""

Gone = tuple[str, str, int, int, int]
"""(boot, class, rows, bytes, up to which sequence number)"""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS boots(no INTEGER PRIMARY KEY, boot TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS rows(
  boot INTEGER NOT NULL, cls TEXT NOT NULL, seq INTEGER NOT NULL, time REAL NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY(boot, cls, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dropped(cls TEXT PRIMARY KEY, rows INTEGER NOT NULL);
"""


class Journal:
    """The update machine's memory on disk: ``journal.json``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """Return the journal, empty on a new device.

        A damaged one is put aside for a person to look at; ``{"damaged": true}`` makes the core raise an alarm.
        """
        durable.sweep(self.path)
        try:
            document = canonical.loads(self.path.read_bytes(), where=str(self.path))
            if not isinstance(document, dict):
                raise ContractError("not an object", where=str(self.path))
            return document
        except FileNotFoundError:
            return {}
        except ContractError:
            self.path.replace(self.path.with_suffix(".damaged"))
            return {"damaged": True}

    def write(self, document: Mapping[str, Any]) -> None:
        """Replace the journal durably.

        Raises:
            StoreError: The disk refuses; the old journal stands.
        """
        try:
            durable.write(self.path, canonical.dumps(document))
        except OSError as error:
            fix = "free some space or change the card; the running model goes on"
            raise StoreError(f"cannot write the journal: {error}", where=str(self.path), fix=fix) from error


class OutboxStore:
    """Rows of telemetry on disk. It does as the core's policy says, and knows no policy itself.

    Args:
        path: The database, made if it is missing; a damaged one is put aside.

    Raises:
        StoreError: The disk refuses: what is there is not damaged, and is not touched.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: dict[tuple[str, str], deque[tuple[int, float, bytes]]] = {}
        self._waits: dict[tuple[str, str], deque[float]] = {}  # beside each pending row: when it must be on disk
        self._pending_rows = self._pending_bytes = 0
        self._changed_by = float("inf")  # when deletions must be on disk
        self._not_before = 0.0  # a disk that refused is left alone for a while
        self._boots: dict[str, int] = {}
        self._lost: dict[str, int] = {}
        self._on_disk: dict[tuple[str, str], int] = {}
        try:
            self._begin_with_file()
        except (sqlite3.OperationalError, OSError) as error:
            fix = "free some space or change the card"
            raise StoreError(f"cannot open the outbox: {error}", where=str(path), fix=fix) from error

    def _begin_with_file(self) -> None:
        """Open the database and look at its rows; put a damaged one aside and begin anew."""
        try:
            self._db = self._open()
            self._on_disk = self._count()
        except sqlite3.OperationalError:
            raise  # no space, an error of the disk: it may pass, and then all rows are still there
        except sqlite3.DatabaseError:
            self.path.replace(self.path.with_suffix(".damaged"))
            self._db = self._open()

    def _count(self) -> dict[tuple[str, str], int]:
        """Return the rows of each queue on disk; the database is closed if they cannot be read."""
        try:
            return {(h.boot, h.cls): h.rows for h in self.held()}
        except sqlite3.DatabaseError:
            self._db.close()
            raise

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None)
        try:
            self._prepare(db)
        except sqlite3.DatabaseError:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA cache_size=-256")  # KiB: the whole process is to stay below 30 MB
        db.execute("PRAGMA journal_size_limit=1000000")
        db.executescript(_SCHEMA)
        with contextlib.suppress(sqlite3.OperationalError):  # on a full disk; it only saves a few bytes
            db.execute("DELETE FROM boots WHERE no NOT IN (SELECT boot FROM rows)")
        self._boots = {boot: no for no, boot in db.execute("SELECT no, boot FROM boots")}

    def held(self) -> tuple[Held, ...]:
        """Return what is on disk, oldest boot first."""
        query = (
            "SELECT boots.boot, cls, count(*), sum(length(body)), min(seq), max(seq) FROM rows "
            "JOIN boots ON boots.no = rows.boot GROUP BY rows.boot, cls ORDER BY rows.boot"
        )
        found = self._db.execute(query).fetchall()
        return tuple(Held(boot, cls, n, size + n * ROW_COST, low, high) for boot, cls, n, size, low, high in found)

    def dropped(self) -> dict[str, int]:
        """Return the rows lost so far, per class."""
        return dict(self._db.execute("SELECT cls, rows FROM dropped").fetchall())

    def keep(self, boot: str, cls: str, row: tuple[int, float, bytes], mono: float) -> None:
        """Take a row (sequence number, time, body) in; it is on disk after the next commit."""
        self._pending.setdefault((boot, cls), deque()).append(row)
        self._waits.setdefault((boot, cls), deque()).append(mono + (COMMIT_METRIC_S if cls == "metric" else COMMIT_S))
        self._pending_rows += 1
        self._pending_bytes += len(row[2]) + ROW_COST

    def count_lost(self, cls: str, mono: float) -> None:
        """Count a row that was never stored."""
        self._lost[cls] = self._lost.get(cls, 0) + 1
        self._touch(mono, COMMIT_METRIC_S)

    def _touch(self, mono: float, delay_s: float = COMMIT_S) -> None:
        self._changed_by = min(self._changed_by, mono + delay_s)

    @property
    def due(self) -> float:
        """When the next commit must be, mono seconds; infinity when nothing waits."""
        first = min((waits[0] for waits in self._waits.values()), default=float("inf"))
        return max(min(first, self._changed_by), self._not_before)

    def commit_if_due(self, mono: float) -> list[Gone]:
        """Commit when the oldest row has waited long enough; return what had to be given up (``commit``)."""
        if mono >= self.due or (self._pending_rows >= COMMIT_ROWS and mono >= self._not_before):
            return self.commit(mono)
        return []

    def commit(self, mono: float) -> list[Gone]:
        """Write all waiting rows in one transaction.

        A full or failing disk is no reason to stop: rows stay in memory up to ``PENDING_BYTES``, and what has to
        be given up beyond that is returned.
        """
        try:
            self._begin()
            for (boot, cls), rows in self._pending.items():
                no = self._number(boot)
                self._db.executemany("INSERT INTO rows VALUES(?,?,?,?,?)", [(no, cls, *row) for row in rows])
            for cls, lost in self._lost.items():
                self._add_dropped(cls, lost)
            self._db.execute("COMMIT")
        except sqlite3.Error:
            self._rollback()
            self._not_before = mono + 10 * COMMIT_S
            return self._shed()
        for key, rows in self._pending.items():
            self._on_disk[key] = self._on_disk.get(key, 0) + len(rows)
        self._pending, self._waits, self._lost = {}, {}, {}
        self._pending_rows = self._pending_bytes = 0
        self._changed_by = float("inf")
        return []

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")

    def _rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._boots = {boot: no for no, boot in self._db.execute("SELECT no, boot FROM boots")}
        self._on_disk = {(h.boot, h.cls): h.rows for h in self.held()}

    def _number(self, boot: str) -> int:
        if boot not in self._boots:
            no = max(self._boots.values(), default=0) + 1
            self._db.execute("INSERT INTO boots VALUES(?,?)", (no, boot))
            self._boots[boot] = no
        return self._boots[boot]

    def _add_dropped(self, cls: str, rows: int) -> None:
        query = "INSERT INTO dropped VALUES(?,?) ON CONFLICT(cls) DO UPDATE SET rows = rows + excluded.rows"
        self._db.execute(query, (cls, rows))

    def _shed(self) -> list[Gone]:
        gone: list[Gone] = []
        for cls in CLASSES:
            for key in [key for key in self._pending if key[1] == cls]:
                excess = self._pending_bytes - PENDING_BYTES
                if excess > 0:
                    gone.append((*key, *self._cut_pending(key, size=excess)))
        for _, cls, rows, _, _ in gone:
            self._lost[cls] = self._lost.get(cls, 0) + rows
        return gone

    def _cut_pending(self, key: tuple[str, str], *, size: int = 0, up_to: int = 0) -> tuple[int, int, int]:
        """Remove the oldest waiting rows: at least ``size`` bytes, or those up to a sequence number."""
        rows, cut, freed, last = self._pending.get(key, deque()), 0, 0, 0
        while rows and (freed < size or rows[0][0] <= up_to):
            seq, _, body = rows.popleft()
            self._waits[key].popleft()
            cut, freed, last = cut + 1, freed + len(body) + ROW_COST, seq
        if not rows:
            self._pending.pop(key, None)
            self._waits.pop(key, None)
        self._pending_rows -= cut
        self._pending_bytes -= freed
        return cut, freed, last

    def batch(self, boot: str, cls: str, after_seq: int, *, max_bytes: int, max_rows: int = 2000) -> list[TelemetryRow]:
        """Return the oldest rows of a queue, as many as fit; at least one if there is any."""
        found: list[TelemetryRow] = []
        room = max_bytes
        for seq, time, body in self._oldest(boot, cls, after_seq, max_rows):
            room -= len(body) + 50  # [seq,time as hex text,…]
            if found and room < 0:
                break
            found.append(TelemetryRow(seq, time, canonical.loads(body)))
        return found

    def _oldest(self, boot: str, cls: str, after_seq: int, limit: int) -> list[tuple[int, float, bytes]]:
        rows: list[tuple[int, float, bytes]] = []
        if self._on_disk.get((boot, cls)):
            query = "SELECT seq, time, body FROM rows WHERE boot=? AND cls=? AND seq>? ORDER BY seq LIMIT ?"
            rows = self._db.execute(query, (self._boots[boot], cls, after_seq, limit)).fetchall()
        if len(rows) < limit:
            waiting = [row for row in self._pending.get((boot, cls), ()) if row[0] > after_seq]
            rows += waiting[: limit - len(rows)]
        return rows

    def remove(self, boot: str, cls: str, up_to_seq: int, mono: float) -> Gone:
        """Delete acknowledged rows. If the power fails before the commit they are sent again: no harm."""
        rows = size = 0
        if self._on_disk.get((boot, cls)):
            rows, size = self._delete(boot, cls, up_to_seq, mono)
        cut, freed, _ = self._cut_pending((boot, cls), up_to=up_to_seq)
        return boot, cls, rows + cut, size + freed, up_to_seq

    def drop_oldest(self, boot: str, cls: str, size: int, mono: float) -> Gone:
        """Delete the oldest rows of a queue until so many bytes are free, and count them as lost."""
        rows = freed = last = 0
        if self._on_disk.get((boot, cls)):
            query = "SELECT seq, length(body) FROM rows WHERE boot=? AND cls=? ORDER BY seq"
            for seq, length in self._db.execute(query, (self._boots[boot], cls)):
                if freed >= size:
                    break
                freed, last = freed + length + ROW_COST, seq
            rows, freed = self._delete(boot, cls, last, mono)
        if freed < size:
            cut, more, newest = self._cut_pending((boot, cls), size=size - freed)
            rows, freed, last = rows + cut, freed + more, newest or last
        self._lost[cls] = self._lost.get(cls, 0) + rows
        self._touch(mono)
        return boot, cls, rows, freed, last

    def _delete(self, boot: str, cls: str, up_to_seq: int, mono: float) -> tuple[int, int]:
        """Delete rows on disk within the open transaction; return rows and bytes."""
        key, where = (self._boots[boot], cls, up_to_seq), "WHERE boot=? AND cls=? AND seq<=?"
        try:
            self._begin()
            rows, size = self._db.execute(f"SELECT count(*), total(length(body)) FROM rows {where}", key).fetchone()
            self._db.execute(f"DELETE FROM rows {where}", key)
        except sqlite3.Error as error:
            self._rollback()
            raise StoreError(f"cannot delete rows: {error}", where=str(self.path)) from error
        self._on_disk[boot, cls] -= rows
        self._touch(mono)
        return rows, int(size) + rows * ROW_COST

    def close(self, mono: float) -> None:
        """Commit what waits, and close."""
        self.commit(mono)
        self._db.close()
