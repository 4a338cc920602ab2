# SPDX-License-Identifier: Apache-2.0
"""``strop export float-onnx``: any torch module as ONNX in float, or with int8 weights."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["float_onnx"]

Model = Annotated[
    str,
    typer.Argument(help="Folder that 'strop compress run' wrote, or module:callable.", show_default=False),
]


def float_onnx(
    model: Model,
    *,
    out: Annotated[Path, typer.Option("--out", help="The file to write.", show_default=False)],
    inputs: Annotated[
        Path | None,
        typer.Option(help="npz of the model's own inputs, one array per argument; a folder has its own."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="State dict for the callable's module.")] = None,
    precision: Annotated[
        str, typer.Option(help="float32, float16, weight-only-int8 or -int4, dynamic-int8.")
    ] = "float32",
    opset: Annotated[int, typer.Option(help="18 to 21.")] = 18,
    fixed_batch: Annotated[bool, typer.Option("--fixed-batch", help="One input at a time, not any number.")] = False,
    external: Annotated[bool, typer.Option("--external", help="Put the weights into a file beside it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write any torch module as ONNX, in float or with rounded weights, and prove it in ONNX Runtime."""
    from edge_contract.errors import UsageError
    from export.module import exporter as writer
    from export.module.source import open_source

    if precision not in writer.PRECISIONS:
        raise UsageError(f"unknown precision '{precision}'", fix=f"use one of {', '.join(writer.PRECISIONS)}")
    source = open_source(model, inputs=inputs, weights=weights)
    options: dict[str, Any] = {"opset": opset, "dynamic_batch": not fixed_batch, "outputs": source.outputs}
    if external:
        options["external_bytes"] = 0
    typer.echo(f"writing {out} and running it in ONNX Runtime", err=True)
    made = writer.write_form(source.model, source.inputs, out, form=precision, **options)
    count = sum(made.operators.values())
    lines = [
        f"{made.path}: {made.size} bytes, {made.precision}, opset {made.opset}, {count} operators",
        *(f"{name}: {found}" for name, found in made.fidelity.items()),
        *(f"note: {note}" for note in made.notes),
    ]
    typer.echo(json.dumps(made.to_json(), indent=2) if as_json else "\n".join(lines))
