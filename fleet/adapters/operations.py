# SPDX-License-Identifier: Apache-2.0
"""What an operator or a device may ask of the server: each verb is one transaction with its audit entry."""

import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge_contract import canonical
from edge_contract.enrolment import EnrolmentAnswer, EnrolmentRequest, parse_token
from edge_contract.errors import EnrolmentError, RegistryError, RolloutError, UsageError
from edge_contract.manifest import Manifest
from edge_contract.messages import DesiredState
from edge_contract.states import RolloutEvent
from edge_contract.topics import topic
from fleet.adapters import ca, tables, telemetry
from fleet.adapters.blobs import BlobStore
from fleet.adapters.captures import Captures
from fleet.adapters.identities import Identities
from fleet.adapters.job_signing import JobSigner
from fleet.adapters.orders import Message, OrderBook
from fleet.adapters.sqlite import Store
from fleet.adapters.tuf_repo import TufRepository
from fleet.core.engine import abort, remove_device
from fleet.core.enrolment import check_token, new_token, use_token
from fleet.core.inventory import DeviceRecord
from fleet.core.registry import ModelVersion, admit
from fleet.core.rollout import Rollout, new_rollout, plan_waves, read_request

__all__ = ["Addresses", "Operations", "Trust"]

T = TypeVar("T")
Connection = sqlite3.Connection


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


