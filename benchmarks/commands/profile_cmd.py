# SPDX-License-Identifier: Apache-2.0
"""``strop bench profile``: where an inference's time goes, operator by operator."""

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.ops import profile_of
from benchmarks.ops.running import file_of

__all__ = ["profile"]


def profile(
    model: Annotated[Path, typer.Argument(help="An .onnx or .tflite file, a bundle's folder or FOLDER@RUNTIME.")],
    top: Annotated[int, typer.Option(min=0, help="Show the slowest N operators; 0: all, in their order.")] = 10,
    threads: Annotated[int, typer.Option(min=1, help="Of one inference.")] = 1,
    runs: Annotated[int, typer.Option(min=1, help="Profiled runs, in turns with as many that are not.")] = 100,
    drop: Annotated[int, typer.Option(min=0, help="First runs that do not count.")] = 10,
    provider: Annotated[str, typer.Option(help="Execution provider of ONNX Runtime.")] = "cpu",
    out: Annotated[Path | None, typer.Option("--out", help="Write the whole profile here as JSON, too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole profile as JSON.")] = False,
) -> None:
    """Profile a model by ONNX Runtime's or LiteRT's own profiler, in one form; apart from every timing run."""
    found = profile_of(file_of(model), threads=threads, runs=runs, drop=drop, provider=provider)
    text = json.dumps(found.to_json())
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    typer.echo(text if as_json else found.to_text(top))
