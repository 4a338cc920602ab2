# SPDX-License-Identifier: Apache-2.0
"""``strop fleet device quarantine|release|decommission|remove``. Thin: parse, call, print."""

from typing import Annotated

import typer

from fleet.client import connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer

__all__ = ["decommission", "quarantine", "release", "remove"]

Device = Annotated[str, typer.Argument(metavar="DEVICE")]


def quarantine(
    name: Device,
    reason: Annotated[str, typer.Option(help="Why; the device is told.")] = "",
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Give a device no orders, and keep apart what it sends, until somebody has looked."""
    answer = connect(data, server, token_file).call("POST", f"/devices/{name}/quarantine", {"reason": reason})
    print_answer(answer, as_json, f"{name} is {answer['state']}: {answer['reason']}")


def release(
    name: Device,
    accept: Annotated[bool, typer.Option("--accept", help="Take in what it sent meanwhile.")] = False,
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Let a device out of quarantine; a suspicion of a clone is taken back."""
    answer = connect(data, server, token_file).call("POST", f"/devices/{name}/release", {"accept": accept})
    print_answer(answer, as_json, f"released {name}; {answer['accepted_rows']} rows taken in")


def decommission(
    name: Device,
    delete_data: Annotated[bool, typer.Option("--delete-data", help="Delete all that it sent.")] = False,
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Take a device out of the fleet for good: certificate, retained messages and, if asked, its data."""
    answer = connect(data, server, token_file).call("POST", f"/devices/{name}/decommission", {"delete": delete_data})
    text = f"{name} is decommissioned; its data is kept"
    if delete_data:
        counts = ", ".join(f"{count} {table}" for table, count in answer["rows"].items()) or "none"
        text = f"{name} is decommissioned; deleted rows: {counts}; digest of what they were: {answer['sha256'][:16]}"
    print_answer(answer, as_json, text)


def remove(
    name: Device, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Forget a device; what it sent is kept."""
    answer = connect(data, server, token_file).call("DELETE", f"/devices/{name}")
    print_answer(answer, as_json, f"removed {name}")
