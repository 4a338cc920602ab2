# SPDX-License-Identifier: Apache-2.0
"""``strop fleet broker``: a broker that others run: what it needs from us, and whether it does what we need."""

import time
from pathlib import Path
from typing import Annotated

import typer

from fleet.commands.options import Json, print_answer

__all__ = ["broker"]

broker = typer.Typer(name="broker", help="A broker that others run: its files, and a check.", no_args_is_help=True)

Data = Annotated[Path, typer.Option("--data", help="The server's data folder.", envvar="STROP_FLEET_DATA")]


@broker.command()
def files(
    out: Annotated[Path, typer.Argument(help="Folder for CA, certificate, revocations and access lists.")],
    *,
    data: Data,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="Name or address of the broker, once for each; makes its pair.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write what the broker needs to know the fleet's devices; call it again to bring it the newest revocations."""
    from fleet.adapters.broker_files import write_files
    from fleet.config import load_config

    made = write_files(data, out, load_config(data).tenant, name or [], now=time.time())
    text = "\n".join(map(str, made)) + "\nbroker.key proves the broker to every device: keep it where nobody else reads"
    print_answer({"files": [str(path) for path in made]}, as_json, text)


@broker.command()
def check(
    *,
    data: Data,
    url: Annotated[
        str | None, typer.Option("--broker", help="mqtts://HOST:PORT; that of fleet.toml without it.")
    ] = None,
    device_broker: Annotated[str | None, typer.Option(help="HOST:PORT of that broker for devices.")] = None,
    as_json: Json = False,
) -> None:
    """Try out what a broker offers: QoS 1, retained, wildcards, large messages, shared subscriptions."""
    from edge_contract.errors import UsageError
    from fleet.adapters.external_broker import ExternalBroker, login
    from fleet.config import load_config

    config = load_config(data, broker=url, device_broker=device_broker)
    if not config.broker:
        raise UsageError("no broker by URL is named", where=str(data), fix="give --broker mqtts://HOST:PORT")
    offer = ExternalBroker(config, login(config, data / "ca")).start()
    workers = "yes" if offer.shared else "no: leave telemetry to the server (ingest = true)"
    print_answer(
        offer.to_json(),
        as_json,
        f"{config.broker} speaks MQTT {offer.version} and does all that is needed\nworkers: {workers}",
    )
