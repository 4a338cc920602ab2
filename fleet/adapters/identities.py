# SPDX-License-Identifier: Apache-2.0
"""Certificates after the enrolment: issued, seen, renewed, revoked; and what speaks for a clone.

Each verb is one transaction with its audit entry, like those of ``operations``, to which this belongs.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge_contract import canonical
from edge_contract.errors import EnrolmentError, UsageError
from edge_contract.renewal import BoardIdentity, RenewalAnswer, RenewalRequest
from fleet.adapters import ca, tables
from fleet.adapters.csr import check_proof, facts, key_digest
from fleet.adapters.database import Connection, Row, upsert
from fleet.adapters.store import Store
from fleet.core.identity import Certificate, DeviceIdentity, check_renewal, hear_board, hear_boot, suspect

__all__ = ["Identities"]

_log = logging.getLogger("strop.fleet.identities")


class Identities:
    """The certificates of all devices.

    Args:
        store: The database.
        authority: The CA's folder.
        clock: Seconds since 1970.
        job_keys: The job keys that count now, as the enrolment tells them.
    """

    def __init__(self, store: Store, authority: Path, clock: Callable[[], float], job_keys: str) -> None:
        self._store, self._authority, self._clock, self._job_keys = store, authority, clock, job_keys
        self.on_revoked: Callable[[str], None] = lambda device: None
        """Called with a device's name after its certificates were denied, to cut it off where it is connected."""
        self.on_suspected: Callable[[str, str], None] = lambda device, why: None
        """Called with a device's name and the reason, inside the transaction that noticed it."""

    # What the enrolment and the ingest tell; inside their transactions.

    def issued(self, db: Connection, certificate: bytes, now: float, board: BoardIdentity | None = None) -> None:
        """Note a certificate that was just issued; with ``board``, one of an enrolment, which begins anew.

        One of an enrolment counts as used at once: whoever still has an older one renews no more.
        """
        one = _certificate(certificate, now)
        _put(db, one if board is None else replace(one, seen_at=now))
        if board is not None:
            _put_identity(db, one.device, DeviceIdentity(board))

    def heard(self, db: Connection, device: str, boot: str, board: Any, now: float) -> None:
        """Take in that a start of a device speaks now; ``board`` is what its birth says of the board, or None."""
        before = _identity(db, device)
        after = hear_boot(before, boot, now)
        told = board.get("identity") if isinstance(board, dict) else None
        if isinstance(told, dict):
            after = hear_board(after, BoardIdentity.from_json(told), now)
        if after != before:
            self._keep(db, device, before, after, now)

    def _keep(self, db: Connection, device: str, before: DeviceIdentity, after: DeviceIdentity, now: float) -> None:
        _put_identity(db, device, after)
        for why in after.evidence:
            if why not in before.evidence:
                _log.warning("device %s: %s", device, why)
                _audit(db, now, "server", "device.clone_suspected", device, why=why)
                self.on_suspected(device, why)

    # What a device asks.

    def renew(self, request: RenewalRequest) -> RenewalAnswer:
        """Return the next certificate of a device that proves to hold its present one, expired for 180 days at most.

        Raises:
            EnrolmentError: Not ours, expired too long ago, revoked, superseded, or without a proof.
        """
        now, present = self._clock(), request.certificate.encode()
        presented = _certificate(present, 0.0)
        check_proof(present, request.csr, request.proof)
        renewed = ca.renew(self._authority, present, request.csr.encode(), now=now)

        def job(db: Connection) -> str:
            """Return why not, or nothing: a suspicion must be kept though the renewal is refused."""
            device = presented.device
            before = _identity(db, device)
            after = hear_board(before, request.board, now)
            refused = ""
            try:
                _enrolled(db, device)
                check_renewal(_held(db, device), presented)
                if after.suspected_at and after.evidence != before.evidence:
                    raise EnrolmentError(after.evidence[-1], where=f"device '{device}'", fix=_AGAIN)
            except EnrolmentError as error:
                refused = str(error)
                if "superseded" in refused:
                    after = suspect(after, "a superseded key asked for renewal: a copy of the identity exists", now)
            if after != before:
                self._keep(db, device, before, after, now)
            if not refused:
                self.issued(db, renewed, now)
                new = facts(renewed).serial
                _audit(db, now, f"device {device}", "certificate.renew", device, old=presented.serial, new=new)
            return refused

        refused = self._store.write(job)
        if refused:
            raise EnrolmentError(refused)
        return RenewalAnswer(renewed.decode(), self._job_keys)

    def seen(self, certificate_der: bytes) -> Certificate:
        """Note that a certificate works, told by the TLS connection on which its owner asks."""
        now, presented = self._clock(), _certificate(ca.pem_of(certificate_der), 0.0)

        def job(db: Connection) -> Certificate:
            row = db.execute("SELECT * FROM certificates WHERE serial = ?", (presented.serial,)).fetchone()
            known = _row(row) if row else presented
            if not known.seen_at:
                known = replace(known, seen_at=now)
                _put(db, known)
            return known

        return self._store.write(job)

    # What an operator asks.

    def revoke(self, device: str, reason: str, actor: str) -> int:
        """Deny every certificate of a device and return how many; the device needs a new token.

        Raises:
            UsageError: It has no certificate that could be denied.
        """
        now = self._clock()

        def job(db: Connection) -> int:
            open_ones = [one for one in _held(db, device) if not one.revoked_at]
            if not open_ones:
                raise UsageError(f"device '{device}' has no certificate to revoke", fix="strop fleet device list")
            for one in open_ones:
                _put(db, replace(one, revoked_at=now, reason=reason[:200]))
            serials = [one.serial for one in open_ones]
            _audit(db, now, actor, "certificate.revoke", device, serials=serials, reason=reason[:200])
            return len(open_ones)

        count = self._store.write(job)
        self.deny()
        self.on_revoked(device)
        return count

    def forget(self, device: str, actor: str) -> None:
        """Revoke what a removed device has left, if anything."""
        if any(not one.revoked_at for one in self._store.read(lambda db: _held(db, device))):
            self.revoke(device, "removed from the fleet", actor)

    def forgive(self, device: str, actor: str) -> None:
        """Take the suspicion of a clone back, after somebody has looked."""
        now = self._clock()

        def job(db: Connection) -> None:
            _enrolled(db, device)
            self.forgive_in(db, device, actor, now)

        self._store.write(job)

    def forgive_in(self, db: Connection, device: str, actor: str, now: float) -> None:
        """Do the same inside a transaction."""
        _put_identity(db, device, replace(_identity(db, device), suspected_at=0.0, evidence=(), returns=0))
        _audit(db, now, actor, "device.clone_cleared", device)

    def is_suspected(self, db: Connection, device: str) -> bool:
        """True if a device is taken for cloned."""
        return bool(_identity(db, device).suspected_at)

    def suspects(self, db: Connection) -> dict[str, str]:
        """Return every device that is taken for cloned, with the newest reason."""
        rows = db.execute("SELECT device, document FROM identities")
        noticed = {row["device"]: DeviceIdentity.from_json(canonical.loads(row["document"])) for row in rows}
        return {name: one.evidence[-1] for name, one in noticed.items() if one.suspected_at and one.evidence}

    def deny(self) -> Path:
        """Write the revocation list of everything that is revoked and not yet expired, and return its path."""
        now = self._clock()
        denied = self._store.read(
            lambda db: [_row(row) for row in db.execute("SELECT * FROM certificates WHERE revoked_at > 0")]
        )
        kept = [(one.serial, one.revoked_at) for one in denied if one.not_after > now - ca.RENEWAL_GRACE_DAYS * 86_400]
        return ca.write_revocations(self._authority, kept, now=now)

    def shown(self, db: Connection, device: str, now: float) -> dict[str, Any]:
        """Return what the device's page and JSON show: the certificate in use, and what speaks for a clone."""
        return _shown(_held(db, device), _identity(db, device), now)

    def all_shown(self, db: Connection, now: float) -> dict[str, dict[str, Any]]:
        """Return device → the same, for every device by two queries."""
        held: dict[str, list[Certificate]] = {}
        for row in db.execute("SELECT * FROM certificates ORDER BY device, issued_at"):
            held.setdefault(row["device"], []).append(_row(row))
        rows = db.execute("SELECT device, document FROM identities")
        noticed = {row["device"]: DeviceIdentity.from_json(canonical.loads(row["document"])) for row in rows}
        nothing = DeviceIdentity()
        return {name: _shown(held.get(name, []), noticed.get(name, nothing), now) for name in held.keys() | noticed}


