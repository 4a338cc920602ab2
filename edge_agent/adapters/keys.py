# SPDX-License-Identifier: Apache-2.0
"""The device's key and requests for its certificate: what enrolment and renewal share. Runs in the helper process."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_agent.adapters.identity import CertificateLife
from edge_contract import canonical, durable
from edge_contract.errors import ContractError, EnrolmentError

__all__ = ["life", "load", "names", "pending_key", "refusal", "request"]


def load(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the ECDSA key of a file; raises EnrolmentError when there is none."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        fix = "enrol this device: strop agent enrol"
        raise EnrolmentError(f"no usable key: {error}", where=str(path), fix=fix) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise EnrolmentError("the key is not ECDSA", where=str(path))
    return key


def pending_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key of a folder in the making; one that a power cut left is used again."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "device.key"
    try:
        return load(path)
    except EnrolmentError:
        pass  # none yet, or cut short: make one
    new = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8
    pem = new.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    durable.write(path, pem, mode=durable.PRIVATE)
    return new


def request(key: ec.EllipticCurvePrivateKey, device: str) -> str:
    """Return a certificate signing request in PEM for a name."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def names(certificate: x509.Certificate) -> list[str]:
    """Return every common name of a certificate."""
    return [str(n.value) for n in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def life(certificate: x509.Certificate) -> CertificateLife:
    """Return serial and dates of a certificate."""
    return CertificateLife(
        format(certificate.serial_number, "x"),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def refusal(body: bytes) -> str:
    """Return the server's own words in ``{"error": …}`` or FastAPI's ``{"detail": …}``, printable and not too long."""
    try:
        document = canonical.loads(body)
    except ContractError:
        return ""
    found = document if isinstance(document, dict) else {}
    words = next((found.get(key) for key in ("error", "detail") if found.get(key)), "")
    return "".join(c if c.isprintable() else " " for c in str(words))[:300]
