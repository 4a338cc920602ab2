# SPDX-License-Identifier: Apache-2.0
"""``strop fleet device config``: see and change settings, of one device or of all that fit a query."""

import json
from typing import Annotated, Any

import typer

from edge_contract.errors import UsageError
from fleet.client import connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer, table

__all__ = ["config", "setting", "settings"]


def setting(text: str) -> tuple[str, Any]:
    """Return a setting from its word; a value that is no JSON is text.

    Raises:
        UsageError: Not KEY=VALUE.

    Example:
        >>> setting("heartbeat_s=5"), setting("source=camera"), setting("models.digits.window_s=60")
        (('heartbeat_s', 5), ('source', 'camera'), ('models.digits.window_s', 60))
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"{text!r} is not KEY=VALUE", where="strop fleet device config")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def settings(words: list[str]) -> dict[str, Any]:
    """Return a document of settings; dots lead into it.

    Example:
        >>> settings(["heartbeat_s=5", "models.digits.window_s=60"])
        {'heartbeat_s': 5, 'models': {'digits': {'window_s': 60}}}
    """
    found: dict[str, Any] = {}
    for key, value in map(setting, words):
        *path, last = key.split(".") if key.startswith("models.") else [key]
        at = found
        for word in path:
            at = at.setdefault(word, {})
        at[last] = value
    return found


def config(
    words: Annotated[list[str], typer.Argument(metavar="[DEVICE] [KEY=VALUE]...", help="null takes a setting away.")],
    where: Annotated[str, typer.Option(help="Every device that fits a query, in place of a device's name.")] = "",
    *,
    explain: Annotated[bool, typer.Option("--explain", help="Also what is overruled, and by which group.")] = False,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show settings, or change them: 'config pi-01 heartbeat_s=5', 'config --where site:a heartbeat_s=60'."""
    client = connect(data, server, token_file)
    if where:
        answer = client.call("POST", "/devices/config", {"where": where, "set": settings(words)})
        print_answer(answer, as_json, f"{answer['devices']} devices: {json.dumps(settings(words))}")
        return
    name, changes = words[0], settings(words[1:])
    if changes:
        answer = client.call("PUT", f"/devices/{name}/config", changes)
        print_answer(answer, as_json, f"desired version {answer['version']}: {json.dumps(answer['config'])}")
        return
    found = client.call("GET", f"/devices/{name}/config")
    print_answer(found, as_json, _table(found, with_overruled=explain))


def _table(found: dict[str, Any], *, with_overruled: bool) -> str:
    rows = [["SETTING", "DESIRED", "REPORTED", "FROM", "STATE"]]
    for one in found["settings"]:
        state = f"rejected: {one['reason']}" if one["state"] == "rejected" else one["state"]
        origin = one["origin"] or "agent.toml"
        rows.append([one["name"], _value(one["wanted"]), _value(one["reported"]), origin, state])
        lost = one["overruled"] if with_overruled else []
        rows.extend(["", _value(other["value"]), "", other["origin"], "overruled"] for other in lost)
    versions = f"desired version {found['desired_version']}, taken over {found['reported_version']}"
    return f"{table(rows)}\n{versions}; groups: {', '.join(found['groups']) or 'none'}"


def _value(value: Any) -> str:
    return "–" if value is None else json.dumps(value)
