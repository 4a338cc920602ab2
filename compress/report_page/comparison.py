# SPDX-License-Identifier: Apache-2.0
"""The page of two runs side by side."""

import html
from collections.abc import Sequence
from typing import Any

from compress.compare import Compared, ComparedLayer, ComparedStep, compare, compare_layers, compare_steps
from compress.report import CompressionReport
from compress.report_page import steps as drawn
from compress.report_page.pareto import point_of
from compress.report_page.style import CALM, INK, PALE, QUIET, cards, document, folded, picture, table

__all__ = ["comparison_page"]


def comparison_page(first: CompressionReport, second: CompressionReport, names: tuple[str, str]) -> str:
    """Return a page with both runs: the test split, step by step, layer by layer.

    Args:
        first, second: On the same data; every difference is the second minus the first.
        names: What the two are called on the page, such as their folders.

    Raises:
        DataError: They were measured on different data, or have no model in common.
    """
    models, steps, layers = compare(first, second), compare_steps(first, second), compare_layers(first, second)
    a, b = (html.escape(name) for name in names)
    paired = sum(row.is_paired for row in models)
    how = "sample by sample" if paired == len(models) else f"sample by sample in {paired} of {len(models)} rows"
    facts = (
        f'<p class="quiet">{html.escape(first.name)} and {html.escape(second.name)}, data {first.data_digest[:16]}. '
        f"Every difference is the second minus the first, counted {how}; intervals are 95 %.</p>"
    )
    body = [
        f"<h1>{a} → {b}</h1>",
        facts,
        "<h2>On the test split</h2>",
        f'<div class="wide">{_changes(models)}</div>',
        _models(models),
        "<h2>Accuracy against cost</h2>",
        cards([_costs(first, second, names)], kind="large"),
        f'<p class="quiet">Steps on the validation split: {a} in grey, {b} in blue.</p>',
        "<h2>Step by step</h2>",
        _steps(steps),
        "<h2>Layer by layer</h2>",
        _layers(layers),
    ]
    return document(f"{names[0]} and {names[1]}: compression", "\n".join(body))


def _changes(models: Sequence[Compared]) -> str:
    def draw(axes: Any) -> None:
        axes.axvline(0, color=QUIET, linewidth=0.8)
        for y, row in enumerate(reversed(models)):
            change = row.change
            axes.plot([change.low, change.high], [y, y], color=CALM, linewidth=2, solid_capstyle="round")
            axes.plot([change.points], [y], "o", color=INK, markersize=5)
            text = f"{change.points:+.2f}"
            axes.annotate(text, (change.points, y), (0, 6), textcoords="offset points", ha="center")
        axes.set_yticks(range(len(models)), [row.name for row in reversed(models)])
        axes.set_ylim(-0.5, len(models) - 0.3)
        axes.set_xlabel("points of accuracy on the test split, second minus first")
        axes.grid(axis="x", color=PALE, linewidth=0.7)
        axes.set_axisbelow(True)

    return picture(draw, height=0.44 * len(models) + 0.75, label="change of every model on the test split")


def _models(models: Sequence[Compared]) -> str:
    head = ["model", "first, accuracy [95 %]", "second, accuracy [95 %]", "change, points [95 %]", "KB", "kMACs"]
    rows = [
        [
            row.name,
            str(row.first.score),
            str(row.second.score),
            str(row.change).replace(" points", "") + ("" if row.is_paired else ", not paired"),
            _arrow([f"{one.size_kb:.1f}" for one in (row.first, row.second)]),
            _arrow([f"{one.macs / 1e3:.0f}" for one in (row.first, row.second)]),
        ]
        for row in models
    ]
    return table(head, rows)


def _costs(first: CompressionReport, second: CompressionReport, names: tuple[str, str]) -> str:
    runs = [
        [point_of(step) for step in report.steps if step.number or step.method != "untrained"]
        for report in (first, second)
    ]

    def draw(axes: Any) -> None:
        for points, colour, name in zip(runs, (QUIET, CALM), names, strict=True):
            places = [(point.size_kb or 0.0, 100 * point.accuracy) for point in points]
            if not places:
                continue
            axes.plot(*zip(*places, strict=True), "o-", color=colour, markersize=4.5, linewidth=1, label=name)
            axes.annotate(points[-1].name, places[-1], (6, 4), textcoords="offset points", color=colour, fontsize=8)
        axes.set_title("accuracy, % against weights, KB", fontsize=9, loc="left", fontweight="bold")
        axes.margins(x=0.15, y=0.15)
        axes.grid(color=PALE, linewidth=0.6)
        axes.legend(fontsize=8)

    return picture(draw, width=5.0, height=3.0, label="accuracy against size of both runs") if all(runs) else ""


def _steps(steps: Sequence[ComparedStep]) -> str:
    head = ["step", "first, accuracy", "second, accuracy", "change, points [95 %]", "KB", "kMACs", "peak KB", "s"]
    rows = []
    for row in steps:
        pair = (row.first, row.second)
        present = row.first or row.second
        change = "–" if row.change is None else str(row.change).replace(" points", "")
        rows.append(
            [
                drawn.title(present) if present is not None else row.kind,
                *("–" if step is None else f"{100 * step.score.accuracy:.2f} %" for step in pair),
                change if row.is_paired or row.change is None else f"{change}, not paired",
                _arrow(["–" if step is None else f"{step.size_kb:.1f}" for step in pair]),
                _arrow(["–" if step is None else f"{step.cost.macs / 1e3:.0f}" for step in pair]),
                _arrow(["–" if step is None else f"{step.memory_kb:.1f}" for step in pair]),
                _arrow(["–" if step is None else f"{step.seconds:.1f}" for step in pair]),
            ]
        )
    return table(head, rows)


def _arrow(words: Sequence[str]) -> str:
    return words[0] if words[0] == words[1] else " → ".join(words)


def _layers(layers: Sequence[ComparedLayer]) -> str:
    head = ["layer", "channels", "MACs", "parameters", "SQNR, dB"]

    def cells(row: ComparedLayer) -> list[str]:
        counts = [
            _arrow(["–" if n is None else str(n) for n in pair]) for pair in (row.channels, row.macs, row.parameters)
        ]
        return [row.name, *counts, _arrow(["–" if db is None else f"{db:.1f}" for db in row.sqnr_db])]

    differs = [row for row in layers if any(len(set(pair)) > 1 for pair in list(vars(row).values())[1:])]
    if not differs:
        return '<p class="quiet">No layer differs in width or cost.</p>' + folded(
            "All layers", table(head, [*map(cells, layers)])
        )
    same = len(layers) - len(differs)
    rest = f'<p class="quiet">{same} layers are alike.</p>' if same else ""
    return table(head, [cells(row) for row in differs]) + rest
