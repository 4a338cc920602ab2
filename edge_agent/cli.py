# SPDX-License-Identifier: Apache-2.0
"""``strop agent``: enrol, run, look at and use the agent of one data folder. The control process never loads this."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_contract.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Enrol and run the agent on a device.")

Data = Annotated[Path, typer.Option("--data", help="The device's data folder.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def _print(document: Any, lines: list[str], *, as_json: bool) -> None:
    print(json.dumps(document, indent=2, sort_keys=True) if as_json else "\n".join(lines))


@app.command()
def enrol(
    data: Data,
    server: Annotated[str, typer.Option(help="The fleet server's enrolment address, https://HOST:PORT.")],
    token_file: Annotated[Path, typer.Option(help="File with the one-time token of 'strop fleet enrol new'.")],
    device: Annotated[str, typer.Option(help="Name of this device.")],
    runtime: Annotated[str, typer.Option(help="litert, onnxruntime, tflite-runtime or edgetpu.")] = "litert",
    model: Annotated[str, typer.Option(help="Name of its model; else the first order names it.")] = "",
    runner_python: Annotated[str, typer.Option(help="Interpreter of the runner, if not this one.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Replace an identity that is there.")] = False,
    json_: Json = False,
) -> None:
    """Make a key on this device, get its certificate, and write a first agent.toml if there is none."""
    from edge_agent.adapters.trust import TrustHelper
    from edge_agent.config import check, load, skeleton
    from edge_contract import durable

    try:
        token = token_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the token cannot be read: {error}", where=str(token_file)) from error
    path = data / "agent.toml"
    is_new = not path.exists()
    first = skeleton(device, runtime, model, runner_python)
    if is_new:  # what is faulty is said before the token is used up
        check(first, "strop agent enrol")
    else:
        load(data)
    endpoints = TrustHelper(data.resolve()).enrol(server, token, device, replace=replace)
    if is_new:
        durable.write(path, first.encode())
    config = load(data)
    document = {"device": config.device, "broker": config.broker, "device_url": config.device_url, "data": str(data)}
    document["tenant"] = str(endpoints.get("tenant", config.tenant))
    _print(document, [f"{device} is enrolled; start it: strop agent run --data {data}"], as_json=json_)


@app.command()
def run(
    data: Data,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log to the file only.")] = False,
    json_: Json = False,
) -> None:
    """Become the control process: 'python -m edge_agent', until SIGTERM."""
    from edge_agent.config import load

    config = load(data)
    if json_:
        print(json.dumps({"device": config.device, "pid": os.getpid()}), flush=True)
    words = [sys.executable, "-m", "edge_agent", "--data", str(data), *(["--quiet"] if quiet else [])]
    os.execv(sys.executable, words)  # noqa: S606 - becoming the agent is the point: no parent stays behind


@app.command()
def status(data: Data, json_: Json = False) -> None:
    """Say what runs, which bundles are in the slots, how the last order ended and what waits to be sent."""
    from edge_agent import folder

    found = folder.status(data)
    slots = found["slots"]
    lines = [f"{found['device']}: {'running' if found['is_running'] else 'stopped'}, runtime {found['runtime']}"]
    for name, slot in slots.items():
        lines.append(f"  {name:8} {slot['version'] or '-':12} {slot['bundle'][:16] or 'empty'}")
    if found["order"]:
        lines.append(f"  order    {found['order']['job_id']} in phase {found['order']['phase']}")
    if found["last_order"]:
        last = found["last_order"]
        lines.append(f"  last     {last['job_id']} {last['status']} {last['reason']}".rstrip())
    lines.append(f"  answers  {found['inferences']} ({found['errors']} failed) since the runner started")
    lines += [f"  {name:8} {text}" for name, text in _trust_lines(found)]
    for other in found["models"][1:]:
        active, order = other["slots"]["active"], other["order"]
        doing = f", order {order['job_id']} in phase {order['phase']}" if order else ""
        counted = f"{other['inferences']} answers ({other['errors']} failed){doing}"
        slot = f"{active['version'] or '-':12} {active['bundle'][:16] or 'empty'}"
        lines.append(f"  {other['model']:8} {slot}  {counted}")
    waiting = ", ".join(f"{n} {cls}" for cls, n in found["outbox"].get("rows", {}).items())
    lines.append(f"  waiting  {waiting or 'nothing'}")
    _print(found, lines, as_json=json_)


def _trust_lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Certificate, clock and identities that were put aside."""
    held, lines = found["certificate"], []
    if held:
        lines.append(("identity", f"{held['days_left']:g} days left, renewal in {held['renewal_in_days']:g}"))
    lines.append(("clock", found["clock"]))
    fix = "strop agent enrol with a token of this board's own"
    return lines + [("aside", f"{name} belongs to another board: {fix}") for name in found["quarantined"]]


