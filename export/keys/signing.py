# SPDX-License-Identifier: Apache-2.0
"""The workstation's half of trust: offline root and targets keys, and what they sign.

``export.keys.folder`` knows the files; here is what is done with them.

Targets are cumulative: each signing adds the blobs of one bundle under ``blobs/<sha256>`` and raises the
version. Going back to an older bundle is therefore a newer version, never an older file.
"""

import datetime as dt
from pathlib import Path
from typing import Any, Final

from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from edge_contract import canonical, durable
from edge_contract.errors import BundleError, ContractError, SignatureError, UsageError
from edge_contract.manifest import MANIFEST_NAME
from edge_contract.software import AnyManifest, read
from export.keys.folder import (
    Rotation,
    all_signers,
    at,
    delete_keys,
    is_signed,
    load,
    new_key,
    online_key,
    require,
    set_role,
    signed,
    signers,
    store,
)

__all__ = [
    "LIFE",
    "Rotation",
    "checked_bundle",
    "create_keys",
    "describe_keys",
    "rotate_keys",
    "sign_bundle",
    "withdraw_bundle",
]

LIFE: Final = dt.timedelta(days=365)
"""Life of root and targets: they are signed by hand, so once a year must do."""


def create_keys(
    folder: Path, online_public: bytes, *, now: float | None = None, root_keys: int = 1, threshold: int = 1
) -> bytes:
    """Make root and targets keys and return the first root.json.

    Args:
        folder: Where the keys will live; made when it does not exist.
        online_public: The server's online key in PEM (``<data>/tuf/online.pub``), for snapshot and timestamp.
        now: Seconds since 1970, the system's clock by default.
        root_keys, threshold: How many root keys there are, and how many of them must sign a root.

    Raises:
        SignatureError: The folder holds keys already (they are left as they are), or no ed25519 key was given.
        UsageError: A threshold that the keys cannot reach.
    """
    if not 1 <= threshold <= root_keys:
        raise UsageError(f"threshold {threshold} of {root_keys} root keys", fix="1 <= threshold <= root keys")
    if (folder / "root.json").exists():
        raise SignatureError("keys are here already", where=str(folder), fix="use them, or choose an empty folder")
    online = online_key(online_public)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    when, roots = at(now), [new_key(folder, "root") for _ in range(root_keys)]
    targets_key = new_key(folder, "targets")
    root = Root(1, expires=when + LIFE, consistent_snapshot=True)
    set_role(root, "root", [signer.public_key for signer in roots], threshold)
    set_role(root, "targets", [targets_key.public_key], 1)
    set_role(root, "snapshot", [online], 1)
    set_role(root, "timestamp", [online], 1)
    targets = signed(Targets(1, expires=when + LIFE), [targets_key])
    return store(folder, signed(root, roots), targets).root


def sign_bundle(folder: Path, bundle: Path, *, now: float | None = None) -> bytes:
    """Add a bundle's files and manifest to the targets and return the new targets.json.

    Signing again what is signed already returns the same bytes, unless half of their life is over.

    Args:
        folder: The keys folder.
        bundle: The bundle's folder, with ``manifest.json``.
        now: Seconds since 1970, the system's clock by default.

    Raises:
        BundleError: A file of the bundle is missing or is not what the manifest says.
        SignatureError: The keys are missing, or are not those that root.json names.
    """
    manifest, size = checked_bundle(bundle)
    root, targets = load(folder)
    wanted = {f"blobs/{entry.sha256}": _target(entry.sha256, entry.size) for entry in manifest.files}
    # The list of files rides along, so that one refresh tells a device about the whole bundle.
    files = sorted({entry.sha256 for entry in manifest.files})
    custom = {"model": manifest.model, "version": manifest.version, "files": files}
    wanted[f"blobs/{manifest.bundle_id}"] = _target(manifest.bundle_id, size, custom)
    known = targets.signed.targets
    is_known = all(known.get(path) == target for path, target in wanted.items())
    if is_known and targets.signed.expires - at(now) > LIFE / 2 and is_signed(root.signed, "targets", targets):
        return targets.to_bytes()
    return _sign_targets(folder, root, targets, {**known, **wanted}, at(now))


def withdraw_bundle(folder: Path, bundle_id: str, *, now: float | None = None) -> bytes:
    """Take a bundle out of the targets and return the new targets.json; files of other bundles stay.

    No device can install it from then on. One that runs it goes on: sending another model there is a rollout's work.

    Raises:
        SignatureError: The targets name no such bundle, or the keys are not those that root.json names.
    """
    root, targets = load(folder)
    known = dict(targets.signed.targets)
    bundles = _bundles(targets.signed)
    if bundle_id not in bundles:
        raise SignatureError(
            f"no bundle {bundle_id[:16]} is signed", where=str(folder), fix="see 'strop export keys show'"
        )
    going = {bundle_id, *bundles.pop(bundle_id)["files"]}
    going -= {file for custom in bundles.values() for file in custom["files"]}
    staying = {path: target for path, target in known.items() if path.removeprefix("blobs/") not in going}
    return _sign_targets(folder, root, targets, staying, at(now))


