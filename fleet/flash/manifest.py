# SPDX-License-Identifier: Apache-2.0
"""``strop/manifest.json`` on the boot partition: what was put there, with digests, and what the card is for.

It holds no secret. The enrolment token stands in it by name only: it leaves the card at the first boot. Digests of
files with a password's hash or a derived key say nothing about them to anybody who has not the file.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import ImageError, UsageError

__all__ = ["MANIFEST", "TOKEN", "Injected", "Manifest", "digest_of", "made_manifest"]

MANIFEST: Final = "strop/manifest.json"
TOKEN: Final = "strop/token"  # noqa: S105 - the name of a file
_SCHEMA: Final = "strop.flash/1"
_PIECE: Final = 1 << 20


@dataclass(frozen=True)
class Injected:
    """One file: its size in bytes and SHA-256; both absent for the token."""

    size: int | None
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a card carries.

    Attributes:
        format: First-boot format.
        mount: Where the board mounts the boot partition.
        instance: The card's own id.
        made: When, as ISO 8601.
        board: Hostname, user, network name and the like; nothing secret.
        base: What the base image was: name, SHA-256, what was verified.
        files: By path; those that begin with a slash lie in the root file system.
    """

    format: str
    mount: str
    instance: str
    made: str
    board: Mapping[str, Any]
    base: Mapping[str, Any]
    files: Mapping[str, Injected]

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        files = {path: {"size": one.size, "sha256": one.sha256} for path, one in sorted(self.files.items())}
        document = {
            "schema": _SCHEMA,
            "format": self.format,
            "mount": self.mount,
            "instance": self.instance,
            "made": self.made,
            "board": dict(self.board),
            "base": dict(self.base),
            "files": files,
        }
        return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Return it from JSON.

        Raises:
            ImageError: It is none, or of another version.
        """
        try:
            found = json.loads(data)
            if found["schema"] != _SCHEMA:
                raise ImageError(f"is of version {found['schema']!r}", where=MANIFEST, fix="update Strop")
            files = {str(path): Injected(one["size"], str(one["sha256"])) for path, one in found["files"].items()}
            return cls(
                format=str(found["format"]),
                mount=str(found["mount"]),
                instance=str(found["instance"]),
                made=str(found["made"]),
                board=dict(found["board"]),
                base=dict(found["base"]),
                files=files,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ImageError("is damaged", where=MANIFEST, fix="flash the card again") from error


def digest_of(pieces: Iterator[bytes]) -> Injected:
    """Return size and SHA-256 of pieces.

    Example:
        >>> digest_of(iter([b"a", b"bc"])).sha256[:8]
        'ba7816bf'
    """
    sha, size = hashlib.sha256(), 0
    for piece in pieces:
        sha.update(piece)
        size += len(piece)
    return Injected(size, sha.hexdigest())


def _pieces(source: bytes | Path) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    try:
        with source.open("rb") as file:
            yield from iter(lambda: file.read(_PIECE), b"")
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(source)) from error


def made_manifest(files: Mapping[str, bytes | Path]) -> dict[str, Injected]:
    """Return the digests of what is to be written."""
    return {
        path: Injected(None, "") if path.endswith(TOKEN) else digest_of(_pieces(source))
        for path, source in files.items()
    }
