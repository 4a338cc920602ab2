# SPDX-License-Identifier: Apache-2.0
"""Capture campaigns on the server: keys, orders, sealed samples, and their provable end.

Folder ``captures/``: ``<campaign>.key`` (X25519 in PEM, 0600) and ``<campaign>/<device>/<number>.sealed``. Each
campaign has a key of its own, so that deleting a campaign ends with the key: what a backup still holds of its samples
cannot be opened any more. The server itself opens nothing; ``unsealing`` does, with the key's file. Who starts a
campaign may keep its key and give the public half alone; then there is no ``.key`` here.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from edge_contract import canonical, durable
from edge_contract.capture import split_sealed
from edge_contract.errors import MessageError, UsageError
from edge_contract.fields import Fields
from edge_contract.jobs import Signed
from fleet.adapters import tables
from fleet.adapters.database import Connection, upsert
from fleet.adapters.job_signing import JobSigner
from fleet.adapters.store import Store
from fleet.adapters.unsealing import private_pem
from fleet.core.capture import Campaign, Refusal, order_for, read_request, stopped, why_refused

__all__ = ["Captures"]

_LIST: Final = "strop fleet capture list"


class Captures:
    """The campaigns of one server.

    Args:
        store: The database.
        folder: For keys and samples; made when it is needed.
        signer: Signs the orders, like jobs.
        clock: Seconds since 1970.
        random_bytes: The system's generator.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        signer: JobSigner,
        *,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._store, self._folder, self._signer, self._clock = store, folder, signer, clock
        self._random_bytes = random_bytes
        self.on_changed: Callable[[tuple[str, ...], str], None] = lambda devices, campaign: None
        """Called with the devices of a campaign and its name when there is news for them."""

    def start(self, document: Any, actor: str) -> Campaign:
        """Start a campaign with a key of its own; devices that are connected are told to ask for it now.

        A request with ``public_key`` names the key of whoever asks: then the private half never comes here, and
        nobody but its owner opens a sample.

        Raises:
            UsageError, MessageError: As ``fleet.core.capture.read_request``, or a public key that is none.
        """
        now, name = self._clock(), f"c{self._random_bytes(5).hex()}"
        key = X25519PrivateKey.generate()
        public = _given_key(document, key) or key.public_key().public_bytes_raw().hex()
        known = self._store.read(
            lambda db: frozenset(row["device"] for row in db.execute("SELECT device FROM devices"))
        )
        campaign = read_request(document, known, name, public, now)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if public == key.public_key().public_bytes_raw().hex():
            durable.write(self.key_path(name), private_pem(key), mode=durable.PRIVATE)

        def job(db: Connection) -> None:
            _put(db, campaign)
            _audit(db, now, actor, "capture.start", name, campaign.to_json())

        self._store.write(job)
        self.on_changed(campaign.devices, name)
        return campaign

    def live_for(self, db: Connection, device: str) -> list[str]:
        """Return the names of the campaigns that a device is to follow now."""
        now = self._clock()
        return [c.id for c in _campaigns(db) if c.is_live(now) and device in c.devices]

    def key_path(self, campaign: str) -> Path:
        """Return where a campaign's private key is."""
        return self._folder / f"{campaign}.key"

    def orders(self, device: str) -> list[bytes]:
        """Return the signed orders that a device is to follow now."""
        now = self._clock()
        live = [c for c in self._store.read(_campaigns) if c.is_live(now) and device in c.devices]
        return [self._signed(order_for(campaign, device).to_bytes()).to_bytes() for campaign in live]

    def _signed(self, payload: bytes) -> Signed:
        return self._signer.sign_bytes(payload)

    def take(self, campaign: str, device: str, number: int, sealed: bytes) -> str | Refusal:
        """Store one sealed sample and return its SHA-256, the receipt; the same one again changes nothing.

        The device forgets the sample for the receipt, so it is given after the file and the row are on the disk.

        Raises:
            MessageError: Not a sealed sample, or its head names another campaign, device or number.
        """
        head = Fields(canonical.loads(split_sealed(sealed)[1], where="sample"), "sample", MessageError)
        if (head.text("campaign"), head.text("device"), head.integer("number")) != (campaign, device, number):
            raise MessageError("the head names another campaign, device or number", where="sample")
        digest, now = hashlib.sha256(sealed).hexdigest(), self._clock()
        refusal = self._store.read(lambda db: _refusal(db, campaign, device, number, sealed, now))
        if refusal is not None:
            return refusal
        folder = self._folder / campaign / device
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        durable.write(folder / f"{number}.sealed", sealed, mode=durable.PRIVATE)
        row = (campaign, device, number, len(sealed), digest, now)

        def job(db: Connection) -> Refusal | None:
            refused = _refusal(db, campaign, device, number, sealed, now)
            if refused is None:
                db.execute(upsert("capture_samples", "campaign, device, number", "size", "sha256", "received"), row)
            return refused

        return self._store.write(job) or digest

    def collect(self, campaign: str) -> Campaign:
        """Let the devices of a live campaign send now what they hold; by themselves they do it every 15 minutes.

        Raises:
            UsageError: No such campaign, or it has ended.
        """
        found = self._store.read(lambda db: _campaign(db, campaign))
        if not found.is_live(self._clock()):
            raise UsageError("it has ended", where=f"campaign {campaign[:40]}", fix=_LIST)
        self.on_changed(found.devices, campaign)
        return found

    def stop(self, campaign: str, actor: str) -> Campaign:
        """Ask for no more inputs; devices forget what they still hold when they ask next, which they are told to.

        Raises:
            UsageError: No such campaign.
        """
        now = self._clock()

        def job(db: Connection) -> Campaign:
            before = _campaign(db, campaign)
            after = stopped(before, now)
            if after != before:
                _put(db, after)
                _audit(db, now, actor, "capture.stop", campaign, {})
            return after

        found = self._store.write(job)
        self.on_changed(found.devices, campaign)
        return found

    def delete(self, campaign: str, actor: str) -> dict[str, Any]:
        """Delete key, samples and rows of a campaign; return the proof, which also stands in the audit log.

        The proof counts the samples, and digests what they were and the key that is gone.

        Raises:
            UsageError: No such campaign.
        """
        now = self._clock()
        found, rows = self._store.read(lambda db: (_campaign(db, campaign), _samples(db, campaign)))
        _destroy(self.key_path(campaign))
        shutil.rmtree(self._folder / campaign, ignore_errors=True)
        listed = canonical.digest(canonical.dumps([[r["device"], r["number"], r["sha256"]] for r in rows]))
        proof = {"samples": len(rows), "samples_sha256": listed, "public_key": found.public_key}
        left = self.key_path(campaign).exists() or (self._folder / campaign).exists()
        if left:
            raise UsageError(
                "files of the campaign could not be deleted", where=str(self._folder), fix="see its rights"
            )

        def job(db: Connection) -> None:
            db.execute("DELETE FROM capture_samples WHERE campaign = ?", (campaign,))
            db.execute("DELETE FROM capture_campaigns WHERE id = ?", (campaign,))
            _audit(db, now, actor, "capture.delete", campaign, proof)

        self._store.write(job)
        return proof

    def shown(self) -> list[dict[str, Any]]:
        """Return every campaign with what was taken, newest first."""

        def read(db: Connection) -> list[dict[str, Any]]:
            now = self._clock()
            return [{**c.to_json(), "live": c.is_live(now), **_taken(db, c.id)} for c in reversed(_campaigns(db))]

        return self._store.read(read)

    def samples(self, campaign: str) -> list[dict[str, Any]]:
        """Return device, number, size and digest of every sample of a campaign; raises UsageError for none such."""
        return self._store.read(lambda db: (_campaign(db, campaign), _samples(db, campaign))[1])

    def sealed(self, campaign: str, device: str, number: int) -> bytes | None:
        """Return one sealed sample, None if it is not held; the names are looked up, never joined to a path first."""
        statement = "SELECT 1 FROM capture_samples WHERE campaign = ? AND device = ? AND number = ?"
        values = (campaign, device, number)
        if number >= 2**63 or self._store.read(lambda db: db.execute(statement, values).fetchone()) is None:
            return None
        return (self._folder / campaign / device / f"{number}.sealed").read_bytes()


