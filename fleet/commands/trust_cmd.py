# SPDX-License-Identifier: Apache-2.0
"""``strop fleet keys …`` and the verbs on a device's certificate. Thin: parse, call one function, print."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_contract.errors import UsageError
from fleet.client import connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer

__all__ = ["forgive", "identity_lines", "keys", "revoke", "trust"]

keys = typer.Typer(help="The server's TUF keys: look at them, make the next one.", no_args_is_help=True)


def identity_lines(found: dict[str, Any]) -> list[list[str]]:
    """Return what ``device show`` says of a certificate and of a suspicion.

    Example:
        >>> identity_lines({"certificate": {"days_left": 12.5, "revoked": False, "reason": ""}})
        [['certificate', 'ends in 12.5 days']]
    """
    held, clone = found.get("certificate"), found.get("clone") or {}
    lines = []
    if held:
        ends = (
            f"ends in {held['days_left']:g} days" if held["days_left"] > 0 else f"ended {-held['days_left']:g} days ago"
        )
        lines.append(["certificate", f"revoked: {held['reason']}" if held["revoked"] else ends])
    return lines + [["CLONE?", why] for why in clone.get("evidence", [])]


@keys.command("show")
def show(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """Show which metadata is published, until when, and by which online key."""
    found = connect(data, server, token_file).call("GET", "/trust")
    lines = [f"online key  {found['online_key'][:16]}"]
    if found["next_key"]:
        lines.append(f"next key    {found['next_key'][:16]}, waits for a root.json that names it")
    for role in ("root", "targets", "snapshot", "timestamp"):
        one = found[role]
        end = time.strftime("%Y-%m-%d %H:%M", time.gmtime(one["expires"])) if one else ""
        lines.append(f"{role:11} version {one['version']}, until {end} UTC" if one else f"{role:11} none yet")
    for team, one in found["teams"].items():
        said = f"version {one['version']}" if one["version"] else "nothing published by its present key"
        lines.append(f"team        {team} signs {', '.join(one['models'])}: {said}")
    print_answer(found, as_json, "\n".join(lines))


@keys.command("rotate")
def rotate(
    out: Annotated[Path, typer.Option("--out", help="Where the next key's public half is written.")] = Path("next.pub"),
    *,
    anew: Annotated[bool, typer.Option("--anew", help="Make another one though one waits already.")] = False,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Make the next online key; the root.json that names it puts it to use."""
    answer = connect(data, server, token_file).call("POST", "/trust/online-key", {"anew": anew})
    out.write_text(answer["public"])
    steps = (
        f"wrote {out}; next, on the workstation: strop export keys rotate KEYS --online {out}\n"
        "then here: strop fleet trust KEYS/root.json; devices take it at their next refresh"
    )
    print_answer({**answer, "out": str(out)}, as_json, steps)


@keys.command("publish")
def publish(
    targets: Annotated[Path, typer.Argument(help="targets.json of the fleet, or <team>.json of a team.")],
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show devices new signed targets: after a delegation, a withdrawal, or a new expiry."""
    try:
        content = targets.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(targets)) from error
    answer = connect(data, server, token_file).call("PUT", "/trust/targets", content=content)
    print_answer(answer, as_json, f"published {targets}")


def revoke(
    name: Annotated[str, typer.Argument(metavar="DEVICE")],
    reason: Annotated[str, typer.Option(help="Why; the device is told.")] = "",
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Deny a device's certificates at once, at the broker and for files; it needs a new token."""
    answer = connect(data, server, token_file).call("POST", f"/devices/{name}/revoke", {"reason": reason})
    print_answer(answer, as_json, f"{name}: {answer['revoked']} certificates are revoked")


def forgive(
    name: Annotated[str, typer.Argument(metavar="DEVICE")],
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Take back the suspicion that a device is a clone, after somebody has looked."""
    answer = connect(data, server, token_file).call("POST", f"/devices/{name}/forgive")
    print_answer(answer, as_json, f"{name} is no longer under suspicion")


def trust(
    root: Annotated[Path, typer.Argument(help="root.json from 'strop export keys'.")],
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Install the trust root; devices enrol only afterwards."""
    try:
        content = root.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(root)) from error
    answer = connect(data, server, token_file).call("PUT", "/trust/root", content=content)
    print_answer(answer, as_json, f"installed {root}")