@app.command()
def predict(
    file: Annotated[Path, typer.Argument(help="An .npy file: one raw image [H,W] or [H,W,C], or several [N,…].")],
    data: Annotated[Path | None, typer.Option("--data", help="Use the active model of this data folder.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Use this bundle folder.")] = None,
    runtime: Annotated[str, typer.Option(help="Runtime, with --bundle.")] = "litert",
    json_: Json = False,
) -> None:
    """Answer raw images once, in this process, without the agent."""
    from edge_agent.one_shot import answers

    found = answers(file, data=data, bundle=bundle, runtime=runtime)
    _print(found, [_answer_line(answer) for answer in found], as_json=json_)


def _answer_line(answer: dict[str, Any]) -> str:
    """A classifier's label, or the names and numbers of what another model answers."""
    start, time = f"{answer['index']}:", f"{answer['latency_us']:.0f} µs"
    if "label" in answer:
        return f"{start} {answer['label']} ({answer['confidence']:.1%}, {time})"
    rest = {key: value for key, value in answer.items() if key not in ("index", "latency_us")}
    return f"{start} {json.dumps(rest)} ({time})"


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="Name of the agent's model, or a bundle's folder (with a slash).")],
    data: Annotated[Path | None, typer.Option("--data", help="The data folder; else $STROP_DATA.")] = None,
    port: Annotated[int, typer.Option(min=-1, max=65535, help="On loopback; 0: any free one, -1: none.")] = 8470,
    socket: Annotated[Path | None, typer.Option(help="A Unix socket, too.")] = None,
    runtime: Annotated[str, typer.Option(help="Else the one of agent.toml, or the bundle's first one here.")] = "",
    cache: Annotated[int, typer.Option(min=0, help="Keep so many answers for inputs that come again.")] = 0,
    json_: Json = False,
) -> None:
    """Answer programs on this device over HTTP, until SIGTERM; see /openapi.json there."""
    from edge_agent import Model
    from edge_agent.serve.command import until_stopped
    from edge_agent.serve.server import Limits

    def tell(facts: dict[str, Any]) -> None:
        where = " and ".join(filter(None, (facts["url"], facts["socket"])))
        print(json.dumps(facts) if json_ else f"{model} {facts['version']} answers at {where}", flush=True)

    opened = Model.open(model, data=data, runtime=runtime, cache=cache)
    until_stopped(opened, port=port if port >= 0 else None, path=socket, limits=Limits(), tell=tell)


@app.command()
def pipe(
    model: Annotated[str, typer.Argument(help="Name of the agent's model, or a bundle's folder (with a slash).")],
    form: Annotated[
        str, typer.Option(help="npy: each frame is 4 bytes of length and an .npy file; raw: plain bytes.")
    ] = "npy",
    shape: Annotated[str, typer.Option(help="Of a raw frame, such as 28,28.")] = "",
    dtype: Annotated[str, typer.Option(help="Of a raw frame: uint8, int16 or float32.")] = "uint8",
    data: Annotated[Path | None, typer.Option("--data", help="The data folder; else $STROP_DATA.")] = None,
    runtime: Annotated[str, typer.Option(help="Else the one of agent.toml, or the bundle's first one here.")] = "",
) -> None:
    """Answer frames from stdin with JSON lines on stdout; exit code 1 if one could not be answered."""
    from edge_agent import Model
    from edge_agent.runner.piping import answer_stream
    from edge_agent.runner.sources.frames import form_of

    sides = shape.split(",") if shape else []
    if form not in ("npy", "raw") or not all(side.isdigit() for side in sides):
        raise UsageError(f"--form {form} --shape {shape}", fix="use npy, or raw with a shape such as 28,28")
    how = form_of(form, tuple(map(int, sides)), dtype)
    with Model.open(model, data=data, runtime=runtime) as opened:
        if answer_stream(opened, how):
            raise typer.Exit(1)


@app.command()
def logs(
    data: Data,
    runner: Annotated[bool, typer.Option("--runner", help="What the runner wrote to stderr instead.")] = False,
    lines: Annotated[int, typer.Option(min=1, help="How many of the last lines.")] = 50,
    json_: Json = False,
) -> None:
    """Print the last lines of the agent's log."""
    path = data / "logs" / ("runner.log" if runner else "agent.log")
    try:
        found = path.read_text(errors="replace").splitlines()[-lines:]
    except OSError as error:
        raise UsageError(f"no log: {error.strerror}", where=str(path), fix="has the agent run here?") from error
    _print(found, found, as_json=json_)


@app.command()
def doctor(data: Data, json_: Json = False) -> None:
    """Say what this agent has, what is missing, and the line that mends it; exit code 1 if something is."""
    from dataclasses import asdict

    from edge_agent.folder import examine

    found = examine(data)
    lines = [
        f"{'ok     ' if f.is_ok else 'missing'} {f.name}: {f.text}" + (f"; {f.fix}" if f.fix else "") for f in found
    ]
    _print([asdict(f) for f in found], lines, as_json=json_)
    if not all(f.is_ok for f in found):
        raise typer.Exit(1)
