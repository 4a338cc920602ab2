# SPDX-License-Identifier: Apache-2.0
"""``strop bench report``: results as one page, as pictures, and checked against their raw samples."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    results: Annotated[list[Path], typer.Argument(help="Results (.json), or folders of them.")],
    out: Annotated[Path | None, typer.Option("--out", help="Write one page, without anything outside of it.")] = None,
    png: Annotated[Path | None, typer.Option("--png", help="Write every picture into this folder.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compute every figure again from the raw samples; refuse what differs.")
    ] = False,
    models: Annotated[
        Path | None,
        typer.Option("--models", help="The measured files, a folder for each family: draw predictions against times."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as one JSON list.")] = False,
) -> None:
    """Print results as a table; check them, or write a page or pictures of them."""
    from benchmarks.pictures import make

    typer.echo(make.report(results, out=out, png=png, models=models, is_checked=check, as_json=as_json))
