# SPDX-License-Identifier: Apache-2.0
"""``strop bench predict``: learn a board's latency predictor, show what it knows, ask it about a model."""

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app", "ask", "learn", "show"]

app = typer.Typer(help="Predict latencies of a board, to order candidates before they are measured.")


@app.callback()
def _root() -> None:
    """Predict latencies of a board, to order candidates before they are measured."""


@app.command()
def learn(
    results: Annotated[list[Path], typer.Argument(help="Results of one board (.json), or folders of them.")],
    models: Annotated[Path, typer.Option("--models", help="Folder of the measured files: one folder for each family.")],
    out: Annotated[Path, typer.Option("--out", help="File of the predictor.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Learn from whole models that were measured on a board; say how far off it is for families left out."""
    from benchmarks.predict import files, shown

    board = files.learn_board(results, models)
    board.save(out)
    typer.echo(json.dumps(shown.to_json(board)) if as_json else shown.to_text(board))


@app.command()
def show(
    board: Annotated[Path, typer.Argument(help="A predictor's file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a predictor has learned from and how far off it is."""
    from benchmarks.predict import shown
    from benchmarks.predict.board import Board

    found = Board.load(board)
    typer.echo(json.dumps(shown.to_json(found)) if as_json else shown.to_text(found))


@app.command()
def ask(
    model: Annotated[Path, typer.Argument(help="A .tflite or .onnx file.")],
    board: Annotated[Path, typer.Option("--board", help="A predictor's file.")],
    runtime: Annotated[str, typer.Option(help="Default: litert for .tflite, onnxruntime for .onnx.")] = "",
    threads: Annotated[int, typer.Option(min=1, help="Threads of one inference.")] = 1,
    family: Annotated[str, typer.Option(help="Of the model, if its family was measured: a narrower interval.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predict a model's latency, with its interval; refuse a model that is unlike the measured ones."""
    from benchmarks.predict import files, shown
    from benchmarks.predict.board import Board, named

    found = Board.load(board)
    default = "litert" if model.suffix == ".tflite" else "onnxruntime"
    forecast = found.ask(named(runtime or default, threads), files.operators_of(model), family=family)
    if as_json:
        typer.echo(json.dumps({"board": found.key, **shown.forecast_json(forecast)}))
        return
    typer.echo(f"{model.name} on {found.key}: {forecast} (predicted, not measured)")
