# SPDX-License-Identifier: Apache-2.0
"""Carry out a plan: the board before it, its launches, the pauses between them. Standard library only.

What goes wrong in one launch is noted and costs that launch; an interruption keeps what is finished, and where an
output folder is given the next call goes on from there.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.harness import preflight
from benchmarks.harness.board import Board
from benchmarks.harness.governor import governed
from benchmarks.harness.launching import Probed, launch, probe
from benchmarks.harness.store import read_launch, write_launch
from benchmarks.plan import BenchPlan
from benchmarks.record import Launch, Measurement, RuntimeFacts
from edge_contract.errors import MeasurementError, StropError, UsageError

__all__ = ["Meter", "cool_down", "measure"]

GIVE_UP: Final = 3
"""So many launches may fail before the first one that works."""
WARMER_C: Final = 5.0
IDLE_S: Final = 10.0
WANTED_INPUTS: Final = 64


class Meter(Protocol):
    """A power sensor as ``benchmarks.energy`` opens it."""

    def idle(self, seconds: float, /) -> object: ...
    def start(self) -> object: ...
    def latest_mw(self) -> float | None: ...
    def stop(self, windows: Sequence[tuple[int, int]], runs: int, /) -> Any: ...


@dataclass
class _Book:
    """What has come together so far, and who hears of it."""

    tell: Callable[[str], object]
    launches: list[Launch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def measure(
    plan: BenchPlan,
    *,
    progress: Callable[[str], object] | None = None,
    energy: Meter | None = None,
    out: Path | None = None,
    root: Path = Path("/"),
) -> Measurement:
    """Carry out a plan.

    Args:
        plan: What to measure.
        progress: Hears one line for each step.
        energy: A power sensor that was opened; the one who opened it closes it.
        out: Folder that keeps each launch as it ends; launches of the same plan that lie there are not made again.
        root: Where ``/proc`` and ``/sys`` are.

    Raises:
        MeasurementError: No launch came to its end.
        UsageError: ``out`` holds launches of another plan.
        KeyboardInterrupt: It was interrupted before the first launch ended.
    """
    book, board = _Book(progress or (lambda line: None)), Board(root)
    book.launches += _finished(plan, out)
    with governed("" if plan.mode == "realistic" else plan.governor, root) as unset:
        book.tell("looking at the board")
        before = preflight.look(root)
        book.notes += [unset] if unset else []
        found = _probed(plan, book)
        if energy is not None:
            book.tell("idle power")
            energy.idle(IDLE_S)
            energy.start()
        begun_ns = time.monotonic_ns()
        power = _no_power if energy is None else energy.latest_mw
        _launches(
            plan,
            book,
            out,
            partial(launch, plan, board=board, power=power),
            partial(cool_down, plan, board, before.temp_c, book.tell),
        )
    if not book.launches:
        raise MeasurementError(f"no launch came to its end: {book.failures[0]}", where=plan.artefact)
    launches = tuple(_completed(one, found) for one in sorted(book.launches, key=lambda one: one.number))
    notes = (*book.notes, *book.failures, *_observed(plan, launches))
    return Measurement(plan, before, launches, notes, len(book.failures), _energy(energy, launches, begun_ns))


def _no_power() -> None:
    """Stand for a sensor that is not there."""


def _launches(
    plan: BenchPlan, book: _Book, out: Path | None, make: Callable[[int], Launch], rest: Callable[[], object]
) -> None:
    """Make the launches that are missing, with a rest between two; fill the book."""
    done = {one.number for one in book.launches}
    for place, number in enumerate(n for n in range(plan.launches) if n not in done):
        try:
            if place:
                rest()
            book.tell(f"launch {number + 1} of {plan.launches}")
            book.launches.append(made := make(number))
            if out is not None:
                write_launch(made, _file(out, number))
        except KeyboardInterrupt:
            if not book.launches:
                raise
            more = "; they are kept, and the same call goes on" if out is not None else ""
            book.notes.append(f"interrupted: {len(book.launches)} of {plan.launches} launches{more}")
            return
        except StropError as error:
            book.failures.append(f"launch {number + 1} failed: {error}")
            book.tell(book.failures[-1])
            if not book.launches and len(book.failures) >= GIVE_UP:
                return


def _file(out: Path, number: int) -> Path:
    return out / "launches" / f"{number:03d}.json"


def _finished(plan: BenchPlan, out: Path | None) -> list[Launch]:
    """Return the launches that an earlier call has left for this very plan; make the folder where there are none."""
    if out is None:
        return []
    kept = out / "launches" / "plan.json"
    if kept.is_file():
        if json.loads(kept.read_text(encoding="utf-8")) != plan.to_json():
            fix = "give another folder, or delete this one"
            raise UsageError("the folder holds launches of another plan", where=str(out), fix=fix)
        return [read_launch(path) for n in range(plan.launches) if (path := _file(out, n)).is_file()]
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(plan.to_json()), encoding="utf-8")
    return []


def _probed(plan: BenchPlan, book: _Book) -> Probed:
    """Return what a process finds that nobody times; its failure is a note, since the launches will tell more."""
    book.tell("memory")
    try:
        return probe(plan)
    except StropError as error:
        book.notes.append(f"memory was not measured: {error}")
        return {"memory": {}, "shares": {}}


def _completed(one: Launch, found: Probed) -> Launch:
    """Return a launch with what only the probe could see."""
    shares: dict[str, float] = found["shares"]
    runtime: RuntimeFacts = one.runtime
    if shares:
        taken = tuple(sorted(shares, key=lambda name: -shares[name]))
        runtime = replace(runtime, providers=taken, delegated=1.0 - shares.get("CPU", 0.0))
    return replace(one, memory={name: int(kb) for name, kb in found["memory"].items()}, runtime=runtime)


def cool_down(plan: BenchPlan, board: Board, cold_c: float | None, tell: Callable[[str], object]) -> None:
    """Wait until the board is nearly as cool as at the start; where nobody tells its temperature, do not wait."""
    end = time.monotonic() + plan.cooldown_s
    while cold_c is not None and (now_c := board.temperature()) is not None and now_c >= cold_c + WARMER_C:
        if time.monotonic() >= end:
            return
        tell(f"cooling down: {now_c:.0f} °C, wanted below {cold_c + WARMER_C:.0f}")
        time.sleep(min(1.0, plan.cooldown_s))


def _energy(meter: Meter | None, launches: Sequence[Launch], begun_ns: int) -> dict[str, Any] | None:
    """Return what the sensor gave; launches that an earlier call has left were not seen by it."""
    if meter is None:
        return None
    seen = [one for one in launches if one.starts_ns[0] >= begun_ns]
    windows = [(one.starts_ns[0], one.starts_ns[-1] + one.stages_ns["total"][-1]) for one in seen]
    found: dict[str, Any] = meter.stop(windows, sum(one.runs * one.batch * one.every for one in seen)).to_json()
    return found


def _observed(plan: BenchPlan, launches: Sequence[Launch]) -> list[str]:
    """Return what a reader of the numbers must know."""
    notes = []
    if plan.input == "real" and (few := min(one.samples for one in launches)) < WANTED_INPUTS:
        notes.append(f"only {few} different inputs were cycled; {WANTED_INPUTS} are wanted: give --data")
    if plan.input == "random":
        notes.append("the inputs were random; real ones may take another time: give --data")
    dropped, begun = sum(one.dropped for one in launches), sum(one.runs for one in launches)
    if dropped:
        share = dropped / (dropped + begun)
        notes.append(f"{plan.fps:g} fps is more than this machine does here: {share:.1%} of the frames were dropped")
    if any(one.golden == "differs" for one in launches):
        notes.append("the golden inputs did not give what the bundle says: other numbers come out here")
    return notes
