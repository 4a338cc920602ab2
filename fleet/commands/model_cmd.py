# SPDX-License-Identifier: Apache-2.0
"""``strop fleet model …``: registered model versions."""

from pathlib import Path
from typing import Annotated

import typer

from fleet.client import connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer, table
from fleet.commands.release_cmd import delete, promote, retire, sweep
from fleet.commands.version_cmd import VERBS

__all__ = ["model"]

model = typer.Typer(help="Registered model versions.", no_args_is_help=True)
for verb in (*VERBS, promote, retire, delete, sweep):
    model.command()(verb)


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
    lines = [f"{answer['model']} {answer['version']} is bundle {answer['bundle']}"]
    lines += [f"by the rules, it is {name} now" for name in answer["channels"]]
    print_answer(answer, as_json, "\n".join(lines))


@model.command("list")
def model_list(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List model versions, newest first."""
    found = connect(data, server, token_file).call("GET", "/models")
    rows = [["MODEL", "VERSION", "BUNDLE", "BYTES", "CHANNELS", "RUNNING ON"]]
    for m in found:
        held = ", ".join(m["channels"]) or ("retired" if m["retired"] else "–")
        rows.append([m["model"], m["version"], m["bundle"], str(m["size"]), held, _names(m["running_on"])])
    print_answer(found, as_json, table(rows))


def _names(devices: list[str]) -> str:
    more = f" and {len(devices) - 4} more" if len(devices) > 4 else ""
    return f"{', '.join(devices[:4])}{more}" or "–"
