# SPDX-License-Identifier: Apache-2.0
"""The process of one launch: cold start, golden check, warm-up, measured runs. numpy and one runtime, nothing else.

It is told its job as JSON on stdin, says on stdout where it is (one JSON object a line, never between two runs that
count), and leaves its launch in two files. What goes wrong is one line on stderr.
"""

import gc
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from benchmarks.harness.ways import Way
    from benchmarks.plan import BenchPlan

__all__ = ["main"]

_clock = time.monotonic_ns
_MODULES: Final = {
    "litert": ("ai_edge_litert.interpreter",),
    "tflite-runtime": ("tflite_runtime.interpreter",),
    "edgetpu": ("tflite_runtime.interpreter", "ai_edge_litert.interpreter"),
    "onnxruntime": ("onnxruntime",),
}


def main(born_ns: int) -> int:
    """Carry out the job on stdin; return 0, or the error's exit code.

    Args:
        born_ns: Monotonic clock at the first line of this process.
    """
    from edge_contract.errors import StropError  # standard library only: costs the timed imports below nothing

    job = json.loads(sys.stdin.read())
    try:
        _pin(job["plan"]["affinity"])
        start = _clock()
        _import(job["plan"]["runtime"], job["plan"]["mode"])
        imported_ms = (_clock() - start) / 1e6
        cold = {"process_ms": (born_ns - job["spawned_ns"]) / 1e6, "import_ms": imported_ms}
        (_probe if job["task"] == "probe" else _launch)(job, cold)
    except StropError as error:
        return _say_error(str(error), error.exit_code)
    except Exception as error:  # whatever a runtime throws is told in one line, with its class
        return _say_error(f"{type(error).__name__}: {error}", 1)
    return 0


def _pin(cores: list[int]) -> None:
    """Keep this process on some cores; raises MeasurementError where this machine has no such core."""
    from edge_contract.errors import MeasurementError

    try:
        if cores:
            os.sched_setaffinity(0, cores)
    except OSError as error:
        here = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        fix = f"choose among {here}"
        raise MeasurementError(f"cores {cores} cannot be had ({error.strerror})", where="affinity", fix=fix) from error


def _import(runtime: str, mode: str) -> None:
    """Import what the model needs: numpy, the first module of the runtime that is here, and the agent where it is used.

    Nothing of the harness is imported before, so that its own modules do not count. What is missing is said later, by
    the runtime's adapter.
    """
    for name in ("numpy", "edge_agent") if mode == "realistic" else ("numpy",):
        importlib.import_module(name)
    for name in _MODULES[runtime]:
        try:
            importlib.import_module(name)
        except (ImportError, AttributeError):
            continue
        return


def _say_error(words: str, code: int) -> int:
    print("error: " + " ".join(words.split())[:500], file=sys.stderr)
    return code


def _opened(job: dict[str, Any], cold: dict[str, float]) -> "tuple[BenchPlan, Way]":
    """Return the plan and the way to measure, after the first inference; fills in the times of the cold start."""
    from benchmarks.harness import ways
    from benchmarks.harness.inputs import described
    from benchmarks.plan import BenchPlan

    plan = BenchPlan.from_json(job["plan"])
    about = described(plan)
    start = _clock()
    if plan.mode == "realistic" and about is not None:
        prepared = ways.realistic_way(plan, about)
    else:
        prepared = ways.bare_way(plan, about)
    cold["load_ms"] = (_clock() - start) / 1e6
    way = prepared()
    start = _clock()
    way.first()
    cold["first_ms"] = (_clock() - start) / 1e6
    return plan, way


