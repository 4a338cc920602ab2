# SPDX-License-Identifier: Apache-2.0
"""One results file for each benchmark of training: every (row, seed) is kept once done, so that a run may be stopped.

A stored result is taken again only if the row's settings are the same; change a setting and its seeds run again.
"""

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from math import sqrt
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import describe
from edge_contract import canonical
from edge_contract.errors import DataError

__all__ = ["RESULTS", "Interval", "Results", "mean_interval", "paired_interval"]

RESULTS: Final = Path(__file__).parent / "results"
SCHEMA: Final = "strop.benchmark-training/1"
PACKAGES: Final = ("torch", "numpy", "torch-pruning", "onnxruntime")
# 97.5 % points of Student's t with 1, 2, … degrees of freedom; beyond them the normal distribution's is near enough.
_T: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % interval; of one seed the interval is all numbers, and ``text`` says so."""

    mean: float
    low: float
    high: float
    n: int

    def text(self, form: str = ".2f") -> str:
        """Return ``mean [low, high]``.

        Example:
            >>> mean_interval([1.0, 2.0]).text(), mean_interval([1.0]).text("+.1f")
            ('1.50 [-4.85, 7.85]', '+1.0 (one seed)')
        """
        mean = format(self.mean, form)
        return f"{mean} (one seed)" if self.n == 1 else f"{mean} [{format(self.low, form)}, {format(self.high, form)}]"


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean and Student's interval, mean ± t·sd/sqrt(n): it covers what a seed decides, not the test images.

    Raises:
        DataError: No values.

    Example:
        >>> found = mean_interval([1.0, 2.0, 3.0])
        >>> found.mean, round(found.low, 2), round(found.high, 2)
        (2.0, -0.48, 4.48)
    """
    n = len(values)
    if n < 1:
        raise DataError("no values to average", fix="run at least one seed")
    mean = sum(values) / n
    if n == 1:
        return Interval(mean, float("-inf"), float("inf"), 1)
    sd = sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    half = (_T[n - 2] if n - 2 < len(_T) else 1.96) * sd / sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired_interval(before: Mapping[int, float], after: Mapping[int, float]) -> Interval:
    """Return by how much ``after`` is larger, over the seeds that both have: a seed's start and order cancel.

    Example:
        >>> paired_interval({0: 89.0, 1: 89.5, 2: 88.0}, {0: 90.0, 1: 90.7}).mean.__round__(2)
        1.1
    """
    return mean_interval([after[seed] - before[seed] for seed in sorted(before.keys() & after.keys())])


class Results:
    """The file of one benchmark.

    Args:
        name: Of the benchmark; the file is ``<folder>/<name>.json``.
        settings: For each row what decides its numbers besides the seed, as JSON.
        folder: Where it lies.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> results = Results("demo", {"plain": {"epochs": 5}}, folder)
        >>> results.once("plain", 0, lambda: {"accuracy": 89.5})["accuracy"]
        89.5
        >>> again = Results("demo", {"plain": {"epochs": 5}}, folder)
        >>> again.values("plain", "accuracy"), again.missing([0, 1])
        ({0: 89.5}, [('plain', 1)])
    """

    def __init__(self, name: str, settings: Mapping[str, Any], folder: Path = RESULTS) -> None:
        self.name, self.settings, self.path = name, dict(settings), folder / f"{name}.json"
        self._done: dict[tuple[str, int], dict[str, Any]] = {}
        for entry in self._read():
            if self.settings.get(entry["row"]) is not None and entry["key"] == self._key(entry["row"]):
                self._done[entry["row"], entry["seed"]] = entry

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            entries: list[dict[str, Any]] = found["entries"]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"no results: {error}", where=str(self.path), fix="delete it and run again") from error
        return entries

    def _key(self, row: str) -> str:
        return canonical.digest(canonical.dumps(json.loads(json.dumps(self.settings[row]))))[:16]

    def missing(self, seeds: Sequence[int]) -> list[tuple[str, int]]:
        """Return the (row, seed) that are still to be done, seed by seed, so that rows can be paired early."""
        return [(row, seed) for seed in seeds for row in self.settings if (row, seed) not in self._done]

    def forget(self, row: str, seed: int) -> None:
        """Drop a result, because the code that made it has changed; it is missing from now on."""
        self._done.pop((row, seed), None)

    def once(self, row: str, seed: int, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what ``make`` returned for this row and seed; the file is written as soon as it is there."""
        if (row, seed) not in self._done:
            started = time.perf_counter()
            values = make()
            seconds = round(time.perf_counter() - started, 1)
            entry = {"row": row, "seed": seed, "key": self._key(row), "seconds": seconds, "values": values}
            entry["date"] = datetime.now(UTC).isoformat(timespec="seconds")
            self._done[row, seed] = entry
            self.write()
        found: dict[str, Any] = self._done[row, seed]["values"]
        return found

    def values(self, row: str, field: str) -> dict[int, float]:
        """Return seed → one number of a row, for the seeds that are done."""
        return {seed: float(e["values"][field]) for (name, seed), e in sorted(self._done.items()) if name == row}

    def entry(self, row: str, seed: int) -> dict[str, Any]:
        """Return all that one seed of a row gave, nothing if it is missing."""
        found: dict[str, Any] = self._done.get((row, seed), {}).get("values", {})
        return found

    def write(self, summary: Mapping[str, Any] | None = None) -> None:
        """Write the file: a reader sees the old one or the whole new one.

        Args:
            summary: The benchmark's own tables, such as means and paired intervals.
        """
        document = {
            "schema": SCHEMA,
            "benchmark": self.name,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": asdict(describe()),
            "versions": {name: metadata.version(name) for name in PACKAGES},
            "command": shlex.join(["python", *_module_or_script(sys.argv)]),
            "settings": self.settings,
            "entries": [self._done[key] for key in sorted(self._done)],
            "summary": dict(summary or {}),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(self.path)


def _module_or_script(words: Sequence[str]) -> list[str]:
    """Return how this program was called: ``-m package.module`` where it was."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return ["-m", spec.name, *words[1:]] if spec is not None else list(words)
