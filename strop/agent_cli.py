# SPDX-License-Identifier: Apache-2.0
"""``strop agent`` with the one verb that needs the workstation's side, too: the agent itself may not import that."""

from pathlib import Path
from typing import Annotated

import typer

from edge_agent.cli import app
from edge_contract.errors import MissingDependencyError

__all__ = ["app", "install"]


@app.command()
def install(
    ssh: Annotated[str, typer.Option("--ssh", help="user@host, or a name of your ssh configuration.")] = "",
    device: Annotated[str, typer.Option(help="Name of the device.")] = "",
    server: Annotated[str, typer.Option(help="The fleet server's enrolment address; left out: it stays alone.")] = "",
    token_file: Annotated[
        Path | None, typer.Option(help="File with the one-time token; else the environment's STROP_TOKEN.")
    ] = None,
    factory: Annotated[Path | None, typer.Option(help="Bundle that answers at once.")] = None,
    wheelhouse: Annotated[Path | None, typer.Option(help="Of 'strop flash wheelhouse'; else it is made.")] = None,
    runtime: Annotated[str, typer.Option(help="litert, onnxruntime or tflite-runtime.")] = "litert",
    agent_toml: Annotated[Path | None, typer.Option(help="A whole agent.toml; else a first one is written.")] = None,
    ca: Annotated[Path | None, typer.Option(help="The server's ca.crt, to be compared with the token.")] = None,
    model: Annotated[str, typer.Option(help="Name of its model; else the factory model's.")] = "",
    coral: Annotated[bool, typer.Option("--coral", help="Install the udev rule of Coral sticks.")] = False,
    ssh_config: Annotated[Path | None, typer.Option(help="Another ssh configuration file.")] = None,
    print_script: Annotated[
        bool, typer.Option("--print-script", help="Print a script for boards that fetch --archive from --url.")
    ] = False,
    archive: Annotated[Path | None, typer.Option(help="With --print-script: the archive to write.")] = None,
    url: Annotated[str, typer.Option(help="With --print-script: where boards will find the archive.")] = "",
    root: Annotated[str, typer.Option(help="Set up a system that begins there.", hidden=True)] = "/",
) -> None:
    """Install the agent on a running board over OpenSSH, offline, and enrol it; run it again to go on."""
    try:
        from fleet.flash.payload import Settings
        from strop.install import command
    except ModuleNotFoundError as error:  # a board's wheelhouse leaves the server's packages out
        raise MissingDependencyError("this runs on a workstation", fix="pip install strop there") from error
    from strop.install.remote import Remote

    if print_script:
        settings = Settings("", server=server, factory=factory, ca=ca, model=model, coral=coral, is_generic=True)
        typer.echo(command.printed(settings, wheelhouse, archive, url), nl=False)
        return
    remote = Remote(ssh, ssh_config)
    token = command.token_file(token_file) if server else None
    settings = Settings(
        device, server=server, token=token, factory=factory, agent_toml=agent_toml, ca=ca, model=model, coral=coral
    )
    wish = command.Wish(settings, runtime=runtime, wheelhouse=wheelhouse, root=root)
    try:
        code = command.install(remote, wish, lambda line: typer.echo(line, err=True))
    finally:
        if token is not None and token_file is None:
            token.unlink(missing_ok=True)
    raise typer.Exit(code)
