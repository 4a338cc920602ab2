# SPDX-License-Identifier: Apache-2.0
"""What the checks found: one line for each, a picture and a table of the parts of each."""

import html
from collections.abc import Sequence
from typing import Any, Final

from compress.checks.outcome import FAILED, FEW, CheckResult, Row
from compress.report_page.style import CALM, INK, LOUD, PALE, QUIET, folded, picture, table

__all__ = ["checks_section"]

_MOST_DRAWN: Final = 40
_DRAWN: Final = ("slices",)


def checks_section(checks: Sequence[CheckResult]) -> str:
    """Return the verdicts, and what is behind them folded below."""
    failed = sum(not one.passed for one in checks)
    kind, says = "kept", f"All {len(checks)} checks passed."
    if failed:
        kind = "missed"
        says = (
            f"{failed} of {len(checks)} checks failed: no bundle is made of this model unless each is waived by name."
        )
    parts = [f'<p class="{kind}">{says}</p>', _verdicts(checks)]
    parts += [_drawn(one) for one in checks if one.kind in _DRAWN and 1 < len(one.rows) <= _MOST_DRAWN]
    parts += [folded(f"{one.name}: {_count(one)}", _rows(one)) for one in checks if one.rows]
    parts.append(
        '<p class="quiet">On the validation split, answered by the model as it ships. A check with an interval fails '
        "where the whole interval is beyond its limit, unless the recipe says strict.</p>"
    )
    return "".join(parts)


def _verdicts(checks: Sequence[CheckResult]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("check", "found [95 %]", "asked", "verdict"))
    rows = "".join(map(_verdict, checks))
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _verdict(one: CheckResult) -> str:
    cells = [f"{one.name} ({one.kind})" if one.name != one.kind else one.name, one.figure_text, one.limit_text]
    shown = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
    verdict = f'<td class="{"kept" if one.passed else "missed"}">{one.verdict}</td>'
    words = f'<tr><td class="note" colspan="4">{html.escape(one.words)}</td></tr>'
    return f"<tr class=noted>{shown}{verdict}</tr>{words}"


def _count(one: CheckResult) -> str:
    failed = sum(row.verdict == FAILED for row in one.rows)
    return f"{len(one.rows)} lines" + (f", {failed} failed" if failed else "")


def _rows(one: CheckResult) -> str:
    def interval(row: Row) -> str:
        return "–" if row.low is None or row.high is None else f"[{row.low:.1f}, {row.high:.1f}]"

    digits = 0 if one.unit == "inputs" else 1
    unit = "%" if one.kind == "slices" else one.unit or "figure"
    rows = [
        [row.name, row.words, f"{row.figure:.{digits}f}", interval(row), str(row.samples), row.verdict]
        for row in one.rows
    ]
    return table(["part", "found", unit, "95 %", "samples", "verdict"], rows, words=2)


def _drawn(one: CheckResult) -> str:
    height = 0.26 * len(one.rows) + 0.9
    caption = "Point: accuracy; line: 95 % interval; open: too few samples to be judged."
    caption += f" Dashed: {one.limit:g} %, what was asked." if one.unit == "%" and one.limit else ""
    label = f"check {one.name}, slice by slice"
    chart = picture(lambda axes: _draw(axes, one), height=height, label=label, caption=caption)
    return f'<h3>{html.escape(one.name)}</h3><div class="wide">{chart}</div>'


def _draw(axes: Any, one: CheckResult) -> None:
    places = range(len(one.rows) - 1, -1, -1)
    for y, row in zip(places, one.rows, strict=True):
        colour = LOUD if row.verdict == FAILED else QUIET if row.verdict == FEW else INK
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [y, y], color=colour, linewidth=1.2)
        axes.plot([row.figure], [y], "o", color=colour, fillstyle="none" if row.verdict == FEW else "full")
    if one.unit == "%" and one.limit:
        axes.axvline(one.limit, color=CALM, linewidth=1, linestyle="--")
    axes.set_yticks(places, [f"{row.name[:40]} ({row.samples})" for row in one.rows])
    axes.set_xlabel("accuracy on the slice, %")
    axes.grid(axis="x", color=PALE, linewidth=0.7)
