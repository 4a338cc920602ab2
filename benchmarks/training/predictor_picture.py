# SPDX-License-Identifier: Apache-2.0
"""Predicted against measured, for families that the predictor has not seen: one picture for each runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.pictures.style import PALE, QUIET, SERIES, Picture, plain_log, png

__all__ = ["picture", "write"]

BAND: Final = 0.15


def picture(name: str, runtime: str, row: Mapping[str, Any]) -> Picture:
    """Return the picture of one runtime's row of ``results/predictor.json``."""
    points = [point for point in row["points"] if "predicted" in point]
    caption = (
        f"{len(points)} files, each predicted without its family; {row['refused']} were refused. Bars are 90 % "
        f"intervals, which held {100 * (row['coverage'] or 0):.0f} % of them; the band is ± {BAND:.0%}."
    )

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        every = [value for point in points for value in (point["ms"], point["predicted"])]
        low, high = min(every) / 1.3, max(every) * 1.3
        ends = [low, high]
        band = [[(1 + side) * end for end in ends] for side in (-BAND, BAND)]
        axes.fill_between(ends, *band, color=PALE, alpha=0.7, linewidth=0)
        axes.plot(ends, ends, color=QUIET, linewidth=1.0, linestyle="--")
        for number, form in enumerate(("float", "int8")):
            _draw(axes, [point for point in points if point["name"].startswith(form)], form, number)
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
        axes.set(xlabel="measured, ms", ylabel="predicted without its family, ms")
        for axis in (axes.xaxis, axes.yaxis):
            plain_log(axis, ends)
        figure.legend(loc="outside lower left", ncols=2)

    return Picture(name, f"predicted and measured latency, {runtime}", caption, draw, height=6.2)


def _draw(axes: Any, points: Sequence[Mapping[str, Any]], form: str, number: int) -> None:
    colour = SERIES[number]
    for point in points:
        if "high" in point:
            axes.plot([point["ms"]] * 2, [point["low"], point["high"]], color=colour, linewidth=0.7, alpha=0.35)
    measured, predicted = ([point[key] for point in points] for key in ("ms", "predicted"))
    axes.plot(measured, predicted, "os"[number], color=colour, markersize=4, linestyle="none", label=form)


def write(rows: Mapping[str, Mapping[str, Any]], runtimes: Mapping[str, str], folder: Path) -> list[Path]:
    """Write a PNG for each runtime that was measured and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, row in rows.items():
        if row:
            path = folder / f"predictor-{kind}.png"
            path.write_bytes(png(picture(path.stem, runtimes[kind], row)))
            written.append(path)
    return written
