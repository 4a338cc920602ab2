# SPDX-License-Identifier: Apache-2.0
"""``strop flash card``: an image onto a card, and the proof that it is there."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_contract.errors import UsageError
from fleet.flash import bmap
from fleet.flash.card import Progress, Proof, write
from fleet.flash.medium import BlockDevice
from fleet.flash.progress import stages
from fleet.flash.targets import MOST_BYTES, Target, all_targets, check, find

__all__ = ["card", "flash"]


def card(
    image: Annotated[Path | None, typer.Argument(help="A raw image: what strop flash image made.")] = None,
    device: Annotated[Path | None, typer.Argument(help="The card: /dev/sdX, /dev/mmcblkN, /dev/disk/by-id/….")] = None,
    erase: Annotated[str, typer.Option(help="The device's name once more, such as sdb: all that is on it goes.")] = "",
    block_map: Annotated[
        Path | None, typer.Option("--bmap", help="The image's block map: free blocks are left out.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Read the card first, and write only what differs.")] = False,
    proof: Annotated[Path | None, typer.Option(help="Write what was written and proven to this JSON file.")] = None,
    max_gb: Annotated[int, typer.Option(min=1, help="Larger devices are refused.")] = MOST_BYTES // 10**9,
    allow_loop: Annotated[bool, typer.Option("--allow-loop", help="Take a loop device for a card.")] = False,
    only_list: Annotated[
        bool, typer.Option("--list", help="List the devices here, and whether they may be written.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write an image to a card: the partition table last, everything read back and compared."""
    if only_list:
        _list(as_json)
        return
    if image is None or device is None:
        raise UsageError("which image, and which card?", fix="strop flash card IMAGE DEVICE; --list shows the devices")
    target = find(device)
    size = _size(image)
    check(target, size, most=max_gb * 10**9, is_loop_allowed=allow_loop)
    if erase != target.path.name:
        what = f"everything on {target} would be erased"
        raise UsageError(what, fix=f"add --erase {target.path.name}" if not erase else "--erase names another device")
    with stages(is_shown=sys.stderr.isatty() and not as_json) as progress:
        found = flash(image, target, block_map, is_resumed=resume, progress=progress)
    document = {**found.to_json(), "device": str(target.path), "model": target.model, "serial": target.serial}
    if proof is not None:
        proof.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    typer.echo(json.dumps(document) if as_json else _told(found, target))


def flash(
    image: Path, target: Target, block_map: Path | None = None, *, is_resumed: bool = False, progress: Progress
) -> Proof:
    """Write an image to a checked device.

    Raises:
        UsageError: The device cannot be opened.
        ImageError: See ``fleet.flash.card.write`` and ``fleet.flash.bmap.parse``.
    """
    blocks = bmap.parse(block_map) if block_map is not None else bmap.whole(_size(image))
    with BlockDevice(target.path) as medium:
        found = write(image, medium, blocks, is_resumed=is_resumed, progress=progress)
        medium.reread_partitions()
    return found


def _size(image: Path) -> int:
    try:
        with image.open("rb") as file:
            magic = file.read(6)
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(image)) from error
    if magic.startswith((b"\xfd7zXZ", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04")):
        fix = "strop flash image unpacks it and prepares the first boot"
        raise UsageError("is compressed: a board could not boot from it", where=str(image), fix=fix)
    if not size or size % 512:
        raise UsageError(f"has {size:,} bytes: no image of whole sectors", where=str(image), fix="fetch it again")
    return size


def _told(found: Proof, target: Target) -> str:
    left = found.mapped - found.written
    lines = [f"{found.image} is on {target}: {found.mapped / 1e6:.1f} MB read back and equal"]
    if left:
        lines.append(f"{left / 1e6:.1f} MB of them were there already")
    if found.mapped < found.size:
        lines.append(f"{(found.size - found.mapped) / 1e6:.1f} MB are free by the block map, and were not written")
    return "\n".join([*lines, f"sha256 of what was read back: {found.sha256}", "the card may be taken out"])


def _list(as_json: bool) -> None:
    rows = []
    for one in all_targets():
        try:
            check(one, 0)
            verdict = "may be written"
        except UsageError as error:
            verdict = f"{error.what}"
        rows.append(
            {
                "device": str(one.path),
                "gb": round(one.size / 1e9, 2),
                "model": one.model,
                "bus": one.bus,
                "verdict": verdict,
            }
        )
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        typer.echo(f"{row['device']:16}{row['gb']:>9} GB  {row['bus']:8}{row['model'] or '–':24} {row['verdict']}")
