# SPDX-License-Identifier: Apache-2.0
"""``strop fleet alert …``: what is wrong, quiet times, and a test of the receivers."""

import time
from typing import Annotated

import typer

from fleet.client import connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer, table

__all__ = ["alert"]

alert = typer.Typer(help="Alerts: list, mute, unmute, test.", no_args_is_help=True)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) if seconds else "–"


@alert.command("list")
def alert_list(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List alerts and mutes."""
    found = connect(data, server, token_file).call("GET", "/alerts")
    rows = [["STATE", "SEVERITY", "ALERT", "SINCE", "WORDS"]]
    for one in found["alerts"]:
        state = f"{one['state']}{', muted' if one['muted'] else ''}"
        rows.append([state, one["severity"], one["key"], _when(one["since"]), one["words"]])
    mutes = [["MUTE", "ALERTS", "UNTIL", "BY", "REASON"]]
    mutes += [[m["id"], m["pattern"], _when(m["until"]), m["actor"], m["reason"]] for m in found["mutes"]]
    waiting = [one for one in found["outbox"] if not one["sent_at"]]
    text = table(rows) + (f"\n\n{table(mutes)}" if found["mutes"] else "")
    text += f"\n\n{len(waiting)} messages wait; {waiting[0]['error']}" if waiting else ""
    print_answer(found, as_json, text)


@alert.command("mute")
def alert_mute(
    pattern: Annotated[str, typer.Argument(help="An alert such as offline:cam-7, or a pattern such as 'offline:*'.")],
    *,
    hours: Annotated[float, typer.Option(help="How long.")] = 1.0,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Send no alerts that fit, for a time; they are shown all the same."""
    document = {"pattern": pattern, "seconds": hours * 3600.0, "reason": reason}
    answer = connect(data, server, token_file).call("POST", "/alerts/mutes", document)
    print_answer(answer, as_json, f"mute {answer['id']} until {_when(answer['until'])} UTC")


@alert.command("unmute")
def alert_unmute(
    mute: str, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """End a mute."""
    answer = connect(data, server, token_file).call("DELETE", f"/alerts/mutes/{mute}")
    print_answer(answer, as_json, f"unmuted {mute}")


@alert.command("test")
def alert_test(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """Send a test to every receiver of alerts.toml."""
    answer = connect(data, server, token_file).call("POST", "/alerts/test")
    print_answer(answer, as_json, f"{answer['receivers']} messages are on their way")
