# SPDX-License-Identifier: Apache-2.0
"""``strop fleet model …``: registered model versions."""

from pathlib import Path
from typing import Annotated

import typer

from fleet.client import connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer, table

__all__ = ["model"]

model = typer.Typer(help="Registered model versions.", no_args_is_help=True)


@model.command("add")
def model_add(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    targets: Annotated[Path, typer.Option(help="targets.json that 'strop export bundle' signed.")],
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Upload a signed bundle and register it."""
    answer = connect(data, server, token_file).add_model(bundle, targets)
    print_answer(answer, as_json, f"{answer['model']} {answer['version']} is bundle {answer['bundle']}")


@model.command("list")
def model_list(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List model versions, newest first."""
    found = connect(data, server, token_file).call("GET", "/models")
    rows = [["MODEL", "VERSION", "BUNDLE", "BYTES", "RUNNING ON"]]
    rows += [[m["model"], m["version"], m["bundle"], str(m["size"]), ", ".join(m["running_on"]) or "–"] for m in found]
    print_answer(found, as_json, table(rows))