def _given_key(document: Any, probe: X25519PrivateKey) -> str:
    """Return the public key that a request brings, empty for none."""
    given = Fields(document, "capture", MessageError).digest("public_key", "")
    if given:
        try:
            probe.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(given)))
        except ValueError as error:  # a point of small order: everybody could open what is sealed to it
            raise UsageError("the public key is not fit for sealing", where="capture.public_key") from error
    return given


def _destroy(path: Path) -> None:
    """Overwrite and delete a key. On flash the old block may survive: then the disk's encryption is the protection."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    durable.sync_folder(path.parent)


def _campaigns(db: Connection) -> list[Campaign]:
    rows = db.execute("SELECT document FROM capture_campaigns ORDER BY started_at, id")
    return [Campaign.from_json(canonical.loads(row["document"])) for row in rows]


def _campaign(db: Connection, name: str) -> Campaign:
    row = db.execute("SELECT document FROM capture_campaigns WHERE id = ?", (name,)).fetchone()
    if row is None:
        raise UsageError(f"campaign '{name[:40]}' is not known", fix=_LIST)
    return Campaign.from_json(canonical.loads(row["document"]))


def _put(db: Connection, campaign: Campaign) -> None:
    values = (campaign.id, campaign.started_at, canonical.dumps(campaign.to_json()))
    db.execute(upsert("capture_campaigns", "id", "started_at", "document"), values)


def _samples(db: Connection, campaign: str) -> list[dict[str, Any]]:
    names = "device, number, size, sha256, received"
    rows = db.execute(f"SELECT {names} FROM capture_samples WHERE campaign = ? ORDER BY device, number", (campaign,))
    return [dict(row) for row in rows]


def _taken(db: Connection, campaign: str) -> dict[str, int]:
    row = db.execute("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM capture_samples WHERE campaign = ?", (campaign,))
    samples, size = row.fetchone()
    return {"samples": samples, "bytes": size}


def _refusal(  # noqa: PLR0917 - one question about one row
    db: Connection, campaign: str, device: str, number: int, sealed: bytes, now: float
) -> Refusal | None:
    row = db.execute("SELECT document FROM capture_campaigns WHERE id = ?", (campaign,)).fetchone()
    found = Campaign.from_json(canonical.loads(row["document"])) if row else None
    others = "SELECT COUNT(*), COALESCE(SUM(size), 0) FROM capture_samples WHERE campaign=? AND device=? AND number<>?"
    held = tuple(db.execute(others, (campaign, device, number)).fetchone())
    return why_refused(found, device, (held[0], held[1]), len(sealed), now)


def _audit(  # noqa: PLR0917 - who did what to what
    db: Connection, now: float, actor: str, action: str, subject: str, detail: dict[str, Any]
) -> None:
    tables.add_audit(db, time=now, actor=actor, action=action, subject=subject, detail=detail)
