# SPDX-License-Identifier: Apache-2.0
"""``strop bench aa``: compare a model with itself, and keep how far apart the two sides come."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.compare_cmd import FLOORS

__all__ = ["aa"]


def aa(
    model: Annotated[str, typer.Argument(help="A bundle's folder, BUNDLE@RUNTIME, a .tflite or a .onnx file.")],
    launches: Annotated[int, typer.Option(min=2, help="Of each side.")] = 10,
    runs: Annotated[int | None, typer.Option(help="Fewest measured runs of a launch.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Shortest measured time of a launch.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a runtime.")] = 1,
    mode: Annotated[str | None, typer.Option(help="bare, or realistic: the agent's own path.")] = None,
    stage: Annotated[str, typer.Option(help="Which times count.")] = "total",
    out: Annotated[Path | None, typer.Option(help="Keep each launch here; the same command goes on from it.")] = None,
    floors: Annotated[
        Path, typer.Option(envvar="STROP_NOISE_FLOORS", help="Folder that keeps the noise floors of boards.")
    ] = FLOORS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare a model with itself by launches in turns; store the board's noise floor for strop bench compare."""
    from benchmarks.comparison.outcome import outcome_of, times_of
    from benchmarks.comparison.turns import Turns
    from benchmarks.plan import plan_for
    from benchmarks.result.surroundings import board_key
    from benchmarks.stats import NoiseFloor, noise_of, save_floor

    plan = plan_for(model, runs=runs, seconds=seconds, threads=threads, mode=mode)
    turns = Turns((plan, plan), out, lambda line: typer.echo(line, err=True))
    turns.upto(launches)
    sides = turns.sides()
    found = outcome_of((model, model), sides, stage=stage, command=f"strop bench aa {model} --launches={launches}")
    ratio, board = found.verdict.ratio, sides[0].preflight
    times = times_of(sides[0], stage), times_of(sides[1], stage)
    floor = NoiseFloor(
        board=board_key(board),
        artefact=plan.sha256,
        configuration=plan.configuration,
        floor=noise_of(*times),
        ratio=ratio.point,
        low=ratio.low,
        high=ratio.high,
        launches=sum(map(len, times)),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=f"{board.board}, governor {board.governor or 'unknown'}, load {board.load1:.1f}",
    )
    path = save_floor(floor, floors)
    if as_json:
        typer.echo(json.dumps({**found.to_json(), "noise_floor": floor.floor, "kept": str(path)}))
        return
    typer.echo(found.to_text())
    typer.echo(_words(floor.floor, ratio.low <= 1.0 <= ratio.high))
    typer.echo(f"kept: {path}")


def _words(floor: float, is_even: bool) -> str:
    said = (
        f"noise floor {100 * floor:.1f} %: ten launches against ten of the same model come within this of 1 "
        f"in 95 of 100 cases; a comparison on this board decides beyond {100 * max(0.03, 2 * floor):.1f} %"
    )
    if is_even:
        return said
    return f"{said}\nthe two sides differ although they are the same: something favours one; look at the run sequence"
