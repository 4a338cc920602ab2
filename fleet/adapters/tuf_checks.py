# SPDX-License-Identifier: Apache-2.0
"""What the server asks of a root.json and a targets.json before it shows them to a device.

A device checks all of it again and trusts none of this; the server checks so that an operator hears of a
mistake at once, in one line, and no device ever does.
"""

import datetime as dt
from pathlib import Path
from typing import TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from edge_contract import delegations
from edge_contract.errors import SignatureError

__all__ = ["T", "at", "checked_root", "checked_targets", "parse", "read", "refuse_expired", "teams_of", "verify"]

T = TypeVar("T", Root, Snapshot, Targets, Timestamp)


def checked_root(data: bytes, old: Root | None, now: float) -> Metadata[Root]:
    """Return a root that may follow the old one.

    Raises:
        SignatureError: Malformed, out of order, not signed by enough keys of both, or expired.
    """
    where = "root.json"
    new = parse(Root, data, where)
    version = new.signed.version
    if old is not None and version != old.version + 1:
        fix = f"install {old.version + 1}.root.json first" if version > old.version else "it is an old one"
        raise SignatureError(f"version {version} does not follow {old.version}", where=where, fix=fix)
    for judge in [new.signed] if old is None else [old, new.signed]:
        verify(judge, "root", new, where)
    if not new.signed.consistent_snapshot:
        raise SignatureError("consistent_snapshot is off", where=where, fix="make it with 'strop export keys init'")
    refuse_expired(new.signed, now, where)
    return new


def checked_targets(data: bytes, root: Root, published: int, now: float) -> Metadata[Targets]:
    """Return targets that may follow version ``published`` (0: none yet).

    Raises:
        SignatureError: Malformed, signed by a foreign key, not newer, expired, or a target that is not
            ``blobs/<its SHA-256>``.
    """
    where = "targets.json"
    targets = parse(Targets, data, where)
    verify(root, "targets", targets, where)
    version = targets.signed.version
    if version <= published:
        fix = "sign again, starting from the published targets.json"
        raise SignatureError(f"version {version} is not newer than {published}", where=where, fix=fix)
    refuse_expired(targets.signed, now, where)
    for path, target in targets.signed.targets.items():
        if path != f"blobs/{target.hashes.get('sha256', '')}":
            raise SignatureError(f"target '{path[:80]}' is not blobs/<its SHA-256>", where=where)
    for name, role in teams_of(targets.signed).items():
        _check_team(name, role, where)
    return targets


def teams_of(targets: Targets | None) -> dict[str, DelegatedRole]:
    """Return the teams to which targets delegate models, by name."""
    found = targets.delegations if targets else None
    return dict(found.roles or {}) if found else {}


def _check_team(name: str, role: DelegatedRole, where: str) -> None:
    fix = "delegate with 'strop export keys delegate'"
    if not delegations.is_team(name):
        raise SignatureError(f"'{name[:40]}' is not a team's name", where=where, fix=fix)
    for path in role.paths or [""]:
        head, _, rest = path.partition("/")
        pattern, _, tail = rest.partition("/")
        if (head, tail) != (delegations.MODELS, "*") or not delegations.is_pattern(pattern):
            raise SignatureError(f"team '{name}' is given '{path[:80]}', not models/<pattern>/*", where=where, fix=fix)


def at(now: float) -> dt.datetime:
    """Return the whole second of a time, as TUF writes it."""
    return dt.datetime.fromtimestamp(int(now), dt.UTC)


def refuse_expired(signed: Root | Targets, now: float, where: str) -> None:
    """Raise SignatureError for metadata whose time is over."""
    if signed.is_expired(at(now)):
        fix = "sign it anew with 'strop export keys rotate'"
        raise SignatureError(f"expired on {signed.expires:%Y-%m-%d}", where=where, fix=fix)


def parse(kind: type[T], data: bytes, where: str) -> Metadata[T]:
    """Return metadata of a kind; raises SignatureError for other bytes."""
    try:
        metadata: Metadata[T] = Metadata.from_bytes(data)
    except DeserializationError as error:
        raise SignatureError("not TUF metadata", where=where, fix="make it with 'strop export keys'") from error
    if metadata.signed.type != kind.type:
        raise SignatureError(f"is {metadata.signed.type} metadata, expected {kind.type}", where=where)
    return metadata


def read(kind: type[T], path: Path) -> Metadata[T] | None:
    """Return the metadata of a file, or None when there is no such file."""
    try:
        return parse(kind, path.read_bytes(), str(path))
    except FileNotFoundError:
        return None


def verify(judge: Root | Targets, role: str, metadata: Metadata[T], where: str) -> None:
    """Raise SignatureError unless the keys that ``judge`` names for a role have signed."""
    try:
        judge.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        fix = f"sign it with the {role} keys of this fleet's root.json"
        raise SignatureError("signed by nobody whom we trust", where=where, fix=fix) from error
