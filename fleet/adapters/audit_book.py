# SPDX-License-Identifier: Apache-2.0
"""The audit log as it is read: pages of it, filtered; whether its chain holds; and the whole of it as lines."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from fleet.adapters import tables
from fleet.adapters.database import Connection
from fleet.adapters.store import Store
from fleet.core.audit import GENESIS, AuditEntry, follows

__all__ = ["AuditBook", "Chain"]

_WHOLE_S: Final = 600.0
_CHUNK: Final = 2000


@dataclass(frozen=True)
class Chain:
    """What is known of the chain.

    Attributes:
        broken_at: Number of the first entry that does not follow; None if all hold.
        entries: How many there are.
        head: Digest of the last one: who keeps it elsewhere can tell whether the log's end was cut off.
    """

    broken_at: int | None
    entries: int
    head: str

    def to_json(self) -> dict[str, Any]:
        return {"broken_at": self.broken_at, "entries": self.entries, "head": self.head}


class AuditBook:
    """Reads the audit log. Safe to use from any thread.

    The chain is followed on from where the last look ended; every ten minutes from its beginning, because somebody
    may have changed an old entry meanwhile.

    Args:
        store: The database.
        monotonic: Seconds.
    """

    def __init__(self, store: Store, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store, self._monotonic, self._lock = store, monotonic, threading.Lock()
        self._known, self._whole_at = Chain(None, 0, GENESIS), float("-inf")

    def chain(self, *, whole: bool = False) -> Chain:
        """Return whether the chain holds; ``whole`` follows it from its beginning in any case."""
        with self._lock:
            if whole or self._known.broken_at is not None or self._monotonic() - self._whole_at > _WHOLE_S:
                self._known, self._whole_at = Chain(None, 0, GENESIS), self._monotonic()
            for entry in self.entries(after=self._known.entries):
                if not follows(entry, self._known.entries, self._known.head):
                    self._known = Chain(self._known.entries + 1, self._known.entries, self._known.head)
                    break
                self._known = Chain(None, entry.number, entry.digest)
            return self._known

    def entries(self, after: int = 0) -> Iterator[AuditEntry]:
        """Give entries by number, a part of the log in memory at a time."""
        while part := self._store.read(lambda db, a=after: tables.audit_after(db, a, _CHUNK)):  # type: ignore[misc]
            yield from part
            after = part[-1].number

    def page(self, *, text: str = "", limit: int = 100, before: int = 0) -> list[AuditEntry]:
        """Return entries, newest first, whose actor, action or subject contains a text."""

        def read(db: Connection) -> list[AuditEntry]:
            return tables.audit_page(db, text, before or 2**62, limit)

        return self._store.read(read)

    def lines(self) -> Iterator[bytes]:
        """Give the log as JSON lines in its canonical form, oldest first: what ``first_broken`` can follow."""
        for entry in self.entries():
            yield json.dumps(entry.to_json(), ensure_ascii=False, sort_keys=True).encode() + b"\n"
