# SPDX-License-Identifier: Apache-2.0
"""The grid of "Failing Loudly" on Fashion-MNIST with a CNN in integers: our summary against what needs the raw answers.

Ten shifts × three shares × eight sizes of window × runs. All detectors see the same windows. Each has the 5 % quantile
of null windows from a pool of their own as its threshold, and its false alarms are taken from another one: so none
gains by crying wolf. Size is what a window sends: our encoded summary, the raw softmax, ten serialised sketches,
the raw embeddings. A finished cell is kept under ``build/drift``; what was interrupted goes on where it stopped.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift.coded import Coded, Seen, count, joined
from benchmarks.drift.detectors import Columns, Kernel, softmax
from benchmarks.drift.judged import family_p, mixture, share, summary_of
from benchmarks.drift.material import BUILD, Material, fashion
from benchmarks.drift.results import run

__all__ = ["CELLS", "DETECTORS", "SIZES", "Grid", "lines", "main", "measure", "paired"]

SIZES: Final = (10, 20, 50, 100, 200, 500, 1000, 10_000)
FRACTIONS: Final = (0.1, 0.5, 1.0)
DETECTORS: Final = ("LEAN", "BBSDs", "KLL", "MMD")
WHOLE: Final = (SIZES, 1000, 100)
"""Sizes of window, null windows for threshold and false alarms each (above 1000 a quarter), and runs of a cell."""
QUICK: Final = ((50, 200), 200, 10)
LEVEL: Final = 0.05
MMD_LIMIT: Final = 1000
CELLS: Final = (
    "noise small", "noise medium", "noise large", "image small", "image medium", "image large", "adversarial",
    "knock-out", "image medium + knock-out", "image medium + only class 0",
)  # fmt: skip

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class _Pool:
    """Samples as every detector wants them."""

    coded: Coded
    columns: Array
    embedding: Array
    truth: Array

    @classmethod
    def of(cls, material: Material, *names: str) -> "_Pool":
        coded, seen = [material.coded(name) for name in names], [material.pools[name] for name in names]
        both = coded[0] if len(coded) == 1 else joined(*coded)
        parts = ([softmax(one) for one in seen], [one.embedding for one in seen], [one.truth for one in seen])
        return cls(both, *(np.concatenate(part) for part in parts))


class Grid:
    """Draws windows and asks every detector about them.

    Args:
        material: A network, with a pool for each shift.
        reference: What the detectors with raw data know of the reference.
        random: Where the randomness comes from.
    """

    def __init__(self, material: Material, reference: Seen, random: np.random.Generator) -> None:
        self._material, self.random = material, random
        self._columns = Columns(softmax(reference))
        self._kernel = Kernel.of(reference.embedding, random)

    def scores(self, pool: _Pool, windows: list[Array]) -> dict[str, Array]:
        """Return detector → a number for each window of equal size; larger is stranger, NaN where it is too slow."""
        n = len(windows[0])
        lean = [-family_p(self._material.profile, count(pool.coded, rows)) for rows in windows]
        slow = n > MMD_LIMIT
        mmd = [float("nan") if slow else self._kernel.distance(pool.embedding[rows]) for rows in windows]
        places = self._columns.places(pool.columns)
        bbsd = [places.distance(rows) for rows in windows]
        step = max(1, 200_000 // n)  # so many windows at once fit into the caches
        pieces = [
            np.stack([pool.columns[rows] for rows in windows[i : i + step]]) for i in range(0, len(windows), step)
        ]
        kll = np.concatenate([self._columns.sketched(piece, self.random)[0] for piece in pieces])
        return dict(zip(DETECTORS, (np.array(lean), np.array(bbsd), kll, np.array(mmd)), strict=True))

    def null(self, name: str, n: int, windows: int) -> dict[str, Array]:
        """Return the numbers of windows without drift."""
        pool = _Pool.of(self._material, name)
        size = len(pool.truth)
        return self.scores(pool, [self.random.choice(size, n, replace=n > size) for _ in range(windows)])

    def cell(self, shift: str, fraction: float, n: int, runs: int) -> dict[str, Array]:
        """Return the numbers of windows of a shift."""
        pool, rows = self._rows(shift, fraction)
        return self.scores(pool, [self.random.permutation(rows(n)) for _ in range(runs)])

    def _rows(self, shift: str, fraction: float) -> tuple[_Pool, Any]:
        """Return the samples of a shift, and what draws the rows of a window."""
        random = self.random
        if shift == "knock-out":
            pool = _Pool.of(self._material, "null")
            keep = np.flatnonzero((pool.truth != 0) | (random.random(len(pool.truth)) >= fraction))
            return pool, lambda n: random.choice(keep, n, replace=n > len(keep))
        medium = "image medium" if "+" in shift else shift
        pool = _Pool.of(self._material, "null", medium)
        size = len(pool.truth) // 2
        if "+" not in shift:
            return pool, lambda n: mixture(random, size, size, n, fraction)
        own = pool.truth[:size]
        if shift.endswith("only class 0"):  # this share of the window is class 0, and all of it is moved
            zero, any_ = size + np.flatnonzero(own == 0), size + np.arange(size)
            return pool, lambda n: _either(random, any_, zero, n, fraction)
        keep = np.flatnonzero((own != 0) | (random.random(size) >= fraction))
        return pool, lambda n: _either(random, keep, size + keep, n, 0.5)


def _either(random: np.random.Generator, first: Array, second: Array, n: int, fraction: float) -> Array:
    many = round(n * fraction)
    parts = ((first, n - many), (second, many))
    return np.concatenate([random.choice(rows, size, replace=size > len(rows)) for rows, size in parts])


def paired(a: Mapping[str, list[bool]], b: Mapping[str, list[bool]]) -> dict[str, float]:
    """Return the mean difference a - b of detections over cells, run by run, and its 95 % interval.

    The cells are fixed, the runs within a cell are random: the variance is that of the runs, added over cells.

    Example:
        >>> found = paired({"x": [True, True, False, True]}, {"x": [True, False, False, True]})
        >>> round(found["mean"], 2), round(found["low"], 2)
        (0.25, -0.24)
    """
    differences = [np.asarray(a[cell], float) - np.asarray(b[cell], float) for cell in a]
    mean = float(np.mean([one.mean() for one in differences]))
    error = sqrt(sum(one.var(ddof=1) / len(one) for one in differences)) / len(differences)
    return {"mean": mean, "low": mean - 1.96 * error, "high": mean + 1.96 * error}


def _store(quick: bool) -> Path:  # noqa: FBT001
    return BUILD / f"failing-loudly{'-quick' if quick else ''}.jsonl"


def _finished(path: Path) -> dict[str, Any]:
    """Return what was kept: key → record; a line that was cut off is left out."""
    found = {}
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[record["key"]] = record
    return found


def _jobs(sizes: tuple[int, ...]) -> Iterator[tuple[str, str, float, int]]:
    for n in sizes:
        yield f"null {n}", "", 0.0, n
        for shift in CELLS:
            for fraction in FRACTIONS:
                yield f"{shift} {fraction:g} {n}", shift, fraction, n


def measure(quick: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
    """Return powers, false alarms, sizes and paired differences for each size of window."""
    material, path = fashion(), _store(quick)
    sizes, nulls, runs = QUICK if quick else WHOLE
    grid = Grid(material, material.pools["reference"], np.random.default_rng(23))
    done = _finished(path)
    for i, (key, shift, fraction, n) in enumerate(_jobs(sizes)):
        if key in done:
            continue
        grid.random = np.random.default_rng([23, i])  # a cell is the same after an interruption
        null = done.get(f"null {n}")
        made = (
            _null(grid, n, nulls if n <= MMD_LIMIT else nulls // 4)
            if null is None
            else _cell(grid.cell(shift, fraction, n, runs), null)
        )
        done[key] = {"key": key, **made}
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(done[key]) + "\n")  # also after a line that was cut off
    return {"runs": runs, "sizes": {str(n): _size(material, done, n) for n in sizes}}


def _null(grid: Grid, n: int, windows: int) -> dict[str, Any]:
    calibration, tried = (grid.null(name, n, windows) for name in ("calibration", "null"))
    limits = {name: float(np.quantile(values, 1 - LEVEL)) for name, values in calibration.items()}
    alarms = {name: vars(share(tried[name] > limits[name])) for name in DETECTORS}
    alarms["LEAN, nominal"] = vars(share(tried["LEAN"] > -LEVEL))
    return {"limits": limits, "false_alarms": alarms}


def _cell(scores: Mapping[str, Array], null: Mapping[str, Any]) -> dict[str, Any]:
    hits = {name: (scores[name] > null["limits"][name]).tolist() for name in DETECTORS}
    return {"hits": {**hits, "LEAN, nominal": (scores["LEAN"] > -LEVEL).tolist()}}


def _size(material: Material, done: Mapping[str, Any], n: int) -> dict[str, Any]:
    cells = {f"{s} {f:g}": done[f"{s} {f:g} {n}"]["hits"] for s in CELLS for f in FRACTIONS}
    by = {name: {cell: hits[name] for cell, hits in cells.items()} for name in next(iter(cells.values()))}
    counters = count(material.coded("null"), np.arange(n))
    return {
        "power": {name: float(np.mean([np.mean(hits) for hits in rows.values()])) for name, rows in by.items()},
        "cells": {cell: {name: float(np.mean(hits[name])) for name in DETECTORS} for cell, hits in cells.items()},
        "lean_minus_bbsds": paired(by["LEAN"], by["BBSDs"]),
        "nominal_minus_bbsds": paired(by["LEAN, nominal"], by["BBSDs"]),
        "false_alarms": done[f"null {n}"]["false_alarms"],
        "bytes": _bytes(material, counters, n),
    }


def _bytes(material: Material, counters: Any, n: int) -> dict[str, int]:
    seen = material.pools["null"]
    random = np.random.default_rng(0)
    _, sketches = Columns(softmax(seen)).sketched(softmax(seen)[None, :n], random)
    return {
        "LEAN": len(summary_of(material.profile, counters, 1).encode()),
        "BBSDs": 4 * n * seen.logits.shape[1],
        "KLL": sketches,
        "MMD": 4 * n * seen.embedding.shape[1],
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return the table."""
    out = [
        f"mean power over {len(CELLS) * len(FRACTIONS)} cells of {found['runs']} runs; 5 % false alarms each",
        "n       " + "".join(f"{name:>8}" for name in DETECTORS) + "   LEAN - BBSDs             bytes LEAN, KLL",
    ]
    for n, row in found["sizes"].items():
        apart, sizes = row["lean_minus_bbsds"], row["bytes"]
        power = "".join(f"{row['power'][name]:8.3f}" for name in DETECTORS if _is_tried(name, n))
        span = f"{apart['mean']:+.3f} [{apart['low']:+.3f}, {apart['high']:+.3f}]"
        out.append(
            f"{n:<8}{power:<32}   {span}   {sizes['LEAN']}, {sizes['KLL']} (1/{sizes['KLL'] / sizes['LEAN']:.0f})"
        )
    out.append("false alarms at the thresholds, on another pool, and of LEAN at its own nominal 5 %:")
    for n, row in found["sizes"].items():
        shares = {name: one["share"] for name, one in row["false_alarms"].items() if _is_tried(name, n)}
        alarms = ", ".join(f"{name} {100 * value:.1f} %" for name, value in shares.items())
        out.append(f"  n = {n}: {alarms}")
    return out


def _is_tried(name: str, n: str) -> bool:
    return name != "MMD" or int(n) <= MMD_LIMIT


def main() -> None:
    """Measure what is missing, then print it."""
    run("failing_loudly", measure, lines, what="The Failing Loudly grid on Fashion-MNIST.")


if __name__ == "__main__":
    main()
