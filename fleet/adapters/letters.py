# SPDX-License-Identifier: Apache-2.0
"""Dead letters: messages that could not be read, with the reason; looked at, and given to the ingest once more."""

import base64
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from edge_contract.errors import ContractError, UsageError
from edge_contract.topics import parse
from fleet.adapters.database import Connection
from fleet.adapters.desk import Desk
from fleet.adapters.telemetry import DEAD

__all__ = ["LetterVerbs"]

_SHOWN = "id, time, topic, reason, LENGTH(payload) AS size"


class LetterVerbs:
    """What an operator may do with dead letters.

    Args:
        desk: The database with its audit log.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.take: Callable[[str, bytes], Future[Any] | None] | None = None
        """Where a letter goes once more: the server's ingest."""

    def newest(self, limit: int) -> list[dict[str, Any]]:
        """Return letters, newest first, without their payloads."""
        statement = f"SELECT {_SHOWN} FROM dead_letters ORDER BY id DESC LIMIT ?"
        return self._desk.store.read(lambda db: [dict(row) for row in db.execute(statement, (limit,))])

    def show(self, number: int) -> dict[str, Any]:
        """Return one letter, its payload in base 64; raises UsageError if it is not kept."""
        row = self._desk.store.read(lambda db: _letter(db, number))
        shown = {name: row[name] for name in ("id", "time", "topic", "reason", "size")}
        return {**shown, "payload": base64.b64encode(row["payload"]).decode()}

    def requeue(self, number: int, actor: str) -> dict[str, Any]:
        """Read a letter once more; it leaves the store, and comes back as a new one if it still cannot be read.

        Raises:
            UsageError: It is not kept, or was not a message but a row inside one.
        """
        row = self._desk.store.read(lambda db: _letter(db, number))
        try:
            parse(row["topic"])
        except ContractError as error:
            what = f"letter {number} is about '{row['topic'][:60]}', which is no topic"
            raise UsageError(what, fix="the message itself was stored; there is nothing to read again") from error
        if self.take is None:
            raise UsageError("nobody takes messages here")
        is_read = _is_read(self.take(row["topic"], row["payload"]))
        self._desk.store.write(lambda db: self._remove(db, number, actor, is_read=is_read))
        return {"id": number, "read": is_read}

    def _remove(self, db: Connection, number: int, actor: str, *, is_read: bool) -> None:
        db.execute("DELETE FROM dead_letters WHERE id = ?", (number,))
        self._desk.audit(db, actor, "letter.requeue", str(number), {"read": is_read})


def _is_read(future: "Future[Any] | None") -> bool:
    if future is None:
        return False
    if future.exception() is not None:
        return False
    return bool(future.result() != DEAD)


def _letter(db: Connection, number: int) -> Any:
    row = db.execute(f"SELECT {_SHOWN}, payload FROM dead_letters WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise UsageError(f"dead letter {number} is not kept", fix="strop fleet dead-letters list")
    return row
