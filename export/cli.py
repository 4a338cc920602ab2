# SPDX-License-Identifier: Apache-2.0
"""``strop export``: write both files of a compressed model, prove that they agree, bundle and sign them."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from export.keys_cli import app as keys_app

__all__ = ["app"]

app = typer.Typer(help="Write ONNX and TFLite, prove that they agree, sign a bundle.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

Compressed = Annotated[Path, typer.Argument(help="Folder that 'strop compress run' wrote.", show_default=False)]
OutFile = Annotated[Path, typer.Option("--out", help="The file to write.", show_default=False)]
TargetName = Annotated[str, typer.Option("--target", help="Name of the target computer.")]
Pythons = Annotated[
    list[str] | None,
    typer.Option("--runtime-python", help="NAME=PATH: a Python that has a runtime which is not installed here."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _say(document: dict[str, Any], lines: list[str], *, as_json: bool) -> None:
    typer.echo(json.dumps(document, indent=2) if as_json else "\n".join(lines))


def _progress(text: str) -> None:
    typer.echo(text, err=True)


@app.command()
def onnx(compressed: Compressed, *, out: OutFile, target: TargetName = "generic-x86", as_json: Json = False) -> None:
    """Write the plan as QDQ ONNX."""
    from export import material

    _report_file(material.write(compressed, out, "onnx", target), out, as_json=as_json)


@app.command()
def tflite(compressed: Compressed, *, out: OutFile, target: TargetName = "rpi4", as_json: Json = False) -> None:
    """Write the plan as full-integer TFLite."""
    from export import material

    _report_file(material.write(compressed, out, "tflite", target), out, as_json=as_json)


def _report_file(artefact: Any, out: Path, *, as_json: bool) -> None:
    document = {**artefact.to_json(), "size": out.stat().st_size}
    _say(document, [f"{out}: {out.stat().st_size} bytes, plan {artefact.plan_digest[:12]}"], as_json=as_json)


@app.command()
def parity(
    compressed: Compressed,
    *,
    limit: Annotated[int, typer.Option(min=1, help="Validation inputs to compare on.")] = 1024,
    runtime_python: Pythons = None,
    as_json: Json = False,
) -> None:
    """Run both files in every runtime and compare every integer, with PyTorch's evaluation too."""
    from export import material

    report = material.compare(compressed, limit, runtime_python or [])
    _say(report.to_json(), _pair_lines(report.to_json()), as_json=as_json)


def _pair_lines(report: dict[str, Any]) -> list[str]:
    return [
        f"{pair['first']} / {pair['second']}: {pair['differing']} of {pair['values']} integers differ, "
        f"{pair['max_steps']} steps at most, {100 * pair['same_class']:.2f} % same class"
        for pair in report["pairs"]
    ]


@app.command()
def bundle(
    compressed: Compressed,
    *,
    version: Annotated[str, typer.Option(help="Version for people, such as 1.2.0.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The folder to make.", show_default=False)],
    keys: Annotated[Path | None, typer.Option(help="Keys folder to sign with; unsigned without it.")] = None,
    parent: Annotated[str, typer.Option(help="Id of the bundle that this one improves on.")] = "",
    runtime_python: Pythons = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the folder if it exists.")] = False,
    as_json: Json = False,
) -> None:
    """Build a bundle with golden outputs and reference profiles, prove it in every runtime, and sign it."""
    from export import material

    if keys is not None:
        from export import signing

        signing.describe_keys(keys)  # keys that cannot sign are refused before anything is made
    _progress(f"building {out}: two files, every runtime, reference profiles")
    options = runtime_python or []
    built = material.bundle(compressed, out, version=version, parent=parent, pythons=options, overwrite=overwrite)
    if keys is not None:
        signing.sign_bundle(keys, out)
    document = _bundle_json(built.manifest, out) | {"parity": built.parity.to_json(), "signed": keys is not None}
    signed = f"signed by {keys}" if keys else "not signed: give --keys"
    lines = [f"{out}: bundle {built.manifest.bundle_id}", *_pair_lines(document["parity"]), signed]
    _say(document, lines, as_json=as_json)


def _bundle_json(manifest: Any, folder: Path) -> dict[str, Any]:
    document = {key: value for key, value in manifest.to_json().items() if key != "schema"}
    return {"bundle": manifest.bundle_id, "folder": str(folder), **document}


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A bundle folder, or an .onnx or .tflite file.", show_default=False)],
    *,
    as_json: Json = False,
) -> None:
    """Verify every file of a bundle and say what it holds; or list a model file's operators."""
    from export.bundle import verify
    from export.inspection import describe

    if not path.is_dir():
        facts = describe(path)
        _say(facts.to_json(), _model_lines(path, facts), as_json=as_json)
        return
    manifest = verify(path)
    lines = [
        f"{manifest.model} {manifest.version}, bundle {manifest.bundle_id}",
        *(f"{a.path}: {a.precision} for {a.target}, runs in {', '.join(a.runtimes)}" for a in manifest.artefacts),
        *(f"{entry.path}: {entry.size} bytes, {entry.sha256[:12]}" for entry in manifest.files),
        "every file is as the manifest says",
    ]
    _say(_bundle_json(manifest, path), lines, as_json=as_json)


def _model_lines(path: Path, facts: Any) -> list[str]:
    tensors = [*facts.inputs.items(), *facts.outputs.items()]
    return [
        f"{path}: {facts.format}, {facts.size} bytes, plan {facts.plan_digest[:12] or 'unknown'}",
        *(f"tensor {name}: {dtype} {list(shape)}" for name, (dtype, shape) in tensors),
        *(f"{count} × {name} version {version}" for name, version, count in facts.operators),
    ]
