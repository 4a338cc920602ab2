# SPDX-License-Identifier: Apache-2.0
"""What every verb of the server needs: the database with its audit log, keys, clock, and messages after the commit."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge_contract.errors import RolloutError, UsageError
from fleet.adapters import tables
from fleet.adapters.blobs import Blobs
from fleet.adapters.database import Connection
from fleet.adapters.job_signing import JobSigner
from fleet.adapters.orders import Message, OrderBook
from fleet.adapters.store import Store
from fleet.adapters.tuf_repo import TufRepository
from fleet.core.inventory import DeviceRecord
from fleet.core.rollout import Rollout

__all__ = ["Addresses", "Desk", "Trust", "known_device", "known_rollout"]

T = TypeVar("T")


@dataclass(frozen=True)
class Addresses:
    """Where devices reach the server; told at enrolment."""

    tenant: str
    broker_host: str
    broker_port: int
    device_url: str


@dataclass(frozen=True)
class Trust:
    """What the server signs with."""

    ca: Path
    tuf: TufRepository
    signer: JobSigner


class Desk:
    """Shared by the groups of verbs. Safe to use from any thread.

    Args:
        store: The database.
        blobs: Files of bundles.
        trust: Keys and certificates.
        addresses: For devices.
        clock: Seconds since 1970.
        random_bytes: The system's generator.
        publish: Sends a message; called on the store's thread, in the order of the commits, so that a retained
            message can never be overtaken by an older one.
    """

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        trust: Trust,
        *,
        addresses: Addresses,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        publish: Callable[[Message], None],
    ) -> None:
        self.store, self.blobs, self.trust, self.addresses, self.clock = store, blobs, trust, addresses, clock
        self.random_bytes, self._publish = random_bytes, publish
        self.book = OrderBook(addresses.tenant, trust.signer)
        self.on_release: Callable[[], None] = lambda: None
        """Called after a bundle was registered or a rollout was started: there may be patches to make."""

    def do(self, job: Callable[[Connection], tuple[T, list[Message]]]) -> T:
        """Run a write whose messages go out after its commit, on the store's thread."""

        def then(done: "Future[tuple[T, list[Message]]]") -> None:
            if done.exception() is None:
                self.send(done.result()[1])

        return self.store.submit(job, then=then).result()[0]

    def send(self, messages: list[Message]) -> None:
        """Publish messages of a transaction that has committed."""
        for message in messages:
            self._publish(message)

    def audit(self, db: Connection, actor: str, action: str, subject: str, detail: dict[str, Any]) -> None:
        """Write who did what, in the transaction that does it."""
        tables.add_audit(db, time=self.clock(), actor=actor, action=action, subject=subject, detail=detail)


def known_device(db: Connection, name: str) -> DeviceRecord:
    """Return a device's record; raises UsageError if it is not enrolled."""
    record = tables.device(db, name)
    if record is None:
        raise UsageError(f"device '{name}' is not enrolled", fix="strop fleet device list")
    return record


def known_rollout(db: Connection, rollout_id: str) -> Rollout:
    """Return a rollout; raises RolloutError if nobody knows it."""
    rollout = tables.rollout(db, rollout_id)
    if rollout is None:
        raise RolloutError(f"rollout '{rollout_id}' is not known", fix="strop fleet rollout list")
    return rollout
