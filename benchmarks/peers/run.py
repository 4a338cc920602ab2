# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.peers.run --net mobilenet-v2 --rows ours,ort``: make rows, print them, keep them.

Interrupted, it goes on where it was. ``--speed`` also times the rows' files: run it on a quiet machine.
``--flatness`` converts ours with 64, 256 and 1 024 calibration samples.
"""

import datetime as dt
import re
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.machine import Machine, describe
from benchmarks.peers import codes, measure, speed, store
from benchmarks.peers.environments import ROOT
from benchmarks.peers.material import Material, prepare
from benchmarks.peers.rows import NETS, ROWS, Row, chosen
from benchmarks.peers.tables import accuracy_table, text
from edge_contract.errors import StropError, UsageError

__all__ = ["RESULTS", "main", "merge", "results_path"]

RESULTS = Path(__file__).with_name("results")
COUNTS = (64, 256, 1024)


def _say(words: str) -> None:
    typer.echo(words, err=True)


def results_path(machine: Machine, day: dt.date, folder: Path = RESULTS) -> Path:
    """Return the file for a machine and a day.

    Example:
        >>> machine = Machine("Intel(R) Xeon(R) Processor @ 2.1GHz", 2, "Linux", "3.11.7", "", 0.0)
        >>> results_path(machine, dt.date(2026, 11, 21), Path("results")).as_posix()
        'results/intel-r-xeon-r-processor-2-1ghz-2026-11-21.json'
    """
    slug = re.sub(r"[^a-z0-9]+", "-", machine.processor.lower()).strip("-") or "unknown"
    return folder / f"{slug}-{day.isoformat()}.json"


def merge(path: Path, net: str, found: dict[str, Any], machine: Machine, command: str) -> dict[str, Any]:
    """Add one network's findings to a results file; what was found before about other rows stays.

    Raises:
        UsageError: The file is not one of ours.
    """
    document: dict[str, Any] = {"schema": "strop.peers/1", "nets": {}, "commands": []}
    if path.exists():
        document = store.read_json(path)
        if document.get("schema") != "strop.peers/1":
            raise UsageError("not a results file of peers", where=str(path), fix="move it away")
    entry = document["nets"].setdefault(net, {})
    for section, rows in found.items():
        if isinstance(rows, dict):
            entry.setdefault(section, {}).update(rows)
        else:
            entry[section] = rows
    document["machine"] = asdict(machine)
    document["commands"] = [*(known for known in document["commands"] if known != command), command]
    store.write_json(path, document)
    return document


def _rows(material: Material, rows: list[Row]) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    for index, row in enumerate(rows, 1):
        _say(f"{material.net}: {row.title} ({index} of {len(rows)})")
        found[row.name] = measure.measure(material, row)
        if error := found[row.name].get("error"):
            _say(f"  no result: {error}")
    _say(f"{material.net}: comparing codes")
    public = {name: {key: value for key, value in row.items() if key != "folder"} for name, row in found.items()}
    floats = {path.suffix[1:]: path.stat().st_size for path in sorted(material.folder.glob("float.*"))}
    return {"rows": public, "pairs": _pairs(material, found), "float_bytes": floats}


def _pairs(material: Material, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {f"{pair['a']} = {pair['b']}": pair for pair in codes.compare(material, found)}


def _speed(material: Material, rows: list[Row]) -> dict[str, Any]:
    """Time every file of every row against the float file of its runtime, after an A/A row for each runtime.

    Rows that are not there yet, or not of today's code, are made first: a speed stands beside the file that has it.
    """
    made, inputs, calls, found = _rows(material, rows), material.samples.inputs, NETS[material.net].calls, {}
    for path in sorted(material.folder.glob("float.*")):
        _say(f"{material.net}: {path.name} against itself")
        found[f"A/A {path.suffix[1:]}"] = speed.aa(path, inputs, calls)
    for row in rows:
        folder = store.BUILD / "rows" / measure.key_of(material, row)
        for path in sorted((*folder.glob("model.onnx"), *folder.glob("model.tflite"))):
            _say(f"{material.net}: {row.title}, {path.name}")
            reference = material.folder / f"float{path.suffix}"
            found[f"{row.name} {path.suffix[1:]}"] = speed.files(reference, path, inputs, calls)
    return {**made, "speed": found}


def _flatness(net: str) -> dict[str, Any]:
    material, found = prepare(net, calibration=max(COUNTS)), {}
    for name in ("ours", "ort-u8-minmax", "ort-u8-percentile"):
        _say(f"{net}: {ROWS[name].title} with {', '.join(map(str, COUNTS))} samples")
        found[name] = measure.flatness(material, ROWS[name], COUNTS)
    return {"flatness": found}


def main(
    net: Annotated[list[str], typer.Option(help=f"One of {', '.join(NETS)}; may be given again.")],
    rows: Annotated[str, typer.Option(help="Names or groups of rows with commas between them, or all.")] = "all",
    *,
    is_speed: Annotated[bool, typer.Option("--speed", help="Time the files too; needs a quiet machine.")] = False,
    is_flatness: Annotated[bool, typer.Option("--flatness", help="Cost of 64, 256 and 1 024 samples.")] = False,
    output: Annotated[Path | None, typer.Option(help="The results file; else one for machine and day.")] = None,
) -> None:
    """Make rows of peers, print them, and add them to a results file."""
    if unknown := set(net) - set(NETS):
        raise UsageError(f"unknown network '{min(unknown)}'", where="--net", fix=f"use one of {', '.join(NETS)}")
    wanted, machine = chosen(rows.split(",")), describe()
    path = output or results_path(machine, dt.datetime.now(dt.UTC).date())
    command = shlex.join(["python", "-m", "benchmarks.peers.run", *sys.argv[1:]])
    for name in net:
        if is_flatness:
            found = _flatness(name)
        else:
            _say(f"{name}: float files and samples")
            material = prepare(name)
            found = _speed(material, wanted) if is_speed else _rows(material, wanted)
        document = merge(path, name, found, machine, command)
        typer.echo(text(accuracy_table(name, document["nets"][name])))
    _say(f"kept in {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")


def _run() -> int:
    try:
        typer.run(main)
    except StropError as error:
        _say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(_run())
