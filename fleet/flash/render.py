# SPDX-License-Identifier: Apache-2.0
"""From a board's wishes to the files of one first-boot format, by their path on the boot partition."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fleet.flash import cmdline, render_cloud, render_script, render_toml
from fleet.flash.customisation import Customisation
from fleet.flash.formats import Detected, Format
from fleet.flash.payload import Payload

__all__ = ["BEGIN", "CMDLINE", "ON_ROOT", "TRACES", "render"]

BEGIN: Final = "strop/first-boot.sh"
CMDLINE: Final = "cmdline.txt"
ON_ROOT: Final = "/var/lib/strop-card"
"""Where the payload lies on the board if it is put into the root file system."""
TRACES: Final[Mapping[Format, tuple[str, ...]]] = {
    Format.CLOUD_INIT: ("user-data", "meta-data", "network-config"),
    Format.CLOUD_INIT_RPI: ("user-data", "meta-data", "network-config"),
    Format.FIRSTRUN: ("firstrun.sh",),
    Format.CUSTOM_TOML: ("custom.toml",),
    Format.RPI_PRESEED: ("rpi-preseed.toml",),
}
"""The files by which each format is read."""

Files = dict[str, bytes | Path]


def _cloud(found: Detected, wanted: Customisation, instance: str, line: bytes | None, begin: str) -> Files:
    commands = [["sh", begin]] if begin else []
    files: Files = {
        "user-data": render_cloud.user_data(wanted, commands),
        "meta-data": render_cloud.meta_data(wanted, instance),
    }
    if wanted.wifi is not None:
        files["network-config"] = render_cloud.network_config(wanted.wifi)
    if line is not None:  # rpi-imager's note: without it the data source is looked for again at every start
        files[CMDLINE] = cmdline.changed(line, ["ds="], [f"ds=nocloud;i={instance}"])
    return files


def _scripted(found: Detected, wanted: Customisation, line: bytes, begin: str) -> Files:
    """Return the files of an image that runs ``firstrun.sh``, with ``custom.toml`` for what that can say if wanted."""
    is_toml = found.format is Format.CUSTOM_TOML
    files: Files = {"custom.toml": render_toml.custom_toml(wanted)} if is_toml else {}
    if is_toml and not begin and not wanted.locale:
        return files
    script = render_script.firstrun(wanted, found.mount, begin, only_rest=is_toml)
    words = render_script.command_words(found.mount)
    return {**files, "firstrun.sh": script, CMDLINE: cmdline.changed(line, render_script.DROPPED, words)}


def render(
    found: Detected, wanted: Customisation, payload: Payload, *, instance: str, line: bytes | None, home: str = ""
) -> Mapping[str, bytes | Path]:
    """Return what is written on the boot partition, by path.

    Args:
        found: The format of the image, and where the board mounts its boot partition.
        wanted: The board.
        payload: What the agent's first boot needs.
        instance: An id that no other card has.
        line: The image's ``cmdline.txt``; None if it has none.
        home: Where the payload lies on the board; empty: on the boot partition.

    Example:
        >>> found = Detected(Format.RPI_PRESEED, "/boot/firmware", ())
        >>> files = render(found, Customisation("cam-7"), Payload(), instance="i", line=None)
        >>> print(files["rpi-preseed.toml"].decode(), end="")
        config_version = "1.0"
        <BLANKLINE>
        [system]
        hostname = "cam-7"
    """
    begin = f"{home or found.mount}/{BEGIN}" if payload.first_boot else ""
    files: Files = dict(payload.files)
    if begin:
        files[BEGIN] = render_script.begin_script(payload.first_boot)
    if found.format in {Format.CLOUD_INIT, Format.CLOUD_INIT_RPI}:
        return {**files, **_cloud(found, wanted, instance, line, begin)}
    if found.format is Format.RPI_PRESEED:
        commands = [f"sh {begin}"] if begin else []
        return {**files, "rpi-preseed.toml": render_toml.preseed_toml(wanted, commands)}
    return {**files, **_scripted(found, wanted, line or b"", begin)}
