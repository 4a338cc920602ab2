# SPDX-License-Identifier: Apache-2.0
"""The fleet's own certificate authority: server, broker and devices prove themselves by its certificates.

Files of the CA's folder: ``ca.key`` (0600), ``ca.crt``, ``server.key`` (0600), ``server.crt``, and
``<name>.key`` / ``<name>.crt`` for clients that the server issues to itself.

A device's certificate says one thing, its name (CN = device id), and serves for one purpose (client): it can
impersonate neither the server nor another device. Nothing else of a device's request is copied.
"""

import contextlib
import datetime as dt
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_contract import durable
from edge_contract.enrolment import SERVER_NAME, check_device_name
from edge_contract.errors import EnrolmentError, StoreError
from fleet.adapters.csr import CertificateFacts, common_name, csr_key_digest, facts, read_csr

__all__ = [
    "DEVICE_DAYS",
    "RENEWAL_GRACE_DAYS",
    "REVOCATIONS",
    "CertificateFacts",
    "ca_digest",
    "ca_pem",
    "create_ca",
    "csr_key_digest",
    "facts",
    "issue_broker",
    "issue_client",
    "issue_server",
    "pem_of",
    "renew",
    "sign_csr",
    "write_revocations",
]

CA_DAYS: Final = 20 * 365
SERVER_DAYS: Final = 2 * 365
DEVICE_DAYS: Final = 365
RENEW_SERVER_DAYS: Final = 30
RENEWAL_GRACE_DAYS: Final = 180  # a device that was off for half a year past its expiry may still renew
REVOCATIONS: Final = "revoked.crl"
_BACKDATE: Final = dt.timedelta(days=1)  # boards without a clock battery start somewhat in the past


@dataclass(frozen=True)
class _Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def _utc(now: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(now), dt.UTC)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: float, days: int
) -> x509.CertificateBuilder:
    start = _utc(now)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _BACKDATE)
        .not_valid_after(start + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def create_ca(folder: Path, *, now: float, name: str = "Strop fleet CA") -> bytes:
    """Make a CA in a folder and return its certificate in PEM.

    Raises:
        StoreError: The folder holds a CA already; it is left as it is.
    """
    if (folder / "ca.crt").exists():  # the key is written first: alone, it has signed nothing yet
        raise StoreError("a CA is here already", where=str(folder), fix="use it, or choose an empty folder")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(_named(name), _named(name), key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    durable.write(folder / "ca.key", _key_pem(key), mode=durable.PRIVATE)
    durable.write(folder / "ca.crt", _pem(certificate))
    return _pem(certificate)


def _load(folder: Path) -> _Authority:
    fix = "make one with 'strop fleet init', or restore it from a backup"
    try:
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"the CA cannot be read: {error}", where=str(folder), fix=fix) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise StoreError("ca.key and ca.crt are not a pair", where=str(folder), fix=fix)
    return _Authority(key, certificate)


def ca_pem(folder: Path) -> bytes:
    """Return the CA's certificate in PEM; raises StoreError when there is none."""
    return _pem(_load(folder).certificate)


def ca_digest(folder: Path) -> str:
    """Return the SHA-256 of the CA certificate's DER in hex, which tokens carry."""
    der = _load(folder).certificate.public_bytes(serialization.Encoding.DER)
    return hashlib.sha256(der).hexdigest()


def _issue(
    ca: _Authority, name: str, key: ec.EllipticCurvePublicKey, now: float, days: int, *, hosts: Sequence[str] = ()
) -> x509.Certificate:
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    builder = (
        _builder(_named(name), ca.certificate.subject, key, now, days)
        .add_extension(issuer_id, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_san(h) for h in hosts]), critical=False)
    return builder.sign(ca.key, hashes.SHA256())


