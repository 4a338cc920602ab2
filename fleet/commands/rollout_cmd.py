# SPDX-License-Identifier: Apache-2.0
"""``strop fleet rollout …``: plan, start, approve, look, pause, stop, take back, watch."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from edge_contract.errors import RolloutError, UsageError
from fleet.client import FleetClient, connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer
from fleet.commands.rollout_plan import moment, plan_text, read_plan_file
from fleet.commands.rollout_text import line, shown
from fleet.core.wave_words import wave_of

__all__ = ["rollout"]

rollout = typer.Typer(help="Rollouts by waves.", no_args_is_help=True)

_UNDER_WAY: Final = ("APPROVED", "SCHEDULED", "RUNNING", "PAUSED", "ABORTING", "ROLLING_BACK")
_FORM: Final = "write 1, 50%, rest, names with commas, or query:board:rpi5"

Plan = Annotated[Path | None, typer.Option("--plan", help="TOML file with waves and limits.")]
Waves = Annotated[
    list[str] | None, typer.Option("--wave", help="1, 50%, rest, names with commas, or query:WORDS; repeat it.")
]
Shadow = Annotated[
    str, typer.Option("--shadow", help="First try it beside the active model on 1, 5%, names or query:WORDS.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why; it stands in the audit log.")]


def _moment(seconds: float) -> str:
    """Return a time in UTC for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def _bundle_of(client: FleetClient, name: str, version: str) -> str:
    for known in client.call("GET", "/models"):
        if known["model"] == name and version in (known["version"], known["bundle"]):
            return str(known["bundle"])
    raise UsageError(f"{name} {version} is not registered", fix="strop fleet model list")


def _json(text: str, option: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"not JSON: {error}", where=option) from error


def _document(client: FleetClient, plan: Path | None, name: str, version: str, words: dict[str, Any]) -> dict[str, Any]:
    """Return the request: the plan file's words, and the command line's over them."""
    document = {**(read_plan_file(plan) if plan else {}), **words}
    name, version = name or str(document.get("model", "")), version or str(document.get("version", ""))
    document.pop("version", None)
    if not name or not version:
        fix = "strop fleet rollout start MODEL VERSION, or 'model' and 'version' in the plan"
        raise UsageError("which model and version?", where=str(plan or ""), fix=fix)
    return {**document, "model": name, "bundle": _bundle_of(client, name, version)}


def _given(**words: Any) -> dict[str, Any]:
    return {key: value for key, value in words.items() if not (value is None or value is False or value == "")}


