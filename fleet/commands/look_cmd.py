# SPDX-License-Identifier: Apache-2.0
"""``strop fleet audit``: who did what."""

import json
import time
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from edge_contract import durable
from edge_contract.errors import ContractError, StoreError, UsageError
from fleet.client import FleetClient, connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer, table
from fleet.core.audit import GENESIS, AuditEntry, first_broken, read_entry

__all__ = ["audit"]


def audit(
    limit: Annotated[int, typer.Option(help="Newest entries to show.")] = 50,
    find: Annotated[str, typer.Option(help="Show entries whose who, what or on what contains this.")] = "",
    verify: Annotated[
        bool, typer.Option("--verify", help="Fetch the whole log and follow its chain here; exit code 1 if it breaks.")
    ] = False,
    export: Annotated[
        Path | None, typer.Option(help="With --verify: keep the log in this file, one entry a line.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="With --verify: an earlier export, which must be this log's beginning.")
    ] = None,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show the audit log, newest first, and whether its chain holds."""
    client = connect(data, server, token_file)
    if verify:
        _verify(client, export, against, as_json)
        return
    found = client.call("GET", f"/audit?limit={limit}&q={quote(find, safe='')}")
    rows = [["#", "WHEN", "WHO", "WHAT", "ON", "DETAIL"]]
    for e in found["entries"]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(e["time"]))
        rows.append([str(e["number"]), when, e["actor"], e["action"], e["subject"][:20], json.dumps(e["detail"])[:80]])
    broken = found["broken_at"]
    chain = "the chain holds" if broken is None else f"THE CHAIN IS BROKEN at entry {broken}"
    print_answer(found, as_json, f"{table(rows)}\n{chain}")


def _entries(lines: bytes, where: str) -> list[AuditEntry]:
    try:
        return [read_entry(json.loads(line)) for line in lines.splitlines()]
    except (ValueError, ContractError) as error:
        raise StoreError(f"not an audit log: {error}", where=where) from error


def _verify(client: FleetClient, export: Path | None, against: Path | None, as_json: bool) -> None:
    lines = client.fetch("/audit/export")
    entries = _entries(lines, client.server)
    broken = first_broken(entries)
    if broken is None and against is not None:
        try:
            former = _entries(against.read_bytes(), str(against))
        except OSError as error:
            raise UsageError(f"cannot be read: {error.strerror}", where=str(against)) from error
        if [one.digest for one in former] != [one.digest for one in entries[: len(former)]]:
            what = f"its first {len(former)} entries are not those that were kept"
            raise StoreError(what, where=f"audit log of {client.server}", fix="entries were cut off or written anew")
    if broken is not None:
        raise StoreError(f"the chain is broken at entry {broken}", where=f"audit log of {client.server}")
    if export is not None:
        durable.write(export, lines)
    head = entries[-1].digest if entries else GENESIS
    answer = {"entries": len(entries), "broken_at": None, "head": head}
    print_answer(answer, as_json, f"{len(entries)} entries, the chain holds; head {head}")
