# SPDX-License-Identifier: Apache-2.0
"""Reports as tables for a terminal."""

from collections.abc import Sequence

from rich.table import Table

from compress.compare import Compared
from compress.dry_run import Estimate
from compress.report import CompressionReport

__all__ = ["compared_table", "estimate_table", "step_table", "model_table"]


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    return table


def step_table(report: CompressionReport) -> Table:
    """Return the steps, as measured on the validation split."""
    head = ("validation top-1 [95 %]", "drop", "KB", "kMACs", "parameters", "s")
    table = _table(f"{report.name}: step by step", ("step", "method"), head)
    for step in report.steps:
        drop = "–" if step.drop is None else f"{step.drop:+.2f}"
        cost = (f"{step.size_kb:.1f}", f"{step.cost.macs / 1e3:.0f}", str(step.cost.parameters))
        table.add_row(step.kind, step.method, str(step.score), drop, *cost, f"{step.seconds:.1f}")
    return table


def model_table(report: CompressionReport) -> Table:
    """Return the models on the test split."""
    table = _table(f"{report.name}: test split", ("model",), ("top-1 [95 %]", "KB", "kMACs", "parameters"))
    for row in report.test:
        table.add_row(row.name, str(row.score), f"{row.size_kb:.1f}", f"{row.macs / 1e3:.0f}", str(row.parameters))
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
    table = _table(f"test split: {first} → {second}", ("model",), ("top-1", "change, points [95 %]", "KB", "kMACs"))
    for row in rows:
        a, b = row.first, row.second
        table.add_row(
            row.name,
            f"{100 * a.score.accuracy:.1f} → {100 * b.score.accuracy:.1f} %",
            str(row.change).replace(" points", ""),
            f"{a.size_kb:.1f} → {b.size_kb:.1f}",
            f"{a.macs / 1e3:.0f} → {b.macs / 1e3:.0f}",
        )
    return table
