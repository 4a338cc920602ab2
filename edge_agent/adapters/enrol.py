# SPDX-License-Identifier: Apache-2.0
"""Enrol this device: token → key made here → request → certificate. Runs in the helper process.

The private key never leaves the device. The identity folder appears whole or not at all: it is built as
``identity.new`` and renamed. A key left there by a power cut is used again with the same token, which the
server allows to the same key only.
"""

import hashlib
import hmac
import ssl
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization import DeserializationError

from edge_agent.adapters import binding, keys, tls
from edge_agent.adapters.jobs import parse_keys
from edge_contract import canonical, durable
from edge_contract.enrolment import EnrolmentAnswer, EnrolmentRequest, Token, check_device_name, parse_token
from edge_contract.errors import EnrolmentError
from edge_contract.renewal import BoardIdentity

__all__ = ["enrol"]

_PENDING: Final = "identity.new"


def enrol(data: Path, server: str, token_text: str, device: str, *, replace: bool = False) -> dict[str, Any]:
    """Enrol and return the endpoints that were stored: tenant, broker, device_url, enrol_url.

    Args:
        data: The device's data folder; ``identity/`` is written into it.
        server: The server's enrolment address, ``https://HOST:PORT``.
        token_text: The one-time token.
        device: The name that the certificate will carry.
        replace: Give up an identity that is there already.

    Raises:
        EnrolmentError: A foreign server, a refused token, an answer that does not fit, or already enrolled.
        DownloadError: No way to the server.
    """
    check_device_name(device)
    token = parse_token(token_text)
    if (data / "identity").exists() and not replace:
        fix = "pass --replace to give up the present identity"
        raise EnrolmentError("this device is enrolled already", where=str(data / "identity"), fix=fix)
    ca_pem = _fetch_ca(server, token)
    is_first, is_new = not (data / _PENDING).exists(), not data.exists()
    key, board = keys.pending_key(data / _PENDING), binding.read_board()
    status, body = _ask(server, ca_pem, EnrolmentRequest(str(token), device, keys.request(key, device), board))
    if status != 200:
        if is_first and 400 <= status < 500:  # refused before the token was used: the key is for nothing
            _drop_pending(data, with_folder=is_new)
        raise EnrolmentError(keys.refusal(body) or f"HTTP {status}", where=urlsplit(server).netloc)
    answer = EnrolmentAnswer.from_bytes(body)
    _check_answer(answer, ca_pem, key, device)
    return _store(data, answer, ca_pem, server, board)


def _fetch_ca(server: str, token: Token) -> str:
    connection = tls.connect(server, tls.unverified_context())
    try:
        status, body = tls.exchange(connection, "GET", "/ca.pem", limit=64_000)
    finally:
        connection.close()
    where = f"{server}/ca.pem"
    if status != 200:
        raise EnrolmentError(f"HTTP {status}", where=where, fix="give the enrolment address of the fleet server")
    try:
        der = ssl.PEM_cert_to_DER_cert(body.decode("ascii").strip())
    except ValueError as error:
        fix = "give the enrolment address of the fleet server"
        raise EnrolmentError("not a certificate in PEM", where=where, fix=fix) from error
    found = hashlib.sha256(der).hexdigest()
    if not hmac.compare_digest(found, token.ca_digest):
        what = f"this server's CA is {found[:16]}, the token names {token.ca_digest[:16]}"
        fix = "use a token of this server; if it is one, somebody stands in between"
        raise EnrolmentError(what, where=where, fix=fix)
    return ssl.DER_cert_to_PEM_cert(der)


def _drop_pending(data: Path, *, with_folder: bool) -> None:
    (data / _PENDING / "device.key").unlink()
    (data / _PENDING).rmdir()
    if with_folder:
        data.rmdir()


def _ask(server: str, ca_pem: str, request: EnrolmentRequest) -> tuple[int, bytes]:
    connection = tls.connect(server, tls.verified_context(ca_pem))
    try:
        return tls.exchange(connection, "POST", "/enrol", canonical.dumps(request.to_json()))
    finally:
        connection.close()


def _check_answer(answer: EnrolmentAnswer, ca_pem: str, key: ec.EllipticCurvePrivateKey, device: str) -> None:
    where = "enrolment answer"
    try:
        certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
        ca = x509.load_pem_x509_certificate(ca_pem.encode())
        certificate.verify_directly_issued_by(ca)
        names = keys.names(certificate)
        root: Metadata[Root] = Metadata.from_bytes(answer.tuf_root.encode())
        root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise EnrolmentError("the certificate is not from the CA that the token names", where=where) from error
    except (DeserializationError, RepositoryError) as error:
        fix = "install one: strop fleet trust KEYS/root.json"
        raise EnrolmentError("the server has no valid root.json", where=where, fix=fix) from error
    if names != [device] or certificate.public_key() != key.public_key():
        raise EnrolmentError(f"the certificate is for {names}, not for the key of '{device}'", where=where)
    parse_keys(answer.job_public_key)


def _store(data: Path, answer: EnrolmentAnswer, ca_pem: str, server: str, board: BoardIdentity) -> dict[str, Any]:
    folder, identity = data / _PENDING, data / "identity"
    endpoints = {
        "tenant": answer.tenant,
        "broker": answer.broker,
        "device_url": answer.device_url,
        "enrol_url": server,
    }
    durable.write(folder / "ca.crt", ca_pem.encode())
    durable.write(folder / "job.pub", answer.job_public_key.encode())
    durable.write(folder / "root.json", answer.tuf_root.encode())
    durable.write(folder / "endpoints.json", canonical.dumps(endpoints))
    durable.write(folder / "device.crt", answer.certificate.encode())
    life = keys.life(x509.load_pem_x509_certificate(answer.certificate.encode()))
    life.write(folder)
    binding.bind(folder, board)
    if not _is_same_fleet(identity, ca_pem):
        _set_aside(data / "tuf")  # rollback protection and time floor of another server mean nothing here
    _set_aside(identity)
    folder.rename(identity)
    durable.sync_folder(data)
    life.remember(data / "tuf")
    return endpoints


def _is_same_fleet(identity: Path, ca_pem: str) -> bool:
    try:
        return (identity / "ca.crt").read_text() == ca_pem
    except OSError:
        return False


def _set_aside(path: Path) -> None:
    """Rename a folder to ``<name>.old``; an older ``.old`` gives way."""
    if not path.exists():
        return
    old = path.with_name(f"{path.name}.old")
    if old.exists():
        for item in sorted(old.rglob("*"), reverse=True):
            item.rmdir() if item.is_dir() and not item.is_symlink() else item.unlink()
        old.rmdir()
    path.rename(old)
