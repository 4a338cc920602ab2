# SPDX-License-Identifier: Apache-2.0
"""The rollouts that take another one back, in the database."""

from fleet.adapters import channels, rollout_tables, tables
from fleet.adapters.database import Connection
from fleet.core.rollback import rollback_groups, rollback_rollout
from fleet.core.rollout import Rollout

__all__ = ["next_number", "plan_rollbacks"]


def next_number(db: Connection) -> int:
    """Return the number of the next rollout."""
    row = db.execute("SELECT MAX(number) AS top FROM rollouts").fetchone()
    return int(row["top"] or 0) + 1


def plan_rollbacks(db: Connection, rollout: Rollout, now: float, actor: str = "engine") -> list[Rollout]:
    """Store the rollouts that bring a rollout's devices back, one for each bundle; none where nobody has to go back."""
    good = channels.last_good(db, rollout.model, rollout.bundle)
    executions = tables.executions(db, rollout.number).values()
    groups = rollback_groups(rollout, executions, rollout_tables.running(db, rollout.model), good)
    children = []
    for bundle, devices in groups.items():
        version = tables.model(db, bundle)
        if version is None:
            continue  # it was taken out of the registry: no device could fetch it
        target = (rollout.model, version.version, bundle)
        child = rollback_rollout(next_number(db), rollout, target, devices, actor=actor, now=now)
        tables.put_rollout(db, child)
        detail = {"of": rollout.id, "bundle": bundle, "devices": len(devices)}
        tables.add_audit(db, time=now, actor=actor, action="rollout.roll-back", subject=child.id, detail=detail)
        children.append(child)
    return children
