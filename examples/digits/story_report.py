# SPDX-License-Identifier: Apache-2.0
"""The story's report: one self-contained HTML page with pictures drawn from its facts."""

import html
import io
import re
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["page"]

Facts = dict[str, Any]

INK, CALM, LOUD = "#22303c", "#3b7ea1", "#c8442d"
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#22303c;max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.9rem;margin-bottom:0} h2{margin-top:2.2rem;border-bottom:1px solid #d5dde3}
table{border-collapse:collapse;width:100%} td,th{padding:.35rem .6rem;text-align:left;border-bottom:1px solid #e4eaee}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums} svg{max-width:100%;height:auto} .quiet{color:#5b6b78}
"""


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def accuracy_picture(facts: Facts) -> str:
    """Return accuracy with its 95 % interval for each model, beside its size."""
    rows = facts["models"][::-1]
    figure, axes = _figure(0.55 * len(rows) + 0.8)
    for y, row in enumerate(rows):
        low, mid, high = (100 * row[key] for key in ("low", "accuracy", "high"))
        axes.plot([low, high], [y, y], color=CALM, linewidth=2)
        axes.plot([mid], [y], "o", color=INK)
        axes.annotate(
            f"{mid:.1f} %, {row['size_kb']:.1f} KB", (mid, y), (0, 8), textcoords="offset points", ha="center"
        )
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_ylim(-0.5, len(rows) - 0.2)
    axes.set_xlabel("top-1 on 1 000 held-out digits, % (line: 95 % interval)")
    return _svg(figure)


def drift_picture(facts: Facts) -> str:
    """Return, window by window, each device's estimated accuracy, with the alarms marked."""
    figure, axes = _figure(3.4)
    for name, view in facts["drift"].items():
        history = view["history"]
        estimated = [100 * window["estimated_accuracy"] for window in history]
        axes.plot(range(1, len(history) + 1), estimated, marker=".", label=name)
        alarms = [i for i, window in enumerate(history) if window["level"] == "ALARM"]
        axes.plot([i + 1 for i in alarms], [estimated[i] for i in alarms], "o", color=LOUD, fillstyle="none", ms=10)
    axes.set_xlabel("window of 200 inferences (red ring: ALARM)")
    axes.set_ylabel("estimated accuracy, %")
    axes.legend(frameon=False)
    return _svg(figure)


def truth_picture(facts: Facts) -> str:
    """Return estimated and true accuracy for each device."""
    figure, axes = _figure(2.6)
    names = list(facts["drift"])
    for x, name in enumerate(names):
        view = facts["drift"][name]
        low, high = 100 * view["low"], 100 * view["high"]
        colour = CALM if view["valid"] else LOUD
        axes.plot([x - 0.1, x - 0.1], [low, high], color=colour, linewidth=2)
        axes.plot(
            [x - 0.1], [100 * view["estimated_accuracy"]], "o", color=colour, label="estimated" if not x else None
        )
        if view["true_accuracy"] is not None:
            axes.plot([x + 0.1], [100 * view["true_accuracy"]], "D", color=INK, label="true" if not x else None)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("accuracy, %")
    axes.legend(frameon=False, loc="lower left")
    return _svg(figure)


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f"<th>{html.escape(word)}</th>" for word in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _parity(facts: Facts) -> str:
    rows = [
        [version, pair["first"], pair["second"], f"{pair['differing']} of {pair['values']}", str(pair["max_steps"])]
        for version, report in facts["parity"].items()
        for pair in report["pairs"]
    ]
    return _table(["version", "runtime", "runtime", "differing integers", "largest step"], rows)


def _rollouts(facts: Facts) -> str:
    rows = [
        [version, facts[key]["state"], " → ".join(facts[key]["waves"]), facts[key]["reason"] or "–"]
        for key, version in (("rollout_v1", "1.0.0"), ("rollout_v2", "2.0.0"), ("rollout_v3", "3.0.0"))
    ]
    return _table(["version", "rollout", "waves", "reason"], rows)


def page(facts: Facts) -> str:
    """Return the whole page as HTML with inline pictures; it asks for nothing from elsewhere."""
    from examples.digits.chapters import claims

    offline = facts["offline"]
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Strop: the story of the digits</title>
<style>{STYLE}</style>
<h1>From a teacher to a fleet, and back</h1>
<p class="quiet">One run of <code>make demo</code>; every number below was measured in it.</p>
{_table(["claim", "seen"], [list(pair) for pair in claims(facts)])}
<h2>Small, and how good</h2>{accuracy_picture(facts)}
<h2>Two files, three runtimes</h2>{_parity(facts)}
<h2>Rollouts</h2>{_rollouts(facts)}
<h2>Without a network</h2>
<p>{html.escape(offline["device"])} made {offline["inferences_in_the_dark"]} inferences while its cable was pulled.
Afterwards {offline["missing"]} were missing at the server and {offline["twice"]} had arrived twice.</p>
<h2>Drift</h2>{drift_picture(facts)}{truth_picture(facts)}
<p class="quiet">A red interval says that the shift is too strong for the estimate to be trusted as a number.</p>
<h2>Time</h2>{_table(["chapter", "seconds"], [[k, f"{v:.1f}"] for k, v in facts["timings_s"].items()])}
</html>
"""
