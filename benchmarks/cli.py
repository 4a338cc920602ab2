# SPDX-License-Identifier: Apache-2.0
"""``strop bench``: the verbs; each of the newer ones has a file in ``benchmarks.commands``."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.aa_cmd import aa
from benchmarks.commands.compare_cmd import compare
from benchmarks.commands.crosscheck_cmd import crosscheck
from benchmarks.commands.energy_cmd import energy
from benchmarks.commands.predict_cmd import app as predict
from benchmarks.commands.profile_cmd import profile
from benchmarks.commands.report_cmd import report
from benchmarks.commands.run_cmd import run
from benchmarks.delta import main as delta
from benchmarks.fleet.cli import swarm

__all__ = ["app"]

app = typer.Typer(help="Measure models, compare them, and say what may be believed.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Measure models, compare them, and say what may be believed."""


app.command("delta")(delta)
app.command("swarm")(swarm)
app.command("aa")(aa)
app.command("compare")(compare)
app.command("crosscheck")(crosscheck)
app.command("energy")(energy)
app.add_typer(predict, name="predict")
app.command("profile")(profile)
app.command("report")(report)
app.command("run")(run)


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
