# SPDX-License-Identifier: Apache-2.0
"""Commands to devices: said on ``cmd/<type>/<id>``, answered on its ``result``; what is long comes on ``log/<id>``.

The broker keeps no command for a device that is away, so the server does: at each birth, what still waits is said
again; a device that hears a command twice answers it once. Pieces and answer may come in any order. All of it is
bounded: pieces of a command that nobody asked for are refused, and the oldest commands make room.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from edge_contract import log_chunks
from edge_contract.errors import MessageError, UsageError
from edge_contract.topics import Topic, topic
from fleet.adapters import tables
from fleet.adapters.database import Connection, Row
from fleet.adapters.desk import Desk, known_device
from fleet.adapters.orders import Message
from fleet.core.commands import (
    MAX_PIECES,
    NUDGE,
    Command,
    new_command,
    read_answer,
    round_trip,
    state_of,
    stored,
    why_silent,
)
from fleet.core.inventory import is_online

__all__ = ["DeviceCommands"]

KEPT_OF_A_DEVICE: Final = 20
KEPT: Final = 2000
KEPT_BYTES: Final = 200_000_000
MAX_PIECE_BYTES: Final = 110_000


class DeviceCommands:
    """The commands of one server. Safe to use from any thread."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.nudges: Callable[[Connection, str], list[str]] = lambda db, device: []
        """Gives the names of the capture campaigns of which a device that connects is to hear."""
        self.others: Mapping[str, Callable[[Topic, dict[str, Any]], Callable[[Connection, float], None]]] = {}
        """Type of a command that others say → what keeps a device's answer to it."""
        self.at_birth: Callable[[Connection, str], list[Message]] = lambda db, device: []
        """Gives what others have to say to a device that connects."""

    def ask(self, device: str, kind: str, document: Any, actor: str) -> Command:
        """Say a command to a device; the answer is asked for by ``show``.

        Raises:
            UsageError: It is not enrolled, or knows no such command.
        """
        now = self._desk.clock()
        command = new_command(kind, document, (self._new_id(now), device), actor, now)

        def job(db: Connection) -> tuple[Command, list[Message]]:
            known_device(db, device)
            _insert(db, command)
            _make_room(db, device)
            self._desk.audit(db, actor, "device.command", device, {"id": command.id, "kind": kind})
            return command, [self._message(device, kind, command.id, command.payload)]

        return self._desk.do(job)

    def nudge(self, devices: Iterable[str], campaign: str) -> None:
        """Let devices look for capture orders now; those that are away hear it when they connect."""
        self._desk.send([self._message(device, NUDGE, campaign, b'{"v":1}') for device in devices])

    def _new_id(self, now: float) -> str:
        return f"k{int(now * 1000):012x}{self._desk.random_bytes(5).hex()}"

    def _message(self, device: str, kind: str, name: str, payload: bytes) -> Message:
        return Message(topic(self._desk.addresses.tenant, device, f"cmd/{kind}/{name}"), payload, retain=False)

    def again(self, device: str) -> None:
        """Say what still waits to a device that has just connected. Does not wait; called by the ingest."""
        now = self._desk.clock()

        def job(db: Connection) -> list[Message]:
            statement = "SELECT * FROM commands WHERE device = ? AND answered_at = 0 AND deadline > ? ORDER BY asked_at"
            waiting = [_command(row) for row in db.execute(statement, (device, now))]
            again = [self._message(device, one.kind, one.id, one.payload) for one in waiting]
            nudges = [self._message(device, NUDGE, name, b'{"v":1}') for name in self.nudges(db, device)]
            return again + nudges + self.at_birth(db, device)

        self._desk.store.submit(job, then=lambda done: self._desk.send(done.result()))

    def reader(self, said: Topic, payload: bytes) -> Callable[[Connection, float], None]:
        """Return what keeps a device's word on ``cmd/…/result`` or ``log/…``.

        Raises:
            MessageError: It is none.
        """
        if said.tenant != self._desk.addresses.tenant:
            raise MessageError("is of another tenant", where=str(said)[:200])
        if said.parts[0] == "log":
            return self._piece(said, payload)
        answer = read_answer(payload)
        if said.parts[1] == NUDGE:  # nobody waits for it
            return lambda _db, _now: None
        if (other := self.others.get(said.parts[1])) is not None:
            return other(said, answer)

        def keep(db: Connection, now: float) -> None:
            command = _asked(db, said, said.parts[2])
            if command.kind != said.parts[1]:
                raise MessageError(f"command {command.id} is a {command.kind}", where=str(said))
            if not command.answered_at:
                statement = "UPDATE commands SET answered_at = ?, answer = ? WHERE id = ?"
                db.execute(statement, (now, stored(answer), command.id))

        return keep

    def _piece(self, said: Topic, payload: bytes) -> Callable[[Connection, float], None]:
        part, of = log_chunks.place(payload)
        if len(payload) > MAX_PIECE_BYTES or of > MAX_PIECES:
            raise MessageError(f"piece {part} of {of} with {len(payload)} bytes is too much", where=str(said))

        def keep(db: Connection, _now: float) -> None:
            command = _asked(db, said, said.parts[1])
            statement = (
                "INSERT INTO command_pieces (id, part, payload) VALUES (?,?,?) ON CONFLICT (id, part) DO NOTHING"
            )
            if db.execute(statement, (command.id, part, payload)).rowcount == 1:
                db.execute("UPDATE commands SET size = size + ? WHERE id = ?", (len(payload), command.id))

        return keep

    def show(self, device: str, command_id: str) -> dict[str, Any]:
        """Return a command with its state and, where there is no answer, why.

        Raises:
            UsageError: This device was asked no such thing.
        """
        now = self._desk.clock()
        return self._desk.store.read(lambda db: _shown(db, _known(db, device, command_id), now))

    def listed(self, device: str) -> list[dict[str, Any]]:
        """Return the commands of a device, newest first."""
        now = self._desk.clock()

        def read(db: Connection) -> list[dict[str, Any]]:
            known_device(db, device)
            rows = db.execute("SELECT * FROM commands WHERE device = ? ORDER BY asked_at DESC", (device,)).fetchall()
            return [_shown(db, _command(row), now) for row in rows]

        return self._desk.store.read(read)

    def text(self, device: str, command_id: str) -> str:
        """Return the text that a device sent for a command.

        Raises:
            UsageError: No such command, or it has not brought one (yet).
            MessageError: Its pieces do not fit together.
        """

        def read(db: Connection) -> list[bytes]:
            command = _known(db, device, command_id)
            rows = db.execute("SELECT payload FROM command_pieces WHERE id = ? ORDER BY part", (command.id,))
            return [bytes(row["payload"]) for row in rows]

        pieces = self._desk.store.read(read)
        if not pieces:
            raise UsageError(
                f"command {command_id[:40]} has brought no text", where=f"device {device}", fix="ask again"
            )
        return log_chunks.join(pieces).decode(errors="replace")


