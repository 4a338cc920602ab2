# SPDX-License-Identifier: Apache-2.0
"""Read what others hand in: certificate signing requests and certificates, as hostile bytes."""

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_contract.errors import EnrolmentError
from edge_contract.renewal import proof_bytes

__all__ = ["CertificateFacts", "check_proof", "common_name", "csr_key_digest", "facts", "key_digest", "read_csr"]

_MAX_CSR_BYTES: Final = 16_384


@dataclass(frozen=True)
class CertificateFacts:
    """What one certificate says: name, serial number in hex, SHA-256 of its DER, and its life in seconds since 1970."""

    name: str
    serial: str
    fingerprint: str
    not_before: float
    not_after: float


def facts(certificate_pem: bytes) -> CertificateFacts:
    """Return what a certificate says.

    Raises:
        EnrolmentError: Not a certificate, or one without exactly one name.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
    except ValueError as error:
        raise EnrolmentError("this is not a certificate in PEM") from error
    der = certificate.public_bytes(serialization.Encoding.DER)
    return CertificateFacts(
        common_name(certificate.subject),
        format(certificate.serial_number, "x"),
        hashlib.sha256(der).hexdigest(),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def common_name(subject: x509.Name) -> str:
    """Return the one common name of a subject; raises EnrolmentError when there is not exactly one."""
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise EnrolmentError(f"{len(names)} common names, expected one", where="certificate")
    return str(names[0].value)


def read_csr(csr_pem: bytes) -> tuple[x509.CertificateSigningRequest, ec.EllipticCurvePublicKey]:
    """Return a request and its key.

    Raises:
        EnrolmentError: Too long, malformed, not signed by its own key, or a key that is not ECDSA P-256.
    """
    where = "certificate request"
    if len(csr_pem) > _MAX_CSR_BYTES:
        raise EnrolmentError(f"{len(csr_pem)} bytes, more than {_MAX_CSR_BYTES}", where=where)
    try:
        csr = x509.load_pem_x509_csr(csr_pem)
        is_valid, key = csr.is_signature_valid, csr.public_key()
    except Exception as error:  # cryptography raises a family of its own for malformed keys
        raise EnrolmentError("not a request in PEM", where=where) from error
    if not is_valid:
        raise EnrolmentError("its signature does not fit its key", where=where)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise EnrolmentError("its key is not ECDSA P-256", where=where, fix="make the key with 'strop agent enrol'")
    return csr, key


def csr_key_digest(csr_pem: bytes) -> str:
    """Return the SHA-256 of the public key in a request, which binds a used token to one device.

    Raises:
        EnrolmentError: Not a valid request.
    """
    return _digest(read_csr(csr_pem)[1])


def key_digest(certificate_pem: bytes) -> str:
    """Return the SHA-256 of the public key in a certificate.

    Raises:
        EnrolmentError: Not a certificate, or a key that is not ECDSA.
    """
    return _digest(_certified_key(certificate_pem))


def check_proof(certificate_pem: bytes, csr_pem: str, proof: str) -> None:
    """Refuse a renewal whose proof is not signed by the certificate's key.

    Raises:
        EnrolmentError: It is not, or the certificate cannot be read.
    """
    key = _certified_key(certificate_pem)
    try:
        key.verify(bytes.fromhex(proof), proof_bytes(csr_pem), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError) as error:
        raise EnrolmentError("the proof is not signed by the certificate's key", where="renewal request") from error


def _certified_key(certificate_pem: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = x509.load_pem_x509_certificate(certificate_pem).public_key()
    except Exception as error:  # ValueError, and cryptography's own for keys that it does not know
        raise EnrolmentError("this is not a certificate in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise EnrolmentError("its key is not ECDSA", where="certificate")
    return key


def _digest(key: ec.EllipticCurvePublicKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()
