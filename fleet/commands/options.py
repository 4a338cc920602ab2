# SPDX-License-Identifier: Apache-2.0
"""Options that every verb has, and how answers are printed."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["Data", "Json", "Server", "TokenFile", "percent", "print_answer", "table"]

Data = Annotated[
    Path | None, typer.Option("--data", help="Data folder of a server on this machine.", envvar="STROP_FLEET_DATA")
]
Server = Annotated[str, typer.Option("--server", help="Operator address, such as http://127.0.0.1:8080.")]
TokenFile = Annotated[Path | None, typer.Option("--token-file", help="File with the operator's token.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_answer(value: Any, as_json: bool, text: str) -> None:
    """Print an answer for machines or for people."""
    print(json.dumps(value, indent=1) if as_json else text)


def table(rows: list[list[str]]) -> str:
    """Return rows as aligned columns; the first row is the head.

    Example:
        >>> print(table([["A", "B"], ["long", "x"]]))
        A     B
        long  x
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def percent(share: float | None) -> str:
    """Return a share as a percentage.

    Example:
        >>> percent(0.5), percent(None)
        ('50.0 %', '–')
    """
    return "–" if share is None else f"{100 * share:.1f} %"
