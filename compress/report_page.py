# SPDX-License-Identifier: Apache-2.0
"""The report as one HTML page that asks for nothing from elsewhere: tables, and pictures drawn inline as SVG."""

import html
import io
from collections.abc import Sequence
from typing import Any, Final

from compress.report import CompressionReport, StepReport

__all__ = ["page"]

INK, CALM, LOUD, PALE = "#1d2b36", "#2f6f9f", "#b3402f", "#d7e3ec"
STYLE: Final = f"""
body {{ font: 15px/1.5 system-ui, sans-serif; color: {INK}; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; margin-bottom: 0; }} h2 {{ font-size: 1.15rem; margin-top: 2rem; }}
table {{ border-collapse: collapse; width: 100%; margin: .6rem 0; }}
th, td {{ text-align: right; padding: .3rem .6rem; border-bottom: 1px solid {PALE}; }}
th:first-child, td:first-child {{ text-align: left; }} thead th {{ border-bottom: 2px solid {INK}; }}
td.note {{ text-align: left; color: #55646f; font-size: .85rem; }} svg {{ width: 100%; height: auto; }}
.quiet {{ color: #55646f; }} .kept {{ color: {CALM}; }} .missed {{ color: {LOUD}; font-weight: 600; }}
"""


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # without pyplot: no window system, no global state

    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    return figure, axes


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    target = io.StringIO()
    # A fixed salt and no date: the same report draws the same bytes.
    with rc_context({"svg.hashsalt": "strop", "svg.fonttype": "none"}):
        figure.savefig(target, format="svg", metadata={"Date": None})
    text = target.getvalue()
    return text[text.index("<svg") :]


def accuracy_picture(steps: Sequence[StepReport]) -> str:
    """Return validation accuracy with its interval after each step."""
    shown = [step for step in steps if step.number or step.method != "untrained"]
    figure, axes = _figure(0.5 * len(shown) + 0.9)
    for y, step in enumerate(reversed(shown)):
        score = step.score
        axes.plot([100 * score.low, 100 * score.high], [y, y], color=CALM, linewidth=2)
        axes.plot([100 * score.accuracy], [y], "o", color=INK)
        axes.annotate(f"{100 * score.accuracy:.1f}", (100 * score.accuracy, y), (0, 7), textcoords="offset points")
    axes.set_yticks(range(len(shown)), [_title(step) for step in reversed(shown)])
    axes.set_ylim(-0.5, len(shown) - 0.3)
    axes.set_xlabel("top-1 on the validation split, % (line: 95 % interval)", fontsize=9)
    return _svg(figure)


