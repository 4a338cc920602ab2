# SPDX-License-Identifier: Apache-2.0
"""Check a signed job document. Runs in the helper process: imports cryptography."""

import datetime as dt
import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_agent.adapters import identity, time_hint
from edge_contract.errors import EnrolmentError, SignatureError
from edge_contract.jobs import JobDocument, Signed

__all__ = ["check_signature", "parse_keys", "verify"]

_FIX = "the server sends it anew; nothing was changed here"


def verify(envelope: bytes, data: Path, device: str, system_time: float) -> JobDocument:
    """Return the job in an envelope that is signed for this device and has not ended.

    Args:
        envelope: ``Signed`` in its wire form.
        data: The device's data folder; the job keys are in ``identity/job.pub``.
        device: This device's name.
        system_time: The system's clock, in seconds since 1970.

    Raises:
        SignatureError: A foreign or broken signature, another device, or expired.
        DownloadError: The clock is not set, and no server told the time; it may pass.
        MessageError: Malformed.
        EnrolmentError: Not enrolled.
    """
    signed = Signed.from_bytes(envelope)
    check_signature(signed, data)
    job = JobDocument.from_bytes(signed.payload)
    where = f"job {job.job_id}"
    if job.device != device:
        raise SignatureError(f"is for device '{job.device}', this is '{device}'", where=where, fix=_FIX)
    now = time_hint.now(data, identity.server_urls(data), system_time)
    # "Nothing to do" stays retained at the broker for months; replayed it does no harm.
    if job.kind != "none" and now >= job.expires_at:
        raise SignatureError(f"expired on {_minute(job.expires_at)}, it is {_minute(now)}", where=where, fix=_FIX)
    return job


def parse_keys(text: str) -> dict[str, Ed25519PublicKey]:
    """Return key id → key for raw ed25519 public keys in hex, separated by spaces.

    Raises:
        EnrolmentError: None, or one that is not such a key.
    """
    keys = {}
    try:
        for word in text.split():
            raw = bytes.fromhex(word)
            keys[hashlib.sha256(raw).hexdigest()] = Ed25519PublicKey.from_public_bytes(raw)
    except ValueError as error:
        raise EnrolmentError("not an ed25519 key in hex", where="job.pub", fix="enrol this device again") from error
    if not keys:
        raise EnrolmentError("no key", where="job.pub", fix="enrol this device again")
    return keys


def _keys(data: Path) -> dict[str, Ed25519PublicKey]:
    path = data / "identity" / "job.pub"
    try:
        return parse_keys(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        fix = "enrol this device: strop agent enrol"
        raise EnrolmentError("no job key", where=str(path), fix=fix) from error


def check_signature(signed: Signed, data: Path) -> None:
    """Raise SignatureError unless an envelope is signed by a job key of the enrolment, EnrolmentError without one."""
    key = _keys(data).get(signed.keyid)
    if key is None:
        raise SignatureError(f"signed by unknown key {signed.keyid[:16]}", where="job", fix=_FIX)
    try:
        key.verify(bytes.fromhex(signed.signature), signed.payload)
    except (InvalidSignature, ValueError) as error:
        raise SignatureError("the signature does not fit the document", where="job", fix=_FIX) from error


def _minute(seconds: float) -> str:
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M}"
