# SPDX-License-Identifier: Apache-2.0
"""Where the time goes and what accuracy costs: Pareto, stages, operators, minutes at full load, prediction."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.pictures.shown import Shown, microseconds
from benchmarks.pictures.style import (
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

__all__ = ["front", "operators", "pareto", "predictions", "sustained", "waterfall"]

STAGES: Final = ("capture", "preprocess", "invoke", "postprocess")


def front(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (cost, quality) pairs that no other beats in both, the cheapest first.

    Example:
        >>> front([(10.0, 0.90), (20.0, 0.95), (15.0, 0.85), (30.0, 0.95)])
        [(10.0, 0.9), (20.0, 0.95)]
    """
    kept: list[tuple[float, float]] = []
    for cost, quality in sorted(places, key=lambda place: (place[0], -place[1])):
        if not kept or quality > kept[-1][1]:
            kept.append((cost, quality))
    return kept


def pareto(shown: Sequence[Shown]) -> list[Picture]:
    """Return accuracy against latency and against size; a bubble's area is the energy of an inference, if known."""
    groups: dict[tuple[str, str, int], list[Shown]] = {}
    for one in shown:
        found = one.result.quality
        if found is not None and one.latency is not None and found.metric.startswith("top1"):
            groups.setdefault((found.metric, found.data, found.n), []).append(one)
    told = [group for group in groups.values() if len({one.result.artifact.sha256 for one in group}) > 1]
    return [_pareto(group, i, len(told)) for i, group in enumerate(told)]


def _pareto(rows: Sequence[Shown], number: int, of: int) -> Picture:
    """Return the picture of files that answered the same samples; of others, accuracies cannot be compared."""
    has_energy = all(_millijoules(one) is not None for one in rows)

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        _places(left, rows, [one.latency.p50 / 1e3 for one in rows if one.latency], has_energy=has_energy)
        left.set(ylabel="top-1 accuracy, %", xlabel="p50 latency, ms (logarithmic)")
        _places(right, rows, [one.result.artifact.bytes / 1e3 for one in rows], has_energy=has_energy)
        right.set_xlabel("size of the file, KB (logarithmic)")
        figure.legend(
            *left.get_legend_handles_labels(),
            loc="outside lower left",
            ncols=1 if max(len(o.name) for o in rows) > 44 else 2,
        )

    bubble = " A bubble's area is the energy of one inference." if has_energy else ""
    words = (
        "Up and to the left is better; upright lines are 95 % intervals, rings and the line: what nothing beats in "
        f"both.{bubble}"
    )
    part = f" ({number + 1} of {of})" if of > 1 else ""
    name = f"pareto-{number + 1}" if of > 1 else "pareto"
    return Picture(name, f"accuracy against latency and size{part}", words, draw, height=3.6 + 0.16 * len(rows))


def _places(axes: Any, rows: Sequence[Shown], costs: Sequence[float], *, has_energy: bool) -> None:
    qualities = [one.result.quality for one in rows if one.result.quality is not None]
    best = front([(cost, 100 * found.value) for cost, found in zip(costs, qualities, strict=True)])
    axes.plot(*zip(*best, strict=True), color=QUIET, linewidth=1.0, drawstyle="steps-post", zorder=1)
    largest = max(_millijoules(one) or 0.0 for one in rows) or 1.0
    for i, (one, cost, found) in enumerate(zip(rows, costs, qualities, strict=True)):
        colour, marker = SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]
        if has_energy:
            area = 900 * (_millijoules(one) or 0.0) / largest
            axes.scatter([cost], [100 * found.value], s=area, color=colour, alpha=0.2, linewidths=0)
        axes.plot([cost, cost], [100 * found.ci95[0], 100 * found.ci95[1]], color=colour, linewidth=1.1, zorder=2)
        axes.plot([cost], [100 * found.value], marker, color=colour, markersize=6, zorder=3, label=one.name)
    axes.plot(
        *zip(*best, strict=True), "o", color=QUIET, markersize=12, fillstyle="none", markeredgewidth=1.0, zorder=4
    )
    axes.set_xscale("log")
    axes.margins(x=0.16, y=0.12)
    plain_log(axes.xaxis, costs)
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)


