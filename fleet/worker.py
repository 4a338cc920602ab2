# SPDX-License-Identifier: Apache-2.0
"""One ingest worker: telemetry from the broker's shared subscription into the database, acknowledged after the commit.

A worker keeps nothing: end it at any time, start as many as there are cores. Births, twins and job reports stay
with the server, the one leader, which hears them retained after a restart.
"""

import logging
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_contract.enrolment import SERVER_NAME
from edge_contract.errors import StoreError, StropError
from fleet.adapters.external_broker import ExternalBroker, login
from fleet.adapters.feed import SWITCH_S, Feed
from fleet.adapters.ingest import Ingest
from fleet.adapters.judging import WindowJudge
from fleet.adapters.link import Hears, LinkFiles
from fleet.adapters.s3_blobs import open_blobs
from fleet.adapters.stores import open_store
from fleet.config import FleetConfig

__all__ = ["GROUP", "WorkerPlace", "work"]

_log = logging.getLogger("strop.fleet.worker")

GROUP = "ingest"
_CONNECT_S = 60.0


@dataclass(frozen=True)
class WorkerPlace:
    """Where a worker works.

    Attributes:
        data: The server's data folder, or a copy of its ``ca`` and ``blobs``.
        database: URL; empty for SQLite in the data folder.
        tenant: Whose devices.
        broker: Host and port.
        blobs, blobs_endpoint: Of an object store; empty for the files in the data folder.
        named: Settings that name a broker by URL, in place of the server's own.
        false_alarms: Of drift, per device and year; 0 takes the contract's own limits.
    """

    data: Path
    database: str
    tenant: str
    broker: tuple[str, int]
    blobs: str = ""
    blobs_endpoint: str = ""
    named: FleetConfig | None = None
    false_alarms: float = 0.0


def work(place: WorkerPlace, on_ready: Callable[[], None], stopped: threading.Event | None = None) -> None:
    """Take batches until SIGTERM or Ctrl-C.

    Args:
        place: Where.
        on_ready: Called when the subscription stands.
        stopped: Ends it in place of a signal.

    Raises:
        StropError: The database or the broker does not answer at the start, or the keys are missing.
    """
    sys.setswitchinterval(SWITCH_S)
    ending = stopped or _on_signals()
    ca = place.data / "ca"
    needed = [ca / "ca.crt", ca / f"{SERVER_NAME}.crt", ca / f"{SERVER_NAME}.key"]
    if missing := [path for path in needed if not path.exists()]:
        raise StoreError("the server's keys are missing", where=str(missing[0]), fix="start 'strop fleet serve' first")
    files = LinkFiles(needed[0], needed[1], needed[2])
    if place.named is not None:
        named = ExternalBroker(place.named, login(place.named, ca))
        named.start(patience_s=_CONNECT_S, for_workers=True)
        files = named.files
    store = open_store(place.data, place.database)
    try:
        hears = Hears(state=False, group=GROUP, member=f"{SERVER_NAME}-worker-{secrets.token_hex(6)}")
        feed = Feed(place.tenant, files, hears, lambda *said: ingest.hear(*said), lambda: ingest.flush())  # noqa: PLW0108
        judge = WindowJudge(open_blobs(place.data, place.blobs, place.blobs_endpoint), place.false_alarms)
        ingest = Ingest(store, judge, clock=time.time, publish=feed.acknowledge, wake=lambda: None, tenant=place.tenant)
        ingest.start()
        _connect(feed, place.broker, ending)
        on_ready()
        ending.wait()
        feed.stop()
        ingest.stop()
    finally:
        store.close()


def _connect(feed: Feed, broker: tuple[str, int], ending: threading.Event) -> None:
    deadline = time.monotonic() + _CONNECT_S
    while True:
        try:
            return feed.start(*broker)
        except StropError as error:
            if ending.wait(0.5) or time.monotonic() > deadline:
                raise
            _log.warning("%s; it is tried again", error)


def _on_signals() -> threading.Event:
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    return ending
