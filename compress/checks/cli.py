# SPDX-License-Identifier: Apache-2.0
"""``strop compress check``: the checks of a finished run, once more."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edge_contract.errors import CheckError

__all__ = ["check"]

WIDTH = 140


def check(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    recipe: Annotated[
        Path | None, typer.Option(help="Take the checks of this recipe instead; prints, and records nothing.")
    ] = None,
    teacher_weights: Annotated[Path | None, typer.Option(help="Teacher's state dict, as given to the run.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a finished run's checks again on what it ships; a failed check ends with exit code 1."""
    from compress import tables
    from compress.checks import runs

    report = runs.again(folder, recipe_file=recipe, teacher_weights=teacher_weights)
    if as_json:
        typer.echo(json.dumps([one.to_json() for one in report.checks], indent=2, sort_keys=True))
    else:
        console = Console()
        if not console.is_terminal:
            console = Console(width=WIDTH)
        for part in tables.check_parts(report.checks):
            console.print(part, highlight=False)
    failed = report.failed_checks
    if failed:
        what = f"{len(failed)} of {len(report.checks)} checks failed: {', '.join(one.name for one in failed)}"
        raise CheckError(what, where=str(folder), fix="mend the model or the data; a bundle needs a waiver for each")
