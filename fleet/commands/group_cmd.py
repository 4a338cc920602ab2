# SPDX-License-Identifier: Apache-2.0
"""``strop fleet group …``: lists of devices, saved queries, and the settings that they give."""

import json
from typing import Annotated, Any

import typer

from fleet.client import connect
from fleet.commands.device_config_cmd import settings
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer, table

__all__ = ["groups"]

groups = typer.Typer(help="Groups of devices: lists, saved queries, and their settings.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="GROUP")]


@groups.command("new")
def new(
    name: Name,
    devices: Annotated[list[str] | None, typer.Argument(metavar="[DEVICE]...", help="Of a static group.")] = None,
    query: Annotated[str, typer.Option(help="Of a dynamic group, such as 'board:rpi5 and site:a'.")] = "",
    *,
    priority: Annotated[int, typer.Option(help="Of two groups with one setting the higher number wins.")] = 0,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Make a group, or change who is in it; its settings stay."""
    document = {"query": query, "devices": devices or [], "priority": priority}
    answer = connect(data, server, token_file).call("PUT", f"/groups/{name}", document)
    print_answer(answer, as_json, f"group {name} ({answer['kind']}) has {answer['devices']} devices now")


@groups.command("list")
def list_(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List groups with how many devices are in them now."""
    found = connect(data, server, token_file).call("GET", "/groups")
    rows = [["GROUP", "KIND", "DEVICES", "PRIORITY", "QUERY", "SETTINGS"]]
    rows += [
        [g["name"], g["kind"], str(g["devices"]), str(g["priority"]), g["query"] or "–", json.dumps(g["config"])]
        for g in found
    ]
    print_answer(found, as_json, table(rows) if found else "no group yet")


@groups.command("show")
def show(
    name: Name, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Show one group and its devices."""
    found = connect(data, server, token_file).call("GET", f"/groups/{name}")
    lines = [[key, _words(found[key])] for key in ("name", "kind", "query", "priority", "config", "devices")]
    print_answer(found, as_json, "\n".join([table(lines), *found["names"]]))


def _words(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


@groups.command("add")
def add(
    name: Name,
    devices: Annotated[list[str], typer.Argument(metavar="DEVICE...")],
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Put devices into a static group."""
    answer = connect(data, server, token_file).call("POST", f"/groups/{name}/devices", {"add": devices})
    print_answer(answer, as_json, f"group {name} has {answer['devices']} devices now")


@groups.command("drop")
def drop(
    name: Name,
    devices: Annotated[list[str], typer.Argument(metavar="DEVICE...")],
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Take devices out of a static group."""
    answer = connect(data, server, token_file).call("POST", f"/groups/{name}/devices", {"drop": devices})
    print_answer(answer, as_json, f"group {name} has {answer['devices']} devices now")


@groups.command("config")
def config(
    name: Name,
    words: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="null takes a setting away.")],
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Change the settings that devices of a group get, unless they have their own."""
    answer = connect(data, server, token_file).call("PUT", f"/groups/{name}/config", settings(words))
    print_answer(answer, as_json, f"group {name} gives {json.dumps(answer['config'])}")


@groups.command("delete")
def delete(
    name: Name, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Delete a group; its devices stay, and lose the settings that it gave."""
    answer = connect(data, server, token_file).call("DELETE", f"/groups/{name}")
    print_answer(answer, as_json, f"deleted group {name}")
