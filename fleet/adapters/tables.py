# SPDX-License-Identifier: Apache-2.0
"""Records in and out of the database's tables; each function takes a connection and does one statement or two."""

import json
from collections.abc import Iterable
from typing import Any

from edge_contract import canonical
from edge_contract.errors import StropError
from edge_contract.messages import DesiredState, ReportedState
from edge_contract.software import read as read_manifest
from edge_contract.states import RolloutState
from fleet.adapters import rollout_tables
from fleet.adapters.database import Connection, Row, upsert
from fleet.core import audit
from fleet.core.enrolment import TokenRecord
from fleet.core.execution import Execution
from fleet.core.inventory import DeviceRecord
from fleet.core.registry import ModelVersion
from fleet.core.rollout import Rollout

__all__ = [
    "add_audit",
    "all_audit",
    "audit_after",
    "audit_page",
    "bump",
    "counts",
    "desired",
    "device",
    "devices",
    "execution",
    "executions",
    "model",
    "models",
    "unclosed_executions",
    "put_desired",
    "put_device",
    "put_executions",
    "put_model",
    "put_order",
    "put_rollout",
    "put_token",
    "rollout",
    "rollouts",
    "token",
]


_LIFE = ("enrolled_at", "boot", "session", "dead_boot", "dead_session", "born_at", "last_seen")
_DEVICE = (*_LIFE, "agent_version", "runtime", "runtime_version", "board", "reported", "desired")


def _reported(data: bytes | None) -> ReportedState | None:
    try:
        return ReportedState.from_bytes(data) if data else None
    except StropError:  # written by an older protocol than we still read; the next heartbeat replaces it
        return None


def _device(row: Row) -> DeviceRecord:
    return DeviceRecord(
        device=row["device"],
        enrolled_at=row["enrolled_at"],
        boot=row["boot"],
        session=row["session"],
        dead=(row["dead_boot"], row["dead_session"]),
        born_at=row["born_at"],
        last_seen=row["last_seen"],
        agent_version=row["agent_version"],
        runtime=row["runtime"],
        runtime_version=row["runtime_version"],
        board=json.loads(row["board"]),
        reported=_reported(row["reported"]),
        desired=DesiredState.from_bytes(row["desired"]),
    )


def device(db: Connection, name: str) -> DeviceRecord | None:
    """Return one device's record, or None."""
    row = db.execute("SELECT * FROM devices WHERE device = ?", (name,)).fetchone()
    return _device(row) if row else None


def devices(db: Connection) -> list[DeviceRecord]:
    """Return all devices by name."""
    return [_device(row) for row in db.execute("SELECT * FROM devices ORDER BY device")]


def put_device(db: Connection, record: DeviceRecord) -> None:
    """Insert or replace one device's record."""
    db.execute(
        upsert("devices", "device", *_DEVICE),
        (
            record.device,
            record.enrolled_at,
            record.boot,
            record.session,
            *record.dead,
            record.born_at,
            record.last_seen,
            record.agent_version,
            record.runtime,
            record.runtime_version,
            json.dumps(record.board),
            record.reported.to_bytes() if record.reported else None,
            record.desired.to_bytes(),
        ),
    )
    if record.reported is not None:
        rollout_tables.note_running(db, record.device, record.running)


def desired(db: Connection, name: str) -> DesiredState | None:
    """Return what is wanted of a device, None if it is not enrolled."""
    row = db.execute("SELECT desired FROM devices WHERE device = ?", (name,)).fetchone()
    return DesiredState.from_bytes(row["desired"]) if row else None


def put_desired(db: Connection, name: str, wanted: DesiredState) -> None:
    """Replace what is wanted of a device."""
    db.execute("UPDATE devices SET desired = ? WHERE device = ?", (wanted.to_bytes(), name))


def token(db: Connection, token_id: str) -> TokenRecord | None:
    """Return what is kept of a token, or None."""
    row = db.execute("SELECT record FROM tokens WHERE id = ?", (token_id,)).fetchone()
    return TokenRecord.from_json(json.loads(row["record"])) if row else None


def put_token(db: Connection, record: TokenRecord) -> None:
    """Insert or replace a token's record."""
    db.execute(upsert("tokens", "id", "record"), (record.id, canonical.dumps(record.to_json())))


def _model(row: Row) -> ModelVersion:
    manifest = read_manifest(row["manifest"])
    return ModelVersion(row["model"], row["version"], row["bundle"], manifest, row["registered_at"])


def model(db: Connection, bundle: str) -> ModelVersion | None:
    """Return a registered model version, or None."""
    row = db.execute("SELECT * FROM models WHERE bundle = ?", (bundle,)).fetchone()
    return _model(row) if row else None


def models(db: Connection) -> list[ModelVersion]:
    """Return all registered model versions, newest first."""
    return [_model(row) for row in db.execute("SELECT * FROM models ORDER BY registered_at DESC, version DESC")]


def put_model(db: Connection, version: ModelVersion) -> None:
    """Insert a model version; the same bundle again changes nothing."""
    values = (version.bundle, version.model, version.version, version.registered_at, version.manifest.to_bytes())
    names = "bundle, model, version, registered_at, manifest"
    db.execute(f"INSERT INTO models ({names}) VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING", values)


def rollout(db: Connection, rollout_id: str) -> Rollout | None:
    """Return one rollout, or None."""
    row = db.execute("SELECT document FROM rollouts WHERE id = ?", (rollout_id,)).fetchone()
    return Rollout.from_json(json.loads(row["document"])) if row else None


