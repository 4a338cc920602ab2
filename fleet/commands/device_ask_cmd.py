# SPDX-License-Identifier: Apache-2.0
"""``strop fleet device ping|logs|diagnostics``: ask a device something and wait for its answer."""

import time
import zipfile
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from edge_contract.errors import StropError
from fleet.client import FleetClient, connect
from fleet.commands.options import Data, Json, Server, TokenFile, print_answer
from fleet.core.commands import last_lines

__all__ = ["diagnostics", "logs", "parts_of", "ping"]

Device = Annotated[str, typer.Argument(metavar="DEVICE")]
_LOOK_S: Final = 0.1


def _ask(client: FleetClient, name: str, kind: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the answered command; the server says in words why there is no answer."""
    asked = client.call("POST", f"/devices/{name}/commands/{kind}", document or {})
    while True:
        found: dict[str, Any] = client.call("GET", f"/devices/{name}/commands/{asked['id']}")
        if found["state"] == "done" and found.get("complete", True):
            return found
        if found["state"] in ("failed", "timed out"):
            raise StropError(found["why"], where=f"device {name}")
        time.sleep(_LOOK_S)


def ping(
    name: Device, data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Measure the round trip from the server through the broker to a device's agent and back."""
    found = _ask(connect(data, server, token_file), name, "ping")
    ahead = found.get("clock_ahead_s")
    clock = f"; its clock is {abs(ahead):.1f} s {'ahead' if ahead >= 0 else 'behind'}" if ahead is not None else ""
    print_answer(found, as_json, f"{name} answered in {1000 * found['round_trip_s']:.0f} ms{clock}")


def logs(
    name: Device,
    lines: Annotated[int, typer.Option(help="Newest lines of each log.")] = 200,
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Fetch the newest lines of a device's logs; secrets are taken out on the device."""
    client = connect(data, server, token_file)
    found = _ask(client, name, "logs", {"lines": lines})
    text = last_lines(client.fetch(f"/devices/{name}/commands/{found['id']}/text").decode(), lines)
    print_answer({**found, "text": text}, as_json, text)


def diagnostics(
    name: Device,
    out: Annotated[Path, typer.Option(help="The .zip to write.")],
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Fetch what helps to find a fault: status, versions, settings and logs, without secrets."""
    client = connect(data, server, token_file)
    found = _ask(client, name, "diagnostics")
    parts = parts_of(client.fetch(f"/devices/{name}/commands/{found['id']}/text").decode())
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    print_answer({**found, "out": str(out), "files": sorted(parts)}, as_json, f"wrote {', '.join(parts)} to {out}")


def parts_of(text: str) -> dict[str, str]:
    r"""Return file name → content of a device's diagnostics; a name that is no plain name is not taken.

    Example:
        >>> parts_of('{"status": 1}\n== agent.log\nline\n== ../x\nline')
        {'diagnostics.json': '{"status": 1}\n', 'logs/agent.log': 'line\n== ../x\nline\n'}
    """
    found = {"diagnostics.json": ""}
    here = "diagnostics.json"
    for line in text.splitlines():
        name = line.removeprefix("== ")
        is_head = line.startswith("== ") and name == Path(name).name and name.endswith(".log")
        if is_head:
            here = f"logs/{name}"
            found.setdefault(here, "")
        else:
            found[here] += f"{line}\n"
    return found
