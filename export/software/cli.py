# SPDX-License-Identifier: Apache-2.0
"""``strop export software``: a release of the agent's own software."""

import json
from pathlib import Path
from typing import Annotated

import typer

from edge_contract.errors import MissingDependencyError

__all__ = ["software"]


def software(
    wheelhouse: Annotated[
        Path, typer.Argument(help="A folder of wheels: strop's and all it needs.", show_default=False)
    ],
    *,
    out: Annotated[Path, typer.Option(help="The folder to make.", show_default=False)],
    version: Annotated[str, typer.Option(help="Checked against strop's wheel, if given.")] = "",
    platform: Annotated[
        list[str] | None,
        typer.Option(help="PYTHON-MACHINE such as 3.11-aarch64, once for each; default: what the wheels name."),
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="Keys folder to sign with; unsigned without it.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a release of the agent's own software from wheels, check that nothing is missing, and sign it."""
    try:
        from export.software import release as making
        from export.software.wheels import read_all
    except ImportError as error:
        raise MissingDependencyError(f"{error.name} is not installed", fix="pip install packaging") from error
    if keys is not None:
        from export.keys import signing

        signing.describe_keys(keys)
    wheels = read_all(wheelhouse)
    kinds = tuple(making.parse_kind(text) for text in platform) if platform else making.kinds_of(wheels)
    made = making.plan(wheels, kinds, version=version)
    bundle = making.write(made, out, overwrite=overwrite)
    if keys is not None:
        signing.sign_bundle(keys, out)
    document = {**made.manifest.to_json(), "bundle": bundle, "folder": str(out), "signed": keys is not None}
    lines = [f"{out}: strop-agent {made.manifest.version}, release {bundle}"]
    for kind, found in made.wheels.items():
        size, unpacked = sum(w.size for w in found), sum(w.unpacked for w in found)
        sizes = f"{size / 1e6:.1f} MB, {unpacked / 1e6:.1f} MB unpacked"
        lines.append(f"Python {kind.python} on {kind.machine}: {len(found)} wheels, {sizes}")
    lines += [f"left out: {wheel.path.name}" for wheel in made.left_out]
    lines.append(f"signed by {keys}" if keys else "not signed: give --keys")
    typer.echo(json.dumps(document, indent=2) if as_json else "\n".join(lines))
