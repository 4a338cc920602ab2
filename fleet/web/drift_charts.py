# SPDX-License-Identifier: Apache-2.0
"""Small charts above each other over the same windows: what moved beside latency and temperature, as inline SVG.

Shapes and classes only, colours are the style sheet's. A bar that moved is drawn with another class *and* a mark above
it, so that colour is not the only sign; the picture's label tells the story in words, and a table stands beside it.
"""

import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from markupsafe import Markup, escape

from fleet.web.words import latency

__all__ = ["Strip", "effect_bar", "effect_words", "strips"]

_WIDTH: Final = 720.0
_LEFT: Final = 124.0
_RIGHT: Final = 64.0
_ROW: Final = 34.0
_GAP: Final = 12.0
_TOP: Final = 6.0
_AXIS: Final = 22.0
_SLIGHT: Final = 0.2
_FULL_EFFECT: Final = 1.0
"""Distance in deviations at which a bar is full, unless something moved further."""


@dataclass(frozen=True)
class Strip:
    """One window, or one hour.

    Attributes:
        start_s: Seconds since 1970.
        level: insufficient, ok, warn or alarm.
        effects: Channel → squared distance from the reference.
        moved: Channels that moved, as far as is known.
        p50_us, p95_us: Latency.
        temperature_c: Mean.
    """

    start_s: float
    level: str
    effects: Mapping[str, float]
    moved: frozenset[str] = field(default_factory=frozenset)
    p50_us: float | None = None
    p95_us: float | None = None
    temperature_c: float | None = None


def effect_words(effect: float, has_moved: bool = True) -> str:  # noqa: FBT001, FBT002 - from a template
    """Return how far something moved, in deviations and in a word; no such word for what chance may have done.

    Example:
        >>> effect_words(0.0), effect_words(0.25), effect_words(2.6)
        ('0.0 σ', '0.5 σ, clear', '1.6 σ, very strong')
        >>> effect_words(0.25, False), effect_words(0.01, False)
        ('0.5 σ, not enough to count', '0.1 σ')
    """
    far = math.sqrt(max(effect, 0.0))
    if not has_moved:
        return f"{far:.1f} σ" + (", not enough to count" if far >= _SLIGHT else "")
    word = next(
        (word for most, word in ((_SLIGHT, ""), (0.4, "slight"), (0.8, "clear"), (1.5, "strong")) if far < most), None
    )
    word = "very strong" if word is None else word
    return f"{far:.1f} σ" + (f", {word}" if word else "")


def effect_bar(effect: float, moved: bool) -> Markup:  # noqa: FBT001 - from a template
    """Return a small bar: the distance from the reference in deviations, full at 2."""
    width = 120 * min(1.0, math.sqrt(max(effect, 0.0)) / 2)
    kind = "moved" if moved else "still"
    parts = ['<line class="track" x1="0" x2="120" y1="6" y2="6"/>']
    parts.append(f'<rect class="{kind}" x="0" y="2" width="{max(width, 1.0):.1f}" height="8" rx="2"/>')
    return Markup(f'<svg class="effect" viewBox="0 0 120 12" aria-hidden="true">{"".join(parts)}</svg>')  # noqa: S704


def strips(points: Sequence[Strip], label: str) -> Markup:
    """Return the aligned charts, oldest left; nothing for no points.

    Args:
        points: Windows or hours in their order.
        label: What is shown, for those who do not see it.
    """
    if not points:
        return Markup("")
    chart = _Chart(points)
    channels = list(dict.fromkeys(name for point in points for name in point.effects))
    full = max([_FULL_EFFECT, *(math.sqrt(max(e, 0.0)) for p in points for e in p.effects.values())])
    for name in channels:
        chart.effects(name, full)
    chart.lines(
        "latency", [("p95", [p.p95_us for p in points]), ("p50", [p.p50_us for p in points])], latency, zero=True
    )
    chart.lines("temperature", [("warm", [p.temperature_c for p in points])], lambda c: f"{c or 0:.0f} °C", zero=False)
    chart.levels()
    return chart.done(label)


