# SPDX-License-Identifier: Apache-2.0
"""Accuracy against cost: the steps of a run, and the trials of the search that led to it."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final

from compress.report import CompressionReport, Point, StepReport
from compress.report_page.steps import title
from compress.report_page.style import CALM, INK, PALE, QUIET, picture

__all__ = ["front", "pareto_pictures", "point_of"]

COSTS: Final[dict[str, Callable[[Point], float | None]]] = {
    "weights, KB": lambda point: point.size_kb,
    "MACs, thousands": lambda point: None if point.macs is None else point.macs / 1e3,
    "latency, ms": lambda point: point.latency_ms,
}
_LOGARITHMIC = 6.0  # a wider spread of costs is drawn on a logarithmic axis


def point_of(step: StepReport) -> Point:
    """Return a step as a point."""
    score, cost = step.score, float(step.cost.macs)
    return Point(title(step), score.accuracy, score.low, score.high, step.size_kb, cost, step.latency_ms)


def front(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (cost, accuracy) pairs that no other beats in both, the cheapest first.

    Example:
        >>> front([(10.0, 0.90), (20.0, 0.95), (15.0, 0.85), (30.0, 0.95)])
        [(10.0, 0.9), (20.0, 0.95)]
    """
    kept: list[tuple[float, float]] = []
    for cost, accuracy in sorted(places, key=lambda place: (place[0], -place[1])):
        if not kept or accuracy > kept[-1][1]:
            kept.append((cost, accuracy))
    return kept


def pareto_pictures(report: CompressionReport) -> tuple[str, ...]:
    """Return one small picture for every cost that was measured; steps before any training are left out."""
    steps = [point_of(step) for step in report.steps if step.number or step.method != "untrained"]
    groups = {"step": steps, "trial": list(report.trials)}
    return tuple(found for cost in COSTS if (found := _picture(report, cost, groups)))


def _picture(report: CompressionReport, cost: str, groups: dict[str, list[Point]]) -> str:
    price = COSTS[cost]
    shown = {name: [(p, c) for p in points if (c := price(p))] for name, points in groups.items()}
    every = [(c, 100 * p.accuracy) for points in shown.values() for p, c in points]
    if len({c for c, _ in every}) < 2:
        return ""

    def draw(axes: Any) -> None:
        _front(axes, every)
        for point, place in shown["trial"]:
            axes.plot([place], [100 * point.accuracy], ".", color=QUIET, markersize=4)
        _named(axes, shown["step"])
        _path(axes, [(place, 100 * point.accuracy) for point, place in shown["step"]])
        costs = [c for c, _ in every]
        if max(costs) / min(costs) > _LOGARITHMIC:
            _logarithmic(axes)
        axes.margins(x=0.18, y=0.16)
        axes.set_ylim(axes.get_ylim())
        axes.set_yticks(
            [tick for tick in axes.get_yticks() if axes.get_ylim()[0] <= tick <= min(100, axes.get_ylim()[1])]
        )
        axes.set_title(f"{report.metric_word}, % against {cost}", fontsize=9, loc="left", fontweight="bold")
        axes.grid(color=PALE, linewidth=0.6)
        axes.set_axisbelow(True)

    return picture(draw, width=5.2, height=3.1, label=f"accuracy against {cost}")


def _logarithmic(axes: Any) -> None:
    """A logarithmic axis with plain numbers on it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _front(axes: Any, every: Sequence[tuple[float, float]]) -> None:
    best = front(every)
    axes.plot(*zip(*best, strict=True), color=CALM, linewidth=1.2, alpha=0.55, drawstyle="steps-post")
    axes.plot(*zip(*best, strict=True), "o", color=CALM, markersize=9, fillstyle="none", markeredgewidth=1.1)


def _path(axes: Any, places: Sequence[tuple[float, float]]) -> None:
    """Arrows from step to step."""
    arrow = {"arrowstyle": "->", "color": QUIET, "linewidth": 0.8, "shrinkA": 4, "shrinkB": 4}
    for before, after in itertools.pairwise(places):
        if before != after:
            axes.annotate("", after, before, arrowprops=arrow)


def _named(axes: Any, points: Sequence[tuple[Point, float]]) -> None:
    for i, (point, place) in enumerate(points):
        height = 100 * point.accuracy
        if point.low is not None and point.high is not None:
            axes.plot([place, place], [100 * point.low, 100 * point.high], color=INK, linewidth=0.8, alpha=0.5)
        axes.plot([place], [height], "o", color=INK, markersize=4.5)
        above = 5 if _is_above(points, i) else -11
        axes.annotate(point.name, (place, height), (5, above), textcoords="offset points", color=INK, fontsize=8)


def _is_above(points: Sequence[tuple[Point, float]], number: int) -> bool:
    """Tell whether a name stands above its point: of two neighbours, that of the better one."""
    point, place = points[number]
    others = [i for i in range(len(points)) if i != number]
    if not others:
        return True
    near = min(others, key=lambda i: abs(points[i][1] - place))
    return (point.accuracy, -number) >= (points[near][0].accuracy, -near)
