# SPDX-License-Identifier: Apache-2.0
"""``strop export``: write both files of a compressed model, prove that they agree, bundle and sign them."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from export.check.cli import check
from export.delta.cli import delta
from export.keras.cli import keras
from export.keys.cli import app as keys_app
from export.module.cli import float_onnx
from export.software.cli import software

__all__ = ["app"]

app = typer.Typer(help="Write ONNX and TFLite, prove that they agree, sign a bundle.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
app.command()(check)
app.command()(delta)
app.command("keras")(keras)
app.command("float-onnx")(float_onnx)
app.command()(software)

Compressed = Annotated[Path, typer.Argument(help="Folder that 'strop compress run' wrote.", show_default=False)]
OutFile = Annotated[Path, typer.Option("--out", help="The file to write.", show_default=False)]
Precision = Annotated[str, typer.Option(help="int8: the plan; float32: the same network without it.")]
TargetName = Annotated[str, typer.Option("--target", help="Name of the target computer.")]
Pythons = Annotated[
    list[str] | None,
    typer.Option("--runtime-python", help="NAME=PATH: a Python that has a runtime which is not installed here."),
]
Targets = Annotated[
    list[str] | None,
    typer.Option("--target", help="NAME or NAME:FORMAT, once for each artefact; default: ONNX for a PC, TFLite."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it exists.")]
All = Annotated[bool, typer.Option("--all", help="Print every row of long tables.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _say(document: dict[str, Any], lines: list[str], *, as_json: bool) -> None:
    typer.echo(json.dumps(document, indent=2) if as_json else "\n".join(lines))


def _show(document: dict[str, Any], parts: list[Any], *, as_json: bool) -> None:
    """Print JSON, or tables and lines; lines are never wrapped, so that they can be searched."""
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    from rich.console import Console

    console = Console()
    for part in parts:
        console.print(part, highlight=False, markup=False, soft_wrap=isinstance(part, str))


def _progress(text: str) -> None:
    typer.echo(text, err=True)


@app.command()
def onnx(
    compressed: Compressed,
    *,
    out: OutFile,
    target: TargetName = "generic-x86",
    precision: Precision = "int8",
    as_json: Json = False,
) -> None:
    """Write the plan as integer ONNX, or the network in float."""
    from export.bundle import material

    _report_file(material.write(compressed, out, "onnx", target, precision=precision), out, as_json=as_json)


@app.command()
def tflite(
    compressed: Compressed,
    *,
    out: OutFile,
    target: TargetName = "rpi4",
    precision: Precision = "int8",
    as_json: Json = False,
) -> None:
    """Write the plan as full-integer TFLite, or the network in float."""
    from export.bundle import material

    _report_file(material.write(compressed, out, "tflite", target, precision=precision), out, as_json=as_json)


def _report_file(artefact: Any, out: Path, *, as_json: bool) -> None:
    document = {**artefact.to_json(), "size": out.stat().st_size}
    _say(
        document,
        [f"{out}: {out.stat().st_size} bytes, {artefact.precision}, plan {artefact.plan_digest[:12] or 'none'}"],
        as_json=as_json,
    )


@app.command()
def parity(
    compressed: Compressed,
    *,
    limit: Annotated[int, typer.Option(min=1, help="Validation inputs to compare on.")] = 1024,
    target: Targets = None,
    runtime_python: Pythons = None,
    as_json: Json = False,
) -> None:
    """Run all files in every runtime and compare every integer, with PyTorch's evaluation too."""
    from export.bundle import material

    report = material.compare(compressed, limit, runtime_python or [], target or ())
    _say(report.to_json(), _pair_lines(report.to_json()), as_json=as_json)


def _pair_lines(report: dict[str, Any]) -> list[str]:
    pairs = [
        f"{pair['first']} / {pair['second']}: {pair['differing']} of {pair['values']} integers differ, "
        f"{pair['max_steps']} steps at most, {100 * pair['same_class']:.2f} % same class"
        for pair in report["pairs"]
    ]
    judged = [
        f"{row['runtime']} against {row['against']}, {row['output']}: relative error {row['relative_error']:.3g}"
        + (f", SQNR {row['sqnr_db']:.1f} dB" if row["sqnr_db"] is not None else ", equal")
        for row in report.get("fidelity", [])
    ]
    return [*pairs, *judged, *(f"note: {note}" for note in report.get("notes", []))]


