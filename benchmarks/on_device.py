# SPDX-License-Identifier: Apache-2.0
"""Carry out a benchmark job on a device: ``python -m benchmarks.on_device JOB.json OUT_FOLDER``.

The job is a ``BenchPlan`` as JSON, perhaps with ``energy`` beside its fields: a power sensor. ``result.json``
(``edgebench/1``) and ``samples.bin`` come to lie in the folder. An interrupted job goes on when it is started again
with the same folder. Exit code 0, or 1 with one line on stderr. Python 3.11, numpy and one runtime are enough.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.carrying import carry_out
from benchmarks.plan import BenchPlan
from benchmarks.result import save
from edge_contract.errors import MeasurementError, StropError, UsageError

__all__ = ["main", "run"]

_USAGE: Final = "python -m benchmarks.on_device JOB.json OUT_FOLDER"


def run(job: Path, out: Path) -> Path:
    """Carry out a job file; return the path of its result.

    Raises:
        MeasurementError: The job cannot be read, or no launch came to its end.
        StropError: What the model and its runtime raise.
    """
    document = _read(job)
    sensor = document.pop("energy", "")
    plan = BenchPlan.from_json(document, str(job))
    out.mkdir(parents=True, exist_ok=True)
    measurement, result = carry_out(plan, progress=_say, energy=str(sensor or ""), kept=out)
    return save(result, measurement, out, name="result.json")


def _read(job: Path) -> dict[str, Any]:
    try:
        document = json.loads(job.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MeasurementError(f"no job that can be read ({error})", where=str(job), fix=_USAGE) from error
    if not isinstance(document, dict):
        raise MeasurementError(f"a job is an object, not {type(document).__name__}", where=str(job))
    return document


def _say(line: str) -> None:
    print(line, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, or 1."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if len(words) != 2:
            raise UsageError(f"{len(words)} words", where=_USAGE, fix="give a job and a folder")
        print(run(Path(words[0]), Path(words[1])))
    except StropError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; start it again to go on", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
