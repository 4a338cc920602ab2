# SPDX-License-Identifier: Apache-2.0
"""``strop compress``: run, plan, report, compare, resume. Results on stdout, progress on stderr."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from edge_contract.errors import StropError, UsageError

if TYPE_CHECKING:
    from compress.report import CompressionReport

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Distil, prune and quantize a model to a budget.")

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a TOML file; its keys are in docs/recipe.md.")]
Folder = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
Out = Annotated[
    Path, typer.Option("--out", help="Folder for the compressed model; the state of the run is kept inside.")
]
Weights = Annotated[Path | None, typer.Option(help="Teacher's state dict, in place of [model] teacher_weights.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads of PyTorch, in place of the recipe's.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

WORK = ".work"
CALL = "call.json"


def _say(document: Any, tables: Callable[[], list[Any]], *, as_json: bool) -> None:
    """Print JSON, or tables and lines."""
    if as_json:
        typer.echo(json.dumps(document, indent=2, sort_keys=True))
        return
    console = Console()
    for table in tables():
        console.print(table, highlight=False)


def _report_tables(report: "CompressionReport") -> list[Any]:
    from compress import tables

    lines: list[Any] = [tables.step_table(report)]
    if report.test:
        lines.append(tables.model_table(report))
    if report.change is not None:
        lines.append(f"int8 against float on the test split: {report.change}")
    lines += [f"budget {line.name}: {line.value:g} of {line.limit:g}" for line in report.budget]
    return [*lines, *(f"note: {note}" for note in report.notes)]


def _compress(recipe_file: Path, out: Path, weights: Path | None, threads: int, *, as_json: bool) -> None:
    from dataclasses import replace

    from compress import pipeline, recipe
    from compress.listener import Terminal
    from compress.work import WorkFolder

    read = recipe.load(recipe_file)
    read = replace(read, threads=threads or read.threads)
    console = Console(stderr=True)
    try:
        with Terminal(console) as terminal:
            made = pipeline.run(read, out / WORK, teacher_weights=weights, listener=terminal)
        made.save(out)
    except KeyboardInterrupt:
        console.print(f"interrupted; go on with: strop compress resume {out}", highlight=False, soft_wrap=True)
        raise
    WorkFolder(out / WORK, read).clear()
    _say(made.report.to_json(), lambda: [*_report_tables(made.report), f"written to {out}"], as_json=as_json)


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
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.")] = False,
    as_json: Json = False,
) -> None:
    """Run a recipe: every step is measured, a missed budget is an error, the test split is read once at the end."""
    import shutil

    from compress import recipe as recipes

    recipes.load(recipe)  # a faulty recipe must leave the folder as it was
    _check_free(out, overwrite=overwrite)
    is_new = not out.exists()
    shutil.rmtree(out / WORK, ignore_errors=True)
    (out / WORK).mkdir(parents=True)
    weights = None if teacher_weights is None else str(teacher_weights.resolve())
    call = {"recipe": str(recipe.resolve()), "teacher_weights": weights}
    (out / WORK / CALL).write_text(json.dumps(call) + "\n", encoding="utf-8")
    try:
        _compress(recipe, out, teacher_weights, threads, as_json=as_json)
    except StropError:
        _leave_nothing(out, is_new=is_new)
        raise


def _leave_nothing(out: Path, *, is_new: bool) -> None:
    """Take the folder of a run away again that was refused before its first step, such as for want of its data."""
    if [path.name for path in (out / WORK).iterdir()] != [CALL]:
        return
    (out / WORK / CALL).unlink()
    (out / WORK).rmdir()
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
        recipe, weights = Path(call["recipe"]), call["teacher_weights"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "start one with strop compress run RECIPE --out FOLDER"
        raise UsageError("no interrupted run is here", where=str(out), fix=fix) from error
    _compress(recipe, out, None if weights is None else Path(weights), threads, as_json=as_json)


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
def compare(first: Folder, second: Folder, *, as_json: Json = False) -> None:
    """Put two finished runs on the same data side by side."""
    from compress import report_files as reports
    from compress.compare import compare as compare_reports
    from compress.tables import compared_table

    a, b = reports.read(first), reports.read(second)
    rows = compare_reports(a, b)
    document = {"first": str(first), "second": str(second), "models": [row.to_json() for row in rows]}
    _say(document, lambda: [compared_table(str(first), str(second), rows)], as_json=as_json)
