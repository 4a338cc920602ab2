# SPDX-License-Identifier: Apache-2.0
"""Choose the pictures that the results give, and write page and PNG files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.pictures import costs, latencies, page
from benchmarks.pictures.shown import Shown, shown_of
from benchmarks.pictures.style import Picture, png
from benchmarks.result.check import check
from benchmarks.result.schema import Result
from benchmarks.result.store import load_all, to_json
from benchmarks.result.table import HEAD, aligned, filled, row
from edge_contract.errors import UsageError

__all__ = ["pictures_of", "report"]


def pictures_of(shown: Sequence[Shown]) -> list[Picture]:
    """Return all pictures that these results can fill, the ones about all of them first."""
    common = [
        *latencies.quantiles(shown),
        *latencies.distributions(shown),
        *costs.pareto(shown),
        *costs.waterfall(shown),
        *costs.sustained(shown),
        *costs.predictions(shown),
    ]
    single = [draw(one) for one in shown for draw in (latencies.sequence, costs.operators)]
    return [*common, *(one for one in single if one is not None)]


def report(
    paths: Sequence[Path],
    *,
    out: Path | None = None,
    png: Path | None = None,
    models: Path | None = None,
    is_checked: bool = False,
    as_json: bool = False,
) -> str:
    """Read results, check them, write what was asked for, and return the text to print.

    Args:
        paths: Results, operator profiles, and folders of them.
        out: The page to write.
        png: The folder for the pictures.
        models: The measured files, a folder for each family: predictions are drawn against the measured times.
        is_checked: Compute every figure again.
        as_json: Return JSON.

    Raises:
        UsageError: No result was found.
        ContractError: A file is no result.
        MeasurementError: A figure is not what the raw samples give.
    """
    found, profiles = load_all(paths)
    if not found:
        raise UsageError("no result", where=", ".join(map(str, paths)), fix="give .json files or folders of them")
    if is_checked:
        for path, result in found:
            check(path, result)
    if models is not None:
        from benchmarks.pictures.left_out import with_predictions

        found = with_predictions(found, models)
    shown = shown_of([(path, _profiled(result, profiles)) for path, result in found])
    pictures = pictures_of(shown) if out is not None or png is not None else []
    lines = [f"checked: every figure of {len(found)} follows from the raw samples"] if is_checked else []
    if png is not None:
        lines += _write_png(pictures, png)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page.page(shown, pictures, _title(shown)), encoding="utf-8")
        lines.append(f"{out}: {len(pictures)} pictures of {len(shown)} results")
    if as_json:
        return json.dumps([to_json(one.result) for one in shown], ensure_ascii=False)
    return "\n".join([aligned(*filled(HEAD, [row(one.name, one.result) for one in shown])), *lines])


def _profiled(result: Result, profiles: Sequence[Mapping[str, Any]]) -> Result:
    """Return a result with the operator profile of its bytes in its runtime, if one of them is."""
    for one in profiles:
        same = one.get("sha256") == result.artifact.sha256 and one.get("runtime") == result.runtime.name
        if same and one.get("threads") == result.runtime.threads:
            return replace(result, ops=one)
    return result


def _write_png(pictures: Sequence[Picture], folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for one in pictures:
        (folder / f"{one.name}.png").write_bytes(png(one))
    return [f"{folder}: {len(pictures)} pictures"]


def _title(shown: Sequence[Shown]) -> str:
    boards = {one.result.device.board: None for one in shown}
    return f"Benchmark: {next(iter(boards))}" if len(boards) == 1 else f"Benchmark on {len(boards)} boards"
