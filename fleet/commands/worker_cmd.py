# SPDX-License-Identifier: Apache-2.0
"""``strop fleet worker``: a process that takes telemetry beside the server."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fleet.commands.options import Json, print_answer

__all__ = ["worker"]


def worker(
    *,
    data: Annotated[Path, typer.Option("--data", help="The server's data folder, or a copy of its ca and blobs.")],
    database: Annotated[str | None, typer.Option(help="postgresql://…; SQLite in the data folder without it.")] = None,
    broker: Annotated[
        str, typer.Option(help="HOST:PORT of a server's own broker, or the URL of another; as the server without it.")
    ] = "",
    log_format: Annotated[str, typer.Option(help="text, or json: one object a line.")] = "text",
    as_json: Json = False,
) -> None:
    """Take telemetry from the broker's shared subscription until SIGTERM or Ctrl-C; start as many as you like."""
    from fleet.adapters.logs import configure
    from fleet.config import load_config
    from fleet.core.broker_url import read_urls
    from fleet.worker import WorkerPlace, work

    configure(log_format)
    config = load_config(data, database=database, broker=_url(broker))
    named = config if config.broker and (not broker or _url(broker)) else None
    host, port = read_urls(config.broker).addresses[0] if named else _address(broker, data)
    files, rate = (config.blobs, config.blobs_endpoint), config.false_alarms_per_device_year
    place = WorkerPlace(data, config.database, config.tenant, (host, port), *files, named, rate)

    def ready() -> None:
        print_answer({"broker": f"{host}:{port}", "state": "ready"}, as_json, f"broker   {host}:{port}\nready")
        sys.stdout.flush()

    work(place, ready)


def _url(text: str) -> str | None:
    return text if "://" in text else None


def _address(text: str, data: Path) -> tuple[str, int]:
    from edge_contract.errors import UsageError
    from fleet.config import read_endpoints

    if not text:
        found = read_endpoints(data)
        return found.broker_host, found.broker_port
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"{text!r} is not HOST:PORT", where="--broker")
    return host.strip("[]"), int(port)