def _millijoules(one: Shown) -> float | None:
    return one.result.energy.gross_mj if one.result.energy else None


def waterfall(shown: Sequence[Shown]) -> list[Picture]:
    """Return the medians of the stages laid end to end, for configurations that time more than the model."""
    rows = [one for one in shown if sum(stage in one.result.latency_us for stage in STAGES) > 1]
    if not rows:
        return []

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        longest = max(one.result.latency_us["total"].p50 for one in rows)
        for y, one in enumerate(rows):
            _steps(axes, y, one, longest)
        axes.set_yticks(range(len(rows)), [wrapped(one.name) for one in rows], fontsize=8.5)
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.set_xlim(0, 1.14 * longest / 1e3)
        axes.set_xlabel("median of each stage, ms, one after the other")
        handles, labels = axes.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))
        figure.legend(once.values(), once.keys(), loc="outside lower left", ncols=5)

    words = "Rest: what the total takes beyond its stages, so far as medians can be added."
    return [Picture("stages", "stages of an answer", words, draw, height=1.5 + 0.5 * len(rows))]


def _steps(axes: Any, y: int, one: Shown, longest: float) -> None:
    at, total = 0.0, one.result.latency_us["total"].p50
    for i, stage in enumerate((*STAGES, "rest")):
        found = one.result.latency_us.get(stage)
        width = max(0.0, total - at) if stage == "rest" else found.p50 if found else 0.0
        if width <= 0:
            continue
        axes.barh(
            y, width / 1e3, left=at / 1e3, height=0.62, color=SERIES[(2, 4, 0, 1, 7)[i]], label=stage, edgecolor="none"
        )
        if width > 0.11 * longest:
            axes.text(
                (at + width / 2) / 1e3,
                y,
                microseconds(width),
                ha="center",
                va="center",
                color=PAPER,
                fontsize=8.5,
                fontweight="bold",
            )
        at += width
    axes.annotate(
        microseconds(total),
        (max(at, total) / 1e3, y),
        (5, 0),
        textcoords="offset points",
        va="center",
        color=INK,
        fontsize=8.5,
    )


def operators(one: Shown) -> Picture | None:
    """Return the ten operators that take most, of a profile that was taken in a run of its own; None without one."""
    rows = [row for row in (one.result.ops or {}).get("ops", ()) if _microseconds(row) is not None]
    if not rows:
        return None
    top = sorted(rows, key=lambda row: -(_microseconds(row) or 0.0))[:10]
    whole = sum(_microseconds(row) or 0.0 for row in rows)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        longest = max(_microseconds(row) or 0.0 for row in top)
        for y, row in enumerate(top):
            value = _microseconds(row) or 0.0
            axes.barh(y, value, height=0.66, color=SERIES[0], edgecolor="none")
            share = f"{microseconds(value)}, {100 * value / whole:.0f} %" if whole else microseconds(value)
            axes.annotate(share, (value, y), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=8.5)
        axes.set_yticks(range(len(top)), [_operator(row) for row in top])
        axes.set_ylim(len(top) - 0.4, -0.6)
        axes.set_xlim(0, 1.25 * longest)
        axes.set_xlabel("µs in one inference, profiler on")

    words = (
        f"{one.name}: {len(top)} of {len(rows)} operators, {microseconds(whole)} in all. A profiler slows a model "
        "down; the latency above was taken without."
    )
    return Picture(
        f"operators-{one.path.stem}", f"slowest operators: {one.name}", words, draw, height=1.0 + 0.28 * len(top)
    )


def _microseconds(row: Mapping[str, Any]) -> float | None:
    found = next((row[key] for key in ("median_us", "p50_us", "us") if key in row), None)
    return float(found) if isinstance(found, (int, float)) else None


def _operator(row: Mapping[str, Any]) -> str:
    kind, name = str(row.get("kind") or ""), str(row.get("name") or row.get("native") or "")
    short = name if len(name) <= 28 else f"…{name[-27:]}"
    return f"{kind}  {short}".strip() if short != kind else kind


