# SPDX-License-Identifier: Apache-2.0
"""What the accuracy ladder did, rung by rung."""

from collections.abc import Sequence
from typing import Any

from compress.report import Rung
from compress.report_page.style import CALM, INK, PALE, QUIET, picture, table

__all__ = ["ladder_section"]


def ladder_section(rungs: Sequence[Rung], metric: str = "top-1") -> str:
    """Return a picture of the divergence and the drop of every attempt, and the table with what it bought."""
    kept = [rung for rung in rungs if rung.is_kept]
    first, best = rungs[0], kept[-1]
    says = (
        f"{len(rungs)} attempts; the best is {_name(best)}: {best.drop:+.2f} points "
        f"(first attempt {first.drop:+.2f}), KL {best.divergence:.2e} ({first.divergence:.2e})."
    )
    height = 0.26 * len(rungs) + 0.8
    caption = "Filled: kept, the next rung built on it. Number: drop in points."
    chart = picture(lambda axes: _draw(axes, rungs), height=height, label="what the ladder tried", caption=caption)
    return f'<p>{says}</p><div class="wide">{chart}</div>{_table(rungs, metric)}'


def _name(rung: Rung) -> str:
    return f"{rung.rung} ({rung.what})" if rung.what else rung.rung


def _short(rung: Rung) -> str:
    name = _name(rung)
    return name if len(name) <= 44 else f"{name[:43]}…"


def _draw(axes: Any, rungs: Sequence[Rung]) -> None:
    places = range(len(rungs) - 1, -1, -1)
    best: list[tuple[float, int]] = []
    for y, rung in zip(places, rungs, strict=True):
        loss = max(rung.divergence, 1e-8)
        axes.plot([loss], [y], "o", color=INK if rung.is_kept else QUIET, fillstyle="full" if rung.is_kept else "none")
        axes.annotate(f"{rung.drop:+.2f}", (loss, y), (7, 0), textcoords="offset points", va="center", color=QUIET)
        if rung.is_kept:
            best.append((loss, y))
    axes.plot(*zip(*best, strict=True), color=CALM, linewidth=1, alpha=0.6, zorder=0)
    losses = [max(rung.divergence, 1e-8) for rung in rungs]
    if max(losses) > 8 * min(losses):
        axes.set_xscale("log")
    else:
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3), useMathText=True)
    axes.margins(x=0.12)
    axes.set_yticks(places, [_short(rung) for rung in rungs])
    axes.set_xlabel("KL divergence from the float network on the validation split, nats")
    axes.grid(axis="x", color=PALE, linewidth=0.7)


def _table(rungs: Sequence[Rung], metric: str) -> str:
    rows, before = [], None
    for rung in rungs:
        bought = "–" if before is None else f"{before.drop - rung.drop:+.2f}"
        score = "–" if rung.score is None else str(rung.score).replace(" %", "")
        numbers = [score, f"{rung.drop:+.2f}", bought, f"{rung.divergence:.2e}", f"{rung.seconds:.1f}"]
        rows.append([rung.rung, rung.what, *numbers, "kept" if rung.is_kept else "no"])
        before = rung if rung.is_kept else before
    head = ["rung", "tried", f"{metric} [95 %]", "drop", "bought, points", "KL", "s", "kept"]
    return table(head, rows, words=2)
