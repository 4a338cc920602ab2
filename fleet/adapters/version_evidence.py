# SPDX-License-Identifier: Apache-2.0
"""What is known of a version when it is judged: attached documents, files of the bundle, how the canary fares."""

import itertools
import json
from typing import Any, Final

from edge_contract import canonical
from edge_contract.canonical import as_float
from edge_contract.errors import RegistryError, StropError
from edge_contract.messages import ReportedState
from fleet.adapters import channels, tables
from fleet.adapters.blobs import Blobs
from fleet.adapters.database import Connection, upsert
from fleet.adapters.signal_rows import healed_devices
from fleet.core.channels import CANARY, PRODUCTION
from fleet.core.execution import FAILURES, Execution
from fleet.core.lineage import accuracy, model_bytes, waivers
from fleet.core.promotion import Evidence, Health, Latency, Parity
from fleet.core.proofs import latency_of, parity_of
from fleet.core.registry import ModelVersion

__all__ = ["APPROVAL", "MEASUREMENT", "attached", "gather", "parity_in", "put", "remove"]

APPROVAL: Final = "approval"
MEASUREMENT: Final = "measurement"
MAX_PROOF_BYTES: Final = 4 * 1024 * 1024
_BENCHES: Final = "benchmarks/"
_TROUBLES: Final = 20
_FAILED: Final = tuple(f'"{status.value}"'.encode() for status in FAILURES)
_MOST_PARITIES: Final = 10_000
_parities: Final[dict[str, Parity]] = {}
"""By the SHA-256 of their bytes, which never change: versions that wait are judged every minute."""


def put(db: Connection, bundle: str, kind: str, subject: str, document: Any, *, actor: str, now: float) -> None:
    """Attach a document to a version, in place of one of the same kind and subject."""
    statement = upsert("version_evidence", "bundle, kind, subject", "time", "actor", "document")
    db.execute(statement, (bundle, kind, subject, now, actor, canonical.dumps(document)))


def remove(db: Connection, bundle: str, kind: str, subject: str) -> bool:
    """Take a document away; False if there was none."""
    statement = "DELETE FROM version_evidence WHERE bundle = ? AND kind = ? AND subject = ?"
    return db.execute(statement, (bundle, kind, subject)).rowcount > 0


def attached(db: Connection, bundle: str, kind: str = "") -> list[dict[str, Any]]:
    """Return what is attached to a version, oldest first: kind, subject, time, actor, document."""
    only, values = (" AND kind = ?", [kind]) if kind else ("", [])
    statement = f"SELECT * FROM version_evidence WHERE bundle = ?{only} ORDER BY time, kind, subject"
    rows = db.execute(statement, [bundle, *values])
    keys = ("kind", "subject", "time", "actor")
    return [{**{key: row[key] for key in keys}, "document": json.loads(row["document"])} for row in rows]


def gather(db: Connection, blobs: Blobs, version: ModelVersion, now: float, *, canary: bool = True) -> Evidence:
    """Return all that is known of a version; how the canary fares only where a rule asks: every device is looked at."""
    held = channels.bundle_of(db, version.model, PRODUCTION)
    before = tables.model(db, held) if held not in (None, version.bundle) else None
    return Evidence(
        accuracy=accuracy(version),
        in_production=(before.version, accuracy(before)) if before else None,
        model_bytes=model_bytes(version),
        bundle_bytes=sum(entry.size for entry in version.manifest.files),
        parity=parity_in(blobs, version),
        latencies=[*_measured(db, version), *_shipped(blobs, version)],
        health=_health(db, version) if canary else Health(None, 0),
        approvals=[one["subject"] for one in attached(db, version.bundle, APPROVAL)],
        registered_by=channels.registered_by(db, version.bundle),
        now=now,
        waived=[one["name"] for one in waivers(version)],
    )


