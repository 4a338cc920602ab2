# SPDX-License-Identifier: Apache-2.0
"""``strop compress``: its verbs. Results on stdout, progress on stderr."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from compress.checks.cli import check
from compress.search.cli import search
from edge_contract.errors import StropError, UsageError

if TYPE_CHECKING:
    from compress.report import CompressionReport

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Distil, prune and quantize a model to a budget.")
app.command()(search)
app.command()(check)

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a TOML file; its keys are in docs/recipe.md.")]
Folder = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
Out = Annotated[
    Path, typer.Option("--out", help="Folder for the compressed model; the state of the run is kept inside.")
]
Weights = Annotated[Path | None, typer.Option(help="Teacher's state dict, in place of [model] teacher_weights.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads of PyTorch, in place of the recipe's.")]
Stopwatch = Annotated[
    str, typer.Option(help="Who measures latency, module:callable; strop.stopwatch:here times on this machine.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

WORK = ".work"
CALL = "call.json"
WIDTH = 140
FEW_NOTES = 6


def _say(document: Any, tables: Callable[[], list[Any]], *, as_json: bool) -> None:
    """Print JSON, or tables and lines."""
    if as_json:
        typer.echo(json.dumps(document, indent=2, sort_keys=True))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)  # a file or a pipe has no width of its own, and 80 columns break the tables
    for table in tables():
        console.print(table, highlight=False)


def _report_tables(report: "CompressionReport") -> list[Any]:
    from compress import tables

    lines: list[Any] = [tables.step_table(report)]
    if report.ladder:
        lines.append(tables.ladder_table(report.ladder))
    if report.test:
        lines.append(tables.model_table(report))
    if report.new:
        lines.append(tables.new_table(report))
    if report.change is not None:
        lines.append(f"{report.test[-1].name} against float on the test split: {report.change}")
    lines += [f"budget {line.name}: {line.value:g} of {line.limit:g}" for line in report.budget]
    lines += tables.check_parts(report.checks)
    shown = report.notes if len(report.notes) <= FEW_NOTES else report.notes[:3]
    more = [f"{len(report.notes) - 3} more notes are in the report"] if len(shown) < len(report.notes) else []
    return [*lines, *(f"note: {note}" for note in shown), *more]


def _compress(
    recipe_file: Path, out: Path, weights: Path | None, threads: int, stopwatch: str, *, as_json: bool
) -> None:
    console = Console(stderr=True)
    try:
        report = _made(recipe_file, out, weights, threads, stopwatch, console)
    except KeyboardInterrupt:  # also while PyTorch is still loading, which takes seconds
        console.print(f"interrupted; go on with: strop compress resume {out}", highlight=False, soft_wrap=True)
        raise
    if report is not None:
        _say(report.to_json(), lambda: [*_report_tables(report), f"written to {out}"], as_json=as_json)


def _made(
    recipe_file: Path, out: Path, weights: Path | None, threads: int, stopwatch: str, console: Console
) -> "CompressionReport | None":
    """Run a recipe and save the model; of several processes the first one does that, and the others return None."""
    from dataclasses import replace

    from compress import pipeline, recipe, stopwatches
    from compress.listener import Silent, Terminal
    from compress.processes import here
    from compress.work import WorkFolder

    read = recipe.load(recipe_file)
    read = replace(read, threads=threads or read.threads)
    processes = here()
    processes.wait()  # for the first one, which clears the folder of an earlier run
    watch = stopwatches.load(stopwatch)
    if not processes.is_first:
        pipeline.run(read, out / WORK, teacher_weights=weights, listener=Silent(), stopwatch=watch)
        processes.wait()
        return None
    with Terminal(console) as terminal:
        made = pipeline.run(read, out / WORK, teacher_weights=weights, listener=terminal, stopwatch=watch)
    made.save(out)
    processes.wait()
    WorkFolder(out / WORK, read).clear()
    return made.report


def _check_free(out: Path, *, overwrite: bool) -> None:
    """Refuse to write over something else, or over an interrupted run that could go on.

    Raises:
        UsageError: Says which, and how to go on.
    """
    if out.exists() and not out.is_dir():
        raise UsageError("a file is in the way", where=str(out), fix="name another folder")
    if not out.exists() or not any(out.iterdir()):
        return
    ours = (out / WORK).exists() or (out / "report.json").exists()
    if not ours:
        raise UsageError("the folder holds something else", where=str(out), fix="name a new one with --out")
    if not overwrite:
        fix = "give --overwrite, or name a new one with --out"
        if (out / WORK).exists():
            fix = f"go on with 'strop compress resume {out}', or give --overwrite to start again"
        raise UsageError("the folder holds a run", where=str(out), fix=fix)


@app.command()
def run(
    recipe: RecipeFile,
    out: Out,
    teacher_weights: Weights = None,
    threads: Threads = 0,
    stopwatch: Stopwatch = "",
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.")] = False,
    as_json: Json = False,
) -> None:
    """Run a recipe: every step is measured, a missed budget is an error, the test split is read once at the end."""
    from compress import recipe as recipes

    recipes.load(recipe)  # a faulty recipe must leave the folder as it was
    if int(os.environ.get("RANK", "0")) == 0:
        _run_first(recipe, out, teacher_weights, threads, stopwatch, overwrite=overwrite, as_json=as_json)
    else:  # torchrun started this one beside the first, which owns the folder
        _compress(recipe, out, teacher_weights, threads, stopwatch, as_json=as_json)


def _run_first(
    recipe: Path,
    out: Path,
    teacher_weights: Path | None,
    threads: int,
    stopwatch: str,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Take the folder, note what was called, and run."""
    import shutil

    _check_free(out, overwrite=overwrite)
    is_new = not out.exists()
    shutil.rmtree(out / WORK, ignore_errors=True)
    weights = None if teacher_weights is None else str(teacher_weights.resolve())
    call = {"recipe": str(recipe.resolve()), "teacher_weights": weights, "stopwatch": stopwatch}
    try:
        _note(out, call)
        _compress(recipe, out, teacher_weights, threads, stopwatch, as_json=as_json)
    except StropError:
        _leave_nothing(out, is_new=is_new)
        raise


