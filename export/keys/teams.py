# SPDX-License-Identifier: Apache-2.0
"""Keys of teams: each signs the models of its family and no others.

A team's folder holds ``<team>-<id>.key`` (0600), ``<team>.pub``, ``<team>.json`` (its signed targets) and ``team.json``
(its name and patterns). The fleet's keys folder delegates ``models/<pattern>/*`` to the team's public key; the team
never needs the fleet's keys, nor the fleet the team's.
"""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Key, Metadata, TargetFile, Targets
from tuf.api.serialization import DeserializationError

from edge_contract import durable
from edge_contract.delegations import is_pattern, is_team, may_sign, name_of, path_of
from edge_contract.errors import SignatureError, UsageError
from export.keys.folder import all_signers, at, delete_keys, load, new_key, online_key, signed, signers
from export.keys.signing import LIFE, checked_bundle, describe_keys, sign_bundle

__all__ = [
    "create_team",
    "delegate",
    "describe",
    "describe_team",
    "is_team_folder",
    "sign",
    "sign_for_team",
    "withdraw_for_team",
]

_TEAM_FILE: Final = "team.json"


def is_team_folder(folder: Path) -> bool:
    """True if a folder holds a team's keys, not the fleet's."""
    return (folder / _TEAM_FILE).is_file()


def sign(folder: Path, bundle: Path, *, now: float | None = None) -> bytes:
    """Sign a bundle with a folder's keys, the fleet's or a team's; raises as ``sign_bundle``, ``sign_for_team``."""
    return (sign_for_team if is_team_folder(folder) else sign_bundle)(folder, bundle, now=now)


def describe(folder: Path) -> dict[str, Any]:
    """Return what a keys folder holds, the fleet's or a team's; raises SignatureError."""
    return (describe_team if is_team_folder(folder) else describe_keys)(folder)


def create_team(folder: Path, team: str, models: Sequence[str], *, now: float | None = None) -> bytes:
    """Make a team's key and its first metadata, or replace the key of a team that is there; return its public half.

    Raises:
        UsageError: Not a team's name, or not patterns on model names.
        SignatureError: The folder holds other keys.
    """
    _check(team, models)
    if (folder / "root.json").exists() or (is_team_folder(folder) and _read_team(folder)[0] != team):
        raise SignatureError("other keys are here already", where=str(folder), fix="choose an empty folder")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    old = _load(folder, team) if is_team_folder(folder) else None
    retired = {signer.public_key.keyid for signer in all_signers(folder)}
    signer = new_key(folder, team)
    files = dict(old.signed.targets) if old else {}
    _store(folder, team, files, old, signer=signer, now=now)
    public = _public(signer)
    durable.write(folder / f"{team}.pub", public)
    durable.write(folder / _TEAM_FILE, json.dumps({"team": team, "models": list(models)}).encode() + b"\n")
    delete_keys(folder, retired)
    return public


def sign_for_team(folder: Path, bundle: Path, *, now: float | None = None) -> bytes:
    """Add a bundle's files and manifest to a team's targets and return the new ``<team>.json``.

    Signing again what is signed already returns the same bytes, unless half of their life is over.

    Raises:
        BundleError: A file of the bundle is missing or is not what the manifest says.
        SignatureError: The key is missing, or the bundle is of a model that is not the team's.
    """
    manifest, size = checked_bundle(bundle)
    team, models = _read_team(folder)
    if not may_sign(map(path_of, models), manifest.model):
        fix = "let the team that has this model sign it, or the fleet's own keys"
        what = f"team '{team}' signs {', '.join(models)}, not '{manifest.model}'"
        raise SignatureError(what, where=str(bundle), fix=fix)
    old = _load(folder, team)
    files = sorted({entry.sha256 for entry in manifest.files})
    wanted = dict(_target(manifest.model, entry.sha256, entry.size) for entry in manifest.files)
    custom = {"model": manifest.model, "version": manifest.version, "files": files}
    wanted |= dict([_target(manifest.model, manifest.bundle_id, size, custom)])
    known = old.signed.targets
    is_known = all(known.get(path) == target for path, target in wanted.items())
    if is_known and old.signed.expires - at(now) > LIFE / 2:
        return old.to_bytes()
    return _store(folder, team, {**known, **wanted}, old, signer=_signer(folder, team), now=now)


def withdraw_for_team(folder: Path, bundle_id: str, *, now: float | None = None) -> bytes:
    """Take a bundle out of a team's targets; files of its other bundles of the same model stay.

    Raises:
        SignatureError: The team signed no such bundle, or its key is missing.
    """
    team, _ = _read_team(folder)
    old = _load(folder, team)
    bundles = _bundles(old.signed)
    gone = next((path for path in bundles if path.rpartition("/")[2] == bundle_id), None)
    if gone is None:
        raise SignatureError(f"no bundle {bundle_id[:16]} is signed", where=str(folder), fix="see 'keys show'")
    model = bundles[gone]["model"]
    going = {gone, *(name_of(model, sha256) for sha256 in bundles[gone]["files"])}
    for path, custom in bundles.items():
        if path != gone:
            going -= {path, *(name_of(custom["model"], sha256) for sha256 in custom["files"])}
    staying = {path: target for path, target in old.signed.targets.items() if path not in going}
    return _store(folder, team, staying, old, signer=_signer(folder, team), now=now)


