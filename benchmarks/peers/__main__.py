# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.peers [TABLE…] [--markdown]``: print the side by side with other tools."""

from typing import Annotated

import typer

from benchmarks.peers.tables import markdown, text
from benchmarks.peers.whole import SECTIONS, sections
from edge_contract.errors import StropError


def main(
    tables: Annotated[list[str] | None, typer.Argument(help=f"{', '.join(SECTIONS)}; without: all.")] = None,
    *,
    is_markdown: Annotated[bool, typer.Option("--markdown", help="Tables for a page.")] = False,
) -> None:
    """Print every side by side with other tools, from what was measured last."""
    for table in sections(tables or ()):
        typer.echo(f"\n### {table.title}\n\n{markdown(table)}" if is_markdown else f"\n{text(table)}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except StropError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from error