_AGAIN: Final = "enrol this board with a token of its own"


def _certificate(pem: bytes, issued_at: float) -> Certificate:
    told = facts(pem)
    return Certificate(told.serial, told.name, key_digest(pem), issued_at, told.not_after)


def _shown(held: list[Certificate], noticed: DeviceIdentity, now: float) -> dict[str, Any]:
    used = [one for one in held if one.seen_at] or held
    certificate = None
    if used:
        newest = used[-1]
        certificate = {
            "serial": newest.serial,
            "issued_at": newest.issued_at,
            "not_after": newest.not_after,
            "days_left": round((newest.not_after - now) / 86_400, 1),
            "revoked": bool(newest.revoked_at),
            "reason": newest.reason,
        }
    clone: dict[str, Any] = {"suspected": bool(noticed.suspected_at), "since": noticed.suspected_at}
    clone["todo"] = _TODO if noticed.suspected_at else ""
    return {"certificate": certificate, "clone": {**clone, "evidence": list(noticed.evidence)}}


_TODO: Final = (
    "look which machine is the right one; then 'device revoke NAME' and enrol the right one with a new token, "
    "or 'device forgive NAME' if there is only one; 'device quarantine NAME' holds its orders meanwhile"
)


def _row(row: Row) -> Certificate:
    return Certificate(**{name: row[name] for name in row.keys()})  # noqa: SIM118 - a Row iterates over its values


def _held(db: Connection, device: str) -> list[Certificate]:
    rows = db.execute("SELECT * FROM certificates WHERE device = ? ORDER BY issued_at", (device,))
    return [_row(row) for row in rows]


def _put(db: Connection, one: Certificate) -> None:
    values = (one.serial, one.device, one.key_digest, one.issued_at, one.not_after)
    more = (one.seen_at, one.revoked_at, one.reason)
    names = ("device", "key_digest", "issued_at", "not_after", "seen_at", "revoked_at", "reason")
    db.execute(upsert("certificates", "serial", *names), values + more)


def _identity(db: Connection, device: str) -> DeviceIdentity:
    row = db.execute("SELECT document FROM identities WHERE device = ?", (device,)).fetchone()
    return DeviceIdentity.from_json(canonical.loads(row["document"])) if row else DeviceIdentity()


def _put_identity(db: Connection, device: str, identity: DeviceIdentity) -> None:
    document = canonical.dumps(identity.to_json())
    db.execute(upsert("identities", "device", "document"), (device, document))


def _enrolled(db: Connection, device: str) -> None:
    if tables.device(db, device) is None:
        raise EnrolmentError(f"device '{device}' is not enrolled", fix=_AGAIN)


def _audit(db: Connection, now: float, actor: str, action: str, device: str, **detail: Any) -> None:
    tables.add_audit(db, time=now, actor=actor, action=action, subject=device, detail=detail)
