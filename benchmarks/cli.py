# SPDX-License-Identifier: Apache-2.0
"""``strop bench``: measure in turns, quote ratios."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.delta import main as delta
from benchmarks.interleave import interleave
from benchmarks.operands import resolve

__all__ = ["app"]

app = typer.Typer(help="Compare two commands or artefacts honestly.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Compare two commands or artefacts honestly."""


app.command("delta")(delta)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="The one to compare with: a command, BUNDLE@RUNTIME, or a model file.")],
    b: Annotated[str, typer.Argument(help="The other, in the same form.")],
    pairs: Annotated[int, typer.Option(min=1, help="Turns of A and B.")] = 30,
    warmup: Annotated[int, typer.Option(min=0, help="Untimed turns before the first pair.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a runtime.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with all times.")] = False,
) -> None:
    """Time A and B in turns, A B A B; print medians, their ratio with its interval, machine and command."""
    words = ["strop", "bench", "compare", a, b, f"--pairs={pairs}", f"--warmup={warmup}", f"--threads={threads}"]
    found = interleave(
        resolve(a, threads=threads),
        resolve(b, threads=threads),
        names=(a, b),
        pairs=pairs,
        warmup=warmup,
        command=shlex.join(words),
    )
    typer.echo(json.dumps(found.to_json()) if as_json else found.to_text())


@app.command()
def overhead(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder; its golden inputs are asked about.")],
    runtime: Annotated[
        list[str] | None,
        typer.Option("--runtime", help="May be repeated; default: litert, onnxruntime, tflite-runtime."),
    ] = None,
    tflite_python: Annotated[str, typer.Option(help="An interpreter that has tflite-runtime.")] = "",
    pairs: Annotated[int, typer.Option(min=50, help="Turns of the three ways.")] = 2000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time an embedded model against its bare runtime, without and with input statistics, in each runtime."""
    from benchmarks import overhead_table

    beside = Path(".venv-tflite/bin/python")
    pythons = overhead_table.here(tflite_python or (str(beside.absolute()) if beside.exists() else ""))
    chosen = {name: pythons.get(name, "python3") for name in runtime or pythons}
    results, missing = overhead_table.collect(bundle, chosen, pairs)
    found = {"results": results, "missing": missing}
    typer.echo(json.dumps(found) if as_json else overhead_table.to_text(results, missing))
