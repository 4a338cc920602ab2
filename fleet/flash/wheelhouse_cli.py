# SPDX-License-Identifier: Apache-2.0
"""``strop flash wheelhouse``: the words of the command line; ``wheelhouse_make`` does the work."""

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["wheelhouse"]


def wheelhouse(
    out: Annotated[Path, typer.Option("--out", help="Folder to make.", show_default=False)],
    python: Annotated[
        str, typer.Option(help="The image's Python: 3.11 (Debian 12), 3.12 or 3.13 (Debian 13).")
    ] = "3.11",
    arch: Annotated[str, typer.Option(help="aarch64, x86_64, or armv7l (best effort).")] = "aarch64",
    runtime: Annotated[str, typer.Option(help="litert, onnxruntime or tflite-runtime.")] = "litert",
    source: Annotated[Path | None, typer.Option("--from", help="Take wheels from this folder, use no network.")] = None,
    own_wheel: Annotated[Path | None, typer.Option(help="Our own wheel; default: built from these sources.")] = None,
    constraints: Annotated[Path | None, typer.Option(help="Versions for pip, such as constraints.txt.")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Leave nothing out of the wheels.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Gather what a board needs to install its agent and one runtime without a network."""
    from fleet.flash.wheelhouse_make import Order, make

    order = Order(python, arch, runtime, out, source=source, ours=own_wheel, is_slim=not whole, constraints=constraints)
    house = make(order, lambda line: typer.echo(line, err=True))
    if as_json:
        document = {**json.loads(house.index()), "folder": str(out), "size": house.size, "unpacked": house.unpacked}
        typer.echo(json.dumps({**document, "original_unpacked": house.original_unpacked}, indent=2, sort_keys=True))
        return
    sizes = f"{house.size / 1e6:.1f} MB, {house.unpacked / 1e6:.1f} MB unpacked"
    typer.echo(f"{out}: {len(house.wheels)} wheels for Python {python} on {arch} with {runtime}, {sizes}")
    if not whole:
        typer.echo(f"left out: {(house.original_unpacked - house.unpacked) / 1e6:.1f} MB that a board never uses")
