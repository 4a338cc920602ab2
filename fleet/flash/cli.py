# SPDX-License-Identifier: Apache-2.0
"""``strop flash``: from a published image to a board that comes up in the fleet by itself."""

import datetime as dt
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_contract.errors import UsageError
from fleet.flash.batch_cmd import batch
from fleet.flash.card_cmd import card
from fleet.flash.wheelhouse_cli import wheelhouse

__all__ = ["app"]

app = typer.Typer(name="flash", help="Prepare images and cards, and check them.", no_args_is_help=True)
app.command("card")(card)
app.command("batch")(batch)
app.command("wheelhouse")(wheelhouse)


@app.command()
def image(
    base: Annotated[Path, typer.Argument(help="The image as it is published: .img, .img.xz, .img.zst, .img.gz.")],
    *,
    out: Annotated[Path, typer.Option(help="The new image.")],
    settings: Annotated[Path | None, typer.Option(help="site.toml; options come before it.")] = None,
    hostname: Annotated[str, typer.Option(help="The board's name.")] = "",
    user: Annotated[str, typer.Option(help="Login name of its administrator.")] = "",
    user_password_file: Annotated[
        Path | None, typer.Option(help="File with that user's password; or STROP_USER_PASSWORD in the environment.")
    ] = None,
    ssh_key: Annotated[list[Path] | None, typer.Option(help="File with public SSH keys; may be repeated.")] = None,
    ssh_password: Annotated[bool, typer.Option("--ssh-password", help="Allow the password over SSH.")] = False,
    wifi_ssid: Annotated[str, typer.Option(help="Name of a wireless network.")] = "",
    wifi_password_file: Annotated[
        Path | None, typer.Option(help="File with its passphrase; or STROP_WIFI_PASSWORD in the environment.")
    ] = None,
    wifi_country: Annotated[str, typer.Option(help="Two capitals, such as DE.")] = "",
    wifi_hidden: Annotated[bool, typer.Option("--wifi-hidden", help="The network does not tell its name.")] = False,
    locale: Annotated[str, typer.Option(help="Such as de_DE.UTF-8.")] = "",
    timezone: Annotated[str, typer.Option(help="Such as Europe/Berlin.")] = "",
    keyboard: Annotated[str, typer.Option(help="Such as de.")] = "",
    device: Annotated[str, typer.Option(help="Name in the fleet; the host name without it.")] = "",
    server: Annotated[str, typer.Option(help="The fleet's enrolment address, https://HOST:PORT.")] = "",
    token_file: Annotated[Path | None, typer.Option(help="File with the one-time enrolment token.")] = None,
    ca: Annotated[Path | None, typer.Option(help="The fleet's ca.crt, compared with the token.")] = None,
    wheelhouse: Annotated[Path | None, typer.Option(help="Folder of 'strop flash wheelhouse'.")] = None,
    factory: Annotated[Path | None, typer.Option(help="Bundle that answers before any network.")] = None,
    agent_toml: Annotated[Path | None, typer.Option(help="A whole agent.toml.")] = None,
    model: Annotated[str, typer.Option(help="Model of the agent; the factory model's without it.")] = "",
    coral: Annotated[bool, typer.Option("--coral", help="Install the udev rule of Coral sticks.")] = False,
    coral_package: Annotated[Path | None, typer.Option(help="Debian package of the Edge TPU's library.")] = None,
    first_boot: Annotated[
        str,
        typer.Option("--format", help="cloud-init, cloudinit-rpi, firstrun, custom.toml, rpi-preseed; found out else."),
    ] = "",
    ext4: Annotated[
        bool, typer.Option("--ext4", help="Put the agent's payload into the root file system, by debugfs.")
    ] = False,
    sha256: Annotated[str, typer.Option(help="Digest of the published file, or of the image inside.")] = "",
    sha256_file: Annotated[Path | None, typer.Option(help="File of sha256sum with that digest.")] = None,
    signature: Annotated[
        Path | None, typer.Option(help="minisign, ed25519 or OpenPGP signature of that file, or of the image.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Public key of who signed.")] = None,
    at: Annotated[str, typer.Option(help="Time of the files, ISO 8601, UTC; now without it.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Unpack and prove an image, and make it one board's; nothing needs root."""
    from fleet.flash.base import Checks
    from fleet.flash.making import make_image
    from fleet.flash.progress import shown
    from fleet.flash.settings import load

    given: dict[str, Any] = {
        "board.hostname": hostname,
        "board.user": user,
        "board.password_file": user_password_file,
        "board.ssh_keys": ssh_key,
        "board.ssh_password": ssh_password or None,
        "board.locale": locale,
        "board.timezone": timezone,
        "board.keyboard": keyboard,
        "wifi.ssid": wifi_ssid,
        "wifi.password_file": wifi_password_file,
        "wifi.country": wifi_country,
        "wifi.hidden": wifi_hidden or None,
        "fleet.device": device,
        "fleet.server": server,
        "fleet.token_file": token_file,
        "fleet.ca": ca,
        "agent.wheelhouse": wheelhouse,
        "agent.factory": factory,
        "agent.agent_toml": agent_toml,
        "agent.model": model,
        "agent.coral": coral or None,
        "agent.coral_package": coral_package,
        "image.format": first_boot,
        "image.ext4": ext4 or None,
    }
    site = load(settings, given)
    checks = Checks(sha256, sha256_file, signature, key)
    with shown(base, is_shown=sys.stderr.isatty() and not as_json) as heard:
        made = make_image(base, out, site, checks, when=_time(at), overwrite=overwrite, heard=heard)
    print(json.dumps(made.to_json(), indent=1) if as_json else made.to_text())


def _time(text: str) -> dt.datetime:
    if not text:
        return dt.datetime.now(dt.UTC).replace(microsecond=0)
    try:
        found = dt.datetime.fromisoformat(text)
        return found.astimezone(dt.UTC) if found.tzinfo else found.replace(tzinfo=dt.UTC)
    except ValueError as error:
        raise UsageError(f"'{text}' is no time", where="--at", fix="write 2026-11-21T12:00:00") from error


@app.command()
def unpack(
    base: Annotated[Path, typer.Argument(help="The image as it is published: .img, .img.xz, .img.zst, .img.gz.")],
    *,
    out: Annotated[Path, typer.Option(help="The new file.")],
    sha256: Annotated[str, typer.Option(help="Digest of the published file, or of the image inside.")] = "",
    sha256_file: Annotated[Path | None, typer.Option(help="File of sha256sum with that digest.")] = None,
    signature: Annotated[Path | None, typer.Option(help="Signature of that file, or of the image.")] = None,
    key: Annotated[Path | None, typer.Option(help="Public key of who signed.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Unpack and prove an image and change nothing: the base of a batch."""
    from fleet.flash import base as bases
    from fleet.flash.making import base_facts, check_out
    from fleet.flash.progress import shown
    from fleet.flash.streams import Source

    check_out(out, overwrite=overwrite)
    source = Source(base)
    with shown(base, is_shown=sys.stderr.isatty() and not as_json) as heard:
        done = bases.unpack(source, out, bases.Checks(sha256, sha256_file, signature, key), heard)
    facts = {"out": str(out), "size": done.size, **base_facts(source, done)}
    verified = ", ".join(done.verified) or "nothing: give --sha256 or --signature"
    print(json.dumps(facts, indent=1) if as_json else f"unpacked   {out}, {done.size} bytes\nverified   {verified}")


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="IMAGE|DEVICE", help="An image, or a card such as /dev/sdb.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read an image or a card back, and say what its board will do at the first boot; exit code 1 if it will not."""
    from fleet.flash.verify import look

    report = look(path)
    print(json.dumps(report.to_json(), indent=1, ensure_ascii=False) if as_json else report.to_text())
    raise typer.Exit(0 if not report.faults else 1)
