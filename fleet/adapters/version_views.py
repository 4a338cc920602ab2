# SPDX-License-Identifier: Apache-2.0
"""What is shown of versions beside their manifest: channels, judgements, evidence, family, search, differences."""

from typing import Any

from edge_contract import canonical
from edge_contract.errors import RegistryError, StropError, UsageError
from edge_contract.profile import ReferenceProfile
from fleet.adapters import channels, tables, version_evidence
from fleet.adapters.blobs import Blobs
from fleet.adapters.database import Connection
from fleet.adapters.promotion_verbs import outcomes
from fleet.adapters.release_verbs import known_version, uses
from fleet.core.lineage import accuracy, checks_passed, difference, facts, parent, relatives, waivers
from fleet.core.query import parse
from fleet.core.registry import ModelVersion

__all__ = ["channels_json", "compared", "family", "found_by", "models_json", "version_json"]


def channels_json(db: Connection, model: str = "", *, history: int = 100) -> list[dict[str, Any]]:
    """Return each model's channels with what stands there, and the newest moves; of one model or of all.

    Raises:
        RegistryError: Nobody knows the model.
    """
    names = {version.bundle: version.version for version in tables.models(db)}
    standing = channels.standing(db, model)
    if model and model not in standing and not channels.usable(db, model):
        raise RegistryError(f"no model '{model[:63]}'", fix="strop fleet model list")
    rows = []
    for name in sorted(standing) or ([model] if model else []):
        held = {
            channel: {"bundle": bundle, "version": names.get(bundle, ""), "since": since}
            for channel, (bundle, since) in standing.get(name, {}).items()
        }
        moves = [
            {**move.to_json(), "old_version": names.get(move.old, ""), "new_version": names.get(move.new, "")}
            for move in channels.moves(db, name, limit=history)
        ]
        rows.append({"model": name, "channels": held, "history": moves})
    return rows


def models_json(db: Connection) -> list[dict[str, Any]]:
    """Return all registered versions, newest first: where each stands and which devices run it."""
    running: dict[tuple[str, str], list[str]] = {}
    for record in tables.devices(db):
        for model, bundle in record.running.items():
            running.setdefault((model, bundle), []).append(record.device)
    standing, gone = channels.standing(db), channels.retired(db)
    return [
        {
            **one.to_json(),
            "running_on": running.get((one.model, one.bundle), []),
            "channels": [name for name, held in standing.get(one.model, {}).items() if held[0] == one.bundle],
            "retired": one.bundle in gone,
        }
        for one in tables.models(db)
    ]


def version_json(db: Connection, model: str, version: str) -> dict[str, Any]:
    """Return all about one version; raises RegistryError if it is not known."""
    one = known_version(db, model, version)
    score, gone = accuracy(one), channels.retired(db).get(one.bundle)
    return {
        **one.to_json(),
        "registered_by": channels.registered_by(db, one.bundle),
        "channels": channels.channels_of(db, one.bundle),
        "retired": {"at": gone[0], "reason": gone[1]} if gone else None,
        "accuracy": score.to_json() if score else None,
        "parent": parent(one),
        "checks": {"passed": checks_passed(one), "waived": waivers(one)},
        "rules": plain_outcomes(outcomes(db, one.bundle)),
        "evidence": version_evidence.attached(db, one.bundle),
        "uses": uses(db, one),
    }


def plain_outcomes(found: dict[str, Any]) -> dict[str, Any]:
    """Return stored judgements with numbers in place of their canonical texts."""
    for judged in found.values():
        for outcome in judged["outcomes"]:
            for key in ("found", "asked"):
                outcome[key] = None if outcome[key] is None else canonical.as_float(outcome[key])
    return found


def family(db: Connection, model: str, version: str) -> list[dict[str, Any]]:
    """Return the family tree of a version: ancestors, itself, descendants, with their digests and scores."""
    one, versions = known_version(db, model, version), tables.models(db)
    known = {v.bundle: v for v in versions}
    return [
        {"bundle": r.bundle, "depth": r.depth, "known": r.known, **(_summary(db, known[r.bundle]) if r.known else {})}
        for r in relatives(versions, one.bundle)
    ]


def _summary(db: Connection, one: ModelVersion) -> dict[str, Any]:
    return facts(one, channels=channels.channels_of(db, one.bundle), retired=one.bundle in channels.retired(db))


def found_by(db: Connection, text: str) -> list[dict[str, Any]]:
    """Return the facts of the versions that a query picks, newest first; of an empty one all.

    Raises:
        UsageError: The query cannot be read, or asks for a fact that versions do not have.
    """
    query, gone, standing = parse(text) if text.strip() else None, channels.retired(db), channels.standing(db)
    found = []
    for one in tables.models(db):
        held = [name for name, (bundle, _) in standing.get(one.model, {}).items() if bundle == one.bundle]
        said = facts(one, channels=held, retired=one.bundle in gone)
        if query is not None:
            _check_fields(query.fields, said)
        if query is None or query.matches(_askable(said)):
            found.append(said)
    return found


def _check_fields(asked: frozenset[str], known: dict[str, Any]) -> None:
    stray = sorted(name for name in asked if name not in known)
    if stray:
        raise UsageError(f"versions have no fact '{stray[0]}'", where="query", fix=f"use one of {', '.join(known)}")


def _askable(said: dict[str, Any]) -> dict[str, Any]:
    """Facts as queries want them: lists as tuples, digests also by their first eight and twelve digits."""
    asked: dict[str, Any] = {}
    for key, value in said.items():
        if isinstance(value, list):
            asked[key] = tuple(value)
        elif isinstance(value, str) and len(value) == 64:
            asked[key] = (value, value[:8], value[:12])
        else:
            asked[key] = value or None if isinstance(value, str) else value
    return asked


def compared(db: Connection, blobs: Blobs, model: str, old: str, new: str) -> dict[str, Any]:
    """Return what differs between two versions of a model: files, facts, scores, parity, profiles.

    Raises:
        RegistryError: One of them is not known.
    """
    one, two = known_version(db, model, old), known_version(db, model, new)
    return {
        "old": {"version": one.version, "bundle": one.bundle},
        "new": {"version": two.version, "bundle": two.bundle},
        **difference(one, two),
        "parity": [_parity(blobs, one), _parity(blobs, two)],
        "profiles": {
            name: [_profile(blobs, one, name), _profile(blobs, two, name)]
            for name in sorted({*_profiles(one), *_profiles(two)})
        },
    }


def _parity(blobs: Blobs, version: ModelVersion) -> dict[str, Any] | None:
    found = version_evidence.parity_in(blobs, version)
    return dict(vars(found)) if found else None


def _profiles(version: ModelVersion) -> dict[str, str]:
    return getattr(version.manifest, "profiles", {})


def _profile(blobs: Blobs, version: ModelVersion, artefact: str) -> dict[str, Any] | None:
    """The numbers by which two reference profiles are told apart at a glance."""
    path = _profiles(version).get(artefact)
    if path is None:
        return None
    sha256 = version.manifest.file(path).sha256
    try:
        said = ReferenceProfile.from_bytes(blobs.read(sha256))
    except StropError:  # lost, or of a newer form
        return {"sha256": sha256}
    numbers = {"samples": said.size, "accuracy": said.accuracy, "calibration_error": said.calibration_error}
    return {"sha256": sha256, "runtime": said.runtime, **numbers}