def _launch(job: dict[str, Any], cold: dict[str, float]) -> None:
    from benchmarks.harness.loops import room_for, warm_up
    from benchmarks.harness.marks import Marks, timer_cost
    from benchmarks.harness.store import write_launch
    from benchmarks.record import ColdStart, Launch

    started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    plan, way = _opened(job, cold)
    golden = way.golden()
    _phase("warm-up", plan.warmup_cap_s)
    with _quiet():
        timer_ns = timer_cost()
        few = Marks(way.stages, 64)
        limits = {"least": plan.warmup_runs, "seconds": plan.warmup_s, "cap_s": plan.warmup_cap_s}
        warm = warm_up(way.step(few), few, way.samples, clock=time.perf_counter_ns, **limits)  # type: ignore[arg-type]
        _phase("measure", max(plan.seconds, plan.runs * max(warm.run_ns / 1e9, 1 / plan.fps if plan.fps else 0.0)))
        shortest_ns = max(warm.run_ns, 1e9 / plan.fps if plan.fps else 0.0)  # no more frames are begun than come
        room, every = room_for(shortest_ns, plan.runs, plan.seconds)
        marks = Marks(way.stages, room)
        before = _faults()
        count, due, dropped = _measured(plan, way, marks, every)
        faults = {name: value - before[name] for name, value in _faults().items()}
    stages, starts = marks.stages_ns(count), marks.starts(count)
    if due is not None:
        ends = tuple(marks.columns[-1][:count])
        stages, starts = {**stages, "total": tuple(e - d for e, d in zip(ends, due, strict=True))}, due
    limit = plan.deadline_ns
    write_launch(
        Launch(
            number=job["number"],
            label=job["label"],
            started=started,
            cold=ColdStart(**cold),
            warmup=warm.runs,
            steady=warm.is_steady,
            stages_ns=stages,
            starts_ns=starts,
            missed=sum(one > limit for one in stages["total"]) if limit else 0,
            dropped=dropped,
            readings=(),
            faults=faults,
            memory={},
            runtime=way.facts,
            timer_ns=timer_ns,
            golden=golden,
            samples=way.samples,
            batch=way.batch,
            every=1 if due is not None else every,
        ),
        Path(job["out"]),
    )
    way.close()
    _phase("done", 0.0)


def _measured(plan: "BenchPlan", way: "Way", marks: Any, every: int) -> tuple[int, tuple[int, ...] | None, int]:
    """Return how many rows were filled, the intended starts of a paced loop, and its dropped frames."""
    from benchmarks.harness.loops import closed, paced

    step = way.step(marks)
    if plan.scenario == "paced":  # every frame is kept: one that is left out could be the late one
        found = paced(step, marks, way.samples, fps=plan.fps, runs=plan.runs, seconds=plan.seconds)
        return found.count, tuple(found.due_ns[: found.count]), found.dropped
    return closed(step, marks, way.samples, runs=plan.runs, seconds=plan.seconds, every=every), None, 0


def _probe(job: dict[str, Any], cold: dict[str, float]) -> None:
    """Find what must not disturb a timed process: peak memory, and which provider took which node."""
    plan, way = _opened(job, cold)
    for _ in range(4):
        way.first()
    found = {"memory": {"rss_peak_kb": _peak_kb(), "arena_kb": way.arena_kb()}, "shares": _shares(plan)}
    Path(job["out"]).write_text(json.dumps(found), encoding="utf-8")
    way.close()


def _shares(plan: "BenchPlan") -> dict[str, float]:
    """Return provider → share of the operators that it ran."""
    from benchmarks.harness import inputs
    from benchmarks.harness.opening import open_bare

    about = inputs.described(plan)
    dtype = about.dtype if about is not None else ""
    bare = open_bare(plan, dtype)
    if plan.runtime != "onnxruntime":
        taken = {bare.providers[0]: bare.delegated or 0.0, "CPU": 1.0 - (bare.delegated or 0.0)}
        return {name: share for name, share in taken.items() if share or len(bare.providers) == 1}
    from benchmarks.harness.bare_onnx import shares

    return shares(plan, dtype, inputs.feeds(plan, bare.inputs, about)[0])


def _phase(name: str, expected_s: float) -> None:
    print(json.dumps({"phase": name, "expected_s": round(expected_s, 3)}), flush=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the garbage collector out of the block; what lives before it is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _faults() -> dict[str, int]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {"major": used.ru_majflt, "minor": used.ru_minflt, "switches": used.ru_nivcsw}
    return {**found, "swap_kb": _swapped_kb()}


def _swapped_kb() -> int:
    """Return the kilobytes that went to or came from swap since boot."""
    kb = os.sysconf("SC_PAGE_SIZE") // 1024
    return kb * sum(_numbers("/proc/vmstat", lambda line: line.startswith(("pswpin ", "pswpout "))))


def _peak_kb() -> int:
    return sum(_numbers("/proc/self/status", lambda line: line.startswith("VmHWM:")))


def _numbers(path: str, wanted: Callable[[str], bool]) -> list[int]:
    try:
        lines = Path(path).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
    return [int(line.split()[1]) for line in lines if wanted(line)]