class _Chart:
    """Rows of one picture; each method draws one more."""

    def __init__(self, points: Sequence[Strip]) -> None:
        self._points, self._parts, self._y = points, list[str](), _TOP
        self._step = (_WIDTH - _LEFT - _RIGHT) / len(points)

    def _x(self, i: float) -> float:
        return _LEFT + self._step * (i + 0.5)

    def _when(self, i: int) -> str:
        return _moment(self._points[i].start_s)

    def _head(self, name: str, right: str) -> None:
        y = self._y + _ROW
        self._parts.append(f'<text x="0" y="{y - 8:.1f}">{escape(name)}</text>')
        self._parts.append(
            f'<text class="figure" x="{_WIDTH:.0f}" y="{y - 8:.1f}" text-anchor="end">{escape(right)}</text>'
        )
        self._parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')

    def effects(self, name: str, full: float) -> None:
        """Draw a channel's distance from the reference."""
        values = [(math.sqrt(max(p.effects[name], 0.0)) if name in p.effects else None) for p in self._points]
        last = next((value for value in reversed(values) if value is not None), None)
        self._head(name, "–" if last is None else f"{last:.1f} σ")
        wide = min(self._step * 0.8, 14.0)
        for i, (point, value) in enumerate(zip(self._points, values, strict=True)):
            if value is None:
                continue
            tall, kind = max(1.0, (_ROW - 4) * value / full), "moved" if name in point.moved else "still"
            x, y = self._x(i), self._y + _ROW - tall
            title = escape(f"{name}, {_moment(point.start_s)}: {value:.2f} σ" + (", moved" if kind == "moved" else ""))
            box = f'<rect class="{kind}" x="{x - wide / 2:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}">'
            self._parts.append(f"{box}<title>{title}</title></rect>")
            if kind == "moved":
                self._parts.append(f'<path class="mark" d="M{x - 2.5:.1f} {y - 5:.1f}h5l-2.5 4z"/>')
        self._y += _ROW + _GAP

    def lines(
        self,
        name: str,
        series: Sequence[tuple[str, Sequence[float | None]]],
        shown: Callable[[float], str],
        *,
        zero: bool,
    ) -> None:
        """Draw lines; a gap where nothing is known, nothing at all where nothing ever was."""
        known = [value for _, values in series for value in values if value is not None]
        if not known:
            return
        low, high = (0.0 if zero else min(known) - 1.0), max(known) + (0.0 if zero else 1.0)
        last = next((value for value in reversed(series[0][1]) if value is not None), 0.0)
        self._head(name, shown(last))
        for kind, values in series:
            for run in _runs(values):
                line = " ".join(f"{self._x(i):.1f},{self._at(v, low, high):.1f}" for i, v in run)
                self._parts.append(f'<polyline class="{kind}" points="{line}"/>')
                self._parts += [
                    f'<circle class="{kind}-dot" cx="{self._x(i):.1f}" cy="{self._at(v, low, high):.1f}" r="2.2">'
                    f"<title>{escape(f'{name} {kind}, {self._when(i)}: {shown(v)}')}</title></circle>"
                    for i, v in run
                ]
        self._y += _ROW + _GAP

    def _at(self, value: float, low: float, high: float) -> float:
        return self._y + 3 + (_ROW - 4) * (1 - (value - low) / max(high - low, 1e-9))

    def levels(self) -> None:
        """Draw the levels in a row of their own, and the time below."""
        y = self._y
        self._parts.append(f'<text x="0" y="{y + 10:.1f}">level</text>')
        for i, point in enumerate(self._points):
            wide = max(2.0, min(self._step * 0.8, 14.0))
            title = f"<title>{escape(_moment(point.start_s))}: {escape(point.level)}</title>"
            shape = f'x="{self._x(i) - wide / 2:.1f}" y="{y:.1f}" width="{wide:.1f}" height="10"'
            self._parts.append(f'<rect class="tick {escape(point.level)}" {shape}>{title}</rect>')
        for i in sorted({0, len(self._points) // 2, len(self._points) - 1}):
            anchor = "start" if i == 0 else "end" if i == len(self._points) - 1 else "middle"
            where = _LEFT if anchor == "start" else _WIDTH - _RIGHT if anchor == "end" else self._x(i)
            words = escape(_moment(self._points[i].start_s))
            if len(self._points) > 2 or i == 0:
                self._parts.append(
                    f'<text x="{where:.1f}" y="{y + 10 + _AXIS:.1f}" text-anchor="{anchor}">{words}</text>'
                )
        self._y += 10 + _AXIS + 6

    def done(self, label: str) -> Markup:
        """Return the picture."""
        size = f"0 0 {_WIDTH:.0f} {self._y:.0f}"
        head = f'<svg class="chart strips" viewBox="{size}" role="img" aria-label="{escape(label)}">'
        # Safe: every part is made here of numbers and of text that was escaped.
        return Markup(f"{head}{''.join(self._parts)}</svg>")  # noqa: S704


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%d %b %H:%M")


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    runs: list[list[tuple[int, float]]] = []
    for i, value in enumerate(values):
        if value is None:
            continue
        if runs and runs[-1][-1][0] == i - 1:
            runs[-1].append((i, value))
        else:
            runs.append([(i, value)])
    return runs
