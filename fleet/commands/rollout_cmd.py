# SPDX-License-Identifier: Apache-2.0
"""``strop fleet rollout …``: start, look, pause, resume, abort, watch."""

import json
import sys
import time
from typing import Annotated, Any

import typer

from edge_contract.errors import RolloutError, UsageError
from fleet.client import FleetClient, connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer, table

__all__ = ["rollout"]

rollout = typer.Typer(help="Rollouts by waves.", no_args_is_help=True)


def _wave(text: str) -> dict[str, Any]:
    """Return the wave of a word: ``1``, ``50%``, ``rest`` or device names with commas."""
    if text == "rest":
        return {"rest": True}
    if text.isdigit():
        return {"count": int(text)}
    if text.endswith("%"):
        try:
            return {"percent": float(text[:-1])}
        except ValueError as error:
            raise UsageError(f"{text!r} is not a wave", fix="write 1, 50%, rest, or names with commas") from error
    return {"devices": text.split(",")}


def _bundle_of(client: FleetClient, name: str, version: str) -> str:
    for known in client.call("GET", "/models"):
        if known["model"] == name and version in (known["version"], known["bundle"]):
            return str(known["bundle"])
    raise UsageError(f"{name} {version} is not registered", fix="strop fleet model list")


@rollout.command("start")
def rollout_start(
    name: Annotated[str, typer.Argument(metavar="MODEL")],
    version: Annotated[str, typer.Argument(help="Version or bundle id.")],
    *,
    wave: Annotated[list[str] | None, typer.Option(help="1, 50%, rest, or names with commas; repeat it.")] = None,
    soak_s: Annotated[float, typer.Option(help="Seconds between waves.")] = 60.0,
    timeout_s: Annotated[float, typer.Option(help="Seconds that a device has.")] = 3600.0,
    max_failures: Annotated[int, typer.Option(help="Failed devices to forgive.")] = 0,
    probation: Annotated[str, typer.Option(help='JSON, such as {"inferences": 200}.')] = "{}",
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Roll a version out: one canary and then everybody, unless waves are given."""
    client = connect(data, server, token_file)
    try:
        limits = json.loads(probation)
    except ValueError as error:
        raise UsageError(f"not JSON: {error}", where="--probation") from error
    document = {
        "model": name,
        "bundle": _bundle_of(client, name, version),
        "waves": [_wave(text) for text in wave or ["1", "rest"]],
        "soak_s": soak_s,
        "timeout_s": timeout_s,
        "max_failures": max_failures,
        "probation": limits,
    }
    answer = client.call("POST", "/rollouts", document)
    print_answer(answer, as_json, f"rollout {answer['id']} {answer['state']}")


def _line(one: dict[str, Any]) -> str:
    waves = " ".join(f"{i}:{wave['state']}" for i, wave in enumerate(one["waves"], 1))
    reason = f"  {one['reason']}" if one["reason"] else ""
    return f"{one['id']}  {one['model']} {one['version']}  {one['state']}  {waves}{reason}"


@rollout.command("list")
def rollout_list(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List rollouts, newest first."""
    found = connect(data, server, token_file).call("GET", "/rollouts")
    print_answer(found, as_json, "\n".join(map(_line, found)) or "no rollout yet")


@rollout.command("show")
def rollout_show(
    name: str, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Show a rollout with its devices."""
    found = connect(data, server, token_file).call("GET", f"/rollouts/{name}")
    rows = [["WAVE", "DEVICE", "STATUS", "PHASE", "REASON"]]
    rows += [[str(e["wave"] + 1), e["device"], e["status"], e["phase"], e["reason"]] for e in found["executions"]]
    print_answer(found, as_json, f"{_line(found)}\n{table(rows)}")


def _verb(verb: str, text: str) -> None:
    def command(
        name: str, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
    ) -> None:
        found = connect(data, server, token_file).call("POST", f"/rollouts/{name}/{verb}")
        print_answer(found, as_json, _line(found))

    command.__doc__ = text
    rollout.command(verb)(command)


_verb("pause", "Send no new orders; devices at work finish.")
_verb("resume", "Go on with a paused rollout.")
_verb("abort", "Stop a rollout for good; devices that succeeded stay as they are.")


@rollout.command("watch")
def rollout_watch(
    name: str,
    timeout_s: Annotated[float, typer.Option(help="Give up after so many seconds.")] = 3600.0,
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Follow a rollout to its end; exit code 1 unless it COMPLETED."""
    client, deadline, said = connect(data, server, token_file), time.monotonic() + timeout_s, ""
    while True:
        found = client.call("GET", f"/rollouts/{name}")
        if (line := _line(found)) != said:
            print(line, file=sys.stderr)
            said = line
        if found["state"] not in ("RUNNING", "PAUSED"):
            break
        if time.monotonic() > deadline:
            raise RolloutError(f"still {found['state']} after {timeout_s:g} s", where=f"rollout {name}")
        time.sleep(0.5)
    print_answer(found, as_json, line)
    if found["state"] != "COMPLETED":
        raise RolloutError(f"{found['state']}: {found['reason']}", where=f"rollout {name}")
