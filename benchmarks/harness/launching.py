# SPDX-License-Identifier: Apache-2.0
"""One launch: start the child process, look at the board while it runs, and read what it leaves.

Everything that costs time is done here and not in the child: nothing is read between two of its runs. Standard library
only.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import benchmarks
from benchmarks.harness.board import Board
from benchmarks.harness.store import read_launch
from benchmarks.plan import BenchPlan, sha256_of
from benchmarks.record import Launch, Reading
from edge_contract.errors import MeasurementError

__all__ = ["Probed", "launch", "probe"]

LOOK_EVERY_S: Final = 1.0
_CODE: Final = (
    "import time; born = time.monotonic_ns(); import sys; from benchmarks.harness.child import main; "
    "sys.exit(main(born))"
)
_ROOT: Final = str(Path(benchmarks.__file__).resolve().parents[1])
Power = Callable[[], float | None]
Probed = dict[str, Any]


def launch(
    plan: BenchPlan,
    number: int = 0,
    label: str = "",
    *,
    board: Board | None = None,
    power: Power = lambda: None,
    tell: Callable[[str], object] = lambda phase: None,
) -> Launch:
    """Run one launch of a plan in a process of its own.

    Args:
        plan: What to measure.
        number: Of this launch.
        label: Says which side of a comparison this is.
        board: Who reads temperature, clock and throttling meanwhile.
        power: Gives the newest power in mW, None when there is none.
        tell: Hears in which phase the child is.

    Raises:
        MeasurementError: The file is not the one of the plan, the child failed, crashed or did not come back; the
            message holds its own words.
    """
    _same(plan)
    with tempfile.TemporaryDirectory(prefix="strop-bench-") as folder:
        out = Path(folder, "launch.json")
        job = {"task": "launch", "number": number, "label": label or plan.label, "out": str(out)}
        readings = _run(plan, job, Path(folder), _Watch(board or Board(), power, tell))
        found = read_launch(out)
    _same(plan)
    return replace(found, readings=tuple(readings))


def probe(plan: BenchPlan) -> Probed:
    """Return what only an untimed process may find out; raises as ``launch`` does.

    Returns:
        ``memory`` (``rss_peak_kb``, ``arena_kb``) and ``shares`` (provider → share of the operators that it ran).
    """
    with tempfile.TemporaryDirectory(prefix="strop-bench-") as folder:
        out = Path(folder, "probe.json")
        _run(plan, {"task": "probe", "number": 0, "label": "", "out": str(out)}, Path(folder), _Watch())
        found: Probed = json.loads(out.read_text(encoding="utf-8"))
    return found


def _same(plan: BenchPlan) -> None:
    found = sha256_of(Path(plan.artefact))
    if found != plan.sha256:
        what = f"the file changed: SHA-256 {found[:12]}…, planned {plan.sha256[:12]}…"
        raise MeasurementError(what, where=plan.artefact, fix="measure again, and leave the file alone meanwhile")


class _Watch:
    """What the parent does while the child runs: look at the board, and hear the phases."""

    def __init__(
        self,
        board: Board | None = None,
        power: Power = lambda: None,
        tell: Callable[[str], object] = lambda phase: None,
    ) -> None:
        self._board, self._power, self._tell = board, power, tell
        self.readings: list[Reading] = []

    def look(self) -> None:
        if self._board is not None:
            self.readings.append(self._board.read(self._power()))

    def hear(self, line: bytes) -> float:
        """Take in a line of the child; return how long the phase that begins takes by its word, seconds."""
        try:
            said = json.loads(line)
            self._tell(str(said["phase"]))
            return float(said["expected_s"])
        except (ValueError, TypeError, KeyError):
            return 0.0  # a runtime may print, too


def _run(plan: BenchPlan, job: dict[str, Any], folder: Path, watch: _Watch) -> list[Reading]:
    """Run a child to its end; return the readings."""
    path = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH", ""))))
    where = f"{Path(plan.artefact).name} in {plan.runtime}"
    with Path(folder, "stderr").open("wb") as errors:
        spawned = time.monotonic_ns()
        words = {"plan": plan.to_json(), "spawned_ns": spawned, **job}
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", _CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C reaches the parent alone, and one signal ends all that the child started
        )
        try:
            _give(child, json.dumps(words).encode())
            _follow(child, watch, plan.timeout_s, where)
            child.wait(plan.timeout_s)
        except subprocess.TimeoutExpired as error:
            what = f"hung: it does not end, {plan.timeout_s:g} s after its last word"
            raise MeasurementError(what, where=where) from error
        finally:
            _end(child)
    if child.returncode != 0 or not Path(str(job["out"])).is_file():
        raise _failed(child.returncode, Path(folder, "stderr"), where)
    return watch.readings


def _give(child: "subprocess.Popen[bytes]", words: bytes) -> None:
    assert child.stdin is not None
    try:
        child.stdin.write(words)
        child.stdin.close()
    except BrokenPipeError:
        pass  # it is gone already; its exit code tells


def _follow(child: "subprocess.Popen[bytes]", watch: _Watch, timeout_s: float, where: str) -> None:
    """Hear a child until it closes stdout; look at the board meanwhile.

    Raises:
        MeasurementError: It said nothing for longer than the phase should take.
    """
    assert child.stdout is not None
    end, pending = time.monotonic() + timeout_s, b""
    watch.look()
    with selectors.DefaultSelector() as ready:
        ready.register(child.stdout, selectors.EVENT_READ)
        while time.monotonic() < end:
            if not ready.select(LOOK_EVERY_S):
                watch.look()
                continue
            data = os.read(child.stdout.fileno(), 65536)
            if not data:
                watch.look()
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                # A machine under load may take three times as long as it promised in the warm-up.
                end = time.monotonic() + 3 * watch.hear(line) + timeout_s
    raise MeasurementError(f"hung: nothing came back for {timeout_s:g} s", where=where, fix="try fewer --runs")


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End a child that has not ended by itself, with all that it started."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _failed(code: int, errors: Path, where: str) -> MeasurementError:
    """Return the error that says how a child ended; its own words where it had any."""
    lines = errors.read_text(errors="replace").strip().splitlines()
    said = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), "")
    if code > 0 and said:
        return MeasurementError(said)
    last = f": {lines[-1][:300]}" if lines else ""
    if code < 0:
        return MeasurementError(f"crashed with {signal.Signals(-code).name}{last}", where=where)
    how = f"left with exit code {code}" if code else "left nothing behind"
    return MeasurementError(f"{how}{last}", where=where)
