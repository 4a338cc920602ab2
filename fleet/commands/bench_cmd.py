# SPDX-License-Identifier: Apache-2.0
"""``strop fleet bench``: measure on devices of the fleet, look at the results, withdraw. Thin: parse, call, print."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_contract import canonical
from edge_contract.errors import UsageError
from fleet.client import connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer, table

__all__ = ["bench", "bench_table", "model_of"]

bench = typer.Typer(help="Signed benchmarks on the fleet's own devices.", no_args_is_help=True)

Run = Annotated[str, typer.Argument(metavar="BENCHMARK")]


def model_of(text: str) -> dict[str, Any]:
    """Return what a benchmark's request says of a model: ``NAME``, ``NAME:VERSION`` or a bundle's id.

    Example:
        >>> model_of("digits:1.2.0"), model_of("0" * 64)["bundle"][:4]
        ({'name': 'digits', 'version': '1.2.0'}, '0000')
    """
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return {"bundle": text}
    name, _, version = text.partition(":")
    return {"name": name, "version": version}


def _plan(text: str) -> dict[str, Any]:
    """Return a plan of the command line: a JSON object, or a file with one."""
    try:
        found = canonical.loads(text.encode() if text.lstrip().startswith("{") else Path(text).read_bytes())
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where="--plan", fix="give a file, or {…}") from error
    if not isinstance(found, dict):
        raise UsageError("is no JSON object", where="--plan", fix='such as \'{"profile": "quick"}\'')
    return found


@bench.command("start")
def start(
    model: Annotated[str, typer.Argument(help="Registered: NAME, NAME:VERSION or a bundle's id.")],
    on: Annotated[str, typer.Option("--on", help="Which devices, such as 'board:rpi5 and tag:lab'.")],
    *,
    plan: Annotated[
        str, typer.Option(help="How to measure, as JSON or a file with it: launches, runs, threads …")
    ] = "{}",
    hours: Annotated[float, typer.Option(help="What has not begun after so many hours is not begun.")] = 2.0,
    max_minutes: Annotated[float, typer.Option(help="Longest time of the measurement on a device.")] = 30.0,
    max_mb: Annotated[float, typer.Option(help="Most megabytes on a device's disk.")] = 200.0,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Ask devices to measure a model; each device's owner must have allowed it in agent.toml."""
    document = {"model": model_of(model), "query": on, "plan": _plan(plan), "hours": hours}
    document |= {"max_seconds": max_minutes * 60, "max_bytes": int(max_mb * 1_000_000)}
    answer = connect(data, server, token_file).call("POST", "/benchmarks", document)
    print_answer(answer, as_json, f"benchmark {answer['id']} on {len(answer['jobs'])} devices")


@bench.command("list")
def list_(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List benchmarks, newest first."""
    found = connect(data, server, token_file).call("GET", "/benchmarks")
    rows = [["BENCHMARK", "STARTED", "MODEL", "ON", "DEVICES"]]
    rows += [[one["id"], _minute(one["started_at"]), _named(one["model"]), one["query"], _states(one)] for one in found]
    print_answer(found, as_json, table(rows) if found else "no benchmark yet")


def _minute(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def _named(model: dict[str, Any]) -> str:
    named = f"{model['name']} {model['version']}".strip()
    return named or ", ".join(file["name"] for file in model["files"])


def _states(one: dict[str, Any]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(one["states"].items()))


@bench.command("show")
def show(run: Run, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """Show a benchmark device by device, with the results that came."""
    answer = connect(data, server, token_file).call("GET", f"/benchmarks/{run}")
    head = f"{answer['id']}: {_named(answer['model'])} on {answer['query']}, until {_minute(answer['expires_at'])} UTC"
    print_answer(answer, as_json, f"{head}\n{bench_table(answer['jobs'])}")


def bench_table(jobs: list[dict[str, Any]]) -> str:
    """Return the parts of a benchmark as a table: state, median with its 95 % interval, bound of p90, faults."""
    rows = [["DEVICE", "BOARD", "STATE", "p50 ms", "95 %", "p90 ≤ ms", "RUNS", "SAYS"]]
    for one in jobs:
        found = one["facts"].get("summary", {})
        interval = found.get("p50_ci95_ms")
        between = f"{interval[0]:.3g} to {interval[1]:.3g}" if interval else "–"
        state = f"{one['state']}, {found['status']}" if found.get("status") else one["state"]
        says = one["why"] or "; ".join(found.get("reasons", []))
        times = [_number(found.get("p50_ms")), between, _number(found.get("p90_ub99_ms"))]
        rows.append([one["device"], str(found.get("board", "–")), state, *times, str(found.get("runs", "–")), says])
    return table(rows)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


@bench.command("results")
def results(
    run: Run,
    out: Annotated[Path, typer.Option(help="Folder for the results, one folder for each device.")],
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Fetch every result of a benchmark with its raw samples."""
    client = connect(data, server, token_file)
    written = []
    for one in client.call("GET", f"/benchmarks/{run}")["jobs"]:
        for name in one["files"]:
            path = out / one["device"] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(client.fetch(f"/benchmarks/{run}/results/{one['device']}/{name}"))
            written.append(str(path))
    print_answer(written, as_json, f"wrote {len(written)} files to {out}" if written else "nothing has come yet")


@bench.command("cancel")
def cancel(
    run: Run, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Withdraw a benchmark; a device that measures stops, and sends nothing more."""
    answer = connect(data, server, token_file).call("POST", f"/benchmarks/{run}/cancel")
    open_ = sum(one["state"] == "cancelling" for one in answer["jobs"])
    print_answer(answer, as_json, f"benchmark {run} is withdrawn; {open_} devices are told to stop")