def delegate(keys: Path, team: str, models: Sequence[str], public: bytes | None, *, now: float | None = None) -> bytes:
    """Let a team's key sign the models that fit patterns, or nothing any more, and return the new targets.json.

    Args:
        keys: The fleet's keys folder.
        team: Name of the team; one that is delegated already gets the new key and patterns.
        models: Patterns on model names.
        public: The team's public key in PEM; None ends the delegation.
        now: Seconds since 1970, the system's clock by default.

    Raises:
        UsageError: Not a team's name, or not patterns on model names.
        SignatureError: Not an ed25519 key, another team's key, or no such delegation to end.
    """
    root, old = load(keys)
    roles, known = _delegated(old.signed)
    if public is None:
        if roles.pop(team, None) is None:
            raise SignatureError(f"team '{team}' signs nothing here", where=str(keys), fix="see 'keys show'")
    else:
        _check(team, models)
        key = online_key(public)
        if any(key.keyid in role.keyids for name, role in roles.items() if name != team):
            raise SignatureError("another team has this key", where=f"team {team}", fix="give each team its own")
        roles[team] = DelegatedRole(team, [key.keyid], 1, False, [path_of(one) for one in models])
        known = {**known, key.keyid: key}
    used = {keyid for role in roles.values() for keyid in role.keyids}
    delegations = Delegations({k: v for k, v in known.items() if k in used}, roles) if roles else None
    targets = Targets(
        old.signed.version + 1, expires=at(now) + LIFE, targets=old.signed.targets, delegations=delegations
    )
    data = signed(targets, signers(keys, root.signed, "targets")).to_bytes()
    durable.write(keys / "targets.json", data)
    return data


def describe_team(folder: Path) -> dict[str, Any]:
    """Return what a team's folder holds, as plain values; raises SignatureError where it cannot be read."""
    team, models = _read_team(folder)
    metadata = _load(folder, team)
    bundles = [
        {"bundle": path.rpartition("/")[2], "model": custom["model"], "version": custom["version"]}
        for path, custom in _bundles(metadata.signed).items()
    ]
    return {
        "team": team,
        "models": models,
        "targets": {"version": metadata.signed.version, "expires": metadata.signed.expires.isoformat()},
        "keys": [signer.public_key.keyid for signer in all_signers(folder)],
        "bundles": sorted(bundles, key=lambda b: (b["model"], b["version"], b["bundle"])),
    }


def _check(team: str, models: Sequence[str]) -> None:
    if not is_team(team):
        raise UsageError(f"{team[:40]!r} is not a team's name", fix="use small letters, digits and '-', at most 32")
    bad = next((one for one in models if not is_pattern(one)), None if models else "")
    if bad is not None:
        raise UsageError(f"{bad[:70]!r} is not a pattern on model names", fix="such as --model 'vision-*'")


def _delegated(targets: Targets) -> tuple[dict[str, DelegatedRole], Mapping[str, Key]]:
    found = targets.delegations
    return (dict(found.roles or {}), found.keys) if found else ({}, {})


def _read_team(folder: Path) -> tuple[str, list[str]]:
    path = folder / _TEAM_FILE
    try:
        said = json.loads(path.read_bytes())
        return str(said["team"]), [str(one) for one in said["models"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "make it with 'strop export keys team'"
        raise SignatureError(f"cannot be read: {error}", where=str(path), fix=fix) from error


def _load(folder: Path, team: str) -> Metadata[Targets]:
    path = folder / f"{team}.json"
    try:
        found: Metadata[Targets] = Metadata.from_bytes(path.read_bytes())
    except (OSError, DeserializationError) as error:
        raise SignatureError(f"cannot be read: {error}", where=str(path), fix="restore it from a copy") from error
    return found


def _signer(folder: Path, team: str) -> CryptoSigner:
    found = [one for one in all_signers(folder) if (folder / f"{team}-{one.public_key.keyid[:12]}.key").exists()]
    if len(found) != 1:
        raise SignatureError(f"{len(found)} keys of team '{team}' are here", where=str(folder), fix="restore its key")
    return found[0]


def _store(
    folder: Path,
    team: str,
    files: Mapping[str, TargetFile],
    old: Metadata[Targets] | None,
    *,
    signer: CryptoSigner,
    now: float | None,
) -> bytes:
    expires: dt.datetime = at(now) + LIFE
    data = signed(Targets(old.signed.version + 1 if old else 1, expires=expires, targets=dict(files)), [signer])
    durable.write(folder / f"{team}.json", data.to_bytes())
    return data.to_bytes()


def _public(signer: CryptoSigner) -> bytes:
    key = load_pem_private_key(signer.private_bytes, None)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _target(model: str, sha256: str, size: int, custom: dict[str, Any] | None = None) -> tuple[str, TargetFile]:
    name = name_of(model, sha256)
    return name, TargetFile(size, {"sha256": sha256}, name, {} if custom is None else {"custom": custom})


def _bundles(targets: Targets) -> dict[str, dict[str, Any]]:
    return {path: target.custom for path, target in targets.targets.items() if target.custom}