def parity_in(blobs: Blobs, version: ModelVersion) -> Parity | None:
    """Return what the bundle's ``parity.json`` says, None where there is none that can be read."""
    entry = next((entry for entry in version.manifest.files if entry.path == "parity.json"), None)
    if entry is None:
        return None
    if (known := _parities.get(entry.sha256)) is None:
        try:
            known = parity_of(_document(blobs, version, entry.path))
        except StropError:
            return None
        if len(_parities) < _MOST_PARITIES:
            _parities[entry.sha256] = known
    return known


def _document(blobs: Blobs, version: ModelVersion, path: str) -> Any:
    entry = next((entry for entry in version.manifest.files if entry.path == path), None)
    if entry is None or entry.size > MAX_PROOF_BYTES:
        return None
    return canonical.loads(blobs.read(entry.sha256), where=path)


def _files(version: ModelVersion) -> dict[str, str]:
    return {entry.sha256: entry.path for entry in version.manifest.files}


def measurement(version: ModelVersion, document: Any, target: str) -> Latency:
    """Return the latency of a measurement of one of the version's files; raises RegistryError as ``latency_of``."""
    return latency_of(document, target, _files(version))


def _measured(db: Connection, version: ModelVersion) -> list[Latency]:
    found = []
    for one in attached(db, version.bundle, MEASUREMENT):
        document = one["document"]
        found.append(latency_of(document["measurement"], document["target"], _files(version)))
    return found


def _shipped(blobs: Blobs, version: ModelVersion) -> list[Latency]:
    """Measurements that the bundle carries itself: ``benchmarks/<target>.json``."""
    found = []
    for entry in version.manifest.files:
        if entry.path.startswith(_BENCHES) and entry.path.endswith(".json"):
            target = entry.path.removeprefix(_BENCHES).removesuffix(".json")
            try:
                found.append(latency_of(_document(blobs, version, entry.path), target, _files(version)))
            except (RegistryError, StropError):
                continue  # of another tool; the rule then says that there is no measurement
    return found


def _health(db: Connection, version: ModelVersion) -> Health:
    since = channels.channels_of(db, version.bundle).get(CANARY)
    if since is None:
        return Health(None, 0)
    return Health(since, _running(db, version), tuple(sorted(_troubles(db, version, since), reverse=True)[:_TROUBLES]))


def _running(db: Connection, version: ModelVersion) -> int:
    """How many devices run a version. Ten thousand reports are looked at each minute: few are worth being read."""
    rows, needle = db.execute("SELECT reported FROM devices WHERE reported IS NOT NULL"), version.bundle.encode()
    likely = (data for row in rows if needle in (data := bytes(row["reported"])))
    return sum(1 for data in likely if _runs(data, version))


def _runs(data: bytes, version: ModelVersion) -> bool:
    try:
        slots = ReportedState.from_bytes(data).models.get(version.model)
    except StropError:  # of another protocol
        return False
    return slots is not None and slots.running == version.bundle


def _troubles(db: Connection, version: ModelVersion, since: float) -> list[tuple[float, str]]:
    """Orders of the version that failed, and windows of it that drifted, since a time."""
    rows, needle = (
        db.execute("SELECT document FROM executions WHERE model = ?", (version.model,)),
        version.bundle.encode(),
    )
    likely = (data for row in rows if needle in (data := bytes(row["document"])) and any(w in data for w in _FAILED))
    orders = [Execution.from_json(json.loads(data)) for data in likely]
    failed = [
        (one.updated_at, f"device {one.device} {one.status.value}")
        for one in orders
        if one.bundle == version.bundle and one.has_failed and one.updated_at >= since
    ]
    statement = "SELECT device, time FROM windows WHERE bundle = ? AND level = 'ALARM' AND time >= ? ORDER BY time DESC"
    # Devices for which the bundle was healed go on to look unlike its reference: known, and no trouble of the bundle.
    known = healed_devices(db, version.manifest.lineage)
    drifted = (row for row in db.execute(statement, (version.bundle, since)) if row["device"] not in known)
    newest = itertools.islice(drifted, _TROUBLES)
    return [*failed, *((as_float(row["time"]), f"drift on device {row['device']}") for row in newest)]