@rollout.command("start")
def rollout_start(
    name: Annotated[str, typer.Argument(metavar="[MODEL]")] = "",
    version: Annotated[str, typer.Argument(help="Version or bundle id.")] = "",
    *,
    plan: Plan = None,
    wave: Waves = None,
    shadow: Shadow = "",
    soak_s: Annotated[float | None, typer.Option(help="Seconds between waves; 60 without a plan.")] = None,
    timeout_s: Annotated[float | None, typer.Option(help="Seconds that a device has; 3600 without a plan.")] = None,
    max_failures: Annotated[int | None, typer.Option(help="Failed devices to forgive; 0 without a plan.")] = None,
    max_failed_share: Annotated[float | None, typer.Option(help="Share of finished devices that may fail.")] = None,
    retries: Annotated[int | None, typer.Option(help="Further attempts of a device that failed.")] = None,
    rate: Annotated[float | None, typer.Option(help="Devices a minute.")] = None,
    window: Annotated[list[str] | None, typer.Option(help='Such as "Mon-Fri 22:00-05:00"; repeat it.')] = None,
    start_at: Annotated[str, typer.Option(help="Such as 2026-11-27T22:00:00Z.")] = "",
    on_failure: Annotated[str, typer.Option(help="stop or roll-back.")] = "",
    probation: Annotated[str, typer.Option(help='JSON, such as {"inferences": 200}.')] = "",
    channel: Annotated[str, typer.Option(help="Where the version stands at the end, such as production.")] = "",
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Devices that begin to match join.")] = False,
    needs_approval: Annotated[bool, typer.Option("--needs-approval", help="Somebody else has to approve it.")] = False,
    draft: Annotated[bool, typer.Option("--draft", help="Store it; 'release' starts it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the waves.")] = False,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Roll a version out: by a plan file, or by waves; one canary and then everybody without any."""
    client = connect(data, server, token_file)
    waves = [wave_of(text) for text in wave or ([] if plan and not shadow else ["1", "rest"])]
    trial = [{**wave_of(shadow), "kind": "shadow"}] if shadow else []
    schedule = {
        **({"windows": window} if window else {}),
        **({"start_at": moment(start_at, "--start-at")} if start_at else {}),
    }
    words = _given(
        waves=[*trial, *waves] or None,
        soak_s=60.0 if soak_s is None and not plan else soak_s,
        timeout_s=timeout_s,
        max_failures=max_failures,
        max_failed_share=max_failed_share,
        retries=retries,
        rate={"per_minute": rate} if rate is not None else None,
        schedule=schedule or None,
        on_failure=on_failure,
        probation=_json(probation, "--probation") if probation else None,
        channel=channel,
        dynamic=dynamic,
        needs_approval=needs_approval,
        draft=draft,
    )
    document = _document(client, plan, name, version, words)
    if dry_run:
        found = client.call("POST", "/rollouts/plan", document)
        print_answer(found, as_json, plan_text(found))
        return
    answer = client.call("POST", "/rollouts", document)
    print_answer(answer, as_json, f"rollout {answer['id']} {answer['state']}")


@rollout.command("plan")
def rollout_plan(
    file: Annotated[Path, typer.Argument(metavar="PLAN", help="TOML file.")],
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show what a plan file would do: its waves with their devices. Nothing is changed."""
    client = connect(data, server, token_file)
    found = client.call("POST", "/rollouts/plan", _document(client, file, "", "", {}))
    print_answer(found, as_json, plan_text(found))


@rollout.command("list")
def rollout_list(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List rollouts, newest first."""
    found = connect(data, server, token_file).call("GET", "/rollouts")
    print_answer(found, as_json, "\n".join(map(line, found)) or "no rollout yet")


@rollout.command("show")
def rollout_show(
    name: str,
    bucket: Annotated[
        str, typer.Option(help="Only open, retry, failed, regressed, succeeded or excused devices.")
    ] = "",
    limit: Annotated[int, typer.Option(help="Most devices to list, 0 for all.")] = 200,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show a rollout: its waves by counts, and its devices."""
    path = f"/rollouts/{name}?limit={limit}" + (f"&bucket={bucket}" if bucket else "")
    found = connect(data, server, token_file).call("GET", path)
    print_answer(found, as_json, shown(found))


@rollout.command("evidence")
def rollout_evidence(
    name: str,
    wave: Annotated[int, typer.Option(min=0, help="Of this wave; 0: the newest look of each.")] = 0,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show what the gates saw: each measure with its always-valid interval, and what it decided."""
    found = connect(data, server, token_file).call("GET", f"/rollouts/{name}/evidence?wave={wave}")
    newest = {one["wave"]: one for one in found}
    chosen = found if wave else list(newest.values())
    lines = []
    for one in chosen:
        lines.append(f"{_moment(one['time'])}  wave {one['wave']}: {one['decision']}: {one['words']}")
        lines += [f"  {row['measure']:12} {row['decision']:4}  {row['words']}" for row in one["evidence"]]
    print_answer(found, as_json, "\n".join(lines) or "no gate has looked at it yet")


@rollout.command("rules")
def rollout_rules(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """Show which rollouts need a second person (rollouts.toml in the server's data folder)."""
    found = connect(data, server, token_file).call("GET", "/rollouts/rules")
    print_answer(found, as_json, "\n".join(f"{key} = {json.dumps(value)}" for key, value in found.items()))


def _verb(verb: str, text: str) -> None:
    def command(
        name: str,
        reason: Reason = "",
        data: Data = None,
        server: Server = "",
        token_file: TokenFile = None,
        as_json: Json = False,
    ) -> None:
        note = {"reason": reason} if reason else None
        found = connect(data, server, token_file).call("POST", f"/rollouts/{name}/{verb}", note)
        print_answer(found, as_json, line(found))

    command.__doc__ = text
    rollout.command(verb)(command)


_verb("release", "Start a draft, or send it to whoever has to approve it.")
_verb("approve", "Let a rollout go that somebody else has written.")
_verb("deny", "Refuse a rollout that somebody else has written.")
_verb("pause", "Send no new orders; devices at work finish.")
_verb("resume", "Go on with a paused rollout.")
_verb("advance", "Send the wave at work on: no further device, soak or gate is waited for.")
_verb("skip", "Leave the next wave out.")
_verb("retry", "Give failed devices a further attempt; those of an ended rollout get a new one.")
_verb("cancel", "Ask each device to leave its order, and wait for its word.")
_verb("abort", "Stop a rollout for good; devices that succeeded stay as they are.")
_verb("rollback", "Bring the previous version back to every device that this rollout changed.")


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
        found = client.call("GET", f"/rollouts/{name}?limit=1")
        if (text := line(found)) != said:
            print(text, file=sys.stderr)
            said = text
        if found["state"] not in _UNDER_WAY:
            break
        if time.monotonic() > deadline:
            raise RolloutError(f"still {found['state']} after {timeout_s:g} s", where=f"rollout {name}")
        time.sleep(0.5)
    print_answer(client.call("GET", f"/rollouts/{name}") if as_json else found, as_json, text)
    if found["state"] != "COMPLETED":
        raise RolloutError(f"{found['state']}: {found['reason']}", where=f"rollout {name}")
