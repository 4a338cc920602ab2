# SPDX-License-Identifier: Apache-2.0
"""``strop compress search``: try a recipe's choices, then run the best one to its end."""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from edge_contract.errors import UsageError

if TYPE_CHECKING:
    from compress.recipe import Recipe
    from compress.search.study import Study, Trial
    from compress.search.task import Result
    from compress.search.workers import Workers

__all__ = ["search"]

STUDY = "study.json"
BEST = "best"


def search(
    recipe: Annotated[Path, typer.Argument(help="A recipe with a [search] table; its keys are in docs/recipe.md.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the study; an interrupted search goes on from it.")],
    teacher_weights: Annotated[Path | None, typer.Option(help="Teacher's state dict.")] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Trials at once; 0 takes one for each core.")] = 0,
    stopwatch: Annotated[
        str, typer.Option(help="Who measures latency, module:callable; strop.stopwatch:here times on this machine.")
    ] = "",
    predictor: Annotated[
        str, typer.Option(help="Of the target's latency, a file of 'strop bench predict learn': orders, never judges.")
    ] = "",
    measure_on: Annotated[
        str, typer.Option(help="Measure latency on the fleet's devices that fit this query; the slowest median counts.")
    ] = "",
    server: Annotated[str, typer.Option(help="The fleet's operator address, for --measure-on.")] = "",
    token_file: Annotated[Path | None, typer.Option(help="File with the operator's token.")] = None,
    fleet_data: Annotated[
        Path | None, typer.Option(help="Data folder of a fleet server here.", envvar="STROP_FLEET_DATA")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="Run trials on a Ray cluster: its address, or 'local' to start one here.")
    ] = None,
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Forget an earlier study in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Try a recipe's choices in parallel, show the Pareto front, and make the model of the best trial.

    Trials are judged on the validation split; the test split is read once, for the model that won.
    """
    from compress import recipe as recipes
    from compress.search.study import search as run_search

    read = recipes.load(recipe)
    if out.exists() and not out.is_dir():
        raise UsageError("a file is in the way", where=str(out), fix="name another folder")
    if overwrite:
        shutil.rmtree(out, ignore_errors=True)
    if measure_on:
        _refuse_beside(stopwatch, ray)
        words = {"query": measure_on, "server": server, "token_file": token_file, "data": fleet_data}
        stopwatch = _boards(words, out)
    workers = _workers(jobs or os.cpu_count() or 1, ray)
    console = Console(stderr=True)
    try:
        with _bar(console) as bar:
            task = bar.add_task("trials", total=None)

            def told(trial: "Trial", of: int) -> None:
                bar.update(task, completed=trial.number + 1, total=of)
                bar.console.print(_line(trial), highlight=False, soft_wrap=True)

            study = run_search(
                read, out, workers, teacher_weights=teacher_weights, stopwatch=stopwatch,
                predictor=_absolute(predictor), told=told,
            )  # fmt: skip
    except KeyboardInterrupt:
        console.print(f"interrupted; the same command goes on with {out}", highlight=False, soft_wrap=True)
        raise
    _finish(read, study, out, teacher_weights, stopwatch, console)
    _say(read, study, out, as_json=as_json)


def _refuse_beside(stopwatch: str, ray: str | None) -> None:
    """Boards are one clock, and their server's token does not travel to a cluster."""
    if stopwatch or ray is not None:
        other = "--stopwatch" if stopwatch else "--ray"
        raise UsageError(f"--measure-on and {other}", where="strop compress search", fix="give one of them")


def _absolute(predictor: str) -> str:
    """Return a file's whole path: a trial may run elsewhere."""
    return str(Path(predictor).absolute()) if predictor.endswith(".json") else predictor


def _boards(words: dict[str, Any], out: Path) -> str:
    """Return the name of the stopwatch of boards; it lies where fleets are known, so it is called by its name."""
    from compress.sources.names import resolve

    prepare = resolve("strop.boards:prepare", where="--measure-on", key="measure-on", folder=Path.cwd())
    return str(prepare(words, out))


