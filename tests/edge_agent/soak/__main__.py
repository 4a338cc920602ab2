# SPDX-License-Identifier: Apache-2.0
"""``make soak MINUTES=30``: real agents, a real broker and the real server, while everything around them fails.

Two boards infer files that a sensor lays down; cables are cut, delayed and swallow, broker, server, agents and runners
are killed, clocks jump, and models are rolled out back and forth meanwhile. Then everything is mended. At the end each
input must be on the server once, or within some seconds of a kill; each order must have ended; each board must run what
it should; and the board whose agent is never killed must not have grown. Exit code 1: something of it does not hold.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.edge_agent.soak.faults import Mischief, plan
from tests.edge_agent.soak.measure import Sampler
from tests.edge_agent.soak.stage import BAD, MODEL, Board, Stage
from tests.edge_agent.soak.verdict import accounts, open_executions, violations
from tests.support.fleet_server import until

__all__ = ["main", "soak"]

STEADY, VICTIM = "steady", "victim"
_SAMPLE_S = 2.0
_LIMITS = {
    "timeout_s": 150,
    "probation": {"inferences": 30, "timeout_s": 60, "max_crashes": 3, "max_latency_ratio": 100},
}
_ORDER = ("2.0.0", "1.0.0", "2.0.0", BAD, "1.0.0")


class Updates:
    """Rolls versions out to both boards, one after the other, as soon as the one before has ended."""

    def __init__(self, stage: Stage, every_s: float) -> None:
        self._stage, self._every_s = stage, every_s
        self._next, self._number, self._at = "", 0, 0.0
        self.ended: dict[str, int] = {}

    def step(self, passed: float) -> None:
        """Begin a rollout when it is time, or look after the one under way."""
        if self._next:
            found = self._stage.call("GET", f"/rollouts/{self._next}")
            if found is not None and found["state"] not in ("RUNNING", "PAUSED"):
                self.ended[found["state"]] = self.ended.get(found["state"], 0) + 1
                self._next, self._at = "", passed + self._every_s
        elif passed >= self._at:
            self._next = self.begin(_ORDER[self._number % len(_ORDER)])
            self._number += bool(self._next)

    def begin(self, version: str) -> str:
        """Start a rollout; return its id, "" where the server is down."""
        waves = [{"devices": [STEADY]}, {"devices": [VICTIM]}]
        document = {"model": MODEL, "bundle": self._stage.bundles[version], "waves": waves, **_LIMITS}
        found = self._stage.call("POST", "/rollouts", document)
        return str(found["id"]) if found else ""


def soak(work: Path, seconds: float, seed: int, rate_hz: float = 8.0) -> dict[str, Any]:
    """Run it, and return everything that was found; ``violations`` is empty where all is well."""
    stage = Stage(work, seed, rate_hz)
    try:
        stage.open(STEADY, VICTIM)
        updates, mischief = Updates(stage, every_s=15.0), Mischief(stage, plan(seed, seconds, STEADY, VICTIM))
        sampler = Sampler(stage.boards[STEADY])
        stage.produce(True)
        _roll_out(stage, updates, "1.0.0")
        start, sampled = time.monotonic(), 0.0
        while (passed := time.monotonic() - start) < seconds:
            mischief.step(passed)
            updates.step(passed)
            if passed >= sampled:
                sampled = passed + _SAMPLE_S
                sampler.take(passed)
            time.sleep(0.1)
        mischief.heal()
        facts = _end(stage, updates, sampler)
        facts |= {"seconds": round(seconds), "seed": seed, "faults": mischief.done, "rollouts": updates.ended}
        stage.keep(facts)
        return facts
    finally:
        stage.close()


def _roll_out(stage: Stage, updates: Updates, version: str) -> None:
    """Bring a version to both boards, and wait for it."""
    rollout = until(lambda: updates.begin(version), f"a rollout of {version}")

    def is_over() -> Any:
        found = stage.call("GET", f"/rollouts/{rollout}")
        return found if found and found["state"] not in ("RUNNING", "PAUSED") else None

    found = until(is_over, f"the end of {version}", 400)
    assert found["state"] == "COMPLETED", (found["state"], found["reason"], found["executions"])


def _end(stage: Stage, updates: Updates, sampler: Sampler) -> dict[str, Any]:
    """Let everything settle, and judge."""
    last, boards = "2.0.0", stage.boards
    stories: list[tuple[str, Callable[[], object]]] = [
        ("every order ends", lambda: until(lambda: not open_executions(stage), "the end of every order", 400)),
        ("a last rollout succeeds", lambda: _roll_out(stage, updates, last)),
        ("sensors stop", lambda: stage.produce(False)),
        ("inboxes empty", lambda: until(lambda: not any(map(_waiting, boards.values())), "empty inboxes", 120)),
        (
            "outboxes empty",
            lambda: until(lambda: all(_is_empty(stage, name) for name in boards), "empty outboxes", 120),
        ),
    ]
    failed = []
    for name, story in stories:
        try:
            story()
        except AssertionError as error:
            failed.append(f"{name}: {error}"[:2000])
    told = {name: accounts(stage, board) for name, board in boards.items()}
    for name, counts in told.items():
        reported = stage.server.call("GET", f"/devices/{name}")
        counts["dropped"] = {c: n for c, n in reported["outbox"]["dropped"].items() if c == "result" and n}
    flat = {name: series.judge(name) for name, series in sampler.series.items()}
    return {"boards": told, "flat": flat, "violations": failed + violations(stage, last, told, flat)}


def _waiting(board: Board) -> list[Path]:
    return list(board.inbox.iterdir())


def _is_empty(stage: Stage, name: str) -> bool:
    """Whether a board has been heard since all its inputs were taken, and nothing but its newest rows waits."""
    board = stage.boards[name]
    counts = accounts(stage, board)
    settled = time.monotonic() - max(board.gone_at.values(), default=0.0) > 15.0
    return settled or counts["lost"] == 0


_COLUMNS = {
    "inputs": "produced",
    "arrived": "arrived",
    "twice": "twice",
    "lost": "lost",
    "by kills": "lost_by_a_kill",
    "oldest s": "oldest_lost_s",
    "rows": "rows",
    "rows twice": "rows_twice",
}


def table(facts: dict[str, Any]) -> str:
    """Return what was found, for people."""
    lines = [f"{facts['seconds']} s, seed {facts['seed']}"]
    lines.append("faults: " + ", ".join(f"{n} {kind}" for kind, n in sorted(facts["faults"].items())))
    lines.append("rollouts: " + ", ".join(f"{n} {state}" for state, n in sorted(facts["rollouts"].items())))
    lines.append(f"{'board':<8}" + "".join(f"{title:>11}" for title in _COLUMNS))
    for name, counts in facts["boards"].items():
        lines.append(f"{name:<8}" + "".join(f"{counts[key]:>11}" for key in _COLUMNS.values()))
    lines.append(f"{'steady':<15}{'first third':>12}{'last third':>12}{'rise':>9}{'allowed':>9}")
    for name, s in facts["flat"].items():
        lines.append(f"{name:<15}{s['first']:>12.0f}{s['last']:>12.0f}{s['rise']:>9.1f}{s['allowed']:>9.1f}")
    lines += [f"VIOLATION {line}" for line in facts["violations"]] or ["nothing lost or doubled beyond policy; flat"]
    return "\n".join(lines)


def main() -> int:
    """Run the command line; return 1 where something does not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.edge_agent.soak", description="Let everything fail, and look."
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help="an empty or new folder; left out: one that goes with the run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="strop-soak-") as other:
        work = options.work or Path(other) / "soak"
        Stage.clear(work)
        facts = soak(work, options.minutes * 60, options.seed)
        print(table(facts))
        return 1 if facts["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
