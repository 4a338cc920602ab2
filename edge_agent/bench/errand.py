# SPDX-License-Identifier: Apache-2.0
"""The helper process's part of a benchmark: check a signed order, and send what was measured. Imports cryptography."""

import hashlib
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

from edge_agent.adapters import identity, jobs, time_hint, tls
from edge_agent.bench.place import Place
from edge_contract import canonical
from edge_contract.bench_job import BenchJob, BenchOutcome
from edge_contract.errors import DownloadError, EnrolmentError, SignatureError, StropError
from edge_contract.jobs import Signed

__all__ = ["check", "send"]

_FIX = "start a new one"


def check(envelope: bytes, data: Path, device: str, system_time: float) -> BenchJob:
    """Return the order in an envelope that is signed for this device and has not ended.

    Args:
        envelope: ``Signed`` in its wire form.
        data: The device's data folder; the job keys are in ``identity/job.pub``.
        device: This device's name.
        system_time: The system's clock, in seconds since 1970.

    Raises:
        SignatureError: A foreign or broken signature, another device, or expired.
        MessageError: Malformed, or another kind of document of the same key.
        DownloadError: The clock is not set, and no server told the time; it may pass.
        EnrolmentError: Not enrolled.
    """
    signed = Signed.from_bytes(envelope)
    jobs.check_signature(signed, data)
    job = BenchJob.from_bytes(signed.payload)
    where = f"benchmark {job.id}"
    if job.device != device:
        raise SignatureError(f"is for device '{job.device}', this is '{device}'", where=where, fix=_FIX)
    if time_hint.now(data, identity.server_urls(data), system_time) >= job.expires_at:
        raise SignatureError("has expired", where=where, fix=_FIX)
    return job


def send(data: Path) -> dict[str, Any]:
    """Send the files and the last word of the benchmark in hand; each needs its receipt.

    Returns:
        ``{"sent": files, "refused": why the server wants them no more}``.

    Raises:
        DownloadError, EnrolmentError: No way to the server, or no receipt; it is tried again.
        StropError: There is nothing to send.
    """
    place = Place(data)
    job = place.current()
    if job is None:
        raise StropError("there is none", where="benchmark")
    word = place.outcome(job)
    outcome = BenchOutcome.from_bytes(word)
    connection = tls.connect(str(identity.endpoints(data).get("device_url", "")), tls.device_context(data / "identity"))
    sent, refused = 0, ""
    try:
        for name in outcome.files:
            content = (place.of(job.id) / "out" / name).read_bytes()
            refused = _put(connection, f"/benchmarks/{job.id}/files/{name}", content)
            if refused:
                return {"sent": sent, "refused": refused}
            sent += 1
        refused = _put(connection, f"/benchmarks/{job.id}/outcome", word)
    finally:
        connection.close()
    return {"sent": sent, "refused": refused}


def _put(connection: HTTPSConnection, path: str, content: bytes) -> str:
    """Put one file; return why the server will never take it, empty once it has given the receipt."""
    status, body = tls.exchange(connection, "PUT", path, content)
    document = _read(body)
    if status == 200 and document.get("sha256") == hashlib.sha256(content).hexdigest():
        return ""
    if status in (400, 404, 409, 413):
        return f"HTTP {status}: {document.get('error', 'no reason')}"[:300]
    if status == 403:
        raise EnrolmentError("the server takes nothing from this device", where=path)
    raise DownloadError(f"HTTP {status}, or no receipt", where=path, fix="it is tried again later")


def _read(body: bytes) -> dict[str, Any]:
    try:
        found = canonical.loads(body)
    except StropError:
        return {}
    return found if isinstance(found, dict) else {}
