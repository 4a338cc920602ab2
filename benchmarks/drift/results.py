# SPDX-License-Identifier: Apache-2.0
"""How the commands under ``benchmarks.drift`` are called, and where their results are kept.

A result lies in ``benchmarks/drift/results/NAME.json`` with its command, day and machine; ``docs/drift.md`` quotes it.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import describe

__all__ = ["RESULTS", "run"]

RESULTS: Final = Path(__file__).parent / "results"
SCHEMA: Final = "strop.benchmark-drift/1"
PACKAGES: Final = ("numpy", "scipy", "onnxruntime")

Found = dict[str, Any]


def run(
    name: str,
    measure: Callable[[bool], Found],
    lines: Callable[[Mapping[str, Any]], list[str]],
    arguments: Sequence[str] | None = None,
    what: str | None = None,
) -> None:
    """Measure, keep and print: the main program of every command here.

    Args:
        name: Of the command and its results file.
        measure: Quick or not → what was found.
        lines: What was found → lines for people.
        arguments: The command line's, when not this program's.
        what: One line about the command.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.drift.{name}", description=what)
    parser.add_argument("--quick", action="store_true", help="a fraction of the windows; nothing is kept")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--show", action="store_true", help="print the kept result, measure nothing")
    options = parser.parse_args(arguments)
    kept = RESULTS / f"{name}.json"
    document = json.loads(kept.read_text(encoding="utf-8")) if options.show else _measured(name, measure, options.quick)
    if not options.quick and not options.show:
        RESULTS.mkdir(exist_ok=True)
        kept.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.json:
        print(json.dumps(document, ensure_ascii=False))
        return
    machine = document["machine"]
    print(f"{document['command']}: {document['date'][:10]}, {machine['processor']}, load {machine['load_1min']:.1f}")
    print("\n".join(lines(document["found"])))


def _measured(name: str, measure: Callable[[bool], Found], quick: bool) -> Found:  # noqa: FBT001
    words = ["python", "-m", f"benchmarks.drift.{name}", *(["--quick"] if quick else [])]
    machine = asdict(describe())
    found = measure(quick)
    return {
        "schema": SCHEMA,
        "command": " ".join(words),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "versions": {"python": sys.version.split()[0], **{package: metadata.version(package) for package in PACKAGES}},
        "found": found,
    }
