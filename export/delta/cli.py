# SPDX-License-Identifier: Apache-2.0
"""``strop export delta A B``: make the patches that bring a device from A to B, and say what each tensor costs."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["delta"]


def delta(
    first: Annotated[Path, typer.Argument(help="What devices hold: a model file or a bundle.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="What they shall hold: likewise.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="A folder for the patches; without it nothing is written.")] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Print every tensor, not only the costly ones.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make the smallest patch from one file to another, or of each file of a bundle that changed."""
    from export.delta import files

    made = files.between(first, second)
    written = files.write(made, out) if out is not None else {}
    if as_json:
        documents = [{"file": one.name, **one.patch.to_json(), "path": written.get(one.name)} for one in made]
        typer.echo(json.dumps(documents, indent=2))
        return
    for one in made:
        for line in _lines(one, written.get(one.name), show_all=show_all):
            typer.echo(line)
    if not made:
        typer.echo("nothing to send: every file is there already")


def _lines(one: Any, path: str | None, *, show_all: bool) -> list[str]:
    patch = one.patch
    share = 100 * len(patch.data) / patch.full
    others = ", ".join(f"{name} {size}" for name, size in sorted(patch.others.items(), key=lambda item: item[1]))
    head = f"{one.name}: {len(patch.data)} bytes by {patch.codec}, {share:.1f} % of {patch.full} ({others})"
    if not patch.is_worth_it:
        head += "; that saves too little: the full file is sent"
    rows = sorted(patch.rows, key=lambda row: -row.cost)
    shown = rows if show_all else rows[:10]
    table = [f"  {row.cost:>9} of {row.bytes:>9} bytes  {row.kind:<6}  {row.name}" for row in shown if row.cost]
    same = sum(row.kind == "copy" for row in rows)
    tail = [f"  {same} of {len(rows)} tensors are as they were"] if rows else []
    return [head, *table, *tail, *([f"  written to {path}"] if path else [])]