@app.command()
def bundle(
    compressed: Compressed,
    *,
    version: Annotated[str, typer.Option(help="Version for people, such as 1.2.0.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder to make.", show_default=False)],
    keys: Annotated[Path | None, typer.Option(help="Keys folder to sign with; unsigned without it.")] = None,
    target: Targets = None,
    parent: Annotated[str, typer.Option(help="Id of the bundle that this one improves on.")] = "",
    runtime_python: Pythons = None,
    waive: Annotated[
        list[str] | None, typer.Option(help="A failed check of the recipe that may ship all the same; needs --reason.")
    ] = None,
    reason: Annotated[
        list[str] | None, typer.Option(help="Why, for the bundle's lineage: one for each --waive, or one for all.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Build a bundle with golden outputs and reference profiles, prove it in every runtime, and sign it."""
    from compress.checks.gate import waivers
    from export.bundle import material

    waived = waivers(waive or (), reason or ())
    _check_keys(keys)
    _progress(f"building {out}: a file for each target, every runtime, reference profiles")
    built = material.bundle(
        compressed,
        out,
        version=version,
        parent=parent,
        pythons=runtime_python or [],
        overwrite=overwrite,
        targets_named=target or (),
        waived=waived,
    )
    _report_bundle(built, out, keys, as_json=as_json)


def _check_keys(keys: Path | None) -> None:
    """Refuse keys that cannot sign before anything is made."""
    if keys is not None:
        from export.keys import teams

        teams.describe(keys)


def _report_bundle(built: Any, out: Path, keys: Path | None, *, as_json: bool) -> None:
    """Sign a finished bundle, if asked, and say what was made."""
    from export.tables import check_lines

    if keys is not None:
        from export.keys import teams

        teams.sign(keys, out)
    parity = built.parity.to_json()
    document = _bundle_json(built.manifest, out) | {"parity": parity, "signed": keys is not None}
    files = [
        f"{a.path}: {a.precision} for {a.target}, ran in {', '.join(a.runtimes)}" for a in built.manifest.artefacts
    ]
    files += check_lines(built.manifest.lineage)
    signed = f"signed by {keys}" if keys else "not signed: give --keys"
    _say(document, [f"{out}: bundle {built.manifest.bundle_id}", *files, *_pair_lines(parity), signed], as_json=as_json)


def _bundle_json(manifest: Any, folder: Path) -> dict[str, Any]:
    document = {key: value for key, value in manifest.to_json().items() if key != "schema"}
    return {"bundle": manifest.bundle_id, "folder": str(folder), **document}


@app.command()
def adopt(
    models: Annotated[list[Path], typer.Argument(help="The model's .onnx and .tflite files.", show_default=False)],
    *,
    name: Annotated[str, typer.Option(help="Name of the model.", show_default=False)],
    version: Annotated[str, typer.Option(help="Version for people, such as 1.2.0.", show_default=False)],
    preprocess: Annotated[Path, typer.Option(help="TOML: preprocess and postprocess.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder to make.", show_default=False)],
    task: Annotated[
        str, typer.Option(help="classification, detection, regression, anomaly, segmentation or other.")
    ] = "classification",
    labels: Annotated[str, typer.Option(help="Class names: a,b,c or a file with one on each line.")] = "",
    inputs: Annotated[Path | None, typer.Option(help=".npz with raw inputs x and, if known, classes y.")] = None,
    inputs_random: Annotated[bool, typer.Option("--inputs-random", help="Random inputs instead of real ones.")] = False,
    target: Targets = None,
    role: Annotated[list[str] | None, typer.Option(help="OUTPUT=ROLE, such as Identity_1=scores.")] = None,
    embedding: Annotated[bool, typer.Option("--embedding", help="Show a classifier's features to drift.")] = False,
    keys: Annotated[Path | None, typer.Option(help="Keys folder to sign with; unsigned without it.")] = None,
    parent: Annotated[str, typer.Option(help="Id of the bundle that this one improves on.")] = "",
    runtime_python: Pythons = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Bundle model files of other makers: describe them, run them everywhere, compare, and record golden answers."""
    from export.adopt import adoption as adopting
    from export.adopt import inputs as adopt_inputs
    from export.runtimes.execution import parse_pythons

    _check_keys(keys)
    said = adopt_inputs.read_said(preprocess)
    wish = adopting.Wish(
        name=name,
        version=version,
        task=task,
        preprocess=said.preprocess,
        labels=adopt_inputs.read_labels(labels),
        postprocess=said.postprocess,
        targets=tuple(target or ()),
        roles=adopt_inputs.read_roles(role or []),
        embedding=embedding,
        parent=parent,
    )
    given = adopt_inputs.choose(inputs, wish.preprocess, models, is_random=inputs_random)
    _progress(f"running {', '.join(model.name for model in models)} on {len(given.raw)} inputs ({given.source})")
    pythons = parse_pythons(runtime_python or [])
    built = adopting.adopt(models, out, wish, given, pythons=pythons, overwrite=overwrite)
    _report_bundle(built, out, keys, as_json=as_json)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A bundle folder, or an .onnx or .tflite file.", show_default=False)],
    *,
    show_all: All = False,
    as_json: Json = False,
) -> None:
    """Verify a bundle and say what it holds; or a model file's operators, scales, weights and metadata."""
    from export import tables
    from export.bundle.builder import verify
    from export.diff.comparison import parity_of
    from export.inspection import inspect as inspection

    if not path.is_dir():
        facts = inspection.describe(path)
        _show(facts.to_json(), tables.model_parts(str(path), facts, show_all=show_all), as_json=as_json)
        return
    from edge_agent.runner.contents import Contents

    manifest = verify(path)
    models = {artefact.path: inspection.describe(path / artefact.path) for artefact in manifest.artefacts}
    parity = parity_of(Contents.open(path))
    told = {"models": {name: facts.to_json() for name, facts in models.items()}, "parity": parity}
    _show(_bundle_json(manifest, path) | told, tables.bundle_parts(manifest, models, parity), as_json=as_json)


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(help="A bundle folder or a model file.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another one of the same kind.", show_default=False)],
    *,
    show_all: All = False,
    as_json: Json = False,
) -> None:
    """Say what differs between two bundles or model files: operators, sizes, weights, scales, accuracy, parity."""
    from export import tables
    from export.diff.comparison import BundleDiff, compare

    found = compare(first, second)
    if isinstance(found, BundleDiff):
        parts = tables.bundle_diff_parts(found, show_all=show_all)
    else:
        parts = tables.file_diff_parts(found, show_all=show_all)
    _show(found.to_json(), parts, as_json=as_json)
