# SPDX-License-Identifier: Apache-2.0
"""``strop fleet drift`` and ``strop fleet audit``: what the server knows."""

import json
import time
from typing import Annotated

import typer

from fleet.client import connect
from fleet.commands.options import Data, Json, Server, TokenFile, percent, print_answer, table

__all__ = ["audit", "drift"]


def drift(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """Show which devices drift: estimated accuracy, true accuracy where labels came, what moved."""
    found = connect(data, server, token_file).call("GET", "/devices")
    rows = [["DEVICE", "LEVEL", "REFERENCE", "ESTIMATED", "TRUE", "WHAT MOVED"]]
    for one in found:
        seen, truth = one["drift"], one["true_accuracy"]
        estimated = percent(seen["estimated_accuracy"]) + ("" if seen["valid"] else " (not valid)")
        true = percent(truth["value"] if truth else None)
        moved = "; ".join(seen["moved"]) or "–"
        rows.append([one["device"], seen["level"], percent(seen["reference_accuracy"]), estimated, true, moved])
    print_answer(
        [{"device": o["device"], **o["drift"], "true": o["true_accuracy"]} for o in found], as_json, table(rows)
    )


def audit(
    limit: Annotated[int, typer.Option(help="Newest entries to show.")] = 50,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show the audit log, newest first, and whether its chain holds."""
    found = connect(data, server, token_file).call("GET", f"/audit?limit={limit}")
    rows = [["#", "WHEN", "WHO", "WHAT", "ON", "DETAIL"]]
    for e in found["entries"]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(e["time"]))
        rows.append([str(e["number"]), when, e["actor"], e["action"], e["subject"][:20], json.dumps(e["detail"])[:80]])
    broken = found["broken_at"]
    chain = "the chain holds" if broken is None else f"THE CHAIN IS BROKEN at entry {broken}"
    print_answer(found, as_json, f"{table(rows)}\n{chain}")
