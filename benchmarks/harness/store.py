# SPDX-License-Identifier: Apache-2.0
"""One launch in two files: what can be read as JSON, and the times as plain 64-bit numbers. Standard library only.

The child leaves them for its parent; where an output folder is given they stay, so that an interrupted measurement
goes on where it stopped.
"""

import json
import sys
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.record import Launch
from edge_contract.errors import MeasurementError

__all__ = ["read_launch", "write_launch"]


def write_launch(launch: Launch, path: Path) -> None:
    """Write ``path`` (JSON) and its neighbour ``.bin``: the stages one after the other, then the starts, little-endian.

    The JSON comes last and by renaming, so a launch that is there is whole.
    """
    document = _document(launch)
    with path.with_suffix(".bin").open("wb") as file:
        for column in (*launch.stages_ns.values(), launch.starts_ns):
            file.write(_little(array("q", column)).tobytes())
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(document), encoding="utf-8")
    fresh.replace(path)


def _document(launch: Launch) -> dict[str, Any]:
    """Return what stands in the JSON: everything but the times, and how many there are of each."""
    bare = replace(launch, stages_ns=dict.fromkeys(launch.stages_ns, ()), starts_ns=())
    return {**bare.to_json(), "runs": launch.runs}


def read_launch(path: Path) -> Launch:
    """Read what ``write_launch`` wrote.

    Raises:
        MeasurementError: A file is missing, cut short or not what it should be.
    """
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        data = path.with_suffix(".bin").read_bytes()
    except (OSError, ValueError) as error:
        raise MeasurementError(f"no launch that can be read ({error})", where=str(path), fix="measure again") from error
    count = document.pop("runs", -1) if isinstance(document, dict) else -1
    bare = Launch.from_json(document, str(path))
    columns = len(bare.stages_ns) + 1
    if not isinstance(count, int) or len(data) != 8 * count * columns:
        what = f"{len(data)} bytes for {columns} columns of {count} runs"
        raise MeasurementError(what, where=str(path.with_suffix(".bin")), fix="measure again")
    values = array("q")
    values.frombytes(data)
    parts = [tuple(_little(values)[i * count : (i + 1) * count]) for i in range(columns)]
    return replace(bare, stages_ns=dict(zip(bare.stages_ns, parts, strict=False)), starts_ns=parts[-1])


def _little(values: "array[int]") -> "array[int]":
    if sys.byteorder == "big":
        values = array("q", values)
        values.byteswap()
    return values
