# SPDX-License-Identifier: Apache-2.0
"""``strop fleet``: serve, and everything an operator does. Thin: parse, call one function, print."""

import json
import logging
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_contract.errors import RolloutError, UsageError
from fleet.capture_cli import capture
from fleet.client import FleetClient, connect
from fleet.trust_cli import forgive, identity_lines, keys, revoke

__all__ = ["app"]

app = typer.Typer(name="fleet", help="Run the fleet server and operate the fleet.", no_args_is_help=True)
enrol = typer.Typer(help="Enrolment tokens for new devices.", no_args_is_help=True)
device = typer.Typer(help="Devices: list, show, configure, remove.", no_args_is_help=True)
model = typer.Typer(help="Registered model versions.", no_args_is_help=True)
rollout = typer.Typer(help="Rollouts by waves.", no_args_is_help=True)
for name, group in (("enrol", enrol), ("device", device), ("model", model), ("rollout", rollout)):
    app.add_typer(group, name=name)

app.add_typer(keys, name="keys")
app.add_typer(capture, name="capture")
for verb in (revoke, forgive):
    device.command()(verb)

Data = Annotated[
    Path | None, typer.Option("--data", help="Data folder of a server on this machine.", envvar="STROP_FLEET_DATA")
]
Server = Annotated[str, typer.Option("--server", help="Operator address, such as http://127.0.0.1:8080.")]
TokenFile = Annotated[Path | None, typer.Option("--token-file", help="File with the operator's token.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Port = Annotated[int | None, typer.Option(help="0 takes any free port.")]


def _print(value: Any, as_json: bool, text: str) -> None:
    print(json.dumps(value, indent=1) if as_json else text)


def _table(rows: list[list[str]]) -> str:
    """Return rows as aligned columns; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


@app.command()
def init(data: Annotated[Path, typer.Option("--data", help="New data folder.")], as_json: Json = False) -> None:
    """Make a data folder: CA, online TUF key, job key and the operator's token."""
    from fleet.adapters.credentials import init as make

    made = make(data, now=time.time())
    online = data / "tuf" / "online.pub"
    said = "made" if made else "nothing to do in"
    text = f"{said} {data}\nnext, on the workstation: strop export keys init KEYS --online {online}"
    _print({"data": str(data), "made": made, "online_public": str(online)}, as_json, text)


@app.command()
def serve(
    *,
    data: Annotated[Path, typer.Option("--data", help="Data folder; made if new.")],
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    public_host: Annotated[str | None, typer.Option(help="Name by which devices reach this machine.")] = None,
    http_port: Port = None,
    device_port: Port = None,
    enrol_port: Port = None,
    mqtt_port: Port = None,
    allow_remote_http: Annotated[
        bool | None, typer.Option("--allow-remote-http", help="Let the plain operator listener leave this machine.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the server with its own mosquitto until SIGTERM or Ctrl-C."""
    from fleet.config import Endpoints, load_config

    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    config = load_config(
        data,
        host=host,
        public_host=public_host,
        http_port=http_port,
        device_port=device_port,
        enrol_port=enrol_port,
        mqtt_port=mqtt_port,
        allow_remote_http=allow_remote_http,
    )
    from fleet.app import serve as run  # after the settings were read: it loads much

    def ready(found: Endpoints) -> None:
        text = (
            f"pages    {found.http}\nenrol    {found.enrol}\ndevices  {found.device}\n"
            f"broker   {found.broker_host}:{found.broker_port}\ntoken    {data / 'operator.token'}"
        )
        _print(found.to_json(), as_json, text)
        sys.stdout.flush()

    run(data, config, ready)


@enrol.command("new")
def enrol_new(
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    ttl_s: Annotated[float, typer.Option(help="Life of the token in seconds.")] = 86_400.0,
    as_json: Json = False,
) -> None:
    """Print a one-time token for one new device."""
    answer = connect(data, server, token_file).call("POST", "/tokens", {"ttl_s": ttl_s})
    _print(answer, as_json, answer["token"])


@device.command("list")
def device_list(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List devices: online, running version, in sync, drift."""
    found = connect(data, server, token_file).call("GET", "/devices")
    rows = [["DEVICE", "ONLINE", "RUNTIME", "MODEL", "IN SYNC", "INFERENCES", "DRIFT"]]
    for one in found:
        models = ", ".join(f"{n} {s['version']} ({s['running'][:8] or '–'})" for n, s in one["models"].items()) or "–"
        sync = "yes" if one["in_sync"] else f"no: {one['why']}"
        runtime = f"{one['runtime']} {one['runtime_version']}".strip() or "–"
        online = "yes" if one["online"] else "no"
        rows.append([one["device"], online, runtime, models, sync, str(one["inferences"]), one["drift"]["level"]])
    _print(found, as_json, _table(rows))


@device.command("show")
def device_show(
    name: str, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Show one device."""
    found = connect(data, server, token_file).call("GET", f"/devices/{name}")
    keys = (
        "device",
        "online",
        "runtime",
        "runtime_version",
        "in_sync",
        "why",
        "inferences",
        "results",
        "rows",
        "config",
    )
    lines = [[key, json.dumps(found[key]) if isinstance(found[key], dict) else str(found[key])] for key in keys]
    lines += [[f"model {n}", f"{s['version']} running {s['running'][:12]}"] for n, s in found["models"].items()]
    lines += [["drift", f"{found['drift']['level']}: {found['drift']['reason']}"]]
    lines += identity_lines(found)
    _print(found, as_json, _table(lines))


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"{text!r} is not KEY=VALUE", where="strop fleet device config")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


@device.command("config")
def device_config(
    name: str,
    settings: Annotated[list[str], typer.Argument(help="KEY=VALUE; null removes a key.")],
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Change settings of a device, such as source=camera or heartbeat_s=5."""
    changes = dict(_setting(text) for text in settings)
    answer = connect(data, server, token_file).call("PUT", f"/devices/{name}/config", changes)
    _print(answer, as_json, f"desired version {answer['version']}: {json.dumps(answer['config'])}")


@device.command("remove")
def device_remove(
    name: str, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Forget a device; what it sent is kept."""
    answer = connect(data, server, token_file).call("DELETE", f"/devices/{name}")
    _print(answer, as_json, f"removed {name}")


@app.command()
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
    _print(answer, as_json, f"installed {root}")


@model.command("add")
def model_add(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    targets: Annotated[Path, typer.Option(help="targets.json that 'strop export bundle' signed.")],
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Upload a signed bundle and register it."""
    answer = connect(data, server, token_file).add_model(bundle, targets)
    _print(answer, as_json, f"{answer['model']} {answer['version']} is bundle {answer['bundle']}")


@model.command("list")
def model_list(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List model versions, newest first."""
    found = connect(data, server, token_file).call("GET", "/models")
    rows = [["MODEL", "VERSION", "BUNDLE", "BYTES", "RUNNING ON"]]
    rows += [[m["model"], m["version"], m["bundle"], str(m["size"]), ", ".join(m["running_on"]) or "–"] for m in found]
    _print(found, as_json, _table(rows))


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
    _print(answer, as_json, f"rollout {answer['id']} {answer['state']}")


def _line(one: dict[str, Any]) -> str:
    waves = " ".join(f"{i}:{wave['state']}" for i, wave in enumerate(one["waves"], 1))
    reason = f"  {one['reason']}" if one["reason"] else ""
    return f"{one['id']}  {one['model']} {one['version']}  {one['state']}  {waves}{reason}"


@rollout.command("list")
def rollout_list(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List rollouts, newest first."""
    found = connect(data, server, token_file).call("GET", "/rollouts")
    _print(found, as_json, "\n".join(map(_line, found)) or "no rollout yet")


@rollout.command("show")
def rollout_show(
    name: str, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Show a rollout with its devices."""
    found = connect(data, server, token_file).call("GET", f"/rollouts/{name}")
    rows = [["WAVE", "DEVICE", "STATUS", "PHASE", "REASON"]]
    rows += [[str(e["wave"] + 1), e["device"], e["status"], e["phase"], e["reason"]] for e in found["executions"]]
    _print(found, as_json, f"{_line(found)}\n{_table(rows)}")


def _verb(verb: str, text: str) -> None:
    def command(
        name: str, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
    ) -> None:
        found = connect(data, server, token_file).call("POST", f"/rollouts/{name}/{verb}")
        _print(found, as_json, _line(found))

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
    _print(found, as_json, line)
    if found["state"] != "COMPLETED":
        raise RolloutError(f"{found['state']}: {found['reason']}", where=f"rollout {name}")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


@app.command()
def drift(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """Show which devices drift: estimated accuracy, true accuracy where labels came, what moved."""
    found = connect(data, server, token_file).call("GET", "/devices")
    rows = [["DEVICE", "LEVEL", "REFERENCE", "ESTIMATED", "TRUE", "WHAT MOVED"]]
    for one in found:
        seen, truth = one["drift"], one["true_accuracy"]
        estimated = _percent(seen["estimated_accuracy"]) + ("" if seen["valid"] else " (not valid)")
        true = _percent(truth["value"] if truth else None)
        moved = "; ".join(seen["moved"]) or "–"
        rows.append([one["device"], seen["level"], _percent(seen["reference_accuracy"]), estimated, true, moved])
    _print([{"device": o["device"], **o["drift"], "true": o["true_accuracy"]} for o in found], as_json, _table(rows))


@app.command()
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
    _print(found, as_json, f"{_table(rows)}\n{chain}")
