# SPDX-License-Identifier: Apache-2.0
"""What is asked about devices: tokens, enrolment, settings, labels, and leaving the fleet."""

from typing import Any

from edge_contract import canonical
from edge_contract.enrolment import EnrolmentAnswer, EnrolmentRequest, parse_token
from edge_contract.errors import EnrolmentError, UsageError
from edge_contract.messages import DesiredState
from edge_contract.topics import topic
from fleet.adapters import ca, tables, telemetry
from fleet.adapters.database import Connection
from fleet.adapters.desk import Desk, known_device
from fleet.adapters.identities import Identities
from fleet.adapters.orders import Message
from fleet.core.engine import remove_device
from fleet.core.enrolment import check_token, new_token, use_token
from fleet.core.inventory import DeviceRecord

__all__ = ["DeviceVerbs"]


class DeviceVerbs:
    """Verbs on devices; each is one transaction with its audit entry."""

    def __init__(self, desk: Desk, identities: Identities) -> None:
        self._desk, self._identities = desk, identities

    def new_token(self, ttl_s: float, actor: str) -> str:
        """Return a fresh enrolment token's text; the database keeps only a digest."""
        now = self._desk.clock()
        token, record = new_token(self._desk.random_bytes(26), ca.ca_digest(self._desk.trust.ca), now, ttl_s)

        def job(db: Connection) -> str:
            tables.put_token(db, record)
            self._desk.audit(db, actor, "token.new", record.id, {"expires_at": record.expires_at})
            return str(token)

        return self._desk.store.write(job)

    def enrol(self, request: EnrolmentRequest) -> EnrolmentAnswer:
        """Turn a token and a certificate request into a certificate and all that a device needs to know.

        Raises:
            EnrolmentError: The token, the name or the request is refused.
            SignatureError: No trust root is installed yet.
        """
        token, csr, now = parse_token(request.token), request.csr.encode(), self._desk.clock()
        root = self._desk.trust.tuf.root_bytes.decode()
        key = ca.csr_key_digest(csr)

        def job(db: Connection) -> bytes:
            record = tables.token(db, token.id)
            check_token(record, token.secret, now, key_digest=key)
            assert record is not None
            known = tables.device(db, request.device)
            if known is not None and record.device != request.device:
                fix = f"if it is to be replaced: strop fleet device remove {request.device}"
                raise EnrolmentError(f"device '{request.device}' is enrolled already", fix=fix)
            certificate = ca.sign_csr(self._desk.trust.ca, csr, request.device, now=now)
            tables.put_token(db, use_token(record, request.device, key, now))
            self._identities.issued(db, certificate, now, request.board)
            if known is None:
                desired = DesiredState(0, {}, {})
                tables.put_device(db, DeviceRecord(request.device, now, desired=desired))
            self._desk.audit(db, f"device {request.device}", "device.enrol", request.device, {"token": token.id})
            return certificate

        certificate = self._desk.store.write(job).decode()
        where = self._desk.addresses
        return EnrolmentAnswer(
            certificate=certificate,
            ca=ca.ca_pem(self._desk.trust.ca).decode(),
            job_public_key=self._desk.trust.signer.public_key,
            tuf_root=root,
            tenant=where.tenant,
            broker={"host": where.broker_host, "port": where.broker_port},
            device_url=where.device_url,
        )

    def remove(self, device: str, actor: str) -> None:
        """Forget a device: its executions end as REMOVED and no wave waits for it. What it sent is kept.

        Its certificates are revoked: to come back it needs a token.

        Raises:
            UsageError: It is not enrolled.
        """
        now = self._desk.clock()

        def job(db: Connection) -> tuple[None, list[Message]]:
            known_device(db, device)
            for execution in [e for e in tables.unclosed_executions(db) if e.device == device]:
                gone = remove_device({device: execution}, device, now)
                tables.put_executions(db, gone.values())
            channels = ("twin/desired", *self._desk.book.channels(db, device))
            db.execute("DELETE FROM devices WHERE device = ?", (device,))
            db.execute("DELETE FROM orders WHERE device = ?", (device,))
            self._desk.audit(db, actor, "device.remove", device, {})
            cleared = [Message(topic(self._desk.addresses.tenant, device, channel), b"") for channel in channels]
            return None, [*cleared, *self._desk.book.tick(db, now)]

        self._desk.do(job)
        self._identities.forget(device, actor)

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
            known_device(db, device)
            messages = self._desk.book.desire(db, device, config=changes)
            if messages:
                self._desk.audit(db, actor, "device.config", device, {"changes": changes})
            return known_device(db, device).desired, messages

        return self._desk.do(job)

    def add_labels(self, device: str, labels: dict[str, int], actor: str) -> int:
        """Store delayed ground truth of a device's results; raises UsageError if it is not enrolled."""

        def job(db: Connection) -> int:
            known_device(db, device)
            telemetry.put_labels(db, device, labels)
            self._desk.audit(db, actor, "labels.add", device, {"labels": len(labels)})
            return len(labels)

        return self._desk.store.write(job)
