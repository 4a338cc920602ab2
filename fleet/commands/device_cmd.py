# SPDX-License-Identifier: Apache-2.0
"""``strop fleet device …``: list, show, label; settings, standing and questions are in files of their own."""

import json
import urllib.parse
from typing import Annotated, Any

import typer

from edge_contract.errors import UsageError
from fleet.client import connect
from fleet.commands.device_ask_cmd import diagnostics, logs, ping
from fleet.commands.device_config_cmd import config
from fleet.commands.device_standing_cmd import decommission, quarantine, release, remove
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer, table
from fleet.commands.trust_cmd import forgive, identity_lines, revoke
from fleet.core.groups import read_words, unknown_label
from fleet.core.query import parse

__all__ = ["device"]

device = typer.Typer(help="Devices: find, show, label, configure, ask, quarantine, decommission.", no_args_is_help=True)


@device.command("list")
def device_list(
    query: Annotated[str, typer.Argument(help="Such as 'site:a and drift>0.2'; all devices without it.")] = "",
    *,
    sort: Annotated[str, typer.Option(help="A fact or a label; '-' before it: the highest first.")] = "",
    limit: Annotated[int, typer.Option(help="Most devices; 0 for all.")] = 200,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """List devices that fit a query: online, running version, in sync, drift, and what needs a person."""
    words, client = urllib.parse.urlencode({"q": query, "sort": sort}), connect(data, server, token_file)
    found, total = client.listed(f"/devices?{words}", limit)
    hint = "" if found or not query else unknown_label(parse(query), client.call("GET", "/device-labels"))
    rows = [["DEVICE", "ONLINE", "BOARD", "RUNTIME", "MODEL", "IN SYNC", "INFERENCES", "DRIFT", "LABELS"]]
    rows += [_line(one) for one in found]
    text = table(rows)
    if total > len(found):
        text += f"\n{len(found)} of {total} devices; --limit 0 shows all"
    for one in found:
        text += _trouble(one)
    print_answer(found, as_json, f"{text}\n{hint}" if hint else text)


def _line(one: dict[str, Any]) -> list[str]:
    models = ", ".join(f"{n} {s['version']} ({s['running'][:8] or '–'})" for n, s in one["models"].items()) or "–"
    sync = "yes" if one["in_sync"] else f"no: {one['why']}"
    runtime = f"{one['runtime']} {one['runtime_version']}".strip() or "–"
    online = "yes" if one["online"] else "no"
    if one.get("standing"):
        online = one["standing"]["state"]
    more = (
        runtime,
        models,
        sync,
        str(one["inferences"]),
        one["drift"]["level"],
        label_words(one.get("labels", {})) or "–",
    )
    return [one["device"], online, one.get("board_name") or "–", *more]


def _trouble(one: dict[str, Any]) -> str:
    clone, standing = one.get("clone") or {}, one.get("standing")
    todo = clone.get("todo", "see 'device show'")
    lines = [f"{one['device']}: CLONE? {clone['evidence'][-1]}; {todo}"] if clone.get("suspected") else []
    if standing:
        lines.append(f"{one['device']}: {standing['state']} by {standing['by']}: {standing['reason']}")
    return "".join(f"\n{line}" for line in lines)


def label_words(labels: dict[str, str]) -> str:
    """Return labels as they are typed.

    Example:
        >>> label_words({"lab": "", "site": "a"})
        'lab site=a'
    """
    return " ".join(f"{name}={value}" if value else name for name, value in sorted(labels.items()))


@device.command("show")
def device_show(
    name: str, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Show one device: its board, what it runs, its settings, its certificate, and what needs a person."""
    found = connect(data, server, token_file).call("GET", f"/devices/{name}")
    print_answer(found, as_json, table(_shown(found)))


_KEYS = (
    "device",
    "online",
    "agent_version",
    "runtime",
    "runtime_version",
    "in_sync",
    "why",
    "inferences",
    "results",
    "rows",
    "config",
)


def _shown(found: dict[str, Any]) -> list[list[str]]:
    lines = [[key, json.dumps(found[key]) if isinstance(found[key], dict) else str(found[key])] for key in _KEYS]
    board = found["board"]
    lines += [[f"board {key}", str(board[key])] for key in ("model", "machine", "kernel", "python") if board.get(key)]
    serials = board.get("identity") if isinstance(board.get("identity"), dict) else {}
    lines += [[f"board {key} digest", str(value)[:16]] for key, value in serials.items() if isinstance(value, str)]
    lines += [["accelerators", ", ".join(found.get("accelerators", ())) or "none"]]
    lines += [["labels", label_words(found.get("labels", {})) or "none"]]
    lines += [["groups", ", ".join(found.get("groups", ())) or "none"]]
    lines += [[f"model {n}", f"{s['version']} running {s['running'][:12]}"] for n, s in found["models"].items()]
    lines += [["drift", f"{found['drift']['level']}: {found['drift']['reason']}"]]
    standing = found.get("standing")
    if standing:
        apart = ", ".join(f"{count} {cls}" for cls, count in standing["rows_apart"].items()) or "none"
        lines += [[standing["state"], f"{standing['reason']}, by {standing['by']}; rows kept apart: {apart}"]]
    lines += identity_lines(found)
    if todo := (found.get("clone") or {}).get("todo"):
        lines += [["what to do", todo]]
    return lines


Words = Annotated[list[str], typer.Argument(metavar="[DEVICE] WORD...", help="NAME=VALUE, or NAME for a tag.")]
Where = Annotated[str, typer.Option(help="Every device that fits a query, in place of a device's name.")]


@device.command("tag")
def tag(
    words: Words,
    where: Where = "",
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Give labels (site=a) and tags (lab) to a device, or to every one that fits --where."""
    whom, rest = _whom(words, where)
    document = {**whom, "put": read_words(rest)}
    answer = connect(data, server, token_file).call("POST", "/devices/labels", document)
    print_answer(answer, as_json, f"labelled {answer['devices']} devices: {' '.join(rest)}")


@device.command("untag")
def untag(
    words: Words,
    where: Where = "",
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Take labels and tags away, by their names."""
    whom, rest = _whom(words, where)
    answer = connect(data, server, token_file).call("POST", "/devices/labels", {**whom, "drop": rest})
    print_answer(answer, as_json, f"took {' '.join(rest)} from {answer['devices']} devices")


def _whom(words: list[str], where: str) -> tuple[dict[str, Any], list[str]]:
    """Return the devices that are meant, and the words for them."""
    whom: dict[str, Any] = {"where": where} if where else {"devices": words[:1]}
    rest = words if where else words[1:]
    if not rest:
        raise UsageError("no label is named", where="strop fleet device tag", fix="strop fleet device tag pi-01 site=a")
    return whom, rest


for verb in (config, quarantine, release, decommission, remove, ping, logs, diagnostics, revoke, forgive):
    device.command()(verb)
