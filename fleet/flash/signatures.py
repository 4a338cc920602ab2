# SPDX-License-Identifier: Apache-2.0
"""Is this the image that its maker published? Digest files, minisign, bare ed25519 and OpenPGP signatures.

minisign's format: J. Denis, minisign(1), "Signature format": ``Ed`` signs the file, ``ED`` its BLAKE2b-512. A bare
signature (64 bytes) is of the file itself. For ``Ed`` and bare ones the library needs the whole text at once, so what
they sign must be small: sign the digest file of an image and not the image. OpenPGP is left to ``sqv`` or ``gpg``.
"""

import base64
import binascii
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge_contract.errors import ImageError, MissingDependencyError, SignatureError, UsageError

__all__ = ["digest_in", "verify_signature"]

_MOST_WHOLE: Final = 64 << 20
_PIECE: Final = 1 << 20
_HEX: Final = re.compile(r"\\?([0-9a-fA-F]{64})(?:[ \t]+[* ]?(.+))?")


def _read(path: Path, most: int = 1 << 20) -> bytes:
    try:
        if path.stat().st_size > most:
            raise UsageError(f"has more than {most} bytes", where=str(path), fix="name the right file")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error


def digest_in(text: str, name: str, where: str) -> str:
    r"""Return the SHA-256 of a file by the text of a ``.sha256`` or ``SHA256SUMS`` file.

    Args:
        text: Its text: lines of ``sha256sum``, or one digest alone.
        name: The image's file name.
        where: What an error calls it.

    Raises:
        UsageError: It has no digest of this file.

    Example:
        >>> digest_in("ab" * 32 + "  pi.img.xz\n" + "cd" * 32 + "  other.img.xz", "other.img.xz", "SHA256SUMS")[:4]
        'cdcd'
    """
    found = [match for line in text.splitlines() if (match := _HEX.fullmatch(line.strip()))]
    named = [match[1] for match in found if match[2] and Path(match[2].strip()).name == name]
    if not named and len(found) == 1 and (not found[0][2] or len(text.splitlines()) == 1):
        named = [found[0][1]]
    if not named:
        raise UsageError(f"has no SHA-256 of '{name}'", where=where, fix="name the digest file of this image")
    return named[0].lower()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(lambda: file.read(_PIECE), b"")


def _whole(path: Path) -> bytes:
    if path.stat().st_size > _MOST_WHOLE:
        fix = "sign its digest file, or use minisign's prehashed form (its default)"
        raise SignatureError("a signature over a whole large file needs it in memory", where=str(path), fix=fix)
    return path.read_bytes()


def _ed25519(key: bytes, signature: bytes, message: bytes, where: str) -> None:
    # Imported here: most images are proved by a digest, and the library takes 10 MB.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise SignatureError(
            "the signature is not of this key and file", where=where, fix="fetch both again"
        ) from error


def _decode(line: str, where: str) -> bytes:
    try:
        return base64.b64decode(line, validate=True)
    except binascii.Error as error:
        raise SignatureError("a signature or key that is damaged", where=where) from error


def _minisign(signed: Path, signature: Path, key: Path) -> str:
    lines = _read(signature).decode("utf-8", "replace").splitlines()
    keys = [line for line in _read(key).decode("utf-8", "replace").splitlines() if not line.startswith("untrusted")]
    if len(lines) < 4 or not keys:
        raise SignatureError("is not a whole minisign signature", where=str(signature))
    body, public, end = _decode(lines[1], str(signature)), _decode(keys[0], str(key)), _decode(lines[3], str(signature))
    if len(body) != 74 or len(public) != 42 or public[:2] != b"Ed" or body[:2] not in {b"Ed", b"ED"}:
        raise SignatureError("is not minisign's", where=str(signature))
    if body[2:10] != public[2:10]:
        theirs, ours = body[2:10][::-1].hex().upper(), public[2:10][::-1].hex().upper()
        raise SignatureError(f"is by key {theirs}, not {ours}", where=str(signature), fix="name the right key")
    if body[:2] == b"ED":
        sha = hashlib.blake2b()
        for piece in _pieces(signed):
            sha.update(piece)
        message = sha.digest()
    else:
        message = _whole(signed)
    _ed25519(public[10:], body[10:], message, str(signature))
    comment = lines[2].removeprefix("trusted comment: ")
    _ed25519(public[10:], end, body[10:] + comment.encode(), str(signature))
    return f"minisign key {public[2:10][::-1].hex().upper()}"


def _bare_key(key: Path) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = _read(key)
    if b"BEGIN PUBLIC KEY" in data:
        try:
            found = load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise SignatureError("is no public key", where=str(key)) from error
        if isinstance(found, Ed25519PublicKey):
            return found.public_bytes_raw()
        raise SignatureError("is no ed25519 key", where=str(key))
    text = data.strip()
    if len(text) == 64:
        return bytes.fromhex(text.decode("ascii"))
    if len(data) == 32:
        return data
    raise SignatureError("is no ed25519 key", where=str(key), fix="give PEM, 64 hexadecimal digits or 32 bytes")


def _openpgp(signed: Path, signature: Path, keyring: Path) -> str:
    sqv, gpg = shutil.which("sqv"), shutil.which("gpg")
    if sqv:
        done = subprocess.run([sqv, "--keyring", keyring, signature, signed], capture_output=True, text=True)
        if done.returncode == 0:
            return f"OpenPGP key {done.stdout.split()[-1] if done.stdout else '?'} (sqv)"
        raise SignatureError("the OpenPGP signature is not good", where=str(signature), fix="fetch both again")
    if not gpg:
        raise MissingDependencyError("an OpenPGP signature needs sqv or gpg", fix="run: apt-get install sqv")
    return _gpg(gpg, signed, signature, keyring)


def _gpg(gpg: str, signed: Path, signature: Path, keyring: Path) -> str:
    """Check with a key ring of its own, so that no key of this person's counts."""
    with tempfile.TemporaryDirectory() as home:
        base = [gpg, "--homedir", home, "--batch", "--no-tty"]
        done = subprocess.run([*base, "--import", keyring], capture_output=True, text=True)
        if done.returncode:
            raise SignatureError("holds no OpenPGP key", where=str(keyring))
        words = [*base, "--status-fd", "1", "--trust-model", "always", "--verify", str(signature), str(signed)]
        done = subprocess.run(words, capture_output=True, text=True)
        found = re.search(r"^\[GNUPG:\] VALIDSIG ([0-9A-F]+)", done.stdout, re.MULTILINE)
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], capture_output=True)
    if done.returncode or not found:
        raise SignatureError("the OpenPGP signature is not good", where=str(signature), fix="fetch both again")
    return f"OpenPGP key {found[1]} (gpg)"


def verify_signature(signed: Path, signature: Path, key: Path) -> str:
    """Check a detached signature of a file; return by which key and kind, for people.

    Args:
        signed: What was signed: an image as it is published, or its digest file.
        signature: minisign's ``.minisig``, 64 bytes of ed25519, or OpenPGP's ``.asc`` and ``.sig``.
        key: The public key of the maker, of the same kind.

    Raises:
        SignatureError: It is not of this key and file.
        MissingDependencyError: OpenPGP without ``sqv`` and ``gpg``.
        UsageError: A file that cannot be read.
    """
    data = _read(signature)
    try:
        if data.startswith(b"untrusted comment:"):
            return _minisign(signed, signature, key)
        if len(data) == 64:
            public = _bare_key(key)
            _ed25519(public, data, _whole(signed), str(signature))
            return f"ed25519 key {public[:4].hex()}…"
        return _openpgp(signed, signature, key)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}", where=str(signed)) from error
