# SPDX-License-Identifier: Apache-2.0
"""Launch two plans in turns, A B B A A B …, and keep each launch as it ends.

Whatever else the machine does, and however warm it grows, falls on both. An interruption loses the launch that was
under way and nothing else: the same call goes on from the folder.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import preflight
from benchmarks.harness.board import Board
from benchmarks.harness.governor import governed
from benchmarks.harness.launching import launch
from benchmarks.harness.measuring import cool_down
from benchmarks.harness.store import read_launch, write_launch
from benchmarks.plan import BenchPlan
from benchmarks.record import Launch, Measurement, Preflight
from edge_contract.errors import MeasurementError, StropError, UsageError

__all__ = ["Turns", "order"]

GIVE_UP: Final = 3
"""So many launches of a side may fail before its first one that works."""

Make = Callable[[BenchPlan, int, str], Launch]


def order(launches: int) -> list[tuple[int, int]]:
    """Return side and number of each launch: A B B A A B B A …

    Example:
        >>> ["AB"[side] for side, _ in order(4)]
        ['A', 'B', 'B', 'A', 'A', 'B', 'B', 'A']
    """
    return [(side ^ (number % 2), number) for number in range(launches) for side in (0, 1)]


@dataclass
class Turns:
    """Two plans that are launched in turns; ``upto`` may be called again with more launches.

    Args:
        plans: A and B.
        out: Folder that keeps each launch; None: nothing is kept.
        tell: Hears one line for each step.
        make: Runs one launch; default: a process by ``benchmarks.harness.launch``.
        root: Where ``/proc`` and ``/sys`` are.

    Raises:
        UsageError: ``out`` holds launches of other plans.
        MeasurementError: A launch that is kept there cannot be read.
    """

    plans: tuple[BenchPlan, BenchPlan]
    out: Path | None = None
    tell: Callable[[str], object] = print
    make: Make | None = None
    root: Path = Path("/")
    done: dict[tuple[int, int], Launch] = field(default_factory=dict)
    failures: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    before: Preflight | None = None
    is_interrupted: bool = False

    def __post_init__(self) -> None:
        self.plans = (replace(self.plans[0], label="A"), replace(self.plans[1], label="B"))
        if self.out is not None:
            self.done.update(_kept(self.out, self.plans))

    def upto(self, launches: int) -> None:
        """Make what is missing of so many launches of each side.

        Raises:
            MeasurementError: One side failed three times and never came to its end.
            KeyboardInterrupt: It was interrupted before both sides had a launch.
        """
        plan, board = self.plans[0], Board(self.root)
        with governed("" if plan.mode == "realistic" else plan.governor, self.root) as unset:
            if self.before is None:
                self.tell("looking at the board")
                self.before = preflight.look(self.root)
                self.notes += [unset] if unset else []
            missing = [one for one in order(launches) if one not in self.done]
            try:
                for place, (side, number) in enumerate(missing):
                    if place:
                        cool_down(plan, board, self.before.temp_c, self.tell)
                    self._one(side, number, launches, board)
            except KeyboardInterrupt:
                if not all(self._of(side) for side in (0, 1)):
                    raise
                self.is_interrupted = True
                self.notes.append("interrupted: the verdict is of what was finished")

    def _one(self, side: int, number: int, launches: int, board: Board) -> None:
        name = "AB"[side]
        self.tell(f"launch {number + 1} of {launches}, {name}")
        make = self.make or (lambda plan, n, label: launch(plan, n, label, board=board))
        try:
            made = make(self.plans[side], number, name)
        except StropError as error:
            self.failures.append((side, f"launch {number + 1} of {name} failed: {error}"))
            self.tell(self.failures[-1][1])
            if not self._of(side) and sum(one == side for one, _ in self.failures) >= GIVE_UP:
                what = f"{name} never came to its end: {error}"
                raise MeasurementError(what, where=self.plans[side].artefact) from error
            return
        self.done[side, number] = made
        if self.out is not None:
            write_launch(made, _file(self.out, side, number))

    def _of(self, side: int) -> tuple[Launch, ...]:
        return tuple(one for (which, _), one in sorted(self.done.items()) if which == side)

    def sides(self) -> tuple[Measurement, Measurement]:
        """Return what there is of A and of B."""
        found = []
        for side in (0, 1):
            failed = [words for which, words in self.failures if which == side]
            notes = (*self.notes, *failed)
            before = self.before or Preflight("")
            found.append(Measurement(self.plans[side], before, self._of(side), notes, len(failed)))
        return found[0], found[1]


def _file(out: Path, side: int, number: int) -> Path:
    return out / "launches" / f"{'ab'[side]}-{number:03d}.json"


def _document(plans: tuple[BenchPlan, BenchPlan]) -> list[Mapping[str, Any]]:
    """Return what two calls have to agree on: everything but how many launches."""
    return [{name: value for name, value in plan.to_json().items() if name != "launches"} for plan in plans]


def _kept(out: Path, plans: tuple[BenchPlan, BenchPlan]) -> dict[tuple[int, int], Launch]:
    path = out / "launches" / "plans.json"
    wanted = json.loads(json.dumps(_document(plans)))
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(wanted), encoding="utf-8")
            return {}
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MeasurementError(f"cannot be used ({error})", where=str(path), fix="give another folder") from error
    if kept != wanted:
        fix = "give another folder, or delete this one"
        raise UsageError("the folder holds launches of another comparison", where=str(out), fix=fix)
    found = {}
    for side in (0, 1):
        for file in sorted(path.parent.glob(f"{'ab'[side]}-*.json")):
            found[side, int(file.stem[2:])] = read_launch(file)
    return found
