# SPDX-License-Identifier: Apache-2.0
"""``strop flash batch``: a list of devices becomes images, or one card after the other, and labels to print."""

import datetime as dt
import hashlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_contract.errors import UsageError
from fleet.flash import labels
from fleet.flash.batch import Journal, Maker, made_from
from fleet.flash.card_cmd import flash
from fleet.flash.progress import stages
from fleet.flash.roster import Row, read
from fleet.flash.settings import load
from fleet.flash.targets import MOST_BYTES, check, find

__all__ = ["batch"]


def batch(
    devices: Annotated[Path, typer.Argument(help="The list: name, token …; what strop fleet enrol new --out writes.")],
    base: Annotated[Path, typer.Option(help="An unpacked base image.")],
    out: Annotated[Path, typer.Option(help="Folder for images, batch.json and labels.html.")],
    settings: Annotated[Path | None, typer.Option(help="site.toml: what all cards have in common.")] = None,
    card: Annotated[Path | None, typer.Option(help="Write cards in this device, one after the other.")] = None,
    erase: Annotated[str, typer.Option(help="The card device's name once more, such as sdb.")] = "",
    allow_loop: Annotated[bool, typer.Option("--allow-loop", help="Take a loop device for a card.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not wait for the next card: something else changes them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make an image or a card for every device of a list; the same command goes on where it was interrupted."""
    rows = read(devices, now=dt.datetime.now(dt.UTC))
    facts = _facts(base)
    site = load(settings, {"board.hostname": rows[0].name, "fleet.device": rows[0].name})
    maker = Maker(base, site, facts, dt.datetime.now(dt.UTC).replace(microsecond=0, tzinfo=None))
    out.mkdir(parents=True, exist_ok=True)
    journal = Journal(out / "batch.json", made_from(facts, settings, (row.name for row in rows)))
    (out / "labels.html").write_text(labels.page(rows, title=devices.name), encoding="utf-8")
    if card is not None and erase != card.resolve().name:
        raise UsageError(
            f"every card that is put into {card} would be erased", fix=f"add --erase {card.resolve().name}"
        )
    todo = [row for row in rows if row.name not in journal.done]
    for number, row in enumerate(todo, len(rows) - len(todo) + 1):
        _say(as_json, f"{number} of {len(rows)}: {row.name}")
        found = _image(maker, row, out) if card is None else _card(maker, row, out, card, allow_loop, yes, as_json)
        journal.add(row.name, found)
    if as_json:
        typer.echo(json.dumps({"devices": len(rows), "made": len(todo), "done": journal.done}))
        return
    typer.echo(f"{len(rows)} devices, {len(todo)} of them made now; labels to print: {out / 'labels.html'}")


def _say(as_json: bool, words: str) -> None:
    if not as_json:
        typer.echo(words, err=True)


def _facts(base: Path) -> dict[str, Any]:
    """Return name, size and digest of the base image; read once for all cards."""
    try:
        with base.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"name": base.name, "bytes": file.tell(), "sha256": digest}
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(base)) from error


def _image(maker: Maker, row: Row, out: Path) -> dict[str, Any]:
    image = out / f"{row.name}.img"
    return {**maker.make(row, image), "image": image.name}


def _card(
    maker: Maker, row: Row, out: Path, device: Path, allow_loop: bool, yes: bool, as_json: bool
) -> dict[str, Any]:
    """Make a working copy, write it to the card in the reader, and remove it: it holds a token."""
    working = out / f"{row.name}.img.working"
    try:
        made = maker.make(row, working)
        while True:
            if not yes:
                typer.prompt(
                    f"put the card for {row.name} into {device} and press Enter", default="", show_default=False
                )
            try:
                target = find(device)
                check(target, working.stat().st_size, most=MOST_BYTES, is_loop_allowed=allow_loop)
                break
            except UsageError as error:
                if yes:
                    raise
                typer.echo(f"{error}", err=True)
        with stages(is_shown=sys.stderr.isatty() and not as_json) as progress:
            proof = flash(working, target, progress=progress)
    finally:
        working.unlink(missing_ok=True)
    return {**made, **proof.to_json(), "device": str(target.path), "serial": target.serial}
