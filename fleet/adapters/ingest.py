# SPDX-License-Identifier: Apache-2.0
"""What devices say, taken into the database: commit first, acknowledge after.

Identity is the topic's device level, which the broker has checked against the certificate; a payload that
names another device is refused. What cannot be read goes to the dead letters with its reason, and is never
acknowledged: the device keeps its rows, and a repaired server reads them.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from edge_contract.batches import CLASSES, TelemetryBatch, decode_batch
from edge_contract.errors import ContractError, MessageError
from edge_contract.jobs import JobStatus
from edge_contract.messages import Birth, Death, ReportedState, load_message
from edge_contract.topics import ROOT, Topic, is_name, parse
from fleet.adapters import tables, telemetry
from fleet.adapters.database import Connection
from fleet.adapters.device_commands import DeviceCommands
from fleet.adapters.identities import Identities
from fleet.adapters.intake import Arrival, Intake
from fleet.adapters.store import Store
from fleet.core.execution import hear_status
from fleet.core.inventory import DeviceRecord, hear_birth, hear_death, hear_reported

__all__ = ["Ingest"]

_log = logging.getLogger("strop.fleet.ingest")

Keep = Callable[[Connection, float], None]
"""Stores one message at a time in seconds."""

_Named = Birth | Death | ReportedState | JobStatus | TelemetryBatch

_QUIET: Final = frozenset({"tm/ack", "job/next/status"})
"""Our own words, which the subscriptions ``tm/+`` and ``job/+/status`` bring back: a model may be named status."""


_BELOW: Final = f"{ROOT}/"
_CLEARED: Final = frozenset({"state/birth", "state/death", "twin/reported"})
"""Retained words of a device that left: an empty payload clears them, and the server hears that, too."""


class Ingest:
    """Takes messages from the link's thread and hands writes to the store.

    Args:
        store: Where messages go.
        judge: Judges drift windows.
        clock: Seconds since 1970.
        publish: Sends (topic, payload), from the store's thread after the commit.
        wake: Called after the commit of what may move a rollout.
        identities: Hears which start speaks for a device on which board; None where nobody looks for clones.
        commands: Takes answers to commands and pieces of logs; None where nobody asks.
        tenant: Whose devices are believed.
    """

    def __init__(
        self,
        store: Store,
        judge: telemetry.Judge,
        *,
        clock: Callable[[], float],
        publish: Callable[[str, bytes], None],
        wake: Callable[[], None],
        identities: Identities | None = None,
        commands: DeviceCommands | None = None,
        tenant: str = "default",
    ) -> None:
        self._identities, self._commands, self._tenant = identities, commands, tenant
        self._store, self._clock, self._publish, self._wake = store, clock, publish, wake
        self._intake = Intake(
            store,
            telemetry.unfolding(judge, clock),
            clock=clock,
            acknowledge=publish,
            failed=lambda arrival, error: self._failed(arrival.said, arrival.payload, error),
        )

    def handle(self, name: str, payload: bytes, retained: bool = False) -> "Future[Any] | None":  # noqa: FBT001, FBT002
        """Take one message; the future resolves when it is committed. None for our own words."""
        found: Future[Any] | None = self._take(name, payload, Future(), is_retained=retained)
        self._intake.flush()
        return found

    def start(self) -> None:
        """Store telemetry on a thread of its own from now on, beside the one that hears it."""
        self._intake.start()

    def stop(self) -> None:
        """Store what was heard, and end that thread."""
        self._intake.stop()

    def flush(self) -> None:
        """There is nothing more to hear at this moment: store the telemetry that waits, unless a thread does it."""
        self._intake.pause()

    def hear(self, name: str, payload: bytes, retained: bool) -> None:  # noqa: FBT001 - the link's order
        """Take one message whose end nobody waits for: nine of ten are telemetry, and a future has its price."""
        self._take(name, payload, None, is_retained=retained)

    def _take(self, name: str, payload: bytes, future: "Future[Any] | None", *, is_retained: bool) -> Any:
        now = self._clock()
        try:
            said = _parsed(name)
            if said.channel in _QUIET:
                return None
            if said.tenant != self._tenant:
                raise MessageError("is of another tenant", where=str(said)[:200])
            if said.channel.startswith("tm/"):
                return self._intake.take(self._batch(said, payload, future))
            keep = self._reader(said, payload, None if is_retained else now)
        except ContractError as error:
            reason = str(error)
            _log.warning("dead letter on %s: %s", name[:120], reason)
            return self._store.submit(lambda db: _bury(db, name, payload, reason, now))
        return self._store.submit(lambda db: keep(db, now), then=lambda done: self._committed(said, payload, done))

    def _committed(self, said: Topic, payload: bytes, done: "Future[None]") -> None:
        error = done.exception()
        if error is None:
            if said.channel == "state/birth" and self._commands is not None:
                self._commands.again(said.device)
            self._wake()
        else:
            self._failed(said, payload, error)

    def _failed(self, said: Topic, payload: bytes, error: BaseException) -> None:
        if not isinstance(error, ContractError):
            _log.error("%s was not stored: %s", said, error)
            return
        reason, name, now = str(error), str(said), self._clock()
        _log.warning("dead letter on %s: %s", name, reason)
        self._store.submit(lambda db: _bury(db, name, payload, reason, now))

    def _reader(self, said: Topic, payload: bytes, seen_at: float | None) -> Keep:
        """Return what stores this message.

        Raises:
            ContractError: The payload is malformed, or names another device.
        """
        kind = said.parts[0]
        if not payload and said.channel in _CLEARED:
            return lambda _db, _now: None
        if said.channel == "state/birth":
            birth = Birth.from_bytes(payload)
            boot = None if seen_at is None else birth.boot  # a retained birth may be of long ago
            fold = partial(hear_birth, birth=birth, seen_at=seen_at)
            return self._record(said, birth, fold, boot, birth.board)
        if said.channel == "state/death":
            death = Death.from_bytes(payload)
            return self._record(said, death, lambda record: hear_death(record, death))
        if said.channel == "twin/reported":
            reported = ReportedState.from_bytes(payload)
            boot = None if seen_at is None else reported.boot
            return self._record(said, reported, lambda record: hear_reported(record, reported, seen_at), boot)
        if kind == "job":
            return self._status(said, JobStatus.from_bytes(payload))
        if self._commands is not None:
            if isinstance(body := load_message(payload, kind), Mapping):  # an answer need not say whose it is
                _check_named(said, body)
            return self._commands.reader(said, payload)
        raise MessageError("nobody listens to this yet", where=said.channel)

    def _record(
        self,
        said: Topic,
        message: _Named,
        fold: Callable[[DeviceRecord], DeviceRecord],
        boot: str | None = None,
        board: dict[str, Any] | None = None,
    ) -> Keep:
        _check_owner(said, message)

        def keep(db: Connection, now: float) -> None:
            record = _enrolled(db, said)
            after = fold(record)
            if after != record:
                tables.put_device(db, after)
            if self._identities is not None and boot is not None:
                self._identities.heard(db, said.device, boot, board, now)

        return keep

    def _status(self, said: Topic, report: JobStatus) -> Keep:
        _check_owner(said, report)
        if said.parts[1] != report.job_id:
            raise MessageError(f"names job {report.job_id[:40]!r}", where=str(said))

        def keep(db: Connection, now: float) -> None:
            execution = tables.execution(db, report.job_id)
            if execution is None:
                raise MessageError(f"job {report.job_id} is not known", where=str(said))
            heard = hear_status(execution, report, now)
            if heard != execution:
                tables.put_executions(db, [heard])

        return keep

    @staticmethod
    def _batch(said: Topic, payload: bytes, future: "Future[Any] | None") -> Arrival:
        batch = decode_batch(payload)
        _check_owner(said, batch)
        if said.parts[1] != batch.cls:
            raise MessageError(f"holds class '{batch.cls}'", where=str(said))

        return Arrival(said, payload, batch, future)


def _parsed(name: str) -> Topic:
    """Return what ``parse`` does, of telemetry much faster: nine of ten messages are."""
    levels = name.split("/")
    is_telemetry = len(levels) == 6 and levels[4] == "tm" and levels[5] in CLASSES and name.startswith(_BELOW)
    if is_telemetry and is_name(levels[2]) and is_name(levels[3]):
        return Topic(levels[2], levels[3], f"tm/{levels[5]}")
    return parse(name)


def _check_owner(said: Topic, message: _Named) -> None:
    """Refuse a message that names another device than its topic does, or another tenant where it names one."""
    if message.device != said.device:
        raise MessageError(f"the payload names device {message.device[:40]!r}", where=str(said))
    if message.unrecognized:
        _check_named(said, message.unrecognized)


def _check_named(said: Topic, body: Mapping[str, Any]) -> None:
    for name, expected in (("device", said.device), ("tenant", said.tenant)):
        if (claimed := body.get(name, expected)) != expected:
            raise MessageError(f"the payload names {name} {claimed!r}"[:100], where=str(said))


def _enrolled(db: Connection, said: Topic) -> DeviceRecord:
    record = tables.device(db, said.device)
    if record is None:
        raise MessageError("the device is not enrolled here", where=str(said), fix="enrol it again")
    return record


def _bury(db: Connection, name: str, payload: bytes, reason: str, now: float) -> str:
    telemetry.dead_letter(db, name[:300], payload, reason[:500], now)
    tables.bump(db, "dead_letters")
    return telemetry.DEAD
