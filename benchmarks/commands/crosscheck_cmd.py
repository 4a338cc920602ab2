# SPDX-License-Identifier: Apache-2.0
"""``strop bench crosscheck``: do other people's tools see the same times."""

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.crosscheck.compare import check, to_text
from benchmarks.ops.running import file_of

__all__ = ["crosscheck"]


def crosscheck(
    model: Annotated[Path, typer.Argument(help="An .onnx or .tflite file, a bundle's folder or FOLDER@RUNTIME.")],
    tool: Annotated[
        list[str] | None, typer.Option("--tool", help="NAME or NAME=/path/to/program; may be repeated. Default: all.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of one inference.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of our harness and the tool.")] = 5,
    runs: Annotated[int, typer.Option(min=10, help="Inferences of each launch.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare our harness with benchmark_model, litert-benchmark and onnxruntime_perf_test, in turns.

    A tool more than 10 % away is told. Exit code 1: one that was named is absent, or failed.
    """
    pairs = [word.partition("=") for word in tool or ()]
    names, given = [name for name, _, _ in pairs], {name: path for name, _, path in pairs if path}
    found = check(file_of(model), tools=names, given=given, threads=threads, rounds=rounds, runs=runs)
    text = json.dumps({"model": str(model), "threads": threads, "tools": [one.to_json() for one in found]})
    typer.echo(text if as_json else to_text(found))
    if any(one.state in ("absent", "failed") and one.tool in names for one in found):
        raise typer.Exit(1)