def _note(out: Path, call: dict[str, str | None]) -> None:
    """Write down what was called, so that ``resume`` can call it again.

    Raises:
        UsageError: The folder cannot be made, or the disk is full.
    """
    try:
        (out / WORK).mkdir(parents=True, exist_ok=True)
        (out / WORK / CALL).write_text(json.dumps(call) + "\n", encoding="utf-8")
    except OSError as error:
        fix = "free some space, or name another folder with --out"
        raise UsageError(f"cannot be written: {error.strerror}", where=str(out), fix=fix) from error


def _leave_nothing(out: Path, *, is_new: bool) -> None:
    """Take the folder of a run away again that was refused before its first step, such as for want of its data."""
    work = out / WORK
    if not work.is_dir() or [path.name for path in work.iterdir()] not in ([], [CALL]):
        return
    (work / CALL).unlink(missing_ok=True)
    work.rmdir()
    if is_new:
        out.rmdir()


@app.command()
def resume(
    out: Annotated[Path, typer.Argument(help="The --out folder of an interrupted run.")],
    threads: Threads = 0,
    *,
    as_json: Json = False,
) -> None:
    """Go on with an interrupted run; what is finished is kept, also after the budget or a later step changed."""
    file = out / WORK / CALL
    try:
        call = json.loads(file.read_text(encoding="utf-8"))
        recipe, weights, stopwatch = Path(call["recipe"]), call["teacher_weights"], call.get("stopwatch", "")
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "start one with strop compress run RECIPE --out FOLDER"
        raise UsageError("no interrupted run is here", where=str(out), fix=fix) from error
    _compress(recipe, out, None if weights is None else Path(weights), threads, stopwatch, as_json=as_json)


@app.command()
def plan(recipe: RecipeFile, teacher_weights: Weights = None, *, as_json: Json = False) -> None:
    """Say what a recipe would do: load everything, train nothing, write nothing."""
    from compress import recipe as recipes
    from compress.dry_run import dry_run
    from compress.tables import estimate_table

    read = recipes.load(recipe)
    estimates = dry_run(read, teacher_weights)
    document = {"name": read.name, "digest": read.digest, "steps": [one.to_json() for one in estimates]}
    _say(document, lambda: [estimate_table(read.name, estimates)], as_json=as_json)


@app.command()
def report(folder: Folder, *, as_json: Json = False) -> None:
    """Print the report of a finished run (or of one that missed its budget) and draw its page again."""
    from compress import report_files as reports

    place = (
        folder / WORK if not (folder / reports.NAME).exists() and (folder / WORK / reports.NAME).exists() else folder
    )
    found = reports.read(place)
    if place.is_dir():
        reports.write(found, place)
    lines = [f"page: {place / 'report.html'}"] if place.is_dir() else []
    _say(found.to_json(), lambda: [*_report_tables(found), *lines], as_json=as_json)


@app.command()
def compare(
    first: Folder,
    second: Folder,
    page: Annotated[Path | None, typer.Option(help="Draw both on one page, an HTML file.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Put two finished runs on the same data side by side: models, steps and layers."""
    from compress import compare as comparing
    from compress import report_files as reports
    from compress import tables

    a, b = reports.read(first), reports.read(second)
    rows, steps, layers = comparing.compare(a, b), comparing.compare_steps(a, b), comparing.compare_layers(a, b)
    document = {
        "first": str(first),
        "second": str(second),
        "models": [row.to_json() for row in rows],
        "steps": [row.to_json() for row in steps],
        "layers": [row.to_json() for row in layers],
    }
    if page is not None:
        reports.write_comparison(first, second, page)
    shown = [
        tables.compared_table(str(first), str(second), rows),
        tables.compared_steps_table(steps),
        *([tables.compared_layers_table(layers)] if layers else []),
        *([f"page: {page}"] if page is not None else []),
    ]
    _say(document, lambda: shown, as_json=as_json)


@app.command()
def sensitivity(
    path: Annotated[Path, typer.Argument(help="A recipe whose model enters with weights, or the folder of a run.")],
    samples: Annotated[int, typer.Option(min=0, help="Validation samples, the first ones; 0 takes all.")] = 0,
    threads: Threads = 0,
    *,
    as_json: Json = False,
) -> None:
    """Measure what each layer alone would cost in 4 bits, in 8 bits, and wide (float32 between int8 tensors)."""
    from rich.progress import Progress

    from compress import tables
    from compress.sensitivity import of_path

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_interactive) as bar:
        task = bar.add_task("samples", total=None)
        found = of_path(
            path, samples=samples, most_threads=threads, progress=lambda d, n: bar.update(task, completed=d, total=n)
        )
    _say(found.to_json(), lambda: [tables.sensitivity_table(found)], as_json=as_json)