def cost_picture(steps: Sequence[StepReport]) -> str:
    """Return size and multiply-accumulates after each step, as a share of the entering model's."""
    figure, axes = _figure(0.62 * len(steps) + 0.9)
    first = steps[0]
    for y, step in enumerate(reversed(steps)):
        size, macs = step.size_kb / first.size_kb, step.cost.macs / first.cost.macs
        axes.barh(y + 0.2, 100 * size, 0.36, color=CALM, label="size of the weights" if not y else None)
        axes.barh(y - 0.2, 100 * macs, 0.36, color=INK, label="multiply-accumulates" if not y else None)
        axes.text(100 * size + 0.6, y + 0.2, f"{step.size_kb:.1f} KB", va="center", fontsize=8)
        axes.text(100 * macs + 0.6, y - 0.2, f"{step.cost.macs / 1e3:.0f} k", va="center", fontsize=8)
    axes.set_yticks(range(len(steps)), [_title(step) for step in reversed(steps)])
    axes.set_xlim(0, 114)
    axes.set_xlabel("% of the entering model", fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return _svg(figure)


def loss_picture(steps: Sequence[StepReport]) -> str:
    """Return the training loss of every epoch, step after step; empty if nothing was trained."""
    trained = [step for step in steps if step.losses]
    if not trained:
        return ""
    figure, axes = _figure(2.6)
    start = 0
    for step in trained:
        epochs = range(start + 1, start + 1 + len(step.losses))
        axes.plot(epochs, step.losses, marker=".", label=_title(step))
        start += len(step.losses)
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel("training loss", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def width_picture(steps: Sequence[StepReport]) -> str:
    """Return the channels of each convolution as it entered and at the end; empty if none changed."""
    before = {layer.name: layer.channels for layer in steps[0].cost.layers if layer.kind == "Conv2d"}
    after = {layer.name: layer.channels for layer in steps[-1].cost.layers if layer.kind == "Conv2d"}
    if before == after:
        return ""
    figure, axes = _figure(2.4)
    places = range(len(before))
    axes.bar(places, list(before.values()), color=PALE, label="entering")
    axes.bar(places, [after.get(name, 0) for name in before], color=CALM, label="kept")
    axes.set_xticks(places, list(before), rotation=30, ha="right", fontsize=8)
    axes.set_ylabel("channels", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _title(step: StepReport) -> str:
    return f"{step.number}. {step.kind}" if step.number else "entering"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    cells = "".join(f"<th>{html.escape(word)}</th>" for word in head)
    body = ""
    for place, row in enumerate(rows):
        body += "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        if place < len(notes) and notes[place]:
            body += f'<tr><td class="note" colspan="{len(head)}">{html.escape(notes[place])}</td></tr>'
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _steps(report: CompressionReport) -> str:
    head = ["step", "validation top-1, % [95 %]", "change, points [95 %]", "drop", "KB", "kMACs", "parameters", "s"]
    rows = [
        [
            f"{_title(step)} ({step.method})",
            str(step.score).replace(" %", ""),
            "–" if step.change is None else str(step.change).replace(" points", ""),
            "–" if step.drop is None else f"{step.drop:+.2f}",
            f"{step.size_kb:.1f}",
            f"{step.cost.macs / 1e3:.0f}",
            str(step.cost.parameters),
            f"{step.seconds:.1f}",
        ]
        for step in report.steps
    ]
    return _table(head, rows, [step.note for step in report.steps])


def _test(report: CompressionReport) -> str:
    if not report.test:
        return '<p class="missed">The budget was missed, so the test split was not read.</p>'
    rows = [
        [row.name, str(row.score), f"{row.size_kb:.1f}", f"{row.macs / 1e3:.0f}", str(row.parameters)]
        for row in report.test
    ]
    table = _table(["model", "test top-1 [95 %]", "KB", "kMACs", "parameters"], rows)
    change = f"<p>int8 against float, on the same samples: {report.change}.</p>" if report.change else ""
    return f'{table}{change}<p class="quiet">Read once, after every decision.</p>'


def _budget(report: CompressionReport) -> str:
    if not report.budget:
        return ""
    lines = "".join(
        f'<li class="{"kept" if line.is_kept else "missed"}">{html.escape(line.name)}: {line.value:g} '
        f"{'≤' if line.is_kept else '&gt;'} {line.limit:g}</li>"
        for line in report.budget
    )
    return f"<h2>Budget</h2><ul>{lines}</ul>"


def _layers(report: CompressionReport) -> str:
    last = report.steps[-1].cost
    rows = [
        [layer.name, layer.kind, str(layer.channels), str(layer.macs), str(layer.parameters), str(layer.elements)]
        for layer in last.layers
        if layer.parameters
    ]
    head = ["layer", "kind", "channels", "MACs", "parameters", "activations in + out"]
    return _table(head, rows)


def page(report: CompressionReport) -> str:
    """Return the page."""
    steps = report.steps
    pictures = ""
    if steps:
        parts = [accuracy_picture(steps), cost_picture(steps), width_picture(steps), loss_picture(steps)]
        pictures = "".join(part for part in parts if part)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in report.notes)
    versions = ", ".join(f"{name} {version}" for name, version in report.versions)
    name, target = html.escape(report.name), html.escape(report.target)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}: compression</title>
<style>{STYLE}</style>
<h1>{name}</h1>
<p class="quiet">for {target}, seed {report.seed}, {report.seconds:.1f} s; {html.escape(versions)}<br>
recipe {report.recipe_digest[:16]}, data {report.data_digest[:16]}</p>
<h2>On the test split</h2>{_test(report)}{_budget(report)}
<h2>Step by step</h2>{_steps(report) if steps else ""}
<p class="quiet">Change: against the step before, on the same samples. Drop: points lost against the model before the
first lossy step (or the entering one, if it came with weights). KB: weights, as float32 with folded normalisation or as
int8 with int32 biases.</p>
{pictures}
{f"<h2>Notes</h2><ul>{notes}</ul>" if notes else ""}
<h2>Layers of the result</h2>{_layers(report) if steps else ""}
</html>
"""
