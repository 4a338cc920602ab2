# SPDX-License-Identifier: Apache-2.0
"""What devices say, taken into the database: commit first, acknowledge after.

Identity is the topic's device level, which the broker has checked against the certificate; a payload that
names another device is refused. What cannot be read goes to the dead letters with its reason, and is never
acknowledged: the device keeps its rows, and a repaired server reads them.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from edge_contract.batches import TelemetryAck, decode_batch
from edge_contract.errors import ContractError, MessageError
from edge_contract.jobs import JobStatus
from edge_contract.messages import Birth, Death, ReportedState
from edge_contract.topics import Topic, parse, topic
from fleet.adapters import tables, telemetry
from fleet.adapters.database import Connection
from fleet.adapters.identities import Identities
from fleet.adapters.sqlite import Store
from fleet.core.execution import hear_status
from fleet.core.inventory import DeviceRecord, hear_birth, hear_death, hear_reported

__all__ = ["Ingest"]

_log = logging.getLogger("strop.fleet.ingest")

Keep = Callable[[Connection, float], bytes | None]
"""Stores one message at a time in seconds; returns the acknowledgement to send after the commit, or None."""

_QUIET: Final = frozenset({"tm/ack", "job/next/status"})
"""Our own words, which the subscriptions ``tm/+`` and ``job/+/status`` bring back: a model may be named status."""


class Ingest:
    """Takes messages from the link's thread and hands writes to the store.

    Args:
        store: Where messages go.
        judge: Judges drift windows.
        clock: Seconds since 1970.
        publish: Sends (topic, payload), from the store's thread after the commit.
        wake: Called after the commit of what may move a rollout.
        identities: Hears which start speaks for a device on which board; None where nobody looks for clones.
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
    ) -> None:
        self._identities = identities
        self._store, self._judge, self._clock, self._publish, self._wake = store, judge, clock, publish, wake

    def handle(self, name: str, payload: bytes, *, retained: bool = False) -> "Future[bytes | None] | None":
        """Take one message; the future resolves when it is committed. None for our own words."""
        now = self._clock()
        try:
            said = parse(name)
            if said.channel in _QUIET:
                return None
            keep = self._reader(said, payload, None if retained else now)
        except ContractError as error:
            reason = str(error)
            _log.warning("dead letter on %s: %s", name[:120], reason)
            return self._store.submit(lambda db: _bury(db, name, payload, reason, now))
        return self._store.submit(lambda db: keep(db, now), then=lambda done: self._committed(said, payload, done))

    def _committed(self, said: Topic, payload: bytes, done: "Future[bytes | None]") -> None:
        error = done.exception()
        if isinstance(error, ContractError):
            reason, name, now = str(error), str(said), self._clock()
            _log.warning("dead letter on %s: %s", name, reason)
            self._store.submit(lambda db: _bury(db, name, payload, reason, now))
            return
        if error is not None:
            _log.error("%s was not stored: %s", said, error)
            return
        acknowledgement = done.result()
        if acknowledgement is not None:
            self._publish(topic(said.tenant, said.device, "tm/ack"), acknowledgement)
        if said.parts[0] in ("state", "twin", "job"):
            self._wake()

    def _reader(self, said: Topic, payload: bytes, seen_at: float | None) -> Keep:
        """Return what stores this message.

        Raises:
            ContractError: The payload is malformed, or names another device.
        """
        kind = said.parts[0]
        if said.channel == "state/birth":
            birth = Birth.from_bytes(payload)
            boot = None if seen_at is None else birth.boot  # a retained birth may be of long ago
            fold = partial(hear_birth, birth=birth, seen_at=seen_at)
            return self._record(said, birth.device, fold, boot, birth.board)
        if said.channel == "state/death":
            if not payload:  # a device that was decommissioned clears what it retained
                return lambda _db, _now: None
            death = Death.from_bytes(payload)
            return self._record(said, death.device, lambda record: hear_death(record, death))
        if said.channel == "twin/reported":
            reported = ReportedState.from_bytes(payload)
            boot = None if seen_at is None else reported.boot
            return self._record(said, reported.device, lambda record: hear_reported(record, reported, seen_at), boot)
        if kind == "job":
            return self._status(said, JobStatus.from_bytes(payload))
        if kind == "tm":
            return self._batch(said, payload)
        raise MessageError("nobody listens to this yet", where=said.channel)

    def _record(
        self,
        said: Topic,
        claimed: str,
        fold: Callable[[DeviceRecord], DeviceRecord],
        boot: str | None = None,
        board: dict[str, Any] | None = None,
    ) -> Keep:
        _check_device(said, claimed)

        def keep(db: Connection, now: float) -> None:
            record = _enrolled(db, said)
            after = fold(record)
            if after != record:
                tables.put_device(db, after)
            if self._identities is not None and boot is not None:
                self._identities.heard(db, said.device, boot, board, now)

        return keep

    def _status(self, said: Topic, report: JobStatus) -> Keep:
        _check_device(said, report.device)
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

    def _batch(self, said: Topic, payload: bytes) -> Keep:
        batch = decode_batch(payload)
        _check_device(said, batch.device)
        if said.parts[1] != batch.cls:
            raise MessageError(f"holds class '{batch.cls}'", where=str(said))

        def keep(db: Connection, now: float) -> bytes:
            _enrolled(db, said)
            up_to = telemetry.keep_batch(db, batch, now, self._judge)
            tables.bump(db, "batches")
            tables.bump(db, "rows", len(batch.rows))
            return TelemetryAck(batch.boot, batch.cls, up_to).to_bytes()

        return keep


def _check_device(said: Topic, claimed: str) -> None:
    if claimed != said.device:
        raise MessageError(f"the payload names device {claimed[:40]!r}", where=str(said))


def _enrolled(db: Connection, said: Topic) -> DeviceRecord:
    record = tables.device(db, said.device)
    if record is None:
        raise MessageError("the device is not enrolled here", where=str(said), fix="enrol it again")
    return record


def _bury(db: Connection, name: str, payload: bytes, reason: str, now: float) -> None:
    telemetry.dead_letter(db, name[:300], payload, reason[:500], now)
    tables.bump(db, "dead_letters")
