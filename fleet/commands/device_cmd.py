# SPDX-License-Identifier: Apache-2.0
"""``strop fleet device …``: list, show, configure, remove; and the verbs on a certificate."""

import json
from typing import Annotated, Any

import typer

from edge_contract.errors import UsageError
from fleet.client import connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer, table
from fleet.commands.trust_cmd import forgive, identity_lines, revoke

__all__ = ["device"]

device = typer.Typer(help="Devices: list, show, configure, remove.", no_args_is_help=True)
for verb in (revoke, forgive):
    device.command()(verb)


@device.command("list")
def device_list(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List devices: online, running version, in sync, drift."""
    found = connect(data, server, token_file).call("GET", "/devices")
    rows = [["DEVICE", "ONLINE", "RUNTIME", "MODEL", "IN SYNC", "INFERENCES", "DRIFT"]]
    for one in found:
        models = ", ".join(f"{n} {s['version']} ({s['running'][:8] or '–'})" for n, s in one["models"].items()) or "–"
        sync = "yes" if one["in_sync"] else f"no: {one['why']}"
        runtime = f"{one['runtime']} {one['runtime_version']}".strip() or "–"
        online = "yes" if one["online"] else "no"
        rows.append([one["device"], online, runtime, models, sync, str(one["inferences"]), one["drift"]["level"]])
    print_answer(found, as_json, table(rows))


@device.command("show")
def device_show(
    name: str, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Show one device."""
    found = connect(data, server, token_file).call("GET", f"/devices/{name}")
    keys = (
        "device",
        "online",
        "runtime",
        "runtime_version",
        "in_sync",
        "why",
        "inferences",
        "results",
        "rows",
        "config",
    )
    lines = [[key, json.dumps(found[key]) if isinstance(found[key], dict) else str(found[key])] for key in keys]
    lines += [[f"model {n}", f"{s['version']} running {s['running'][:12]}"] for n, s in found["models"].items()]
    lines += [["drift", f"{found['drift']['level']}: {found['drift']['reason']}"]]
    lines += identity_lines(found)
    print_answer(found, as_json, table(lines))


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"{text!r} is not KEY=VALUE", where="strop fleet device config")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


@device.command("config")
def device_config(
    name: str,
    settings: Annotated[list[str], typer.Argument(help="KEY=VALUE; null removes a key.")],
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Change settings of a device, such as source=camera or heartbeat_s=5."""
    changes = dict(_setting(text) for text in settings)
    answer = connect(data, server, token_file).call("PUT", f"/devices/{name}/config", changes)
    print_answer(answer, as_json, f"desired version {answer['version']}: {json.dumps(answer['config'])}")


@device.command("remove")
def device_remove(
    name: str, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Forget a device; what it sent is kept."""
    answer = connect(data, server, token_file).call("DELETE", f"/devices/{name}")
    print_answer(answer, as_json, f"removed {name}")
