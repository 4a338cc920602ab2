# SPDX-License-Identifier: Apache-2.0
"""``strop fleet enrol …``: tokens for new devices, one by one or for a whole shipment."""

import csv
import io
import time
import urllib.parse
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_contract import durable
from edge_contract.errors import UsageError
from fleet.client import connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer, table
from fleet.core.groups import read_words

__all__ = ["enrol"]

enrol = typer.Typer(help="Enrolment tokens for new devices.", no_args_is_help=True)


@enrol.command("new")
def enrol_new(
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    ttl_s: Annotated[float, typer.Option(help="Life of a token in seconds.")] = 86_400.0,
    count: Annotated[int, typer.Option(help="How many, each for one device.")] = 1,
    out: Annotated[Path | None, typer.Option(help="A .csv to write them to; only its owner can read it.")] = None,
    batch: Annotated[str, typer.Option(help="A name by which they are listed and taken back together.")] = "",
    name: Annotated[str, typer.Option(help="The only name a token enrols: cam-*, or cam-{n:3} for one each.")] = "",
    site: Annotated[str, typer.Option(help="The label site of the devices.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="A label NAME=VALUE or a tag NAME of the devices.")] = None,
    as_json: Json = False,
) -> None:
    """Print one-time tokens, or write them to a file; their text is told this once."""
    labels = {**read_words(tag or []), **({"site": site} if site else {})}
    document = {"ttl_s": ttl_s, "count": count, "batch": batch, "name": name, "labels": labels}
    answer = connect(data, server, token_file).call("POST", "/tokens", document)
    text = "\n".join(one["token"] for one in answer["tokens"])
    if out is not None:
        _write(out, answer["tokens"])
        text = f"wrote {len(answer['tokens'])} tokens to {out}"
    print_answer(answer, as_json, text)


def _write(out: Path, tokens: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "name", "labels", "expires", "token"])
    for one in tokens:
        labels = " ".join(f"{n}={v}" if v else n for n, v in one["labels"].items())
        writer.writerow([one["id"], one["name"], labels, _day(one["expires_at"]), one["token"]])
    try:
        durable.write(out, text.getvalue().encode(), mode=durable.PRIVATE)
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", where=str(out)) from error


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


@enrol.command("list")
def enrol_list(
    batch: Annotated[str, typer.Option(help="Of one batch only.")] = "",
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """List tokens without their secrets: open, used by which device, expired, or taken back."""
    found = connect(data, server, token_file).call("GET", f"/tokens?{urllib.parse.urlencode({'batch': batch})}")
    rows = [["TOKEN", "STATE", "UNTIL", "BATCH", "NAME", "DEVICE"]]
    for one in found:
        until = _day(one["expires_at"])
        rows.append([one["id"], one["state"], until, one["batch"] or "–", one["name"] or "any", one["device"] or "–"])
    print_answer(found, as_json, table(rows) if found else "no token yet")


@enrol.command("revoke")
def enrol_revoke(
    name: Annotated[str, typer.Argument(metavar="TOKEN|BATCH", help="A token's id, or a batch's name.")],
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Take back a token, or all open ones of a batch; devices that they enrolled stay."""
    answer = connect(data, server, token_file).call("DELETE", f"/tokens/{name}")
    print_answer(answer, as_json, f"took back {answer['revoked']} tokens")
