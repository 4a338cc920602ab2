# SPDX-License-Identifier: Apache-2.0
"""``strop fleet backup`` and ``restore``: everything that cannot be made again, in one file."""

import time
from pathlib import Path
from typing import Annotated

import typer

from fleet.commands.options import Json, print_answer

__all__ = ["backup", "restore"]


def backup(
    out: Annotated[Path, typer.Argument(help="File to write, such as fleet-2026-11-21.strop.")],
    *,
    data: Annotated[Path, typer.Option("--data", help="The server's data folder.", envvar="STROP_FLEET_DATA")],
    database: Annotated[str, typer.Option(help="The server's PostgreSQL, if fleet.toml does not name it.")] = "",
    as_json: Json = False,
) -> None:
    """Write database, keys, settings, bundles and captures into one file; the server may run meanwhile."""
    from fleet.adapters.backup import create

    made = create(data, out, now=time.time(), database=database)
    size = out.stat().st_size
    text = f"{out}: {len(made.files)} files, {made.size / 1e6:.1f} MB, packed {size / 1e6:.1f} MB\n"
    text += "it holds the fleet's keys: keep it where nobody else reads"
    text += "".join(f"\nnot inside: {words}" for words in made.left_out)
    print_answer({**made.to_json(), "packed": size}, as_json, text)


def restore(
    archive: Annotated[Path, typer.Argument(help="What 'strop fleet backup' wrote.")],
    *,
    data: Annotated[Path, typer.Option("--data", help="Data folder to make; must be new or empty.")],
    database: Annotated[str, typer.Option(help="An empty PostgreSQL database, for a backup of one.")] = "",
    as_json: Json = False,
) -> None:
    """Unpack a backup into a new data folder, after checking every file; then start the server on it."""
    from fleet.adapters.backup import restore as unpack
    from fleet.config import load_config

    found = unpack(archive, data, database=database)
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(found.made_at))
    text = f"{data}: {len(found.files)} files of {made} UTC\n"
    if database and load_config(data).database != database:
        text += f"before the start: write the new database into {data / 'fleet.toml'} (or give --database)\n"
    text += f"start it: strop fleet serve --data {data}"
    text += "".join(f"\nnot inside: {words}" for words in found.left_out)
    print_answer(found.to_json(), as_json, text)
