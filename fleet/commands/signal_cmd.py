# SPDX-License-Identifier: Apache-2.0
"""``strop fleet drift signals``: which models are worth a new training, why, and how a signal is closed."""

import time
from typing import Annotated, Any

import typer

from fleet.client import connect
from fleet.commands.options import Data, Json, Server, TokenFile, percent, print_answer, table

__all__ = ["add_signal_verbs", "signal_text"]

Number = Annotated[int, typer.Argument(metavar="NUMBER", help="The signal's number.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it stands in the audit log.", show_default=False)]


def _when(ms: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(ms / 1000))


def _standing(one: dict[str, Any]) -> str:
    if one["held"]:
        return f"open, {one['holder']} works on it"
    return str(one["state"])


def _estimate(signal: dict[str, Any]) -> str:
    if signal["estimated_accuracy"] is None:
        return "no estimate"
    low, high = percent(signal["low"]), percent(signal["high"])
    doubt = "" if signal["valid"] else ", the shift is too strong to trust it"
    return f"{percent(signal['estimated_accuracy'])} [{low}, {high}]{doubt}"


def signal_text(one: dict[str, Any]) -> str:
    """Return a signal with its evidence, for people."""
    signal = one["signal"]
    evidence = signal["evidence"]
    lines = [
        f"signal {one['number']}: {signal['model']} {signal['bundle'][:12]}, {_standing(one)}",
        f"since {_when(signal['since_ms'])}, made {_when(signal['until_ms'])} UTC",
        f"rule: {evidence['rule']}; {len(signal['devices'])} of {evidence['cohort']}, {evidence['needed']} needed",
        f"estimated accuracy: {_estimate(signal)}; reference {percent(evidence['reference_accuracy'])}",
        *(f"moved: {text}" for text in signal["moved"]),
    ]
    lines += [f"last word: {one['reason']} ({one['actor']})"] if one["reason"] else []
    lines.append(f"captures allowed on {len(one['consenting'])} of {len(one['running'])} devices that still run it")
    rows = [["DEVICE", "WINDOW", "LEVEL", "N", "SINCE", "REASON"]]
    for row in evidence["windows"]:
        since = _when(row["since_ms"]) if row["since_ms"] else "–"
        rows.append([row["device"], str(row["window"]), row["level"], str(row["n"]), since, row["reason"]])
    return "\n".join([*lines, table(rows)])


def signals(
    every: Annotated[bool, typer.Option("--all", help="Closed ones, too.")] = False,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """List the models that are worth a new training: their drift alarms persist."""
    found = connect(data, server, token_file).call("GET", f"/drift/signals?every={'true' if every else 'false'}")
    rows = [["SIGNAL", "STATE", "MODEL", "BUNDLE", "DEVICES", "SINCE", "ESTIMATED", "MOVED"]]
    for one in found:
        signal = one["signal"]
        rows.append(
            [
                str(one["number"]),
                _standing(one),
                signal["model"],
                signal["bundle"][:12],
                str(len(signal["devices"])),
                _when(signal["since_ms"]),
                percent(signal["estimated_accuracy"]) + ("" if signal["valid"] else " (not valid)"),
                "; ".join(signal["moved"][:2]) or "–",
            ]
        )
    print_answer(found, as_json, table(rows) if found else "no signal")


def signal(
    number: Number, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Show one signal with its evidence, and which of its devices allow captures."""
    found = connect(data, server, token_file).call("GET", f"/drift/signals/{number}")
    print_answer(found, as_json, signal_text(found))


def _closing(outcome: str, text: str) -> Any:
    def command(
        number: Number,
        reason: Reason,
        data: Data = None,
        server: Server = "",
        token_file: TokenFile = None,
        as_json: Json = False,
    ) -> None:
        document = {"outcome": outcome, "reason": reason}
        found = connect(data, server, token_file).call("POST", f"/drift/signals/{number}/close", document)
        print_answer(found, as_json, f"signal {number} is {outcome}")

    command.__doc__ = text
    return command


def add_signal_verbs(group: typer.Typer) -> None:
    """Add ``signals``, ``signal``, ``dismiss`` and ``handled`` to the group ``strop fleet drift``."""
    group.command("signals")(signals)
    group.command("signal")(signal)
    group.command("dismiss")(_closing("dismissed", "Close a signal that asks for nothing; a loop that holds it ends."))
    group.command("handled")(_closing("handled", "Close a signal whose cause was taken away, such as a dirty lens."))