def rollouts(db: Connection, states: Iterable[RolloutState] | None = None) -> list[Rollout]:
    """Return rollouts, newest first, of some states or all."""
    among = [state.value for state in (RolloutState if states is None else states)]
    marks = ",".join("?" * len(among))
    rows = db.execute(f"SELECT document FROM rollouts WHERE state IN ({marks}) ORDER BY number DESC", among)
    return [Rollout.from_json(json.loads(row["document"])) for row in rows]


def put_rollout(db: Connection, one: Rollout) -> None:
    """Insert or replace a rollout."""
    values = (one.number, one.id, one.state.value, canonical.dumps(one.to_json()))
    db.execute(upsert("rollouts", "number", "id", "state", "document"), values)


def _execution(row: Row) -> Execution:
    return Execution.from_json(json.loads(row["document"]))


def execution(db: Connection, job_id: str) -> Execution | None:
    """Return one execution by its job id, or None."""
    row = db.execute("SELECT document FROM executions WHERE job_id = ?", (job_id,)).fetchone()
    return _execution(row) if row else None


def executions(db: Connection, number: int) -> dict[str, Execution]:
    """Return a rollout's executions by device."""
    rows = db.execute("SELECT document FROM executions WHERE number = ? AND past = 0", (number,))
    return {one.device: one for one in map(_execution, rows)}


def unclosed_executions(db: Connection) -> list[Execution]:
    """Return every execution whose order still stands: its status is not final, or its end was not seen to yet."""
    return [_execution(row) for row in db.execute("SELECT document FROM executions WHERE closed = 0")]


def put_executions(db: Connection, changed: Iterable[Execution]) -> None:
    """Insert or replace executions; the rollout engine looks at them in its next step."""
    rollout_tables.put(db, changed, is_seen=False)


def last_job(db: Connection) -> int:
    """Return the highest job number given so far, 0 before the first."""
    top = db.execute("SELECT MAX(job_id) FROM executions").fetchone()[0]
    return int(top[1:]) if top else 0


def put_order(db: Connection, device_name: str, job_id: str, envelope: bytes, model_name: str = "") -> None:
    """Replace what stands on a device's ``job/next``, or for a model on its ``job/next/<model>``; empty clears it."""
    values = (device_name, model_name, job_id, envelope)
    db.execute(upsert("orders", "device, model", "job_id", "envelope"), values)


def orders(db: Connection, device_name: str = "") -> dict[tuple[str, str], bytes]:
    """Return (device, model) → what stands on ``job/next/<model>``, of one device or of all; no model: ``job/next``."""
    only, values = ("WHERE device = ?", (device_name,)) if device_name else ("", ())
    rows = db.execute(f"SELECT device, model, envelope FROM orders {only}", values)
    return {(row["device"], row["model"]): row["envelope"] for row in rows if row["envelope"]}


def _entry(row: Row) -> audit.AuditEntry:
    return audit.AuditEntry(
        row["number"],
        float.fromhex(row["time"]),
        row["actor"],
        row["action"],
        row["subject"],
        json.loads(row["detail"]),
        row["previous"],
        row["digest"],
    )


def add_audit(db: Connection, *, time: float, actor: str, action: str, subject: str, detail: dict[str, Any]) -> None:
    """Append one entry to the audit log, chained to the last one."""
    row = db.execute("SELECT * FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    last = _entry(row) if row else None
    # The detail is digested in the form in which it is read back: floats as canonical hex texts.
    detail = json.loads(canonical.dumps(detail))
    entry = audit.append(last, time=time, actor=actor, action=action, subject=subject, detail=detail)
    stored = canonical.dumps(entry.detail)
    values = (entry.number, entry.time.hex(), actor, action, subject, stored, entry.previous, entry.digest)
    names = "number, time, actor, action, subject, detail, previous, digest"
    db.execute(f"INSERT INTO audit ({names}) VALUES (?,?,?,?,?,?,?,?)", values)


def all_audit(db: Connection, limit: int = 2**62) -> list[audit.AuditEntry]:
    """Return audit entries, newest first."""
    return [_entry(row) for row in db.execute("SELECT * FROM audit ORDER BY number DESC LIMIT ?", (limit,))]


def audit_after(db: Connection, number: int, limit: int) -> list[audit.AuditEntry]:
    """Return audit entries after a number, oldest first."""
    rows = db.execute("SELECT * FROM audit WHERE number > ? ORDER BY number LIMIT ?", (number, limit))
    return [_entry(row) for row in rows.fetchall()]


def audit_page(db: Connection, text: str, before: int, limit: int) -> list[audit.AuditEntry]:
    """Return audit entries before a number, newest first, whose actor, action or subject contains a text."""
    mark = "%" + text.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%"
    like = "(actor LIKE ? ESCAPE '!' OR action LIKE ? ESCAPE '!' OR subject LIKE ? ESCAPE '!')"
    statement = f"SELECT * FROM audit WHERE number < ? AND {like} ORDER BY number DESC LIMIT ?"
    return [_entry(row) for row in db.execute(statement, (before, mark, mark, mark, limit)).fetchall()]


def bump(db: Connection, name: str, by: int = 1) -> None:
    """Add to a named counter that ``/metrics`` shows."""
    statement = (
        "INSERT INTO counts (name, value) VALUES (?,?) ON CONFLICT (name) DO UPDATE SET value = counts.value + ?"
    )
    db.execute(statement, (name, by, by))


def counts(db: Connection) -> dict[str, int]:
    """Return the named counters."""
    return dict(tuple(row) for row in db.execute("SELECT name, value FROM counts"))
