# SPDX-License-Identifier: Apache-2.0
"""Renew this device's certificate. Runs in the helper process.

A new key each time, because of clones: once the new certificate was used, the server takes no renewal from the old
key, so of two copies of an SD card the second one to renew is noticed. The present pair stays in force until the new
one has worked once against the server's own device listener; then one symbolic link is flipped.

::

    identity/keys/next/device.key            made, perhaps asked for; used again after a power cut
             keys/<serial>/device.{key,crt}   a whole pair
             current → keys/<serial>          the pair in force
             device.key → current/device.key  (likewise device.crt)

After a power cut the next run first tries a newer pair that is whole but not yet in force: the server may have seen
it at work, and would refuse the old key.
"""

import shutil
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge_agent.adapters import binding, identity, keys, time_hint, tls
from edge_agent.adapters.jobs import parse_keys
from edge_agent.core.renewal import renew_at
from edge_contract import canonical, durable
from edge_contract.errors import DownloadError, EnrolmentError
from edge_contract.renewal import RenewalAnswer, RenewalRequest, proof_bytes

__all__ = ["care"]

_PAIR: Final = ("device.key", "device.crt")


def care(data: Path, device: str, system_time: float, *, force: bool = False) -> dict[str, Any]:
    """Learn the time where the clock is not set, and renew the certificate where that is due.

    Args:
        data: The device's data folder.
        device: This device's name.
        system_time: The system's clock, seconds since 1970.
        force: Renew although it is not due.

    Returns:
        ``{"renewed": …, "serial": …, "not_before": …, "not_after": …}`` of the certificate in force.

    Raises:
        EnrolmentError: Not enrolled, or the server refuses: revoked, superseded, expired for too long.
        DownloadError: No way to the server, or the clock is not set and nobody told the time.
    """
    folder = data / "identity"
    certificate = _load(folder)
    life = keys.life(certificate)
    if identity.life(data) != life:
        life.write(folder)
    life.remember(data / "tuf")
    urls = identity.server_urls(data)
    now = time_hint.now(data, urls, system_time)
    due = 0.0 if force else renew_at(life.not_before, life.not_after, device)
    try:
        is_renewed = _if_due(data, certificate, device, now >= due)
    except DownloadError as error:
        if not tls.doubts_clock(error):
            raise
        now = time_hint.second_opinion(data, urls, system_time, now, error)
        is_renewed = _if_due(data, certificate, device, now >= due)
    if is_renewed:
        life = keys.life(_load(folder))
        life.write(folder)
    return {"renewed": is_renewed, "serial": life.serial, "not_before": life.not_before, "not_after": life.not_after}


def _if_due(data: Path, certificate: x509.Certificate, device: str, is_due: bool) -> bool:  # noqa: FBT001
    """Renew if it is due, or if a power cut left a renewal half done; True if something was renewed."""
    if _resume(data, certificate, device):
        return True
    if is_due:
        _take(data, _renewed(data, certificate, device), device)
    return is_due


