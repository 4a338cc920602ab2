# SPDX-License-Identifier: Apache-2.0
"""Which patches the server offers towards a file: ``GET /deltas/<sha256 of the file>`` on the devices' listener.

The answer needs no signature: a lie costs some bytes, because the file that a patch gives is believed only by the
SHA-256 that the signed targets name. So every entry is bounded here, and nothing else is asked of it. The patches
themselves are blobs of their own below ``/deltas/blobs/<sha256>``, served with Range like all others.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from edge_contract import canonical
from edge_contract.errors import MessageError
from edge_contract.fields import Fields
from edge_contract.manifest import BundleFile, Manifest

__all__ = [
    "CODECS",
    "EMPTY",
    "EVENT",
    "MAX_INDEX_BYTES",
    "MAX_OFFERS",
    "MIN_BYTES",
    "Offer",
    "offers_from",
    "offers_to_bytes",
    "partner",
]

SCHEMA: Final = "strop.deltas/1"
CODECS: Final = ("tensors", "zstd-prefix", "zstd")
MAX_OFFERS: Final = 32
MAX_INDEX_BYTES: Final = 16_384
MIN_BYTES: Final = 4096
"""Smaller files are fetched sooner than a patch is asked for."""
EMPTY: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""SHA-256 of no bytes: the base of the codec ``zstd``, which every device holds."""
EVENT: Final = "fetched"
"""Kind of the event in which a device says how it got a file; with ``failed`` set, the pair is blocked for all."""


@dataclass(frozen=True)
class Offer:
    """One patch: the base that it needs, its codec, its SHA-256 and its size in bytes."""

    base: str
    codec: str
    sha256: str
    size: int

    def to_json(self) -> dict[str, Any]:
        return {"base": self.base, "codec": self.codec, "sha256": self.sha256, "size": self.size}

    @classmethod
    def from_json(cls, document: Any, where: str) -> "Offer":
        f = Fields(document, where, MessageError)
        codec = f.text("codec", among=CODECS)
        return cls(f.digest("base"), codec, f.digest("sha256"), f.integer("size", minimum=1))


def offers_to_bytes(target: str, offers: Iterable[Offer]) -> bytes:
    """Return the list of patches towards a file; only the first ``MAX_OFFERS`` are told.

    Example:
        >>> offer = Offer(EMPTY, "zstd", "ab" * 32, 9)
        >>> offers_from(offers_to_bytes("cd" * 32, [offer]), "cd" * 32) == (offer,)
        True
    """
    listed = [offer.to_json() for offer in list(offers)[:MAX_OFFERS]]
    return canonical.dumps({"schema": SCHEMA, "target": target, "patches": listed})


def offers_from(data: bytes, target: str) -> tuple[Offer, ...]:
    """Return the offers in a server's answer.

    Raises:
        MessageError: Too long, malformed, or about another file.
    """
    if len(data) > MAX_INDEX_BYTES:
        raise MessageError(f"{len(data)} bytes, more than {MAX_INDEX_BYTES}", where="deltas")
    f = Fields(canonical.loads(data, where="deltas"), "deltas", MessageError)
    if f.text("schema") != SCHEMA or f.digest("target") != target:
        raise MessageError("of another schema or about another file", where="deltas")
    found = f.items("patches")
    if len(found) > MAX_OFFERS:
        raise MessageError(f"{len(found)} patches, more than {MAX_OFFERS}", where="deltas")
    return tuple(Offer.from_json(entry, f"deltas.patches[{i}]") for i, entry in enumerate(found))


def partner(old: Manifest, new: Manifest, entry: BundleFile) -> BundleFile | None:
    """Return the file of an older bundle that is most like one of a newer one: of the same path, or of its format.

    An artefact's partner is the one for the same target and format, if the path has changed.
    """
    same = next((f for f in old.files if f.path == entry.path), None)
    ours = next((a for a in new.artefacts if a.path == entry.path), None)
    if same is not None or ours is None:
        return same
    able = [a for a in old.artefacts if a.format == ours.format]
    mate = next((a for a in able if a.target == ours.target), able[0] if able else None)
    return old.file(mate.path) if mate else None
