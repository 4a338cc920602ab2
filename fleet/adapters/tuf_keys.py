# SPDX-License-Identifier: Apache-2.0
"""The online TUF key as a file: make it, read it, tell its public half."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from securesystemslib.signer import CryptoSigner

from edge_contract import durable
from edge_contract.errors import StoreError

__all__ = ["load_signer", "make_key", "public_pem"]


def make_key(path: Path) -> CryptoSigner:
    """Make a private key and store it, readable by its owner alone."""
    signer = CryptoSigner.generate_ed25519()
    durable.write(path, signer.private_bytes, mode=durable.PRIVATE)
    return signer


def load_signer(path: Path) -> CryptoSigner:
    """Return the signer of a key file; raises StoreError where it cannot be read."""
    try:
        return CryptoSigner(serialization.load_pem_private_key(path.read_bytes(), None))
    except (OSError, ValueError, TypeError) as error:
        fix = "make one with 'strop fleet init', or restore it from a backup"
        raise StoreError(f"the online key cannot be read: {error}", where=str(path), fix=fix) from error


def public_pem(signer: CryptoSigner) -> bytes:
    """Return the public half in PEM."""
    private = serialization.load_pem_private_key(signer.private_bytes, None)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return private.public_key().public_bytes(serialization.Encoding.PEM, form)
