# SPDX-License-Identifier: Apache-2.0
"""Reports as tables for a terminal."""

from collections.abc import Iterable, Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from compress.checks.outcome import FAILED, CheckResult
from compress.compare import Compared, ComparedLayer, ComparedStep
from compress.dry_run import Estimate
from compress.quantize.sensitivity import CHOICES, Sensitivity
from compress.report import CompressionReport, Rung

__all__ = [
    "check_parts",
    "compared_layers_table",
    "compared_steps_table",
    "compared_table",
    "estimate_table",
    "ladder_table",
    "model_table",
    "new_table",
    "sensitivity_table",
    "step_table",
]

_NEW: Final = "none of which was trained on, calibrated or chosen by"


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    return table


def step_table(report: CompressionReport) -> Table:
    """Return the steps, as measured on the validation split."""
    head = (f"validation {report.metric_word} [95 %]", "drop", "KB", "zipped", "kMACs", "peak KB", "parameters", "s")
    table = _table(f"{report.name}: step by step", ("step", "method"), head)
    for step in report.steps:
        drop = "–" if step.drop is None else f"{step.drop:+.2f}"
        zipped = "–" if step.zipped_kb is None else f"{step.zipped_kb:.1f}"
        cost = (f"{step.size_kb:.1f}", zipped, f"{step.cost.macs / 1e3:.0f}", f"{step.memory_kb:.1f}")
        seconds = f"{step.seconds:.1f}"
        table.add_row(step.kind, step.method, str(step.score), drop, *cost, str(step.cost.parameters), seconds)
    return table


def model_table(report: CompressionReport) -> Table:
    """Return the models on the test split."""
    table = _table(
        f"{report.name}: test split", ("model",), (f"{report.test_word} [95 %]", "KB", "kMACs", "parameters")
    )
    for row in report.test:
        table.add_row(row.name, str(row.score), f"{row.size_kb:.1f}", f"{row.macs / 1e3:.0f}", str(row.parameters))
    return table


def new_table(report: CompressionReport) -> Table:
    """Return how often each model answers as the teacher does on inputs without labels that no step saw."""
    table = _table(f"{report.name}: inputs without labels, {_NEW}", ("model",), ("agreement with the teacher [95 %]",))
    for row in report.new:
        table.add_row(row.name, str(row.score))
    return table


def estimate_table(name: str, estimates: Sequence[Estimate]) -> Table:
    """Return what a recipe would do."""
    head = ("epochs", "KB", "kMACs", "parameters")
    table = _table(f"{name}: estimates, nothing was trained", ("step", "method"), head)
    for one in estimates:
        cost = (f"{one.size_kb:.1f}", f"{one.macs / 1e3:.0f}", str(one.parameters))
        table.add_row(one.kind, one.method, str(one.epochs or "–"), *cost)
    return table


def compared_table(first: str, second: str, rows: Sequence[Compared]) -> Table:
    """Return two reports side by side."""
    table = _table(f"test split: {first} → {second}", ("model",), ("accuracy", "change, points [95 %]", "KB", "kMACs"))
    for row in rows:
        a, b = row.first, row.second
        table.add_row(
            row.name,
            f"{100 * a.score.accuracy:.1f} → {100 * b.score.accuracy:.1f} %",
            _change(str(row.change), is_paired=row.is_paired),
            f"{a.size_kb:.1f} → {b.size_kb:.1f}",
            f"{a.macs / 1e3:.0f} → {b.macs / 1e3:.0f}",
        )
    return table


def _change(change: str, *, is_paired: bool) -> str:
    return change.replace(" points", "") + ("" if is_paired else " not paired")


def compared_steps_table(rows: Sequence[ComparedStep]) -> Table:
    """Return the steps of two reports side by side."""
    head = ("accuracy", "change, points [95 %]", "KB", "kMACs", "s")
    table = _table("validation split, step by step", ("step",), head)
    for row in rows:
        pair = (row.first, row.second)
        table.add_row(
            row.kind,
            _pair("–" if one is None else f"{100 * one.score.accuracy:.1f}" for one in pair),
            "–" if row.change is None else _change(str(row.change), is_paired=row.is_paired),
            _pair("–" if one is None else f"{one.size_kb:.1f}" for one in pair),
            _pair("–" if one is None else f"{one.cost.macs / 1e3:.0f}" for one in pair),
            _pair("–" if one is None else f"{one.seconds:.1f}" for one in pair),
        )
    return table


def compared_layers_table(rows: Sequence[ComparedLayer]) -> Table:
    """Return the layers that differ between two results."""
    table = _table("layers that differ", ("layer",), ("channels", "MACs", "parameters", "SQNR, dB"))
    for row in rows:
        pairs = (row.channels, row.macs, row.parameters, row.sqnr_db)
        if any(first != second for first, second in pairs):
            counts = [_pair("–" if n is None else str(n) for n in pair) for pair in pairs[:3]]
            table.add_row(row.name, *counts, _pair("–" if db is None else f"{db:.1f}" for db in row.sqnr_db))
    return table


def _pair(words: Iterable[str]) -> str:
    first, second = words
    return first if first == second else f"{first} → {second}"


def ladder_table(rungs: Sequence[Rung]) -> Table:
    """Return what the accuracy ladder tried."""
    table = _table("accuracy ladder", ("rung", "tried"), ("accuracy [95 %]", "drop", "KL", "s", "kept"))
    for rung in rungs:
        score, kept = "–" if rung.score is None else str(rung.score), "yes" if rung.is_kept else "no"
        numbers = (f"{rung.drop:+.2f}", f"{rung.divergence:.2e}", f"{rung.seconds:.1f}")
        table.add_row(rung.rung, rung.what, score, *numbers, kept)
    return table


def sensitivity_table(sensitivity: Sensitivity) -> Table:
    """Return what quantizing each layer alone costs, the most sensitive first."""
    choices = [choice for choice in CHOICES if choice in sensitivity.layers[0].effects]
    names = {"4": "4 bits", "8": "8 bits", "float": "wide"}
    head = [f"{names[choice]}: {what}" for choice in choices for what in ("KL", "dB", "points")]
    title = f"one layer quantized at a time, {sensitivity.samples} validation samples"
    table = _table(title, ("layer", "kind"), ("parameters", *head))
    table.columns[0].min_width = max(len(layer.layer) for layer in sensitivity.layers)  # a recipe needs whole names
    for layer in sensitivity.ranked(choices[0]):
        cells = []
        for choice in choices:
            effect = layer.effects[choice]
            points = "–" if effect.change is None else f"{effect.change.points:+.2f}"
            cells += [f"{effect.kl:.1e}", f"{effect.sqnr_db:.1f}", points]
        table.add_row(layer.layer, layer.kind, str(layer.parameters), *cells)
    return table


def check_parts(checks: Sequence[CheckResult]) -> list[Table | Text]:
    """Return what the checks found, and below it each slice or split that failed; nothing where no check ran."""
    if not checks:
        return []
    table = _table("checks, on the model as it ships", ("check", "kind"), ("found [95 %]", "asked", "verdict"))
    for one in checks:
        verdict = Text(one.verdict, style="" if one.passed else "bold red")
        table.add_row(one.name, one.kind, one.figure_text, one.limit_text, verdict)
    lines = [f"{one.name}: {one.words}" for one in checks if not one.passed]
    rows = [f"  {row.name}: {row.words}" for one in checks for row in one.rows if row.verdict == FAILED]
    return [table, *map(Text, (*lines, *rows))]  # brackets of intervals and names are no markup
