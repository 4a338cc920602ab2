# SPDX-License-Identifier: Apache-2.0
"""Small pictures as inline SVG: shapes and classes only, colours are the style sheet's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

__all__ = ["Point", "accuracy_bar", "drift_chart", "interval_bar"]

_WIDTH: Final = 720.0
_HEIGHT: Final = 270.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 12.0, 28.0, 26.0


@dataclass(frozen=True)
class Point:
    """One window of a drift chart; accuracies in 0 .. 1, None where not known.

    Attributes:
        level: insufficient, ok, warn or alarm.
        estimated, low, high: Estimated accuracy and its band.
        true: From labels.
        valid: Whether the estimate may be believed.
        when: For the tooltip.
    """

    level: str
    estimated: float | None
    low: float | None
    high: float | None
    true: float | None
    valid: bool
    when: str


def accuracy_bar(
    estimated: float | None, low: float | None, high: float | None, true: float | None, reference: float | None
) -> Markup:
    """Return a bar from 0 to 100 % with the estimate's band and dot, the true accuracy, and the reference as a tick."""
    parts = ['<line class="track" x1="0" x2="120" y1="9" y2="9"/>']
    if low is not None and high is not None:
        width = max(1.5, 120 * (high - low))
        parts.append(f'<rect class="band" x="{120 * low:.1f}" y="5" width="{width:.1f}" height="8" rx="3"/>')
    if reference is not None:
        parts.append(f'<line class="reference" x1="{120 * reference:.1f}" x2="{120 * reference:.1f}" y1="1" y2="17"/>')
    if true is not None:
        x = 120 * true
        parts.append(f'<path class="true" d="M{x:.1f} 4l5 5-5 5-5-5z"/>')
    if estimated is not None:
        parts.append(f'<circle class="estimated" cx="{120 * estimated:.1f}" cy="9" r="3.5"/>')
    return _svg('<svg class="bar" viewBox="-6 0 132 18" aria-hidden="true">', parts)


def interval_bar(estimate: float | None, low: float | None, high: float | None) -> Markup:
    """Return an interval around zero: a change that may be worse (right) or better (left), with its estimate as a dot.

    An end that is not known is drawn to the frame's edge.
    """
    known = [abs(value) for value in (estimate, low, high) if value is not None]
    scale = 56.0 / max([*known, 1e-12])

    def x(value: float) -> float:
        return 60.0 + max(-58.0, min(58.0, scale * value))

    left, right = x(low) if low is not None else 2.0, x(high) if high is not None else 118.0
    parts = [
        '<line class="track" x1="0" x2="120" y1="9" y2="9"/><line class="reference" x1="60" x2="60" y1="1" y2="17"/>'
    ]
    parts.append(f'<rect class="band" x="{left:.1f}" y="5" width="{max(1.5, right - left):.1f}" height="8" rx="3"/>')
    if estimate is not None:
        parts.append(f'<circle class="estimated" cx="{x(estimate):.1f}" cy="9" r="3.5"/>')
    return _svg('<svg class="bar" viewBox="-6 0 132 18" aria-hidden="true">', parts)


def _y(share: float, floor: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - (share - floor) / (1 - floor))


def _floor(points: Sequence[Point], reference: float | None) -> float:
    """The lower end of the axis: a tenth below everything that is drawn."""
    seen = [v for p in points for v in (p.estimated, p.low, p.true) if v is not None]
    lowest = min([*seen, reference or 1.0], default=0.5)
    return max(0.0, min(0.8, int(lowest * 10 - 0.5) / 10))


def _grid(floor: float) -> str:
    steps = round((1 - floor) * 10)
    shares = [floor + i / 10 for i in range(steps + 1)]
    shown = shares if steps <= 5 else shares[::2] if steps % 2 == 0 else shares[1::2]
    lines = []
    for share in shown:
        y = _y(share, floor)
        lines.append(f'<line class="grid" x1="0" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="0" y="{y - 5:.1f}">{100 * share:.0f} %</text>')
    return "".join(lines)


def _runs(values: Sequence[float | None]) -> list[list[int]]:
    """Indices of neighbouring windows that have a value: a line does not cross a gap."""
    runs: list[list[int]] = []
    for i, value in enumerate(values):
        if value is None:
            continue
        if runs and runs[-1][-1] == i - 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def drift_chart(points: Sequence[Point], reference: float | None) -> Markup:
    """Return estimated accuracy with its band, true accuracy and the reference, one step per window, oldest left."""
    floor = _floor(points, reference)
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(points))

    def x(i: int) -> float:
        return _LEFT + step * (i + 0.5)

    parts = [_grid(floor)]
    for run in _runs([p.low for p in points]):
        upper = [f"{x(i):.1f},{_y(points[i].high or 0.0, floor):.1f}" for i in run]
        lower = [f"{x(i):.1f},{_y(points[i].low or 0.0, floor):.1f}" for i in reversed(run)]
        parts.append(f'<polygon class="band" points="{" ".join(upper + lower)}"/>')
    if reference is not None:
        y = _y(reference, floor)
        parts.append(f'<line class="reference" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for name, values in (("estimated", [p.estimated for p in points]), ("true", [p.true for p in points])):
        for run in _runs(values):
            line = " ".join(f"{x(i):.1f},{_y(values[i] or 0.0, floor):.1f}" for i in run)
            parts.append(f'<polyline class="{name}" points="{line}"/>')
    parts += [_dot(x(i), point, floor) for i, point in enumerate(points)]
    label = f"Accuracy over the last {len(points)} windows"
    size = f"0 0 {_WIDTH:.0f} {_HEIGHT:.0f}"
    return _svg(f'<svg class="chart" viewBox="{size}" role="img" aria-label="{label}">', parts)


def _svg(head: str, parts: Sequence[str]) -> Markup:
    # Safe: every part is made here of numbers and of text that was escaped.
    return Markup(f"{head}{''.join(parts)}</svg>")  # noqa: S704


def _dot(x: float, point: Point, floor: float) -> str:
    where = point.estimated if point.estimated is not None else floor
    estimated = "not estimated" if point.estimated is None else f"estimated {100 * point.estimated:.1f} %"
    doubt = "" if point.valid or point.estimated is None else " (not valid)"
    true = "" if point.true is None else f", true {100 * point.true:.1f} %"
    title = escape(f"{point.when}: {point.level}, {estimated}{doubt}{true}")
    marks = f'<circle class="dot {escape(point.level)}" cx="{x:.1f}" cy="{_y(where, floor):.1f}" r="4.5">'
    dot = f"{marks}<title>{title}</title></circle>"
    if point.true is not None:
        dot += f'<path class="true-dot" d="M{x:.1f} {_y(point.true, floor) - 4.5:.1f}l4.5 4.5-4.5 4.5-4.5-4.5z"/>'
    # Levels stand in a row of their own as well, so that colour is not the only sign.
    return dot + f'<rect class="tick {escape(point.level)}" x="{x - 3:.1f}" y="{_HEIGHT - 14}" width="6" height="8"/>'
