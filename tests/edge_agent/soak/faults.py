# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, and when: drawn from one seed before the run begins, so that a run can be had again."""

import random
import time
from dataclasses import dataclass

from tests.edge_agent.soak.stage import Stage

__all__ = ["Fault", "Mischief", "plan"]

_HOUR, _YEAR = 3600, 365 * 86400
_JUMPS = (-10 * _YEAR, -6 * _HOUR, -600, 600, 6 * _HOUR, 2 * 86400, 10 * _YEAR)
_KINDS = {"cut": 5, "hole": 3, "slow": 3, "broker": 2, "server": 1, "agent": 3, "runner": 3, "clock": 3}
"""Kind → how often, relative to the others."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        at: Seconds after the start.
        kind: cut, hole or slow (of a cable), broker, server, agent or runner (killed), clock (jumps).
        board: Whose; empty for broker and server.
        cable: 0 of the broker, 1 of downloads, 2 both.
        lasts: Seconds until it is mended.
        value: Of a clock how far it is off, of a slow cable milliseconds.
    """

    at: float
    kind: str
    board: str = ""
    cable: int = 2
    lasts: float = 0.0
    value: int = 0


def plan(seed: int, seconds: float, steady: str, victim: str, every_s: float = 6.0) -> list[Fault]:
    """Return the faults of a run. Agents and runners of the steady board are never killed, so that it can be measured.

    Example:
        >>> plan(1, 60, "a", "b") == plan(1, 60, "a", "b")
        True
    """
    rng, at, found = random.Random(seed), 0.0, []
    while (at := at + rng.expovariate(1 / every_s)) < seconds:
        kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
        board = (
            victim
            if kind in ("agent", "runner")
            else ""
            if kind in ("broker", "server")
            else rng.choice([steady, victim])
        )
        lasts = (
            min(rng.expovariate(1 / 12.0), 60.0) if kind in ("cut", "hole", "slow", "clock") else rng.uniform(0.5, 6)
        )
        value = rng.choice(_JUMPS) if kind == "clock" else rng.randint(50, 800)
        found.append(Fault(round(at, 2), kind, board, rng.choice([0, 1, 2, 2]), round(lasts, 2), value))
    return found


class Mischief:
    """Carries out a plan, from one thread: ``step`` does what is due."""

    def __init__(self, stage: Stage, faults: list[Fault]) -> None:
        self._stage, self._faults = stage, list(faults)
        self._mends: list[tuple[float, Fault]] = []
        self.done: dict[str, int] = {}

    def step(self, passed: float) -> None:
        """Do and mend what is due, seconds after the start."""
        for due, fault in [pair for pair in self._mends if pair[0] <= passed]:
            self._mends.remove((due, fault))
            self._mend(fault)
        while self._faults and self._faults[0].at <= passed:
            fault = self._faults.pop(0)
            self._do(fault)
            self.done[fault.kind] = self.done.get(fault.kind, 0) + 1
            self._mends.append((passed + fault.lasts, fault))

    def _do(self, fault: Fault) -> None:
        stage = self._stage
        match fault.kind:
            case "broker":
                stage.kill_broker()
            case "server":
                stage.restart_server(fault.lasts)
            case "agent":
                stage.boards[fault.board].kill()
            case "runner":
                stage.boards[fault.board].kill_runner()
            case "clock":
                stage.boards[fault.board].clock.jump(fault.value)
            case _:
                self._cables(fault, fault.kind)

    def _mend(self, fault: Fault) -> None:
        board = self._stage.boards.get(fault.board)
        if board is None or fault.kind == "runner":
            return
        if fault.kind == "agent":
            if board.process is None or board.process.poll() is not None:
                board.start()
        elif fault.kind == "clock":
            board.clock.jump(0)
        else:
            self._cables(fault, "good")

    def _cables(self, fault: Fault, state: str) -> None:
        cables = self._stage.boards[fault.board].cables
        for cable in cables if fault.cable == 2 else [cables[fault.cable]]:
            cable.be(state, fault.value / 1000)

    def heal(self) -> None:
        """Mend everything: good cables, right clocks, every process runs."""
        self._faults.clear()
        self._mends.clear()
        for board in self._stage.boards.values():
            board.clock.jump(0)
            for cable in board.cables:
                cable.be("good")
            if board.process is None or board.process.poll() is not None:
                board.start()
        time.sleep(0.1)
