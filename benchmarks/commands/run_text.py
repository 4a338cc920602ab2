# SPDX-License-Identifier: Apache-2.0
"""What ``strop bench run`` prints: the figures, whether they may be believed, the machine, and the command."""

from dataclasses import replace
from pathlib import Path

from benchmarks.record import Measurement
from benchmarks.result import Result
from benchmarks.result.table import HEAD, aligned, command_of, row, stage_rows
from benchmarks.stats import median, min_runs

__all__ = ["text_of"]

_STAGES = ("stage", "runs", "shortest, µs", "p50, µs [95 %]", "p90 (≤ 99 %)", "p99 (≤ 99 %)", "longest, µs")


def text_of(measurement: Measurement, result: Result, path: Path | None) -> str:
    """Return a result as lines of text.

    Args:
        measurement: What was measured.
        result: What came of it.
        path: Where it was kept, if it was.
    """
    blocks = [
        aligned(HEAD, [row(measurement.plan.configuration, result)]),
        aligned(_STAGES, stage_rows(result)),
        "\n".join(_words(measurement, result)),
        "\n".join(
            [
                _machine(measurement, result),
                f"again: {_again(measurement, result)}",
                *([f"kept: {path}"] if path else []),
            ]
        ),
    ]
    return "\n\n".join(blocks)


def _words(measurement: Measurement, result: Result) -> list[str]:
    lines = [f"{result.status}{':' if result.reasons else ''}"]
    lines += [f"  {one.status}: {one.words}" for one in result.reasons]
    said = " ".join(one.words for one in result.reasons)
    lines += [f"  note: {note}" for note in measurement.notes if note not in said]
    cold = result.cold
    if cold is not None:
        parts = f"process {cold.process_ms:.0f}, imports {cold.import_ms:.0f}, load {cold.load_ms:.1f}"
        lines.append(f"cold start, ms: {parts}, first answer {cold.first_infer_ms:.2f}")
    lines += [*_paced(measurement), *_throughput(measurement, result), *_path(measurement)]
    lines += _missing(measurement, result)
    lines.append(f"the clock adds {result.timer_ns:.0f} ns to each timed call")
    return lines


def _paced(measurement: Measurement) -> list[str]:
    if not measurement.plan.deadline_ns:
        return []
    begun = sum(one.runs for one in measurement.launches)
    missed, dropped = (sum(getattr(one, word) for one in measurement.launches) for word in ("missed", "dropped"))
    limit = measurement.plan.deadline_ns / 1e6
    return [f"deadline {limit:.1f} ms: {missed} of {begun} runs missed it, {dropped} frames were never begun"]


def _throughput(measurement: Measurement, result: Result) -> list[str]:
    """Say how many inputs a second went through, where that was asked, and by how much a long run slowed down."""
    lines, found = [], result.sustained
    if measurement.plan.scenario == "offline" and result.throughput_ips is not None:
        lines.append(f"throughput: {result.throughput_ips:.1f} inputs a second in batches of {measurement.plan.batch}")
    if found is not None:
        kept = found.last_minute_ips / found.minute1_ips
        spans = "minute" if len(found.minutes) != 4 or measurement.plan.seconds >= 240 else "quarter of the time"
        throttled = found.t_first_throttle_s
        when = "no throttling was seen" if throttled is None else f"throttled first after {throttled:.0f} s"
        lines.append(
            f"throughput: {found.minute1_ips:.1f} inputs a second in the first {spans}, "
            f"{found.last_minute_ips:.1f} in the last ({kept:.1%}); {when}"
        )
    if (every := max(one.every for one in measurement.launches)) > 1:
        lines.append(f"one of every {every} runs was kept")
    return lines


def _path(measurement: Measurement) -> list[str]:
    """Say what the agent's path adds to the call of the runtime within it."""
    if measurement.plan.mode != "realistic":
        return []
    stages = [(one.stages_ns["total"], one.stages_ns["invoke"]) for one in measurement.launches]
    added = median([float(t - i) for total, invoke in stages for t, i in zip(total, invoke, strict=True)]) / 1000
    bare = median([float(time) for _, invoke in stages for time in invoke]) / 1000
    return [f"around the runtime's call: {added:.1f} µs, {added / bare:.1%} of the call (median of the runs)"]


def _missing(measurement: Measurement, result: Result) -> list[str]:
    """Say what a tail needs that is not printed: an order statistic bounds it from so many runs on."""
    found = result.latency_us.get("total")
    if found is None or measurement.plan.profile == "quick":
        return []
    tails = [(name, q) for name, q in (("p90", 0.90), ("p99", 0.99)) if getattr(found, name) is None]
    count = f"{found.n} runs of {result.counts.launches} launches do not bound it"
    return [
        f"{name} is not printed: {count} ({min_runs(q, 0.99)} independent runs would, and runs of one process are not)"
        for name, q in tails
    ]


def _again(measurement: Measurement, result: Result) -> str:
    """Return the command with the paths of this machine: a kept result holds names only."""
    return command_of(replace(result, record=replace(result.record, plan=measurement.plan.to_json())))


def _machine(measurement: Measurement, result: Result) -> str:
    board, ran = measurement.preflight, result.runtime
    where = f"{board.board}, {len(board.cores)} cores, {board.os}, {board.kernel}, load {board.load1:.1f}"
    what = f"{ran.name} {ran.version} ({', '.join(ran.provider)}; {ran.delegated_ops:.0%} delegated)"
    return f"machine: {where}\nruntime: {what}, {ran.threads} thread{'s' if ran.threads > 1 else ''}"