def sustained(shown: Sequence[Shown]) -> list[Picture]:
    """Return inferences per second of every minute at full load."""
    rows = [one for one in shown if one.result.sustained is not None]
    if not rows:
        return []

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for i, one in enumerate(rows):
            found = one.result.sustained
            assert found is not None
            minutes = [k + 1 for k in range(len(found.minutes))]
            colour = SERIES[i % len(SERIES)]
            style: dict[str, Any] = {
                "color": colour,
                "linestyle": DASHES[i % len(DASHES)],
                "marker": MARKERS[i % len(MARKERS)],
            }
            axes.plot(minutes, found.minutes, linewidth=1.5, markersize=4.5, label=_change(one), **style)
            if found.t_first_throttle_s is not None:
                axes.axvline(found.t_first_throttle_s / 60 + 0.5, color=LOUD, linewidth=1.2, linestyle=":")
                axes.annotate(
                    "throttled",
                    (found.t_first_throttle_s / 60 + 0.5, 0.02),
                    (3, 0),
                    xycoords=("data", "axes fraction"),
                    textcoords="offset points",
                    color=LOUD,
                    fontsize=8.5,
                )
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(
            xlabel="minute",
            ylabel="inferences per second",
            ylim=(0, 1.08 * max(max(one.result.sustained.minutes) for one in rows if one.result.sustained)),
        )
        axes.grid(axis="y", color=PALE, linewidth=0.6)
        figure.legend(loc="outside lower left")

    words = "At full load without a pause. A line that falls is a board that grows too hot."
    return [Picture("sustained", "throughput by minute", words, draw, height=3.0 + 0.2 * len(rows))]


def _change(one: Shown) -> str:
    found = one.result.sustained
    assert found is not None
    percent = 100 * (found.last_minute_ips / found.minute1_ips - 1) if found.minute1_ips else 0.0
    return f"{one.name}  (last against first: {percent:+.1f} %)"


def predictions(shown: Sequence[Shown]) -> list[Picture]:
    """Return predicted against measured medians with a band of ±10 %."""
    rows = [
        (one, one.result.prediction, one.result.latency_us["invoke"].p50 / 1e3)
        for one in shown
        if one.result.prediction is not None and "invoke" in one.result.latency_us
    ]
    if not rows:
        return []

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        every = [value for _, said, found in rows if said for value in (said.p50_us / 1e3, found)]
        low, high = min(every) / 1.25, max(every) * 1.25
        axes.fill_between(
            [low, high],
            [0.9 * low, 0.9 * high],
            [1.1 * low, 1.1 * high],
            color=PALE,
            alpha=0.7,
            linewidth=0,
            label="± 10 %",
        )
        axes.plot([low, high], [low, high], color=QUIET, linewidth=1.0, linestyle="--")
        for i, (_, said, found) in enumerate(rows):
            assert said is not None
            if said.low_us is not None and said.high_us is not None:
                axes.plot(
                    [found, found], [said.low_us / 1e3, said.high_us / 1e3], color=SERIES[0], linewidth=1.0, alpha=0.6
                )
            label = "predicted, with its interval" if not i else None
            axes.plot([found], [said.p50_us / 1e3], "o", color=SERIES[0], markersize=5, label=label)
        axes.set(
            xscale="log",
            yscale="log",
            xlim=(low, high),
            ylim=(low, high),
            aspect="equal",
            xlabel="measured p50, ms",
            ylabel="predicted p50, ms",
        )
        for axis in (axes.xaxis, axes.yaxis):
            plain_log(axis, [low, high])
        figure.legend(loc="outside lower left", ncols=2)

    near = sum(abs(said.p50_us / 1e3 / found - 1) <= 0.1 for _, said, found in rows if said is not None)
    words = f"{near} of {len(rows)} within ± 10 %. A prediction orders candidates; it is never a result."
    return [Picture("predicted", "predicted against measured latency", words, draw, width=5.2, height=5.2)]
