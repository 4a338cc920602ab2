# SPDX-License-Identifier: Apache-2.0
"""Results as rows of text, for a terminal, a page and docs/benchmark-results.md: the same figures everywhere."""

from collections.abc import Sequence
from typing import Final

from benchmarks.result.schema import Cold, Latency, Result

__all__ = ["HEAD", "aligned", "command_of", "filled", "main_stage", "markdown", "row", "stage_rows"]

HEAD: Final = (
    "configuration", "status", "p50, µs [95 %]", "p90 (≤ 99 %)", "p99 (≤ 99 %)", "cold, ms", "accuracy, % [95 %]",
    "file, KB", "memory, MB", "mJ", "runs",
)  # fmt: skip
NONE: Final = "–"


def main_stage(result: Result) -> str:
    """Return the stage that stands for a result: the model alone (``bare``), or the whole way."""
    return "total" if result.scenario.mode == "realistic" or result.scenario.name == "paced" else "invoke"


def row(name: str, result: Result) -> list[str]:
    """Return one result in the columns of ``HEAD``; what is not known, or not claimed, is a dash."""
    found, quality = result.latency_us.get(main_stage(result)), result.quality
    return [
        name,
        result.status,
        *_times(found),
        f"{_cold(result.cold):.0f}" if result.cold else NONE,
        _quality(result) if quality else NONE,
        f"{result.artifact.bytes / 1000:.1f}",
        f"{result.memory['rss_peak_kb'] / 1024:.1f}" if result.memory.get("rss_peak_kb") else NONE,
        _number(result.energy.gross_mj) if result.energy and result.energy.gross_mj is not None else NONE,
        f"{result.counts.launches} × {result.counts.measured // max(result.counts.launches, 1)}",
    ]


def _cold(cold: Cold) -> float:
    return cold.process_ms + cold.import_ms + cold.load_ms + cold.first_infer_ms


def _times(found: Latency | None) -> list[str]:
    if found is None:
        return [NONE, NONE, NONE]
    interval = f" [{_number(found.p50_ci95[0])}, {_number(found.p50_ci95[1])}]" if found.p50_ci95 else ""
    return [f"{_number(found.p50)}{interval}", _tail(found.p90, found.p90_ub99), _tail(found.p99, found.p99_ub99)]


def _tail(value: float | None, bound: float | None) -> str:
    return NONE if value is None or bound is None else f"{_number(value)} (≤ {_number(bound)})"


def _quality(result: Result) -> str:
    found = result.quality
    assert found is not None
    if not found.metric.startswith("top1"):
        return f"{found.metric} {found.value:.4g} [{found.ci95[0]:.4g}, {found.ci95[1]:.4g}]"
    return f"{100 * found.value:.2f} [{100 * found.ci95[0]:.2f}, {100 * found.ci95[1]:.2f}]"


def _number(value: float) -> str:
    """Return four digits, and never an exponent.

    Example:
        >>> [_number(value) for value in (0.12345, 160.04, 1234.5, 123456.0)]
        ['0.1235', '160.0', '1234', '123456']
    """
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:#.4g}"


def filled(head: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Return a table without the columns in which nothing is known."""
    kept = [i for i in range(len(head)) if not rows or any(one[i] != NONE for one in rows)]
    return [head[i] for i in kept], [[one[i] for i in kept] for one in rows]


def stage_rows(result: Result) -> list[list[str]]:
    """Return stage, runs, shortest, p50, p90, p99 and longest of every stage, in microseconds."""
    return [
        [stage, str(found.n), _number(found.min), *_times(found), _number(found.max)]
        for stage, found in result.latency_us.items()
    ]


def command_of(result: Result) -> str:
    """Return the command that measures a result's row again, given its bytes and samples."""
    plan = result.record.plan
    words = ["strop bench run", str(plan.get("bundle") or plan.get("artefact", "MODEL"))]
    for key, flag, usual in _OPTIONS:
        if (value := plan.get(key)) not in (usual, None, ""):
            words.append(f"--{flag} {value:g}" if isinstance(value, float) else f"--{flag} {value}")
    return " ".join(words)


_OPTIONS: Final = (
    ("runtime", "runtime", None), ("threads", "threads", 1), ("scenario", "scenario", "single"), ("fps", "fps", 0.0),
    ("batch", "batch", 1), ("deadline_ms", "deadline-ms", 0.0), ("mode", "mode", "bare"),
    ("profile", "profile", "default"), ("input", "input", "real"), ("data", "data", ""), ("launches", "launches", None),
    ("runs", "runs", None), ("seconds", "seconds", None),
)  # fmt: skip


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table for a terminal, the first column to the left.

    Example:
        >>> print(aligned(["a", "b"], [["x", "10"], ["long", "2"]]))
        a      b
        x     10
        long   2
    """
    widths = [max(len(one[i]) for one in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        parts = [
            cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(parts).rstrip()

    return "\n".join(line(one) for one in (head, *rows))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, the first column to the left."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in one)} |" for one in lines)
