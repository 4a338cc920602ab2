# SPDX-License-Identifier: Apache-2.0
"""The keys folder on the workstation: its files, and whether they fit together.

It holds ``root-<id>.key`` and ``targets-<id>.key`` (0600, PKCS#8 PEM, ed25519), ``root.json`` and every
``N.root.json`` before it, and ``targets.json``. It never goes to the server; only the two JSON files do.
"""

import datetime as dt
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets
from tuf.api.serialization import DeserializationError

from edge_contract import durable
from edge_contract.errors import SignatureError

__all__ = [
    "Rotation",
    "all_signers",
    "at",
    "delete_keys",
    "is_signed",
    "load",
    "new_key",
    "online_key",
    "require",
    "set_role",
    "signed",
    "signers",
    "store",
]

T = TypeVar("T", Root, Targets)


@dataclass(frozen=True)
class Rotation:
    """Bytes of the new root.json and targets.json; publish both."""

    root: bytes
    targets: bytes


def at(now: float | None) -> dt.datetime:
    """Return the whole second of a time, of the system's clock by default."""
    return dt.datetime.fromtimestamp(int(time.time() if now is None else now), dt.UTC)


def online_key(pem: bytes) -> SSlibKey:
    """Return the server's public key in PEM; raises SignatureError when it is not ed25519."""
    try:
        key = load_pem_public_key(pem)
    except ValueError as error:
        raise SignatureError("not a public key in PEM", where="online key", fix="give <data>/tuf/online.pub") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError("not an ed25519 key", where="online key", fix="give <data>/tuf/online.pub")
    return SSlibKey.from_crypto(key)


def new_key(folder: Path, role: str) -> CryptoSigner:
    """Make a private key and store it, readable by its owner alone."""
    signer = CryptoSigner.generate_ed25519()
    durable.write(_key_path(folder, role, signer), signer.private_bytes, mode=durable.PRIVATE)
    return signer


def _key_path(folder: Path, role: str, signer: CryptoSigner) -> Path:
    return folder / f"{role}-{signer.public_key.keyid[:12]}.key"


def set_role(root: Root, role: str, keys: list[SSlibKey], threshold: int) -> None:
    """Let exactly these keys, and so many of them, sign a role."""
    for keyid in list(root.roles[role].keyids):
        root.revoke_key(keyid, role)
    for key in keys:
        root.add_key(key, role)
    root.roles[role].threshold = threshold


def signed(payload: T, keys: list[CryptoSigner]) -> Metadata[T]:
    """Return metadata with the signature of every given key."""
    metadata = Metadata(payload)
    for key in keys:
        metadata.sign(key, append=True)
    return metadata


def store(folder: Path, root: Metadata[Root], targets: Metadata[Targets]) -> Rotation:
    """Write root.json, its numbered copy and targets.json, and return their bytes."""
    rotation = Rotation(root.to_bytes(), targets.to_bytes())
    durable.write(folder / f"{root.signed.version}.root.json", rotation.root)
    durable.write(folder / "root.json", rotation.root)
    durable.write(folder / "targets.json", rotation.targets)
    return rotation


def load(folder: Path) -> tuple[Metadata[Root], Metadata[Targets]]:
    """Return root and targets of a folder; raises SignatureError when they do not fit together."""
    root = _read(Root, folder / "root.json")
    targets = _read(Targets, folder / "targets.json")
    require(root.signed, "root", root, f"{folder}/root.json is not signed by its own keys")
    if not is_signed(root.signed, "targets", targets) and not _was_signed(folder, root.signed, targets):
        raise SignatureError("signed by nobody whom root.json names", where=f"{folder}/targets.json", fix="restore it")
    return root, targets


def _was_signed(folder: Path, root: Root, targets: Metadata[Targets]) -> bool:
    # A rotation that lost power between its two files leaves a new root beside targets of the one before.
    before = folder / f"{root.version - 1}.root.json"
    return before.exists() and is_signed(_read(Root, before).signed, "targets", targets)


def _read(kind: type[T], path: Path) -> Metadata[T]:
    try:
        metadata: Metadata[T] = Metadata.from_bytes(path.read_bytes())
    except OSError as error:
        fix = "make keys with 'strop export keys init'"
        raise SignatureError(f"cannot be read: {error.strerror}", where=str(path), fix=fix) from error
    except DeserializationError as error:
        raise SignatureError("not TUF metadata", where=str(path), fix="restore it from a copy") from error
    if metadata.signed.type != kind.type:
        raise SignatureError(f"is {metadata.signed.type} metadata, expected {kind.type}", where=str(path))
    return metadata


def is_signed(judge: Root, role: str, metadata: Metadata[T]) -> bool:
    """True if enough keys that a root names for a role have signed."""
    try:
        judge.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError):
        return False
    return True


def require(judge: Root, role: str, metadata: Metadata[T], otherwise: str) -> None:
    """Raise SignatureError with the text ``otherwise`` unless the metadata is signed."""
    if not is_signed(judge, role, metadata):
        needs = judge.roles[role].threshold
        raise SignatureError(otherwise, where=f"role {role}", fix=f"{needs} of its keys must sign")


def all_signers(folder: Path) -> list[CryptoSigner]:
    """Return every private key in the folder; raises SignatureError for a damaged one."""
    found = []
    for path in sorted(folder.glob("*.key")):
        try:
            found.append(CryptoSigner(load_pem_private_key(path.read_bytes(), None)))
        except (OSError, ValueError, TypeError) as error:
            raise SignatureError(
                f"not a private key: {error}", where=str(path), fix="restore it from a copy"
            ) from error
    return found


def signers(folder: Path, root: Root, role: str) -> list[CryptoSigner]:
    """Return the keys that sign a role; raises SignatureError when fewer are here than must sign."""
    wanted = root.roles[role].keyids
    found = [signer for signer in all_signers(folder) if signer.public_key.keyid in wanted]
    if len(found) < root.roles[role].threshold:
        fix = f"bring the {role} key that this root.json names"
        what = f"{len(found)} of its keys are here, {root.roles[role].threshold} must sign"
        raise SignatureError(what, where=f"{folder} role {role}", fix=fix)
    return found


def delete_keys(folder: Path, keyids: set[str]) -> None:
    """Delete the private keys of these ids; others are left alone."""
    for path in folder.glob("*.key"):
        if CryptoSigner(load_pem_private_key(path.read_bytes(), None)).public_key.keyid in keyids:
            path.unlink()
