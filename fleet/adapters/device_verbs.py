# SPDX-License-Identifier: Apache-2.0
"""What is asked about devices: tokens, enrolment, settings, labels, and leaving the fleet."""

import json
from dataclasses import replace
from typing import Any

from edge_contract.enrolment import EnrolmentAnswer, EnrolmentRequest, parse_token
from edge_contract.errors import EnrolmentError, UsageError
from edge_contract.messages import DesiredState
from fleet.adapters import ca, device_states, labels, tables, telemetry
from fleet.adapters.database import Connection
from fleet.adapters.desk import Desk, known_device
from fleet.adapters.identities import Identities
from fleet.adapters.standing_verbs import StandingVerbs
from fleet.adapters.twin_verbs import TwinVerbs
from fleet.core.enrolment import (
    MAX_BATCH,
    RANDOM_BYTES,
    TokenRecord,
    Wishes,
    check_name,
    check_token,
    check_wishes,
    name_in_batch,
    new_token,
    revoke_token,
    use_token,
)
from fleet.core.inventory import DeviceRecord

__all__ = ["DeviceVerbs"]


class DeviceVerbs:
    """Verbs on devices; each is one transaction with its audit entry. Settings and leaving have verbs of their own."""

    def __init__(self, desk: Desk, identities: Identities, twin: TwinVerbs, standings: StandingVerbs) -> None:
        self._desk, self._identities, self._twin, self._standings = desk, identities, twin, standings

    def new_token(self, ttl_s: float, actor: str) -> str:
        """Return a fresh enrolment token's text; the database keeps only a digest."""
        return self.new_tokens(1, ttl_s, Wishes(), actor)[0][0]

    def new_tokens(self, count: int, ttl_s: float, wishes: Wishes, actor: str) -> list[tuple[str, TokenRecord]]:
        """Return fresh tokens as (text, record), each for one device.

        Args:
            count: How many.
            ttl_s: Their life in seconds.
            wishes: What the devices get; in its name ``{n}`` becomes the token's number.
            actor: Who asks.

        Raises:
            UsageError: Too many, or labels that cannot be given.
            EnrolmentError: A life that is not positive.
        """
        if not 1 <= count <= MAX_BATCH:
            raise UsageError(f"{count} tokens, at most {MAX_BATCH} at once", where="tokens")
        check_wishes(wishes, ttl_s)
        now, digest = self._desk.clock(), ca.ca_digest(self._desk.trust.ca)
        each = [replace(wishes, name=name_in_batch(wishes.name, n)) for n in range(1, count + 1)]
        made = [new_token(self._desk.random_bytes(RANDOM_BYTES), digest, now, ttl_s, one) for one in each]

        def job(db: Connection) -> None:
            for _, record in made:
                tables.put_token(db, record)
            detail: dict[str, Any] = {"expires_at": made[0][1].expires_at}
            if count > 1 or wishes != Wishes():
                detail |= {"count": count, "batch": wishes.batch, "name": wishes.name, "labels": dict(wishes.labels)}
            self._desk.audit(db, actor, "token.new", made[0][1].id, detail)

        self._desk.store.write(job)
        return [(str(token), record) for token, record in made]

    def tokens(self, batch: str = "") -> list[TokenRecord]:
        """Return tokens, newest first, of one batch or all."""
        found = self._desk.store.read(_tokens)
        return sorted((t for t in found if batch in ("", t.wishes.batch)), key=lambda t: (-t.created_at, t.id))

    def revoke_tokens(self, name: str, actor: str) -> int:
        """Take back a token by its id, or every open token of a batch; return how many.

        Raises:
            UsageError: No token or batch has this name.
        """
        now = self._desk.clock()

        def job(db: Connection) -> int:
            mine = [record for record in _tokens(db) if name and name in (record.id, record.wishes.batch)]
            if not mine:
                raise UsageError(f"no token and no batch is called '{name[:40]}'", fix="strop fleet enrol list")
            changed = [after for record in mine if (after := revoke_token(record, now)) != record]
            for record in changed:
                tables.put_token(db, record)
            self._desk.audit(db, actor, "token.revoke", name, {"revoked": len(changed)})
            return len(changed)

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
            check_name(record, request.device)
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
                self._welcome(db, request.device, record)
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

    def _welcome(self, db: Connection, device: str, record: TokenRecord) -> None:
        """Give a device what its token promised; a name that was decommissioned begins anew."""
        device_states.clear(db, device)
        labels.change_labels(db, device, record.wishes.labels)
        self._twin.settle(db, [device])  # it hears its desired state when it connects, which is after this

    def remove(self, device: str, actor: str) -> None:
        """Forget a device; see ``StandingVerbs.remove``."""
        self._standings.remove(device, actor)

    def set_config(self, device: str, changes: Any, actor: str) -> DesiredState:
        """Merge settings into a device's own; see ``TwinVerbs.set_config``."""
        return self._twin.set_config(device, changes, actor)

    def add_labels(self, device: str, labels: dict[str, int], actor: str) -> int:
        """Store delayed ground truth of a device's results; raises UsageError if it is not enrolled."""

        def job(db: Connection) -> int:
            known_device(db, device)
            telemetry.put_labels(db, device, labels)
            self._desk.audit(db, actor, "labels.add", device, {"labels": len(labels)})
            return len(labels)

        return self._desk.store.write(job)


def _tokens(db: Connection) -> list[TokenRecord]:
    rows = db.execute("SELECT record FROM tokens ORDER BY id").fetchall()
    return [TokenRecord.from_json(json.loads(row["record"])) for row in rows]
