# SPDX-License-Identifier: Apache-2.0
"""``strop export keras``: a Keras or SavedModel file as TFLite, by TensorFlow's own converter."""

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["keras"]


def keras(
    model: Annotated[Path, typer.Argument(help="A .keras file or a SavedModel folder.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option("--out", help="The .tflite file to write.", show_default=False)],
    calibration: Annotated[
        Path | None,
        typer.Option(help="npz or npy of the model's own inputs, preprocessed; needed for int8."),
    ] = None,
    precision: Annotated[str, typer.Option(help="int8 or float32.")] = "int8",
    target: Annotated[str, typer.Option("--target", help="Name of the target computer.")] = "rpi4",
    timeout_s: Annotated[int, typer.Option(min=1, help="Seconds that TensorFlow may take.")] = 900,
    memory_mib: Annotated[int, typer.Option(help="MiB of memory that TensorFlow may take.")] = 6144,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Convert with TensorFlow, normalise the file, and run it in every TFLite runtime at hand."""
    from edge_contract.errors import DataError
    from export import samples_file
    from export.keras import converter

    inputs = None if calibration is None else samples_file.only(calibration)
    limits = converter.Limits(timeout_s, memory_mib)
    typer.echo(f"converting {model} with TensorFlow in a process of its own", err=True)
    made = converter.convert(model, calibration=inputs, precision=precision, target=target, limits=limits)
    try:
        out.write_bytes(made.data)
    except OSError as error:
        raise DataError(f"cannot be written ({error.strerror})", where=str(out), fix="make its folder") from error
    document = {"path": str(out), "precision": precision, "target": target, **made.to_json()}
    lines = [
        f"{out}: {len(made.data)} bytes, {precision}",
        *map(str, made.checks),
        *(f"changed: {change}" for change in made.changes),
        *(f"note: {note}" for note in made.notes),
    ]
    typer.echo(json.dumps(document, indent=2) if as_json else "\n".join(lines))