def rotate_keys(
    folder: Path,
    *,
    new_targets: bool = False,
    new_root: bool = False,
    online_public: bytes | None = None,
    now: float | None = None,
) -> Rotation:
    """Write the next root, signed by the old and the new root keys, and targets signed to match.

    Without any choice only the dates are renewed. Retired private keys are deleted at the end.

    Args:
        folder: The keys folder.
        new_targets, new_root: Replace the targets key; replace every root key.
        online_public: The server's new online key in PEM.
        now: Seconds since 1970, the system's clock by default.

    Raises:
        SignatureError: Too few root keys are in the folder, or no ed25519 key was given.
    """
    root, targets = load(folder)
    online = online_key(online_public) if online_public is not None else None
    old = signers(folder, root.signed, "root")
    roots = [new_key(folder, "root") for _ in root.signed.roles["root"].keyids] if new_root else old
    new = Metadata[Root].from_bytes(root.to_bytes()).signed
    new.version, new.expires = new.version + 1, at(now) + LIFE
    if new_root:
        set_role(new, "root", [signer.public_key for signer in roots], new.roles["root"].threshold)
    if new_targets:
        set_role(new, "targets", [new_key(folder, "targets").public_key], 1)
    for role in ("snapshot", "timestamp") if online else ():
        set_role(new, role, [online], 1)
    next_root = signed(new, [*old, *roots])
    require(root.signed, "root", next_root, f"too few of the root keys are in {folder}")
    require(new, "root", next_root, f"too few of the root keys are in {folder}")
    next_targets = _next(targets.signed, targets.signed.targets, at(now))
    rotation = store(folder, next_root, signed(next_targets, signers(folder, new, "targets")))
    delete_keys(folder, _keyids(root.signed) - _keyids(new))
    return rotation


def describe_keys(folder: Path) -> dict[str, Any]:
    """Return what a keys folder holds, as plain values: roles, versions, expiries, bundles.

    Raises:
        SignatureError: The folder holds no keys, or they do not fit together.
    """
    root, targets = load(folder)
    held = {signer.public_key.keyid for signer in all_signers(folder)}
    roles = {
        name: {"threshold": role.threshold, "keys": {keyid: keyid in held for keyid in role.keyids}}
        for name, role in root.signed.roles.items()
    }
    bundles = [
        {"bundle": bundle, "model": custom["model"], "version": custom["version"]}
        for bundle, custom in _bundles(targets.signed).items()
    ]
    return {
        "roles": roles,
        "root": {"version": root.signed.version, "expires": root.signed.expires.isoformat()},
        "targets": {"version": targets.signed.version, "expires": targets.signed.expires.isoformat()},
        "teams": _teams(targets.signed),
        "bundles": sorted(bundles, key=lambda b: (b["model"], b["version"], b["bundle"])),
    }


def _teams(targets: Targets) -> dict[str, dict[str, Any]]:
    roles = (targets.delegations.roles if targets.delegations else None) or {}
    return {name: {"keys": list(role.keyids), "paths": list(role.paths or [])} for name, role in roles.items()}


def _keyids(root: Root) -> set[str]:
    return {keyid for role in root.roles.values() for keyid in role.keyids}


def _sign_targets(
    folder: Path, root: Metadata[Root], old: Metadata[Targets], files: dict[str, TargetFile], when: dt.datetime
) -> bytes:
    keys = signers(folder, root.signed, "targets")
    data = signed(_next(old.signed, files, when), keys).to_bytes()
    durable.write(folder / "targets.json", data)
    return data


def _next(old: Targets, files: dict[str, TargetFile], when: dt.datetime) -> Targets:
    """The next version with other files; what teams may sign stays."""
    return Targets(old.version + 1, expires=when + LIFE, targets=files, delegations=old.delegations)


def _target(sha256: str, size: int, custom: dict[str, Any] | None = None) -> TargetFile:
    extra = {} if custom is None else {"custom": custom}
    return TargetFile(size, {"sha256": sha256}, f"blobs/{sha256}", extra)


def _bundles(targets: Targets) -> dict[str, dict[str, Any]]:
    named = {path.removeprefix("blobs/"): target.custom for path, target in targets.targets.items()}
    return {sha256: custom for sha256, custom in named.items() if custom}


def checked_bundle(bundle: Path) -> tuple[AnyManifest, int]:
    """Return a bundle's manifest and its size in bytes; raises BundleError unless every file is what it says."""
    where = f"{bundle}/{MANIFEST_NAME}"
    try:
        data = (bundle / MANIFEST_NAME).read_bytes()
        manifest = read(data)
        for entry in manifest.files:
            where = f"{bundle}/{entry.path}"
            content = (bundle / entry.path).read_bytes()
            if len(content) != entry.size or canonical.digest(content) != entry.sha256:
                raise BundleError("is not what the manifest says", where=where, fix="build the bundle again")
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror}", where=where, fix="build the bundle again") from error
    except ContractError as error:
        raise BundleError(str(error), where=where, fix="build the bundle again") from error
    return manifest, len(data)
