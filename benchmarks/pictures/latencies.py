# SPDX-License-Identifier: Apache-2.0
"""Latency: its distribution, its quantiles with what is known of them, and every run in its order."""

import math
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.pictures.shown import Shown, microseconds
from benchmarks.pictures.style import (
    BAND,
    DASHES,
    INK,
    LOUD,
    MARKERS,
    PALE,
    PAPER,
    QUIET,
    SERIES,
    Picture,
    plain_log,
    wrapped,
)
from benchmarks.record import Launch

__all__ = ["distributions", "quantiles", "sequence"]

MOST: Final = len(SERIES)
POINTS: Final = 1200
"""A run sequence has no more dots than this; of more runs each dot is the median of neighbours, on a band of them."""


def distributions(shown: Sequence[Shown]) -> list[Picture]:
    """Return the empirical distribution functions, up to eight in a picture."""
    timed = [one for one in shown if one.launches and one.latency]
    groups = [timed[i : i + MOST] for i in range(0, len(timed), MOST)]
    return [_ecdf(group, i, len(groups)) for i, group in enumerate(groups)]


def _ecdf(group: Sequence[Shown], number: int, of: int) -> Picture:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        seen = []
        for i, one in enumerate(group):
            times = sorted(t / 1e6 for launch in one.launches for t in launch.stages_ns[one.stage])
            shares = [(k + 1) / len(times) for k in range(len(times))]
            kept = _thinned(len(times))
            label = f"{one.name}  (n = {len(times)})"
            style: dict[str, Any] = {"color": SERIES[i], "linestyle": DASHES[i], "linewidth": 1.6}
            axes.step([times[k] for k in kept], [shares[k] for k in kept], where="post", label=label, **style)
            seen += [times[0], times[-1]]
        for share, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99")):
            axes.axhline(share, color=PALE, linewidth=0.8, zorder=0)
            axes.annotate(
                name,
                (1.0, share),
                (3, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                color=QUIET,
                fontsize=8,
            )
        axes.set(xscale="log", ylim=(0, 1.02), ylabel="share of the runs", xlabel="latency, ms (logarithmic)")
        plain_log(axes.xaxis, seen)
        figure.legend(loc="outside lower left", ncols=1 if max(len(one.name) for one in group) > 36 else 2)

    part = f" ({number + 1} of {of})" if of > 1 else ""
    words = "Share of the runs that took at most so long; a steep line is a steady one, a step two ways of running."
    return Picture(
        f"ecdf-{number + 1}" if of > 1 else "ecdf",
        f"distribution of latency{part}",
        words,
        draw,
        height=3.1 + 0.2 * len(group),
    )


def _thinned(n: int, most: int = 400) -> list[int]:
    """Return positions of sorted values that draw the same step line: even ones, and all of the slow end."""
    if n <= most:
        return list(range(n))
    return sorted({round(k * (n - 1) / (most - 1)) for k in range(most)} | set(range(n - 50, n)))


def quantiles(shown: Sequence[Shown]) -> list[Picture]:
    """Return medians with their intervals, and the tails with their upper bounds, one row for each configuration."""
    rows = [(one, one.latency) for one in shown if one.latency is not None]
    if not rows:
        return []

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        seen: list[float] = []
        for y, (_, found) in enumerate(rows):
            axes.axhline(y, color=BAND, linewidth=12, zorder=0)
            low, high = found.p50_ci95 or (found.p50, found.p50)
            axes.plot([low / 1e3, high / 1e3], [y, y], color=SERIES[0], linewidth=3.5, solid_capstyle="butt", zorder=2)
            axes.plot(
                [found.p50 / 1e3],
                [y],
                "o",
                color=SERIES[0],
                markersize=6,
                zorder=3,
                label="p50, 95 % interval" if not y else None,
            )
            seen += [low / 1e3, high / 1e3]
            for i, (name, value, bound) in enumerate(
                (("p90", found.p90, found.p90_ub99), ("p99", found.p99, found.p99_ub99)), 1
            ):
                if value is None or bound is None:
                    continue
                axes.plot([value / 1e3, bound / 1e3], [y, y], color=SERIES[i], linewidth=1.4, zorder=2)
                axes.plot(
                    [value / 1e3],
                    [y],
                    MARKERS[i],
                    color=SERIES[i],
                    markersize=5.5,
                    zorder=3,
                    label=_once(axes, f"{name}, to its 99 % bound"),
                )
                axes.plot([bound / 1e3], [y], "|", color=SERIES[i], markersize=9, zorder=3)
                seen += [value / 1e3, bound / 1e3]
        axes.set_yticks(range(len(rows)), [wrapped(one.name) for one, _ in rows], fontsize=8.5)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set(xscale="log", xlabel="latency, ms (logarithmic)")
        plain_log(axes.xaxis, seen)
        axes.grid(axis="x", color=PALE, linewidth=0.6)
        axes.set_axisbelow(True)
        figure.legend(loc="outside lower left", ncols=3)

    words = "A tail that has too few runs for a bound of 99 % confidence is not drawn."
    return [Picture("quantiles", "quantiles with their intervals", words, draw, height=1.4 + 0.44 * len(rows))]


def _once(axes: Any, label: str) -> str | None:
    """Return a label unless the legend has it already."""
    return None if label in axes.get_legend_handles_labels()[1] else label


def sequence(one: Shown) -> Picture | None:
    """Return every run in its order, with clock and temperature below it; None without raw samples."""
    if not one.launches or one.latency is None:
        return None
    placed = _placed(one.launches)
    has_clock = any(reading.clock_khz for launch in one.launches for reading in launch.readings)
    has_heat = any(reading.temp_c is not None for launch in one.launches for reading in launch.readings)
    ratios = [3.0, *[1.0] * (has_clock + has_heat)]

    def draw(figure: Any) -> None:
        panels = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0]
        _runs(panels[0], one, placed)
        if has_clock:
            _clock(panels[1], placed)
        if has_heat:
            _heat(panels[-1], placed)
        panels[-1].set_xlabel("measured time, s (launches one after the other; every second one on a grey ground)")
        for axes in panels:
            _grounds(axes, placed)

    missing = [name for name, there in (("clock", has_clock), ("temperature", has_heat)) if not there]
    lacks = f" This machine tells no {' and no '.join(missing)}." if missing else ""
    many = max(launch.runs for launch in one.launches) > 2 * max(40, POINTS // len(one.launches))
    dots = (
        " A dot is the median of neighbouring runs, the band reaches from their fastest to their slowest."
        if many
        else ""
    )
    words = f"{one.name}: the runs in their order.{dots}{lacks}"
    height = 2.6 + 0.85 * (has_clock + has_heat)
    return Picture(f"sequence-{one.path.stem}", f"runs in their order: {one.name}", words, draw, height=height)


def _placed(launches: Sequence[Launch]) -> list[tuple[float, float, Launch]]:
    """Return (start, end, launch) on one axis of measured seconds, without the pauses between launches."""
    placed, at = [], 0.0
    for launch in launches:
        span = (launch.starts_ns[-1] + launch.stages_ns["total"][-1] - launch.starts_ns[0]) / 1e9
        placed.append((at, at + span, launch))
        at += span
    return placed


def _grounds(axes: Any, placed: Sequence[tuple[float, float, Launch]]) -> None:
    for i, (start, end, _) in enumerate(placed):
        if i % 2:
            axes.axvspan(start, end, color=BAND, zorder=0, linewidth=0)
    axes.set_xlim(0, placed[-1][1])


def _runs(axes: Any, one: Shown, placed: Sequence[tuple[float, float, Launch]]) -> None:
    share = max(40, POINTS // len(placed))
    seen: list[float] = []
    for start, _, launch in placed:
        times = [t / 1e6 for t in launch.stages_ns[one.stage]]
        at = [start + (begun - launch.starts_ns[0]) / 1e9 for begun in launch.starts_ns]
        groups = _groups(times, share)
        middles = [at[span[len(span) // 2]] for span in groups]
        ordered = [sorted(times[k] for k in span) for span in groups]
        if len(groups) < len(times):
            low, high = [group[0] for group in ordered], [group[-1] for group in ordered]
            axes.fill_between(middles, low, high, color=SERIES[0], alpha=0.25, linewidth=0)
        _dots(axes, middles, [group[len(group) // 2] for group in ordered], placed[-1][1])
        seen += [group[k] for group in ordered for k in (0, -1)]
    assert one.latency is not None
    middle = one.latency.p50 / 1e3
    axes.axhline(middle, color=INK, linewidth=1.0, linestyle="--")
    ground = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
    axes.annotate(
        f"p50 {microseconds(one.latency.p50)}", (1.0, middle), (-4, 5), color=INK, fontsize=8.5, bbox=ground, **place
    )
    axes.set_ylabel(f"{one.stage}, ms")
    if max(seen) > 4 * min(seen):
        axes.set_yscale("log")
        plain_log(axes.yaxis, seen)


def _groups(times: Sequence[float], most: int) -> list[range]:
    """Return positions of neighbouring runs, one dot each; where there is room for all, each stands alone.

    Example:
        >>> _groups([3.0, 1.0, 2.0, 9.0, 4.0, 2.0], 2)
        [range(0, 3), range(3, 6)]
    """
    n = len(times)
    groups = n if n <= 2 * most else most
    return [range(g * n // groups, (g + 1) * n // groups) for g in range(groups)]


def _dots(axes: Any, x: Sequence[float], y: Sequence[float], width: float) -> None:
    """Draw dots as one line of very short pieces with round ends: a fifth of what so many markers take in an SVG."""
    across = [value for at in x for value in (at, at + 1.5e-3 * width, math.nan)]
    up = [value for at in y for value in (at, at, math.nan)]
    axes.plot(across, up, color=SERIES[0], linewidth=2.4, solid_capstyle="round", alpha=0.75)


def _readings(placed: Sequence[tuple[float, float, Launch]]) -> list[tuple[float, Any]]:
    found = []
    for start, end, launch in placed:
        for reading in launch.readings:
            at = start + (reading.at_ns - launch.starts_ns[0]) / 1e9
            if start <= at <= end:
                found.append((at, reading))
    return found


def _clock(axes: Any, placed: Sequence[tuple[float, float, Launch]]) -> None:
    found = [(at, one.clock_khz) for at, one in _readings(placed) if one.clock_khz]
    at = [t for t, _ in found]
    axes.fill_between(
        at,
        [min(c) / 1e6 for _, c in found],
        [max(c) / 1e6 for _, c in found],
        color=SERIES[2],
        alpha=0.25,
        linewidth=0,
        step="mid",
    )
    axes.plot(
        at, [sorted(c)[len(c) // 2] / 1e6 for _, c in found], color=SERIES[2], linewidth=1.2, drawstyle="steps-mid"
    )
    every = [clock / 1e6 for _, clocks in found for clock in clocks]
    axes.set_ylim(0.96 * min(every), 1.04 * max(every))
    axes.set_ylabel("clock,\nGHz")


def _heat(axes: Any, placed: Sequence[tuple[float, float, Launch]]) -> None:
    found = [(at, one.temp_c) for at, one in _readings(placed) if one.temp_c is not None]
    axes.plot([t for t, _ in found], [c for _, c in found], color=SERIES[1], linewidth=1.4)
    axes.set_ylabel("temp.,\n°C")
    spans = _throttled(_readings(placed))
    if not spans:
        return
    for start, end in spans:
        axes.axvspan(start, end, color=LOUD, alpha=0.18, linewidth=0)
    axes.annotate(
        "throttled",
        (spans[0][0], 0.06),
        (3, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        color=LOUD,
        fontsize=8.5,
    )


def _throttled(readings: Sequence[tuple[float, Any]]) -> list[tuple[float, float]]:
    """Return from when to when a bit of the firmware said that the clock is held down; to the next reading without."""
    spans: list[tuple[float, float]] = []
    since: float | None = None
    for at, one in readings:
        now = bool((one.throttled or 0) & 0xF)
        if now and since is None:
            since = at
        elif not now and since is not None:
            spans, since = [*spans, (since, at)], None
    return spans if since is None else [*spans, (since, readings[-1][0])]
