# SPDX-License-Identifier: Apache-2.0
"""``strop fleet channel …`` and the verbs that move a version: promote, demote, set, retire, delete."""

import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from fleet.client import connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer, table

__all__ = ["channel", "delete", "promote", "retire", "sweep", "version_path"]

channel = typer.Typer(help="Release channels: which version is candidate, canary, production.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(metavar="MODEL")]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="Its name, or eight digits of its bundle's id.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; the history keeps it.")]
Force = Annotated[bool, typer.Option("--force", help="Though the rules are not met; needs a reason.")]


def version_path(model: str, version: str, rest: str = "") -> str:
    """Return the API's path of a version.

    Example:
        >>> version_path("digits", "1.0 b", "/check")
        '/models/digits/versions/1.0%20b/check'
    """
    return f"/models/{quote(model, safe='')}/versions/{quote(version, safe='')}{rest}"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def _said(move: dict[str, Any]) -> str:
    new = move["new"][:12] or "nothing"
    return f"{move['model']} {move['channel']}: {move['old'][:12] or 'nothing'} → {new}"


@channel.command("list")
def channel_list(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List what stands in each model's channels."""
    found = connect(data, server, token_file).call("GET", "/channels")
    rows = [["MODEL", "CHANNEL", "VERSION", "BUNDLE", "SINCE (UTC)"]]
    for one in found:
        for name, held in one["channels"].items():
            rows.append([one["model"], name, held["version"], held["bundle"][:12], _when(held["since"])])
    print_answer(found, as_json, table(rows))


@channel.command("history")
def channel_history(
    model: Model, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Show how a model's channels moved: when, who, from what to what, why; newest first."""
    found = connect(data, server, token_file).call("GET", f"/models/{quote(model, safe='')}/channels")
    rows = [["WHEN (UTC)", "WHO", "CHANNEL", "HOW", "FROM", "TO", "WHY"]]
    for move in (move for one in found for move in one["history"]):
        old, new = (move[f"{end}_version"] or move[end][:12] or "–" for end in ("old", "new"))
        why = move["reason"] or "–"
        rows.append([_when(move["time"]), move["actor"], move["channel"], move["verb"], old, new, why])
    print_answer(found, as_json, table(rows))


@channel.command("set")
def channel_set(
    model: Model,
    name: Annotated[str, typer.Argument(metavar="CHANNEL")],
    version: Version,
    reason: Reason = "",
    *,
    force: Force = False,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Let a version stand in a channel; devices change only by a rollout."""
    path = f"/models/{quote(model, safe='')}/channels/{quote(name, safe='')}"
    document = {"version": version, "reason": reason, "force": force}
    answer = connect(data, server, token_file).call("PUT", path, document)
    print_answer(answer, as_json, _said(answer))


@channel.command("demote")
def channel_demote(
    model: Model,
    name: Annotated[str, typer.Argument(metavar="CHANNEL")] = "production",
    reason: Reason = "",
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Take a channel back to the version before that was good."""
    path = f"/models/{quote(model, safe='')}/channels/{quote(name, safe='')}/demote"
    answer = connect(data, server, token_file).call("POST", path, {"reason": reason})
    print_answer(answer, as_json, _said(answer))


def promote(
    model: Model,
    version: Version,
    to: Annotated[str, typer.Option("--to", help="Channel; by default the next one.")] = "",
    reason: Reason = "",
    *,
    force: Force = False,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Let a version climb: candidate, canary, production."""
    document = {"to": to, "reason": reason, "force": force}
    answer = connect(data, server, token_file).call("POST", version_path(model, version, "/promote"), document)
    print_answer(answer, as_json, _said(answer))


def retire(
    model: Model,
    version: Version,
    reason: Reason = "",
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Take the end back.")] = False,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """End a version: it leaves its channels and enters none any more; devices stay as they are."""
    document = {"reason": reason, "undo": undo}
    answer = connect(data, server, token_file).call("POST", version_path(model, version, "/retire"), document)
    left = f", left {', '.join(answer['left'])}" if answer["left"] else ""
    print_answer(answer, as_json, f"{model} {version} is {'retired' if answer['retired'] else 'in use again'}{left}")


def delete(
    model: Model,
    version: Version,
    reason: Reason = "",
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Delete a version that nothing uses; its files go with the next sweep."""
    path = f"{version_path(model, version)}?reason={quote(reason, safe='')}"
    answer = connect(data, server, token_file).call("DELETE", path)
    print_answer(answer, as_json, f"deleted {model} {version}, bundle {answer['bundle'][:12]}")


def sweep(
    grace_hours: Annotated[float, typer.Option(help="Files sent within so many hours stay.")] = 24.0,
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Delete files that no registered version needs."""
    answer = connect(data, server, token_file).call("POST", "/blobs/sweep", {"grace_hours": grace_hours})
    print_answer(answer, as_json, f"deleted {answer['files']} files, {answer['bytes']} bytes")
