# SPDX-License-Identifier: Apache-2.0
"""``strop fleet dead-letters`` and ``strop fleet retention``: what became of what devices sent."""

import base64
import datetime as dt
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from edge_contract import durable
from fleet.client import connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer, table

__all__ = ["dead_letters", "retention"]

dead_letters = typer.Typer(help="Messages that could not be read, and why.", no_args_is_help=True)
retention = typer.Typer(help="How long telemetry stays, and what was deleted.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(help="Number of the letter, of dead-letters list.")]
Device = Annotated[str, typer.Argument(help="Name of the device.")]


def _when(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


@dead_letters.command("list")
def newest(
    limit: Annotated[int, typer.Option(help="Newest letters to show.")] = 50,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show messages that could not be read, newest first."""
    found = connect(data, server, token_file).call("GET", f"/dead-letters?limit={limit}")["letters"]
    rows = [["NUMBER", "WHEN", "BYTES", "TOPIC", "REASON"]]
    rows += [[str(o["id"]), _when(o["time"]), str(o["size"]), o["topic"][:60], o["reason"][:80]] for o in found]
    print_answer(found, as_json, table(rows) if found else "none")


@dead_letters.command()
def show(
    number: Number,
    out: Annotated[Path | None, typer.Option(help="Write the payload's bytes to this file.")] = None,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show one message with its reason and the beginning of its bytes."""
    found = connect(data, server, token_file).call("GET", f"/dead-letters/{number}")
    payload = base64.b64decode(found["payload"])
    if out is not None:
        durable.write(out, payload)
    text = f"{_when(found['time'])}  {found['topic']}\n{found['reason']}\n{len(payload)} bytes: {payload[:120]!r}"
    print_answer(found, as_json, text)


@dead_letters.command()
def requeue(
    number: Number, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Read a message once more, after an update or an enrolment; if it fails again it is a new letter."""
    found = connect(data, server, token_file).call("POST", f"/dead-letters/{number}/requeue")
    print_answer(
        found, as_json, "read" if found["read"] else "it still cannot be read: see strop fleet dead-letters list"
    )


@retention.command("show")
def kept(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """Show how many rows are kept, since when, and the deletions that the audit log holds."""
    found = connect(data, server, token_file).call("GET", "/retention")
    oldest = _when(found["oldest_raw"]) if found["oldest_raw"] else "–"
    head = f"rows     {found['telemetry']}, oldest of {oldest}\nhours    {found['rollups']}"
    rows = [["#", "WHEN", "WHO", "ON", "ROWS"]]
    rows += [[str(o["number"]), _when(o["time"]), o["actor"], o["on"], _counts(o["rows"])] for o in found["deletions"]]
    print_answer(found, as_json, f"{head}\n{table(rows) if len(rows) > 1 else 'nothing was deleted yet'}")


def _counts(rows: dict[str, Any]) -> str:
    return ", ".join(f"{count} {name}" for name, count in rows.items() if count) or "none"


@retention.command()
def hours(
    device: Device,
    cls: Annotated[str, typer.Option("--class", help="Class of telemetry.")] = "metric",
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show a device's hourly sums, which stay when its rows go."""
    path = f"/devices/{quote(device, safe='')}/hours?class={quote(cls, safe='')}"
    found = connect(data, server, token_file).call("GET", path)["hours"]
    rows = [["HOUR", "ROWS", "INFERENCES", "ERRORS", "WORST P95 ms"]]
    for one in found:
        worst = f"{one['p95_us'] / 1000:.1f}" if one["p95_us"] else "–"
        rows.append([_when(one["start"]), str(one["rows"]), str(one["inferences"]), str(one["errors"]), worst])
    print_answer(found, as_json, table(rows) if found else "no hour is rolled up yet")


@retention.command()
def forget(
    device: Device, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Delete everything that a device has sent; how much it was stays in the audit log."""
    found = connect(data, server, token_file).call("DELETE", f"/devices/{quote(device, safe='')}/telemetry")
    print_answer(found, as_json, f"deleted: {_counts(found['deleted'])}")
