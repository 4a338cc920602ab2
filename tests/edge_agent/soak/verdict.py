# SPDX-License-Identifier: Apache-2.0
"""What must hold at the end of a soak, read from the server's database and its API."""

import sqlite3
from collections import Counter
from contextlib import closing
from typing import Any

from tests.edge_agent.soak.stage import MODEL, Board, Stage

__all__ = ["GRACE_S", "accounts", "open_executions", "violations"]

GRACE_S = 4.0
"""Age of an answer that a kill may cost: a second in the runner, a second in the agent, and two for a busy machine."""
_SETTLED = {"SUCCEEDED", "FAILED", "CANCELED", "TIMED_OUT", "REJECTED", "SUPERSEDED", "REMOVED"}


def accounts(stage: Stage, board: Board) -> dict[str, Any]:
    """Return what became of each input of a board: on the server once, twice, or not, by a kill or for no reason."""
    with closing(sqlite3.connect(f"file:{stage.server.data / 'fleet.db'}?mode=ro", uri=True)) as db:
        found = db.execute("SELECT ref FROM results WHERE device = ?", (board.name,)).fetchall()
        counted = db.execute(
            "SELECT COUNT(*), COUNT(DISTINCT boot || class || seq) FROM telemetry WHERE device = ?", (board.name,)
        )
        rows, distinct = counted.fetchone()
        letters = db.execute("SELECT topic, reason FROM dead_letters").fetchall()
    seen = Counter(ref.split(":", 1)[1] for (ref,) in found)
    lost = [name for name in board.produced if name not in seen]
    ages = [_age(board, name) for name in lost]
    return {
        "produced": len(board.produced),
        "arrived": len(seen),
        "twice": sum(count - 1 for count in seen.values()),
        "unknown": len(set(seen) - set(board.produced)),
        "lost": len(lost),
        "lost_by_a_kill": sum(age is not None and age <= GRACE_S for age in ages),
        "oldest_lost_s": round(max((age for age in ages if age is not None), default=0.0), 1),
        "rows": rows,
        "rows_twice": rows - distinct,
        "dead_letters": [f"{topic}: {reason}" for topic, reason in letters if f"/{board.name}/" in topic][:5],
    }


def _age(board: Board, name: str) -> float | None:
    """Return how long before the next kill an input was taken; None where no kill followed, or it was never taken."""
    taken = board.gone_at.get(name)
    later = [at - taken for at in board.kills if taken is not None and at - taken > -0.5]
    return min(later) if later else None


def open_executions(stage: Stage) -> list[str]:
    """Return executions that have not ended."""
    found = [
        stage.server.call("GET", f"/rollouts/{rollout['id']}") for rollout in stage.server.call("GET", "/rollouts")
    ]
    return [
        f"{rollout['id']} on {one['device']}: {one['status']} {one.get('phase', '')}"
        for rollout in found
        for one in rollout["executions"]
        if one["status"] not in _SETTLED
    ]


def violations(
    stage: Stage, wanted: str, told: dict[str, dict[str, Any]], flat: dict[str, dict[str, Any]]
) -> list[str]:
    """Return each thing that should not be, in a line.

    Args:
        stage: What was soaked.
        wanted: The version that the last rollout brought.
        told: Board → its ``accounts``.
        flat: Series of the steady board → ``Series.judge``.
    """
    found = [f"open execution: {line}" for line in open_executions(stage)]
    for name, counts in told.items():
        dropped = sum(counts.get("dropped", {}).values())
        unexplained = counts["lost"] - counts["lost_by_a_kill"] - dropped
        checks = {
            "inputs lost without a kill": unexplained,
            "inputs twice": counts["twice"],
            "rows twice": counts["rows_twice"],
            "results of no input": counts["unknown"],
            "dead letters": len(counts["dead_letters"]),
        }
        found += [f"{name}: {number} {what}" for what, number in checks.items() if number > 0]
        shown = stage.server.call("GET", f"/devices/{name}")
        running = shown["models"].get(MODEL, {}).get("running", "")
        if running != stage.bundles[wanted] or not shown["in_sync"]:
            found.append(f"{name}: runs {running[:12]}…, wanted {wanted} ({stage.bundles[wanted][:12]}…)")
    found += [
        f"{name} rises by {series['rise']:g}, allowed {series['allowed']:g}"
        for name, series in flat.items()
        if not series["is_flat"]
    ]
    return found