def _san(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_pair(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    durable.write(folder / f"{name}.key", _key_pem(key), mode=durable.PRIVATE)
    durable.write(folder / f"{name}.crt", _pem(certificate))


def _hosts(host: str) -> tuple[str, ...]:
    wildcard = host in ("", "0.0.0.0", "::")
    return tuple(dict.fromkeys(["localhost", "127.0.0.1", "::1", *([] if wildcard else [host])]))


def issue_server(folder: Path, host: str = "", *, now: float) -> tuple[Path, Path]:
    """Return paths (certificate, key) of the server's TLS pair, made anew only when it no longer serves.

    It no longer serves when it misses the host, ends within 30 days, or belongs to another CA.

    Args:
        folder: The CA's folder.
        host: Name or address by which devices reach the server, besides localhost, 127.0.0.1 and ::1.
        now: Seconds since 1970.
    """
    ca, hosts = _load(folder), _hosts(host)
    certificate_path, key_path = folder / "server.crt", folder / "server.key"
    if not _still_serves(certificate_path, key_path, ca, hosts, now):
        key = ec.generate_private_key(ec.SECP256R1())
        _write_pair(
            folder, "server", key, _issue(ca, "Strop fleet server", key.public_key(), now, SERVER_DAYS, hosts=hosts)
        )
    return certificate_path, key_path


def _still_serves(certificate_path: Path, key_path: Path, ca: _Authority, hosts: Sequence[str], now: float) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), None)
        certificate.verify_directly_issued_by(ca.certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    lasts = certificate.not_valid_after_utc > _utc(now) + dt.timedelta(days=RENEW_SERVER_DAYS)
    return lasts and key.public_key() == certificate.public_key() and all(_san(host) in names for host in hosts)


def issue_client(folder: Path, name: str = SERVER_NAME, *, now: float) -> tuple[Path, Path]:
    """Return paths (certificate, key) of a fresh client pair, for the server's own connection to the broker."""
    ca, key = _load(folder), ec.generate_private_key(ec.SECP256R1())
    _write_pair(folder, name, key, _issue(ca, name, key.public_key(), now, SERVER_DAYS))
    return folder / f"{name}.crt", folder / f"{name}.key"


def issue_broker(folder: Path, out: Path, hosts: Sequence[str], *, now: float) -> tuple[Path, Path]:
    """Return paths (certificate, key) of a TLS pair for a broker that others run, written into another folder.

    Args:
        folder: The CA's folder.
        out: Where ``broker.crt`` and ``broker.key`` go.
        hosts: Names and addresses by which devices and the server reach it.
        now: Seconds since 1970.
    """
    ca, key = _load(folder), ec.generate_private_key(ec.SECP256R1())
    _write_pair(out, "broker", key, _issue(ca, "Strop broker", key.public_key(), now, SERVER_DAYS, hosts=hosts))
    return out / "broker.crt", out / "broker.key"


def sign_csr(folder: Path, csr_pem: bytes, device: str, *, now: float) -> bytes:
    """Return a device's certificate in PEM: CN = device, client only, one year.

    Raises:
        EnrolmentError: A malformed request, one for another name, a weak key, or a name that no device may have.
        StoreError: The CA cannot be read.
    """
    check_device_name(device)
    csr, key = read_csr(csr_pem)
    asked = common_name(csr.subject)
    if asked != device:
        raise EnrolmentError(f"names '{asked}', but device '{device}' asks", where="certificate request")
    return _pem(_issue(_load(folder), device, key, now, DEVICE_DAYS))


def renew(folder: Path, certificate_pem: bytes, csr_pem: bytes, *, now: float) -> bytes:
    """Return a new certificate for a device that shows its present one, expired for at most 180 days.

    The caller has proof that the peer holds the present certificate's key (TLS), or compares
    ``csr_key_digest`` with the enrolled key; whether the device is revoked is the registry's to say.

    Raises:
        EnrolmentError: Issued by another CA, expired for too long, or a request for another name.
    """
    present = facts(certificate_pem)
    try:
        x509.load_pem_x509_certificate(certificate_pem).verify_directly_issued_by(_load(folder).certificate)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise EnrolmentError("issued by another CA", where=f"certificate of '{present.name}'") from error
    if now > present.not_after + RENEWAL_GRACE_DAYS * 86_400:
        fix = "enrol the device again"
        raise EnrolmentError("expired too long ago to renew", where=f"certificate of '{present.name}'", fix=fix)
    return sign_csr(folder, csr_pem, present.name, now=now)


def pem_of(certificate_der: bytes) -> bytes:
    """Return a certificate's PEM; raises EnrolmentError when it is none."""
    try:
        return _pem(x509.load_der_x509_certificate(certificate_der))
    except ValueError as error:
        raise EnrolmentError("this is not a certificate in DER") from error


def write_revocations(folder: Path, revoked: Sequence[tuple[str, float]], *, now: float) -> Path:
    """Write the list of revoked certificates (RFC 5280, section 5) and return its path.

    The list has no end before the CA's own: an expired list would lock out every device at once.

    Args:
        folder: The CA's folder.
        revoked: Serial number in hex, and when it was revoked.
        now: Seconds since 1970.
    """
    ca, since = _load(folder), _utc(now) - _BACKDATE
    with contextlib.suppress(OSError, ValueError):
        before = x509.load_pem_x509_crl((folder / REVOCATIONS).read_bytes()).last_update_utc
        # Of two lists in one process OpenSSL takes the later one, and counts in seconds.
        since = max(since, before + dt.timedelta(seconds=1))
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.certificate.subject)
        .last_update(since)
        .next_update(max(ca.certificate.not_valid_after_utc, _utc(now) + dt.timedelta(days=1)))
        .add_extension(x509.CRLNumber(int(now * 1000)), critical=False)
    )
    for serial, at in revoked:
        one = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(_utc(at)).build()
        builder = builder.add_revoked_certificate(one)
    listed = builder.sign(ca.key, hashes.SHA256())
    durable.write(folder / REVOCATIONS, listed.public_bytes(serialization.Encoding.PEM))
    return folder / REVOCATIONS