class Operations:
    """The verbs of the fleet server. Safe to call from any thread.

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
        blobs: BlobStore,
        trust: Trust,
        *,
        addresses: Addresses,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        publish: Callable[[Message], None],
    ) -> None:
        self.store, self.blobs, self.trust, self.addresses, self.clock = store, blobs, trust, addresses, clock
        self._random_bytes, self._publish = random_bytes, publish
        self._book = OrderBook(addresses.tenant, trust.signer)
        self.identities = Identities(store, trust.ca, clock, trust.signer.public_key)
        folder = trust.ca.parent / "captures"
        self.captures = Captures(store, folder, trust.signer, clock=clock, random_bytes=random_bytes)
        self.on_release: Callable[[], None] = lambda: None
        """Called after a bundle was registered or a rollout was started: there may be patches to make."""

    def tick(self) -> None:
        """Let the engine take every rollout one step on."""
        now = self.clock()
        self._do(lambda db: (None, self._book.tick(db, now)))

    def republish(self) -> None:
        """Publish every retained message again, after the broker may have lost them. Does not wait."""
        self.store.submit(self._book.retained, then=lambda done: self._send(done.result()))

    def new_token(self, ttl_s: float, actor: str) -> str:
        """Return a fresh enrolment token's text; the database keeps only a digest."""
        now = self.clock()
        token, record = new_token(self._random_bytes(26), ca.ca_digest(self.trust.ca), now, ttl_s)

        def job(db: Connection) -> str:
            tables.put_token(db, record)
            self._audit(db, actor, "token.new", record.id, {"expires_at": record.expires_at})
            return str(token)

        return self.store.write(job)

    def enrol(self, request: EnrolmentRequest) -> EnrolmentAnswer:
        """Turn a token and a certificate request into a certificate and all that a device needs to know.

        Raises:
            EnrolmentError: The token, the name or the request is refused.
            SignatureError: No trust root is installed yet.
        """
        token, csr, now = parse_token(request.token), request.csr.encode(), self.clock()
        root = self.trust.tuf.root_bytes.decode()
        key = ca.csr_key_digest(csr)

        def job(db: Connection) -> bytes:
            record = tables.token(db, token.id)
            check_token(record, token.secret, now, key_digest=key)
            assert record is not None
            known = tables.device(db, request.device)
            if known is not None and record.device != request.device:
                fix = f"if it is to be replaced: strop fleet device remove {request.device}"
                raise EnrolmentError(f"device '{request.device}' is enrolled already", fix=fix)
            certificate = ca.sign_csr(self.trust.ca, csr, request.device, now=now)
            tables.put_token(db, use_token(record, request.device, key, now))
            self.identities.issued(db, certificate, now, request.board)
            if known is None:
                desired = DesiredState(0, {}, {})
                tables.put_device(db, DeviceRecord(request.device, now, desired=desired))
            self._audit(db, f"device {request.device}", "device.enrol", request.device, {"token": token.id})
            return certificate

        certificate = self.store.write(job).decode()
        where = self.addresses
        return EnrolmentAnswer(
            certificate=certificate,
            ca=ca.ca_pem(self.trust.ca).decode(),
            job_public_key=self.trust.signer.public_key,
            tuf_root=root,
            tenant=where.tenant,
            broker={"host": where.broker_host, "port": where.broker_port},
            device_url=where.device_url,
        )

    def remove_device(self, device: str, actor: str) -> None:
        """Forget a device: its executions end as REMOVED and no wave waits for it. What it sent is kept.

        Its certificates are revoked: to come back it needs a token.

        Raises:
            UsageError: It is not enrolled.
        """
        now = self.clock()

        def job(db: Connection) -> tuple[None, list[Message]]:
            _device(db, device)
            for execution in [e for e in tables.unclosed_executions(db) if e.device == device]:
                gone = remove_device({device: execution}, device, now)
                tables.put_executions(db, gone.values())
            channels = ("twin/desired", *self._book.channels(db, device))
            db.execute("DELETE FROM devices WHERE device = ?", (device,))
            db.execute("DELETE FROM orders WHERE device = ?", (device,))
            self._audit(db, actor, "device.remove", device, {})
            cleared = [Message(topic(self.addresses.tenant, device, channel), b"") for channel in channels]
            return None, [*cleared, *self._book.tick(db, now)]

        self._do(job)
        self.identities.forget(device, actor)

    def set_config(self, device: str, changes: Any, actor: str) -> DesiredState:
        """Merge settings into a device's desired configuration; None removes one.

        Raises:
            UsageError: The device is not enrolled, or the changes are no object.
        """
        if not isinstance(changes, dict):
            raise UsageError("expected an object of settings", where=f"device {device}")
        # In the form in which it is read back, so that the same settings again are no change.
        changes = canonical.loads(canonical.dumps(changes))

        def job(db: Connection) -> tuple[DesiredState, list[Message]]:
            _device(db, device)
            messages = self._book.desire(db, device, config=changes)
            if messages:
                self._audit(db, actor, "device.config", device, {"changes": changes})
            return _device(db, device).desired, messages

        return self._do(job)

    def install_root(self, data: bytes, actor: str) -> None:
        """Take a TUF root from the workstation; raises SignatureError when it is not acceptable."""
        self.trust.tuf.install_root(data, now=self.clock())
        self.store.write(lambda db: self._audit(db, actor, "trust.root", "root.json", {"bytes": len(data)}))

    def next_online_key(self, actor: str, *, anew: bool = False) -> bytes:
        """Return the public half of the next online key, made now or waiting already."""
        public = self.trust.tuf.new_online_key(anew=anew)
        digest = canonical.digest(public)
        self.store.write(lambda db: self._audit(db, actor, "trust.next_key", "online.pub", {"sha256": digest}))
        return public

    def put_blob(self, sha256: str, chunks: Iterable[bytes], actor: str) -> int:
        """Store a file of a bundle and return its size in bytes."""
        if self.blobs.path(sha256) is None:
            size = self.blobs.put(sha256, chunks)
            self.store.write(lambda db: self._audit(db, actor, "blob.put", sha256, {"bytes": size}))
        return self.blobs.size(sha256) or 0

    def register_model(self, bundle: str, targets: bytes, actor: str) -> ModelVersion:
        """Publish new targets and register the bundle that they authorise.

        Raises:
            RegistryError: A file is missing or not signed, or the version's name is taken.
            SignatureError: The targets are not signed by the root's targets key, or are not newer.
        """
        if self.blobs.path(bundle) is None:
            fix = f"upload blob {bundle} first"
            raise RegistryError("manifest.json is missing", where=f"bundle {bundle[:12]}", fix=fix)
        now, manifest = self.clock(), self.blobs.read(bundle)
        version = self._admitted(bundle, manifest, targets, self.blobs.size, now)
        self.trust.tuf.publish_targets(targets, now=now)

        def job(db: Connection) -> ModelVersion:
            if (present := tables.model(db, bundle)) is not None:
                return present
            tables.put_model(db, version)
            self._audit(db, actor, "model.add", bundle, {"model": version.model, "version": version.version})
            return version

        registered = self.store.write(job)
        self.on_release()
        return registered

    def check_model(self, manifest: bytes, targets: bytes) -> ModelVersion:
        """Return what would be registered if every file of the manifest were held; nothing is changed.

        Raises:
            RegistryError, SignatureError, ManifestError: As ``register_model``.
        """
        sizes = {entry.sha256: entry.size for entry in Manifest.from_bytes(manifest).files}
        bundle = canonical.digest(manifest)
        sizes[bundle] = len(manifest)
        return self._admitted(bundle, manifest, targets, sizes.get, self.clock())

    def _admitted(
        self, bundle: str, manifest: bytes, targets: bytes, held: Callable[[str], int | None], now: float
    ) -> ModelVersion:
        names = {(v.model, v.version): v.bundle for v in self.store.read(tables.models)}
        signed = self.trust.tuf.check_targets(targets, now=now).signed.targets
        return admit(
            bundle,
            manifest,
            held=held,
            authorises=lambda sha256: f"blobs/{sha256}" in signed,
            known=lambda model, name: names.get((model, name)),
            now=now,
        )

    def start_rollout(self, document: Any, actor: str) -> Rollout:
        """Plan a rollout and take its first step.

        Raises:
            RolloutError: A malformed request, an unknown model, bundle or device.
        """
        model, bundle, specs, limits = read_request(document)
        now = self.clock()

        def job(db: Connection) -> tuple[Rollout, list[Message]]:
            version = tables.model(db, bundle)
            if version is None or version.model != model:
                fix = "strop fleet model list"
                raise RolloutError(
                    f"bundle {bundle[:12]} of model '{model}' is not registered", where="rollout", fix=fix
                )
            waves = plan_waves(specs, [record.device for record in tables.devices(db)])
            number = 1 + max((r.number for r in tables.rollouts(db)), default=0)
            rollout = new_rollout(number, (model, version.version, bundle), waves, limits, now=now)
            tables.put_rollout(db, rollout)
            detail = {"model": model, "version": version.version, "bundle": bundle, "waves": [list(w) for w in waves]}
            self._audit(db, actor, "rollout.start", rollout.id, detail)
            messages = self._book.advance(db, rollout, now)
            return _rollout(db, rollout.id), [*messages, *self._book.tick(db, now)]

        started = self._do(job)
        self.on_release()
        return started

    def change_rollout(self, rollout_id: str, verb: str, actor: str) -> Rollout:
        """Pause, resume or abort a rollout; pausing a paused one changes nothing.

        Raises:
            RolloutError: It is not known, or its state does not accept the verb.
            UsageError: Another verb.
        """
        now = self.clock()

        def job(db: Connection) -> tuple[Rollout, list[Message]]:
            rollout = _rollout(db, rollout_id)
            if verb == "abort":
                changed = abort(rollout, f"stopped by {actor}", now)
            elif verb in ("pause", "resume"):
                changed = rollout.after(RolloutEvent(verb))
            else:
                raise UsageError(
                    f"unknown verb '{verb}'", where=f"rollout {rollout_id}", fix="use pause, resume, abort"
                )
            if changed != rollout:
                tables.put_rollout(db, changed)
                self._audit(db, actor, f"rollout.{verb}", rollout_id, {"state": changed.state.value})
            messages = self._book.advance(db, changed, now)
            return _rollout(db, rollout_id), messages

        return self._do(job)

    def add_labels(self, device: str, labels: dict[str, int], actor: str) -> int:
        """Store delayed ground truth of a device's results; raises UsageError if it is not enrolled."""

        def job(db: Connection) -> int:
            _device(db, device)
            telemetry.put_labels(db, device, labels)
            self._audit(db, actor, "labels.add", device, {"labels": len(labels)})
            return len(labels)

        return self.store.write(job)

    def _do(self, job: Callable[[Connection], tuple[T, list[Message]]]) -> T:
        """Run a write whose messages go out after its commit, on the store's thread."""

        def then(done: "Future[tuple[T, list[Message]]]") -> None:
            if done.exception() is None:
                self._send(done.result()[1])

        return self.store.submit(job, then=then).result()[0]

    def _send(self, messages: list[Message]) -> None:
        for message in messages:
            self._publish(message)

    def _audit(self, db: Connection, actor: str, action: str, subject: str, detail: dict[str, Any]) -> None:
        tables.add_audit(db, time=self.clock(), actor=actor, action=action, subject=subject, detail=detail)


def _device(db: Connection, name: str) -> DeviceRecord:
    record = tables.device(db, name)
    if record is None:
        raise UsageError(f"device '{name}' is not enrolled", fix="strop fleet device list")
    return record


def _rollout(db: Connection, rollout_id: str) -> Rollout:
    rollout = tables.rollout(db, rollout_id)
    if rollout is None:
        raise RolloutError(f"rollout '{rollout_id}' is not known", fix="strop fleet rollout list")
    return rollout
