# SPDX-License-Identifier: Apache-2.0
"""Open sealed samples with the campaign's key file, and write them as one ``.npz``."""

import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edge_contract import canonical, durable
from edge_contract.canonical import as_float
from edge_contract.capture import split_content, split_sealed
from edge_contract.errors import ContractError, MessageError, SignatureError, UsageError

__all__ = ["load_key", "new_key", "private_pem", "unseal", "write_npz"]


def load_key(path: Path) -> X25519PrivateKey:
    """Return a campaign's private key; raises UsageError when the file holds none."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        fix = "give the campaign's key: captures/<campaign>.key in the server's data folder"
        raise UsageError(f"the key cannot be read: {error}", where=str(path), fix=fix) from error
    if not isinstance(key, X25519PrivateKey):
        raise UsageError("the key is not X25519", where=str(path))
    return key


def new_key(path: Path) -> str:
    """Make a campaign's private key in a new file, mode 0600, and return the public half in hex.

    Raises:
        UsageError: The file exists, or cannot be written.
    """
    key = X25519PrivateKey.generate()
    if path.exists():
        raise UsageError("there is a file already", where=str(path), fix="name a new one: a key opens one campaign")
    try:
        durable.write(path, private_pem(key), mode=durable.PRIVATE)
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", where=str(path)) from error
    return key.public_key().public_bytes_raw().hex()


def private_pem(key: X25519PrivateKey) -> bytes:
    """Return a campaign's private key as the bytes of its file."""
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def unseal(sealed: bytes, key: X25519PrivateKey) -> tuple[dict[str, Any], bytes]:
    """Return facts (with device and number) and array of a sealed sample.

    Raises:
        MessageError: Malformed.
        SignatureError: Sealed to another key, or changed on the way.
    """
    public, head, body = split_sealed(sealed)
    try:
        shared = key.exchange(X25519PublicKey.from_public_bytes(public))
        salt = public + key.public_key().public_bytes_raw()
        derived = HKDF(hashes.SHA256(), 32, salt, b"strop capture 1").derive(shared)
        content = ChaCha20Poly1305(derived).decrypt(bytes(12), body, head)
    except (InvalidTag, ValueError) as error:
        raise SignatureError("sealed to another key, or changed on the way", where="sample") from error
    facts, array = split_content(content)
    named = canonical.loads(head, where="sample")
    if not isinstance(named, dict):
        raise MessageError("the head is no object", where="sample")
    return {**facts, "device": str(named.get("device")), "number": named.get("number")}, array


def write_npz(path: Path, samples: Iterable[tuple[dict[str, Any], bytes]]) -> int:
    """Write opened samples as one file that ``numpy.load`` reads; return how many.

    Arrays are named ``DEVICE_NUMBER``; ``index`` is a text array of one JSON line each: device, number, why, time, …
    """
    buffer, lines = io.BytesIO(), []
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for facts, array in samples:
            name = f"{facts['device']}_{facts['number']}"
            archive.writestr(f"{name}.npy", array)
            lines.append(json.dumps({"name": name, **{key: _plain(value) for key, value in facts.items()}}))
        archive.writestr("index.npy", _text_array(lines))
    durable.write(path, buffer.getvalue(), mode=durable.PRIVATE)
    return len(lines)


def _plain(value: Any) -> Any:
    try:
        return as_float(value) if isinstance(value, str) and value.startswith(("0x", "-0x")) else value
    except ContractError:
        return value


def _text_array(lines: list[str]) -> bytes:
    """Return lines as a one-dimensional array of text in ``.npy`` form, version 1.0; the server has no numpy."""
    width = max((len(line) for line in lines), default=0) or 1
    head = f"{{'descr': '<U{width}', 'fortran_order': False, 'shape': ({len(lines)},), }}"
    head += " " * (-(10 + len(head) + 1) % 64) + "\n"
    data = b"".join(line.ljust(width, "\0").encode("utf-32-le") for line in lines)
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode("latin1") + data
