# SPDX-License-Identifier: Apache-2.0
"""``strop fleet capture``: ask devices for inputs, look at what came, open it, delete it. Thin: parse, call, print."""

import time
from pathlib import Path
from typing import Annotated

import typer

from edge_contract.errors import UsageError
from fleet.client import connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer

__all__ = ["capture"]

capture = typer.Typer(help="Opt-in campaigns that bring raw inputs from devices.", no_args_is_help=True)

Campaign = Annotated[str, typer.Argument(metavar="CAMPAIGN")]


@capture.command("start")
def start(
    devices: Annotated[list[str], typer.Argument(metavar="DEVICE...", help="Whose inputs.")],
    *,
    hours: Annotated[float, typer.Option(help="After so many hours everything is forgotten.")],
    model: Annotated[str, typer.Option(help="Of this model only.")] = "",
    random: Annotated[float, typer.Option(help="Share of all inputs, 0 to 1.")] = 0.0,
    low_confidence: Annotated[float, typer.Option(help="What is answered with less confidence.")] = 0.0,
    drifted: Annotated[bool, typer.Option("--drifted", help="While the drift verdict is an alarm.")] = False,
    disagreeing: Annotated[bool, typer.Option("--disagreeing", help="Where the shadow answers otherwise.")] = False,
    max_samples: Annotated[int, typer.Option(help="Most samples of each device.")] = 200,
    max_mb: Annotated[float, typer.Option(help="Most megabytes of each device.")] = 50.0,
    own_key: Annotated[
        Path | None, typer.Option(help="New file for a private key that stays here; the server gets the public half.")
    ] = None,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Ask devices to keep inputs, seal them to a new key, and send them; each device's owner must have allowed it."""
    policy = {"random": random, "low_confidence": low_confidence, "drifted": drifted, "disagreeing": disagreeing}
    document = {"devices": devices, "model": model, "policy": policy, "max_samples": max_samples, "hours": hours}
    document["max_bytes"] = int(max_mb * 1_000_000)
    if own_key is not None:
        from fleet.adapters.unsealing import new_key

        document["public_key"] = new_key(own_key)
    answer = connect(data, server, token_file).call("POST", "/captures", document)
    print_answer(answer, as_json, f"campaign {answer['id']} on {len(answer['devices'])} devices")


@capture.command("list")
def list_(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """List campaigns, newest first."""
    found = connect(data, server, token_file).call("GET", "/captures")
    lines = [
        f"{one['id']}  {'live ' if one['live'] else 'ended'}  until {_day(one['expires_at'])}  "
        f"{one['samples']} samples, {one['bytes']} bytes of {len(one['devices'])} devices"
        for one in found
    ]
    print_answer(found, as_json, "\n".join(lines) or "no campaign yet")


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


@capture.command("collect")
def collect(
    name: Campaign, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Let devices send now what they hold; by themselves they do it every 15 minutes."""
    answer = connect(data, server, token_file).call("POST", f"/captures/{name}/collect")
    print_answer(answer, as_json, f"{len(answer['devices'])} devices of {name} were asked")


@capture.command("stop")
def stop(
    name: Campaign, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Ask for no more; devices forget what they have not sent yet."""
    answer = connect(data, server, token_file).call("POST", f"/captures/{name}/stop")
    print_answer(answer, as_json, f"campaign {name} is stopped")


@capture.command("export")
def export(
    name: Campaign,
    out: Annotated[Path, typer.Option(help="The .npz to write.")],
    *,
    key: Annotated[Path | None, typer.Option(help="The campaign's key, if not in the data folder.")] = None,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Open every sample with the campaign's key and write one .npz."""
    from fleet.adapters.unsealing import load_key, unseal, write_npz

    if key is None and data is None:
        raise UsageError("name the campaign's key", where="strop fleet capture export", fix="pass --key or --data")
    private = load_key(key or Path(str(data)) / "captures" / f"{name}.key")
    client = connect(data, server, token_file)
    rows = client.call("GET", f"/captures/{name}/samples")
    where = f"/captures/{name}/samples"
    opened = (unseal(client.fetch(f"{where}/{row['device']}/{row['number']}"), private) for row in rows)
    count = write_npz(out, opened)
    print_answer({"samples": count, "out": str(out)}, as_json, f"wrote {count} samples to {out}")


@capture.command("delete")
def delete(
    name: Campaign, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Delete key, samples and rows of a campaign; the proof stands in the audit log."""
    answer = connect(data, server, token_file).call("DELETE", f"/captures/{name}")
    text = f"deleted {answer['samples']} samples and the key; digest of what they were: {answer['samples_sha256'][:16]}"
    print_answer(answer, as_json, text)
