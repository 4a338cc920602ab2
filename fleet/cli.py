# SPDX-License-Identifier: Apache-2.0
"""``strop fleet``: serve, and everything an operator does. Thin: parse, call one function, print."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from fleet.commands.alert_cmd import alert
from fleet.commands.backup_cmd import backup, restore
from fleet.commands.bench_cmd import bench
from fleet.commands.broker_cmd import broker as broker_group
from fleet.commands.capture_cmd import capture
from fleet.commands.device_cmd import device
from fleet.commands.drift_cmd import drift
from fleet.commands.enrol_cmd import enrol
from fleet.commands.group_cmd import groups
from fleet.commands.ingest_cmd import dead_letters, retention
from fleet.commands.look_cmd import audit
from fleet.commands.model_cmd import model
from fleet.commands.options import Json, print_answer
from fleet.commands.release_cmd import channel
from fleet.commands.rollout_cmd import rollout
from fleet.commands.trust_cmd import keys, trust
from fleet.commands.user_cmd import api_token, user
from fleet.commands.version_cmd import rules
from fleet.commands.worker_cmd import worker

__all__ = ["app"]

app = typer.Typer(name="fleet", help="Run the fleet server and operate the fleet.", no_args_is_help=True)
GROUPS = {
    "enrol": enrol,
    "device": device,
    "group": groups,
    "model": model,
    "channel": channel,
    "rules": rules,
    "rollout": rollout,
    "keys": keys,
    "capture": capture,
    "bench": bench,
    "dead-letters": dead_letters,
    "retention": retention,
    "alert": alert,
    "drift": drift,
    "user": user,
    "api-token": api_token,
    "broker": broker_group,
}
for name, group in GROUPS.items():
    app.add_typer(group, name=name)
for verb in (trust, worker, audit, backup, restore):
    app.command()(verb)

Port = Annotated[int | None, typer.Option(help="0 takes any free port.")]


@app.command()
def init(data: Annotated[Path, typer.Option("--data", help="New data folder.")], as_json: Json = False) -> None:
    """Make a data folder: CA, online TUF key, job key and the operator's token."""
    from fleet.adapters.credentials import init as make

    made = make(data, now=time.time())
    online = data / "tuf" / "online.pub"
    said = "made" if made else "nothing to do in"
    text = f"{said} {data}\nnext, on the workstation: strop export keys init KEYS --online {online}"
    print_answer({"data": str(data), "made": made, "online_public": str(online)}, as_json, text)


@app.command()
def serve(
    *,
    data: Annotated[Path, typer.Option("--data", help="Data folder; made if new.")],
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    public_host: Annotated[str | None, typer.Option(help="Name by which devices reach this machine.")] = None,
    http_port: Port = None,
    device_port: Port = None,
    enrol_port: Port = None,
    mqtt_port: Port = None,
    allow_remote_http: Annotated[
        bool | None, typer.Option("--allow-remote-http", help="Let the plain operator listener leave this machine.")
    ] = None,
    page_tls: Annotated[
        bool | None, typer.Option("--page-tls", help="Speak TLS on the operator listener, by the fleet's own CA.")
    ] = None,
    open_viewing: Annotated[
        bool | None, typer.Option("--open-viewing", help="Let everybody on this machine look without a login.")
    ] = None,
    database: Annotated[str | None, typer.Option(help="postgresql://…; SQLite in the data folder without it.")] = None,
    broker: Annotated[
        str | None, typer.Option(help="mqtts://HOST:PORT of a broker that others run, its nodes with commas.")
    ] = None,
    device_broker: Annotated[str | None, typer.Option(help="HOST:PORT of that broker for devices.")] = None,
    ingest: Annotated[
        bool | None, typer.Option("--ingest/--no-ingest", help="Take telemetry here; not if workers do.")
    ] = None,
    log_format: Annotated[str, typer.Option(help="text, or json: one object a line.")] = "text",
    as_json: Json = False,
) -> None:
    """Run the server, with its own mosquitto unless --broker names another, until SIGTERM or Ctrl-C."""
    from fleet.adapters.logs import configure
    from fleet.config import Endpoints, load_config

    configure(log_format)
    config = load_config(
        data,
        host=host,
        public_host=public_host,
        http_port=http_port,
        device_port=device_port,
        enrol_port=enrol_port,
        mqtt_port=mqtt_port,
        allow_remote_http=allow_remote_http,
        page_tls=page_tls,
        open_viewing=open_viewing,
        database=database,
        broker=broker,
        device_broker=device_broker,
        ingest=ingest,
    )
    from fleet.app import serve as run  # after the settings were read: it loads much

    def ready(found: Endpoints) -> None:
        text = (
            f"pages    {found.http}\nenrol    {found.enrol}\ndevices  {found.device}\n"
            f"broker   {found.broker_host}:{found.broker_port}\ntoken    {data / 'operator.token'}"
        )
        first = f"{found.http}/invite/{found.first_admin}" if found.first_admin else ""
        text += f"\nadmin    {first} (once, within a day)" if first else ""
        print_answer({**found.to_json(), "first_admin": first}, as_json, text)
        sys.stdout.flush()

    run(data, config, ready)
