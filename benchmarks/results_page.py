# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.results_page``: write docs/benchmark-results.md from the committed results.

Each figure is taken from a result's file, and each file is checked against its raw samples; nothing is typed by hand.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.result import Result
from benchmarks.result.check import check
from benchmarks.result.store import load_all
from benchmarks.result.table import HEAD, NONE, filled, markdown, row

__all__ = ["PAGE", "RESULTS", "main", "page"]

RESULTS: Final = Path(__file__).parent / "results"
PAGE: Final = Path(__file__).parents[1] / "docs/benchmark-results.md"
_INTRODUCTION: Final = """# Benchmark results

Written by `python -m benchmarks.results_page` from [benchmarks/results](../benchmarks/results); a test writes it again
and checks every figure against the raw samples. What the columns mean is in
[benchmarking.md](benchmarking.md#what-each-column-means). The models are the networks of the zoo that were trained on
Fashion-MNIST; accuracy is that of the same bytes in the same runtime on the 10 000 test images. Measured by
`python -m benchmarks.results_here`, on emulated boards by `python -m benchmarks.results_here --emulated`.
"""
_EMULATED: Final = """## Emulated boards: correctness only

QEMU obeys the instruction set of these processors, so answers are those of a real board and times are not: **no latency
is claimed**. Golden: whether the golden inputs gave, in the board's own runtime, what the bundle recorded on a
workstation: of int8 files the same integers by one SHA-256, of float files real numbers within the bundle's tolerance.
Right: of the first 250 test images, answered there.
"""


def page(folder: Path = RESULTS) -> str:
    """Return the page; the same results give the same text.

    Raises:
        ContractError: A file is no result.
        MeasurementError: A figure is not what the raw samples give.
    """
    results, _ = load_all([folder])
    for path, result in results:
        check(path, result)
    parts, boards = [_INTRODUCTION], dict[str, list[Result]]()
    for _, result in results:
        boards.setdefault("" if result.device.emulated else result.device.key, []).append(result)
    for key in sorted(boards, key=lambda key: (not key, key)):
        rows = sorted(boards[key], key=_order)
        parts.append(_board(rows) if key else _emulated(rows))
    if not boards:
        parts.append("No results are kept here yet.\n")
    return "\n".join(parts)


def _order(result: Result) -> tuple[str, ...]:
    return (result.artifact.name, result.runtime.name, result.scenario.mode, result.device.board)


def _board(rows: Sequence[Result]) -> str:
    device, env = rows[0].device, rows[0].env
    runtimes = sorted({f"{one.runtime.name} {one.runtime.version}" for one in rows})
    clock = f"governor {env.governor}" if env.governor else "a virtual machine without a governor to read"
    words = (
        f"{device.os}, {device.arch}, kernel {device.kernel}, {clock}; {', '.join(runtimes)}; one thread. "
        f"Measured {min(one.started for one in rows)[:10]}."
    )
    head, cells = filled(HEAD, [row(_name(one), one) for one in rows])
    said = _reasons(rows)
    return f"## {device.board}\n\n{words}\n\n{markdown(head, cells)}\n{said}"


def _reasons(rows: Sequence[Result]) -> str:
    """Return one line for each kind of reason: in how many rows, and the words of the first one."""
    kinds: dict[str, list[str]] = {}
    for reason in (reason for one in rows for reason in one.reasons):
        kinds.setdefault(reason.kind, []).append(f"{reason.status}: {reason.words}")
    if not kinds:
        return ""
    lines = [f"- **{kind}** in {len(words)} of {len(rows)} rows. {words[0]}" for kind, words in sorted(kinds.items())]
    return "\nWhat the gates said, in the words of one row each:\n\n" + "\n".join(lines) + "\n"


def _name(result: Result) -> str:
    return f"{result.artifact.name}, {result.runtime.name}{'' if result.scenario.mode == 'bare' else ', the whole way'}"


def _emulated(rows: Sequence[Result]) -> str:
    head = ("model", "runtime", "board", "status", "golden", "right of 250")
    cells = [
        [
            one.artifact.name,
            f"{one.runtime.name} {one.runtime.version}",
            one.device.board,
            one.status,
            one.golden,
            str(round(one.quality.value * one.quality.n)) if one.quality else NONE,
        ]
        for one in rows
    ]
    return f"{_EMULATED}\n{markdown(head, cells)}\n"


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), "utf-8")
    print(f"{PAGE.name}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
