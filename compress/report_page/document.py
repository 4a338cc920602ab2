# SPDX-License-Identifier: Apache-2.0
"""The page of one run: what came out first, then how it came about, then every layer."""

import html
from collections.abc import Sequence
from typing import Final

from compress.report import CompressionReport, StepReport
from compress.report_page import steps as drawn
from compress.report_page.checks import checks_section
from compress.report_page.ladder import ladder_section
from compress.report_page.layers import fidelity_section, sensitivity_section
from compress.report_page.pareto import pareto_pictures
from compress.report_page.style import cards, document, folded, kilobytes, table

__all__ = ["page"]

FEW_NOTES: Final = 6


def page(report: CompressionReport) -> str:
    """Return the page; the same report gives the same bytes."""
    parts = [_head(report), _tiles(report), "<h2>On the test split</h2>", _test(report), _new(report), _budget(report)]
    if report.checks:
        parts += ["<h2>Checks</h2>", checks_section(report.checks)]
    if report.steps:
        parts += [_steps(report), _pareto(report)]
    if report.ladder:
        parts += ["<h2>What the accuracy ladder did</h2>", ladder_section(report.ladder, report.metric_word)]
    if report.fidelity is not None:
        parts += ["<h2>Where the integers leave the float network</h2>", fidelity_section(report.fidelity)]
    if report.sensitivity is not None:
        parts += ["<h2>What each layer alone costs</h2>", sensitivity_section(report.sensitivity)]
    if report.notes:
        parts += ["<h2>Notes</h2>", _notes(report.notes)]
    if report.steps:
        parts += ["<h2>Layers of the result</h2>", _layers(report)]
    return document(f"{report.name}: compression", "\n".join(part for part in parts if part))


def _notes(notes: Sequence[str]) -> str:
    """A large network may have a note for each layer: more than a few are folded."""
    lines = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f"<ul>{lines}</ul>" if len(notes) <= FEW_NOTES else folded(f"{len(notes)} notes", f"<ul>{lines}</ul>")


def _head(report: CompressionReport) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions)
    return (
        f'<h1>{html.escape(report.name)}</h1><p class="quiet">for {html.escape(report.target)}, seed {report.seed}, '
        f"{report.seconds:.1f} s; {html.escape(versions)}<br>recipe {report.recipe_digest[:16]}, "
        f"data {report.data_digest[:16]}</p>"
    )


def _tiles(report: CompressionReport) -> str:
    """The result in four numbers, against the model that entered."""
    if not report.steps:
        return ""
    first, last = report.steps[0], report.steps[-1]
    tiles = [
        (f"{100 * last.score.accuracy:.1f} %", f"{report.metric_word} on the validation split"),
        _dropped(last.drop),
        (f"{kilobytes(last.size_kb)} KB", f"weights, {_times(first.size_kb, last.size_kb)}"),
        (f"{last.cost.macs / 1e3:,.0f} k", f"multiply-accumulates, {_times(first.cost.macs, last.cost.macs)}"),
        (f"{kilobytes(last.memory_kb)} KB", f"activations at their peak, {_times(first.memory_kb, last.memory_kb)}"),
    ]
    if last.zipped_kb is not None:
        tiles.append((f"{kilobytes(last.zipped_kb)} KB", "weights after deflate"))
    inside = "".join(f'<div class="tile"><b>{value}</b><span>{what}</span></div>' for value, what in tiles)
    return f'<div class="tiles">{inside}</div>'


def _dropped(drop: float | None) -> tuple[str, str]:
    """Return the tile of what was lost, which may be a gain."""
    if drop is None:
        return "–", "points dropped"
    return (f"{drop:.2f}", "points dropped") if drop >= 0 else (f"{-drop:.2f}", "points gained")


def _times(before: float, after: float) -> str:
    if not after or round(before / after, 1) == 1.0:
        return "as it entered"
    return f"{before / after:.1f} × less" if before > after else f"{after / before:.1f} × more"


