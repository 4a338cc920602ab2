# SPDX-License-Identifier: Apache-2.0
"""Seal a sample to the campaign's key, in the form of ``edge_contract.capture``. Runs in the helper process."""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edge_contract import PROTOCOL_VERSION, canonical
from edge_contract.capture import MAGIC, CaptureOrder

__all__ = ["seal"]


def seal(content: bytes, order: CaptureOrder, number: int) -> bytes:
    """Return a content that only the holder of the campaign's private key can open.

    Args:
        content: From ``edge_contract.capture.join_content``.
        order: Names campaign, device and key.
        number: Of the sample on this device, from 1.

    Raises:
        ValueError: The order's key is none.
    """
    theirs = X25519PublicKey.from_public_bytes(bytes.fromhex(order.public_key))
    ours = X25519PrivateKey.generate()
    public = ours.public_key().public_bytes_raw()
    salt = public + theirs.public_bytes_raw()
    key = HKDF(hashes.SHA256(), 32, salt, b"strop capture 1").derive(ours.exchange(theirs))
    head = canonical.dumps(
        {"v": PROTOCOL_VERSION, "campaign": order.campaign, "device": order.device, "number": number}
    )
    # The key is new with each sample, so a fixed nonce is used once (RFC 9180, section 5.2, does likewise).
    sealed = ChaCha20Poly1305(key).encrypt(bytes(12), content, head)
    return MAGIC + public + len(head).to_bytes(4, "big") + head + sealed
