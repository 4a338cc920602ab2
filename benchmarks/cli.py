# SPDX-License-Identifier: Apache-2.0
"""``strop bench``: measure in turns, quote ratios."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.delta import main as delta
from benchmarks.fleet.cli import swarm
from benchmarks.interleave import interleave
from benchmarks.operands import resolve

__all__ = ["app"]

app = typer.Typer(help="Compare two commands or artefacts honestly.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Compare two commands or artefacts honestly."""


app.command("delta")(delta)
app.command("swarm")(swarm)


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


@app.command()
def footprint(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle's folder: an agent is started on it.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Measure the agent that runs over this folder.")] = None,
    minutes: Annotated[float, typer.Option(min=0.01, help="How long to look.")] = 10.0,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 10.0,
    warmup: Annotated[float, typer.Option(min=0.0, help="Minutes before the first look.")] = 5.0,
    rate: Annotated[float, typer.Option(min=0.0, help="Inferences a second; 0: idle with the model loaded.")] = 0.0,
    runtime: Annotated[str, typer.Option(help="Of the started agent.")] = "litert",
    offline: Annotated[bool, typer.Option("--offline", help="Without a broker.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure memory (PSS, RSS), processor time, disk writes and start of an agent's processes."""
    from benchmarks import footprint as figures
    from benchmarks.footprint_agent import Plan, measure

    words = [*([str(bundle)] if bundle else []), *([f"--data={data}"] if data else []), f"--minutes={minutes:g}"]
    words += [f"--every={every:g}", f"--warmup={warmup:g}", f"--rate={rate:g}", f"--runtime={runtime}"]
    spans = {"every_s": every, "total_s": 60 * minutes, "warmup_s": 60 * warmup}
    plan = Plan(bundle, data, runtime, rate, offline, **spans)
    found = measure(plan, shlex.join(["strop", "bench", "footprint", *words, *(["--offline"] if offline else [])]))
    typer.echo(json.dumps(found) if as_json else figures.to_text(found))