def _test(report: CompressionReport) -> str:
    if not report.test:
        return '<p class="missed">The budget was missed, so the test split was not read.</p>'
    rows = [
        [row.name, str(row.score), kilobytes(row.size_kb), f"{row.macs / 1e3:.0f}", str(row.parameters)]
        for row in report.test
    ]
    made = table(["model", f"{report.test_word} [95 %]", "KB", "kMACs", "parameters"], rows)
    change = (
        f"<p>{html.escape(report.test[-1].name)} against float, on the same samples: {report.change}.</p>"
        if report.change
        else ""
    )
    return f'{made}{change}<p class="quiet">Read once, after every decision.</p>'


def _new(report: CompressionReport) -> str:
    """What was asked of inputs without labels: only the teacher answers for them."""
    if not report.new:
        return ""
    rows = [[row.name, str(row.score)] for row in report.new]
    made = table(["model", "agreement with the teacher [95 %]"], rows)
    words = "None of them was trained on, calibrated or chosen by."
    return f'<h2>On inputs without labels</h2>{made}<p class="quiet">{words}</p>'


def _budget(report: CompressionReport) -> str:
    if not report.budget:
        return ""
    lines = "".join(
        f'<li class="{"kept" if line.is_kept else "missed"}">{html.escape(line.name)}: {line.value:g} '
        f"{'≤' if line.is_kept else '&gt;'} {line.limit:g}</li>"
        for line in report.budget
    )
    return f"<h2>Budget</h2><ul>{lines}</ul>"


def _steps(report: CompressionReport) -> str:
    steps = report.steps
    head = [
        "step",
        f"{report.metric_word} [95 %]",
        "change [95 %]",
        "drop",
        "KB",
        "zipped",
        "kMACs",
        "peak KB",
        "parameters",
        "s",
    ]
    made = table(head, [_row(step) for step in steps], [step.note for step in steps])
    measured = all(step.peak_kb is not None for step in steps)
    peak = "all that lives at the same time" if measured else "at least the inputs and output of the largest layer"
    return (
        f'<h2>Step by step</h2>{made}<p class="quiet">On the validation split. Change: against the step before, on the '
        "same samples. Drop: points lost against the model before the first lossy step (or the entering one, if it "
        "came with weights). KB: weights, as float32 with folded normalisation or as int8 with int32 biases. Peak: "
        f"activations on one input, {peak}.</p>"
        f'<div class="wide">{drawn.accuracy_picture(steps, report.metric_word)}</div>'
        + cards(drawn.cost_pictures(steps))
        + "".join(
            f'<div class="wide">{one}</div>' for one in (drawn.width_picture(steps), drawn.loss_picture(steps)) if one
        )
    )


def _row(step: StepReport) -> list[str]:
    return [
        f"{drawn.title(step)} ({step.method})" if step.number else "entering",
        str(step.score).replace(" %", ""),
        "–" if step.change is None else str(step.change).replace(" points", ""),
        "–" if step.drop is None else f"{step.drop:+.2f}",
        kilobytes(step.size_kb),
        "–" if step.zipped_kb is None else kilobytes(step.zipped_kb),
        f"{step.cost.macs / 1e3:.0f}",
        kilobytes(step.memory_kb),
        str(step.cost.parameters),
        f"{step.seconds:.1f}",
    ]


def _pareto(report: CompressionReport) -> str:
    made = cards(pareto_pictures(report), kind="large")
    if not made:
        return ""
    beside = f" Grey dots: the {len(report.trials)} trials of the search." if report.trials else ""
    return (
        f'<h2>Accuracy against cost</h2>{made}<p class="quiet">On the validation split; upright lines: 95 % intervals. '
        f"Blue rings: what nothing beats in both.{beside}</p>"
    )


def _layers(report: CompressionReport) -> str:
    last = report.steps[-1].cost
    rows = [
        [layer.name, layer.kind, str(layer.channels), str(layer.macs), str(layer.parameters), str(layer.elements)]
        for layer in last.layers
        if layer.parameters
    ]
    head = ["layer", "kind", "channels", "MACs", "parameters", "activations in + out"]
    return folded(f"{len(rows)} layers with weights", table(head, rows, words=2))