def _known(db: Connection, device: str, command_id: str) -> Command:
    row = db.execute("SELECT * FROM commands WHERE id = ? AND device = ?", (command_id, device)).fetchone()
    if row is None:
        raise UsageError(f"device '{device[:63]}' was not asked '{command_id[:40]}'", fix="ask it anew")
    return _command(row)


def _asked(db: Connection, said: Topic, command_id: str) -> Command:
    """Return the command that a device answers to; a device answers for nobody else."""
    row = db.execute("SELECT * FROM commands WHERE id = ? AND device = ?", (command_id, said.device)).fetchone()
    if row is None:
        raise MessageError(f"nobody asked '{command_id[:40]}' of this device", where=str(said)[:200])
    return _command(row)


def _command(row: Row) -> Command:
    return Command(
        id=row["id"],
        device=row["device"],
        kind=row["kind"],
        body=json.loads(row["body"]),
        actor=row["actor"],
        asked_at=row["asked_at"],
        deadline=row["deadline"],
        answered_at=row["answered_at"],
        answer=json.loads(row["answer"]),
        size=row["size"],
    )


def _insert(db: Connection, one: Command) -> None:
    values = (one.id, one.device, one.kind, stored(one.body), one.actor, one.asked_at, one.deadline)
    names = "id, device, kind, body, actor, asked_at, deadline, answered_at, answer, size"
    more = (one.answered_at, stored(one.answer), one.size)
    db.execute(f"INSERT INTO commands ({names}) VALUES (?,?,?,?,?,?,?,?,?,?)", values + more)


def _make_room(db: Connection, device: str) -> None:
    """Forget the oldest commands of the device, and of all devices where all together are too much."""
    mine = "SELECT id FROM commands WHERE device = ? ORDER BY asked_at DESC, id DESC LIMIT ? OFFSET ?"
    gone = [row["id"] for row in db.execute(mine, (device, KEPT, KEPT_OF_A_DEVICE))]
    count, size = tuple(db.execute("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM commands").fetchone())
    if count > KEPT or size > KEPT_BYTES:
        gone += [row["id"] for row in db.execute("SELECT id FROM commands ORDER BY asked_at LIMIT ?", (KEPT // 10,))]
    for command_id in gone:
        forget(db, command_id)


def forget(db: Connection, command_id: str) -> None:
    """Delete a command with its pieces."""
    db.execute("DELETE FROM command_pieces WHERE id = ?", (command_id,))
    db.execute("DELETE FROM commands WHERE id = ?", (command_id,))


def _shown(db: Connection, command: Command, now: float) -> dict[str, Any]:
    state = state_of(command, now)
    shown: dict[str, Any] = {
        "id": command.id,
        "device": command.device,
        "kind": command.kind,
        "by": command.actor,
        "asked_at": command.asked_at,
        "answered_at": command.answered_at,
        "state": state,
        "answer": dict(command.answer),
        "size": command.size,
    }
    if state in ("waiting", "timed out"):
        record = tables.device(db, command.device)
        online, seen = (is_online(record, now), record.last_seen) if record else (False, 0.0)
        return {**shown, "why": why_silent(command, online=online, last_seen=seen, now=now)}
    if state == "failed":
        return {**shown, "why": str(command.answer.get("error", "the device gave no reason"))[:500]}
    more = round_trip(command) if command.kind == "ping" else {"complete": _is_complete(db, command)}
    return {**shown, **more}


def _is_complete(db: Connection, command: Command) -> bool:
    parts = command.answer.get("parts", 0)
    held = db.execute("SELECT COUNT(*) FROM command_pieces WHERE id = ?", (command.id,)).fetchone()[0]
    return bool(held >= parts) if isinstance(parts, int) else False
