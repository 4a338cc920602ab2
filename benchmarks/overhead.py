# SPDX-License-Identifier: Apache-2.0
"""What the agent adds to an inference of an application that embeds it: ``strop bench overhead``.

Three ways to answer the same input, in turns that change their order:

* the bare runtime: an input that was cropped, turned and quantized before is set, the file runs, all outputs are copied
  out. What a program must do to a camera's image before that is not in it.
* ``Model.predict`` of a bundle's folder: from the raw image on. Checks, preprocessing straight into the runtime's own
  memory, the run, the outputs, the class and how sure it is. It saves the bare way's copy of the input.
* ``Model.predict`` by the agent's name: the same, counted, with input statistics.

Logits and embedding as real numbers are made when an answer is asked for them, which these ways do not. The median of
the paired differences is what is added; what else the machine does falls on all three. The clock is then put around the
runtime's call alone, and the rest of ``predict`` is our own code: its 99th percentile holds the answers that pay for a
summary, of the outputs of 64 answers or of the pixels of 8 to 64.

This runs in the runtime's own interpreter: ``python -m benchmarks.overhead BUNDLE --runtime NAME`` prints JSON.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import edge_agent
from benchmarks.machine import describe
from benchmarks.quantiles import median, median_interval
from edge_agent.runner.contents import Contents
from edge_contract import canonical
from edge_contract.errors import StropError

__all__ = ["Added", "Overhead", "main", "measure"]

Array = NDArray[Any]
WARMUP: Final = 200


@dataclass(frozen=True)
class Added:
    """What one way adds to the bare runtime, microseconds.

    Attributes:
        median_us, low_us, high_us: Median of the paired differences, and its 95 % interval.
        mean_us: Of the differences: holds what happens seldom.
        share: The median over the bare runtime's.
        own_p50_us, own_p99_us: Of our code alone: the time of a call without that of the runtime in it.
    """

    median_us: float
    low_us: float
    high_us: float
    mean_us: float
    share: float
    own_p50_us: float
    own_p99_us: float


@dataclass(frozen=True)
class Overhead:
    """The measurement in one runtime."""

    runtime: str
    version: str
    model: str
    input: str
    pairs: int
    bare_us: float
    plain: Added
    counted: Added

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return {"schema": "strop.overhead/1", **asdict(self), "machine": asdict(describe())}


def measure(bundle: Path, runtime: str, pairs: int = 2000) -> Overhead:
    """Measure in this interpreter.

    Args:
        bundle: A bundle's folder; its golden inputs are asked about, one after the other.
        runtime: One that the bundle claims.
        pairs: Turns of the three ways.

    Raises:
        StropError: What opening the bundle raises.
    """
    contents = Contents.open(bundle)
    raws = _golden(contents)
    with tempfile.TemporaryDirectory(prefix="strop-overhead-") as data:
        name = _install(contents, Path(data))
        with (
            edge_agent.Model.open(bundle.resolve(), runtime=runtime) as plain,
            edge_agent.Model.open(name, data=data, runtime=runtime, watch_s=60.0) as counted,
            # One copy of the weights: none of the three finds them cold.
            counted.file.running(plain.file.session.run, plain.file.session.room),
        ):
            bare = _bare(plain, raws)
            times = _turns([bare, plain.predict, counted.predict], raws, pairs)
            own = [_own(model, raws, pairs) for model in (plain, counted)]
            session, side = plain.file.session, "×".join(map(str, raws[0].shape))
            return Overhead(
                session.runtime,
                session.version,
                f"{contents.manifest.model} {contents.manifest.version}",
                f"{raws[0].dtype} {side}",
                pairs,
                round(median(times[0]) / 1000, 2),
                _added(times[0], times[1], own[0]),
                _added(times[0], times[2], own[1]),
            )


def _golden(contents: Contents) -> list[Array]:
    golden = canonical.loads(contents.read(contents.manifest.golden))
    return list(contents.array(str(golden["inputs"])))


def _install(contents: Contents, data: Path) -> str:
    """Lay a data folder around a bundle, as an agent keeps it; return the model's name."""
    model = contents.manifest.model
    slot = data / "models" / model / "slots" / contents.bundle
    shutil.copytree(contents.folder, slot)
    (slot.parent.parent / "active").symlink_to(f"slots/{contents.bundle}")
    return model


def _bare(model: edge_agent.Model, raws: Sequence[Array]) -> Callable[[Array], object]:
    """Return the runtime's own call on inputs that were prepared before."""
    prepared = {id(raw): np.array(model.file.encoded(raw)) for raw in raws}
    run = model.file.session.run
    return lambda raw: run(prepared[id(raw)])


def _turns(ways: Sequence[Callable[[Array], object]], raws: Sequence[Array], pairs: int) -> list[list[float]]:
    """Return the nanoseconds of each way for each turn; the order of the ways moves on by one each turn."""
    times: list[list[float]] = [[0.0] * pairs for _ in ways]
    for turn in range(-WARMUP, pairs):
        raw = raws[turn % len(raws)]
        for place in range(len(ways)):
            which = (turn + place) % len(ways)
            start = perf_counter_ns()
            ways[which](raw)
            spent = perf_counter_ns() - start
            if turn >= 0:
                times[which][turn] = spent
    return times


def _own(model: edge_agent.Model, raws: Sequence[Array], count: int) -> list[float]:
    """Return the nanoseconds of each call without those of the runtime in it."""
    inner = [0]
    run = model.file.session.run

    def timed(x: Array | None) -> dict[str, Array]:
        start = perf_counter_ns()
        found = run(x)
        inner[0] = perf_counter_ns() - start
        return found

    found = []
    with model.file.running(timed):
        for turn in range(-WARMUP, count):
            start = perf_counter_ns()
            model.predict(raws[turn % len(raws)])
            spent = perf_counter_ns() - start
            if turn >= 0:
                found.append(float(spent - inner[0]))
    return found


def _added(bare: Sequence[float], way: Sequence[float], own: Sequence[float]) -> Added:
    differences = [(b - a) / 1000 for a, b in zip(bare, way, strict=True)]
    found, ordered = median_interval(differences), sorted(own)
    return Added(
        round(found.point, 2),
        round(found.low, 2),
        round(found.high, 2),
        round(sum(differences) / len(differences), 2),
        round(found.point * 1000 / median(bare), 4),
        round(ordered[len(ordered) // 2] / 1000, 2),
        round(ordered[int(0.99 * (len(ordered) - 1))] / 1000, 2),
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or the error's exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead", description="Time an embedded model against its bare runtime, in turns."
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--pairs", type=int, default=2000)
    options = parser.parse_args(arguments)
    try:
        print(json.dumps(measure(options.bundle, options.runtime, options.pairs).to_json()))
    except StropError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