def _load(folder: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate((folder / "device.crt").read_bytes())
    except (OSError, ValueError) as error:
        fix = "enrol this device: strop agent enrol"
        raise EnrolmentError(f"no usable certificate: {error}", where=str(folder), fix=fix) from error


def _resume(data: Path, present: x509.Certificate, device: str) -> bool:
    """Put a newer pair into force that a power cut left; True if there was one."""
    for path in sorted((data / "identity" / "keys").glob("*/device.crt")):
        try:
            found = x509.load_pem_x509_certificate(path.read_bytes())
        except ValueError:
            continue
        if found.not_valid_before_utc > present.not_valid_before_utc:
            _take(data, _named(path.parent, found), device)
            return True
    return False


def _named(pair: Path, certificate: x509.Certificate) -> Path:
    """Give the folder of a whole pair its serial number for a name."""
    named = pair.with_name(format(certificate.serial_number, "x"))
    if pair != named:
        pair.rename(named)
        durable.sync_folder(named.parent)
    return named


def _renewed(data: Path, present: x509.Certificate, device: str) -> Path:
    """Ask for the next certificate and return the folder of the whole pair."""
    folder = data / "identity"
    url = str(identity.endpoints(data).get("enrol_url", ""))
    if not url:
        raise EnrolmentError("no address for renewal", where=str(folder), fix="enrol this device anew")
    (folder / "keys").mkdir(exist_ok=True, mode=0o700)
    key = keys.pending_key(folder / "keys" / "next")
    csr = keys.request(key, device)
    proof = keys.load(folder / "device.key").sign(proof_bytes(csr), ec.ECDSA(hashes.SHA256()))
    pem = present.public_bytes(serialization.Encoding.PEM).decode()
    board = binding.bound_to(folder) or binding.read_board()
    answer = _ask(data, url, RenewalRequest(pem, csr, proof.hex(), board))
    found = _checked(answer, (folder / "ca.crt").read_bytes(), key, device)
    parse_keys(answer.job_public_key)
    durable.write(folder / "keys" / "next" / "device.crt", answer.certificate.encode())
    if answer.job_public_key != (folder / "job.pub").read_text():
        durable.write(folder / "job.pub", answer.job_public_key.encode())
    return _named(folder / "keys" / "next", found)


def _ask(data: Path, url: str, request: RenewalRequest) -> RenewalAnswer:
    ca = (data / "identity" / "ca.crt").read_text()
    connection = tls.connect(url, tls.verified_context(ca, data / "tuf"))
    try:
        status, body = tls.exchange(connection, "POST", "/renew", canonical.dumps(request.to_json()))
    finally:
        connection.close()
    if status == 403:
        raise EnrolmentError(keys.refusal(body) or "refused", where="renewal")
    if status != 200:
        raise DownloadError(keys.refusal(body) or f"HTTP {status}", where=f"{url}/renew", fix="it is tried again later")
    return RenewalAnswer.from_bytes(body)


def _checked(answer: RenewalAnswer, ca_pem: bytes, key: ec.EllipticCurvePrivateKey, device: str) -> x509.Certificate:
    try:
        found = x509.load_pem_x509_certificate(answer.certificate.encode())
        found.verify_directly_issued_by(x509.load_pem_x509_certificate(ca_pem))
    except (ValueError, TypeError, InvalidSignature) as error:
        raise EnrolmentError("the certificate is not from our CA", where="renewal answer") from error
    if keys.names(found) != [device] or found.public_key() != key.public_key():
        raise EnrolmentError(f"the certificate is for {keys.names(found)}, not for our key", where="renewal answer")
    return found


def _take(data: Path, pair: Path, device: str) -> None:
    """Try a pair against the server and put it into force; one that the server refuses is put away."""
    folder = data / "identity"
    url = str(identity.endpoints(data).get("device_url", ""))
    connection = tls.connect(url, tls.device_context(folder, pair))
    try:
        status, body = tls.exchange(connection, "GET", "/identity")
    except EnrolmentError:
        shutil.rmtree(pair)  # the present pair stays
        raise
    finally:
        connection.close()
    if status == 200 and canonical.loads(body).get("device") != device:
        shutil.rmtree(pair)
        raise EnrolmentError("the server takes the new certificate for another device's", where=url)
    _flip(folder, pair)


def _flip(folder: Path, pair: Path) -> None:
    """Let the links lead to a pair; at the first renewal the present files become a pair of their own before."""
    if not all((folder / name).is_symlink() for name in _PAIR):
        old = folder / "keys" / format(_load(folder).serial_number, "x")
        old.mkdir(exist_ok=True, mode=0o700)
        for name in _PAIR:
            durable.write(old / name, (folder / name).read_bytes(), mode=durable.PRIVATE)
        _link(folder / "current", Path("keys", old.name))
        for name in _PAIR:
            _link(folder / name, Path("current", name))
    before = (folder / "current").readlink().name
    _link(folder / "current", Path("keys", pair.name))
    for other in (folder / "keys").iterdir():
        if other.name not in (pair.name, before):
            shutil.rmtree(other)


def _link(path: Path, target: Path) -> None:
    temporary = path.with_name(f".{path.name}.link")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)
    durable.sync_folder(path.parent)
