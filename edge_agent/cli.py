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
    waiting = ", ".join(f"{n} {cls}" for cls, n in found["outbox"].get("rows", {}).items())
    lines.append(f"  waiting  {waiting or 'nothing'}")
    _print(found, lines, as_json=json_)


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
