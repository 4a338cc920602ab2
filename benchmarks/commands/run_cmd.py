# SPDX-License-Identifier: Apache-2.0
"""``strop bench run``: measure one model by the whole protocol, here or on boards of the fleet."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.plan import BenchPlan, plan_for
from edge_contract.errors import UsageError

__all__ = ["run"]

_INTERRUPTED = 130  # as a shell tells of a program that Ctrl-C has ended


def run(
    model: Annotated[str, typer.Argument(help="A bundle's folder, BUNDLE@RUNTIME, a .tflite or a .onnx file.")],
    runtime: Annotated[str | None, typer.Option(help="litert, onnxruntime, tflite-runtime or edgetpu.")] = None,
    delegate: Annotated[str | None, typer.Option(help="ONNX Runtime's provider, the Edge TPU's library.")] = None,
    target: Annotated[str | None, typer.Option(help="Of several artefacts of a bundle, this target's own.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of one inference.")] = None,
    affinity: Annotated[str | None, typer.Option(help="Pin to these cores, such as 2,3.")] = None,
    scenario: Annotated[str | None, typer.Option(help="single, paced, offline or sustained.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second of the scenario paced.")] = None,
    deadline_ms: Annotated[float | None, typer.Option(help="Later than this after its start a run is missed.")] = None,
    batch: Annotated[int | None, typer.Option(help="Inputs in one run of the scenario offline.")] = None,
    profile: Annotated[str | None, typer.Option(help="default, quick or mlperf-tiny-like.")] = None,
    launches: Annotated[int | None, typer.Option(help="Processes, one after the other.")] = None,
    runs: Annotated[int | None, typer.Option(help="Fewest measured runs of a launch.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Shortest measured time of a launch.")] = None,
    cooldown: Annotated[float | None, typer.Option(help="Longest pause to cool down between two launches.")] = None,
    mode: Annotated[str | None, typer.Option(help="bare, or realistic: the agent's own path.")] = None,
    inputs: Annotated[str | None, typer.Option("--input", help="real or random.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Inputs: a folder, .npy, or .npz with x, and y for accuracy.")
    ] = None,
    accuracy: Annotated[float, typer.Option(help="Of mlperf-tiny-like: the accuracy that must be reached.")] = 0.0,
    out: Annotated[Path | None, typer.Option(help="Keep result and raw samples in this folder.")] = None,
    energy: Annotated[str, typer.Option(help="A power sensor: see strop bench energy.")] = "",
    on: Annotated[str, typer.Option(help="Measure on boards of the fleet that this query finds.")] = "",
    server: Annotated[str, typer.Option(help="With --on: the fleet server's address.")] = "",
    token_file: Annotated[Path | None, typer.Option(help="With --on: the file of a token for it.")] = None,
    fleet_data: Annotated[
        Path | None,
        typer.Option(envvar="STROP_FLEET_DATA", help="With --on: the server's data folder on this machine."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure a model: cold start, warm-up, launches of many runs; print p50 with its interval, and what is not valid.

    p90 and p99 are printed where the runs bound them. Ctrl-C keeps finished launches when --out is given: the same
    command goes on.
    """
    chosen: dict[str, Any] = {
        "runtime": runtime, "delegate": delegate, "target": target, "threads": threads, "affinity": _cores(affinity),
        "scenario": scenario, "fps": fps, "deadline_ms": deadline_ms, "batch": batch, "profile": profile,
        "launches": launches, "runs": runs, "seconds": seconds, "cooldown_s": cooldown, "mode": mode, "input": inputs,
        "data": None if data is None else str(data),
    }  # fmt: skip
    if data is not None and inputs is None:
        chosen["input"] = "real"
    if on:
        where = {"server": server, "token_file": token_file, "data": fleet_data, "out": out}
        _on_boards(on, model, chosen, as_json=as_json, **where)
        return
    _here(plan_for(model, **chosen), out, energy, accuracy, as_json=as_json)


def _cores(words: str | None) -> tuple[int, ...] | None:
    if words is None:
        return None
    if not all(word.strip().isdigit() for word in words.split(",")):
        raise UsageError(f"cores '{words}'", where="--affinity", fix="write numbers with commas, such as 2,3")
    return tuple(int(word) for word in words.split(","))


def _here(plan: BenchPlan, out: Path | None, energy: str, accuracy: float, *, as_json: bool) -> None:
    from benchmarks.carrying import carry_out, unfinished_folder
    from benchmarks.commands.run_text import text_of
    from benchmarks.result import save, to_json
    from benchmarks.windows import score

    kept = None if out is None else unfinished_folder(out, plan)
    with _shown(as_json=as_json) as tell:
        measurement, result = carry_out(plan, progress=tell, energy=energy, kept=kept)
    path = None if out is None else save(result, measurement, out)
    typer.echo(json.dumps(to_json(result)) if as_json else text_of(measurement, result, path))
    if any(note.startswith("interrupted") for note in measurement.notes):
        raise typer.Exit(_INTERRUPTED)
    if plan.profile == "mlperf-tiny-like":
        typer.echo(str(score(measurement, result.quality, accuracy)), err=as_json)


def _on_boards(query: str, model: str, chosen: dict[str, Any], *, as_json: bool, **where: Any) -> None:
    """Let the fleet measure; print a row for each board. ``model`` may be one of the registry, NAME:VERSION."""
    from benchmarks.fleet.remote import run_on, table  # what talks to the server: only where somebody asks for boards
    from benchmarks.result import to_json

    if not where["server"] and where["data"] is None:
        fix = "give --server with --token-file, or --fleet-data"
        raise UsageError("which fleet?", where="strop bench run --on", fix=fix)
    with _shown(as_json=as_json) as tell:
        results = run_on(query, model, chosen, tell=tell, **where)
    typer.echo(json.dumps([to_json(one) for one in results]) if as_json else table(results))


@contextmanager
def _shown(*, as_json: bool) -> Iterator[Callable[[str], object]]:
    """Show each step: in one moving line on a terminal, a line each on stderr elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal or as_json:
        yield lambda line: typer.echo(line, err=True)
        return
    with console.status("measuring") as status:
        yield status.update