def _workers(jobs: int, ray: str | None) -> "Workers":
    from compress.search.workers import LocalWorkers, RayWorkers

    if ray is None:
        return LocalWorkers(jobs)
    return RayWorkers(jobs, "" if ray == "local" else ray)


def _bar(console: Console) -> Progress:
    columns = [TextColumn("  {task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn()]
    return Progress(*columns, console=console, transient=True, disable=not console.is_interactive)


def _line(trial: "Trial") -> str:
    chosen = ", ".join(f"{key} = {value}" for key, value in trial.chosen.items())
    result = trial.result
    if result.state != "complete":
        return f"  trial {trial.number}: {chosen}: {result.state}: {result.reason}"
    values = result.values
    size = f"{values['size_kb']:.1f} KB{_times(result)}"
    return f"  trial {trial.number}: {chosen}: {100 * values['accuracy']:.2f} %, {size}"


def _times(result: "Result") -> str:
    """Return what was measured in words, with what was predicted: of several boards the slowest one's median."""
    expected = f" (predicted {result.predicted['ms']:.3g})" if result.predicted else ""
    if not result.measured:
        ms = result.values.get("latency_ms")
        return "" if ms is None else f", {ms:.3g} ms measured{expected}"
    slowest = max(result.measured, key=lambda one: float(one["median_ms"]))
    return f", {slowest['median_ms']:.3g} ms on {slowest['device']} ({slowest['status']}){expected}"


def _finish(
    recipe: "Recipe", study: "Study", out: Path, teacher_weights: Path | None, stopwatch: str, console: Console
) -> None:
    """Run the best recipe to its end, from the steps that its trial left, and save the model."""
    import tomllib
    from dataclasses import replace

    import tomli_w

    from compress import pipeline, stopwatches
    from compress import recipe as recipes
    from compress.listener import Terminal
    from compress.search.space import varied
    from compress.search.study import WORK

    (out / STUDY).write_text(json.dumps(study.to_json(), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    best = next(trial for trial in study.trials if trial.number == study.winner)
    text = tomli_w.dumps(varied(tomllib.loads(recipe.text), best.chosen, where=recipe.path.name))
    # Read as if it lay beside the recipe that was searched: relative paths and modules in it hold there.
    chosen = recipes.parse(text, recipe.path)
    with Terminal(console) as terminal:
        watch = stopwatches.load(stopwatch)
        made = pipeline.run(chosen, out / WORK, teacher_weights=teacher_weights, listener=terminal, stopwatch=watch)
    replace(made, report=replace(made.report, trials=study.points)).save(out / BEST)


def _say(recipe: "Recipe", study: "Study", out: Path, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(study.to_json(), indent=2, sort_keys=True))
        return
    console = Console()
    console.print(_table(recipe.name, study), highlight=False)
    console.print(f"the best model: {out / BEST}", highlight=False, soft_wrap=True)


def _table(name: str, study: "Study") -> Table:
    table = Table(title=f"{name}: Pareto front of {len(study.trials)} trials", title_justify="left")
    for head in ("trial", "choices"):
        table.add_column(head)
    for head in ("validation, %", "KB", "kMACs"):
        table.add_column(head, justify="right")
    rows = sorted((t for t in study.trials if t.number in study.front), key=lambda t: t.result.values["size_kb"])
    for trial in rows:
        values: Any = trial.result.values
        chosen = ", ".join(f"{key} = {value}" for key, value in trial.chosen.items())
        mark = " ←" if trial.number == study.winner else ""
        cells = f"{100 * values['accuracy']:.2f}", f"{values['size_kb']:.1f}", f"{values['macs'] / 1e3:.0f}"
        table.add_row(f"{trial.number}{mark}", chosen, *cells)
    return table
