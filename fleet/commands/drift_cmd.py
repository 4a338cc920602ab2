# SPDX-License-Identifier: Apache-2.0
"""``strop fleet drift``: which cohorts moved, which devices differ from theirs; each device; export; signals."""

import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from fleet.client import connect
from fleet.commands.drift_files import write_rows
from fleet.commands.options import Data, Json, Server, TokenFile, percent, print_answer, table
from fleet.commands.signal_cmd import add_signal_verbs

__all__ = ["drift"]

drift = typer.Typer(
    help="Show what drifts: cohorts, devices, signals; export the windows.",
    invoke_without_command=True,
    subcommand_metavar="[COMMAND] [ARGS]...",
)
Where = Annotated[
    str, typer.Option("--where", help="Only devices that fit a query, such as 'site:hall and board:rpi5'.")
]


def _since(ms: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(ms / 1000)) if ms else "–"


def _row(one: dict[str, Any]) -> list[str]:
    name = f"{one['model']} {one['version']}" + (f" {one['by']}:{one['value'] or '–'}" if one["by"] != "bundle" else "")
    odd = [device["device"] for device in one["odd"]]
    shown = ", ".join(odd[:4]) + (f" and {len(odd) - 4} more" if len(odd) > 4 else "")
    estimated = percent(one["estimated"]) + ("" if one["valid"] or one["estimated"] is None else " (not valid)")
    moved = "; ".join(one["moved"]) or "–"
    return [name, str(one["devices"]), one["kind"], _since(one["since_ms"]), moved, estimated, shown or "–"]


@drift.callback()
def cohorts(
    context: typer.Context,
    by: Annotated[str, typer.Option(help="bundle, site, board, or any label.")] = "bundle",
    where: Where = "",
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show cohorts: did all of them move, or do single devices differ; what moved, by how much, since when."""
    if context.invoked_subcommand is not None:
        return
    found = connect(data, server, token_file).call("GET", "/drift/cohorts?" + urlencode({"by": by, "where": where}))
    rows = [
        ["COHORT", "DEVICES", "LEVEL", "SINCE", "WHAT MOVED", "ESTIMATED", "OUTLIERS"],
        *map(_row, found["cohorts"]),
    ]
    waiting = f"\n{found['left']} windows are still being read" if found["left"] > 100 else ""
    nothing = "" if found["cohorts"] else "\nno judged window in the last twelve hours"
    print_answer(found, as_json, table(rows) + nothing + waiting)


@drift.command("devices")
def devices(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """Show each device: its level, estimated accuracy, true accuracy where labels came, what moved."""
    found = connect(data, server, token_file).listed("/devices")[0]
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


@drift.command("export")
def export(
    out: Annotated[Path, typer.Argument(help="File to write.")],
    form: Annotated[str, typer.Option("--format", help="csv or parquet; by the file's ending without it.")] = "",
    since: Annotated[float, typer.Option(help="Hours back; 0 for all that is kept.")] = 0.0,
    where: Where = "",
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Write the windows as a table for pandas and others: a row each, with every channel and counter."""
    client = connect(data, server, token_file)

    def pages() -> Any:
        after = 0
        while True:
            asked = {
                "after": after,
                "limit": 500,
                "where": where,
                "since": time.time() - 3600 * since if since else 0.0,
            }
            found = client.call("GET", "/drift/windows?" + urlencode(asked))
            yield from found["rows"]
            if found["after"] == after:
                return
            after = found["after"]

    count, kind = write_rows(pages(), out, form)
    print_answer({"rows": count, "file": str(out), "format": kind}, as_json, f"{count} windows in {out} ({kind})")


add_signal_verbs(drift)
