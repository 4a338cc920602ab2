# SPDX-License-Identifier: Apache-2.0
"""What the first-boot files of a card say, read from the files themselves and not from what was meant.

Files that Strop wrote are read as what they are: JSON, TOML, assignments at the head of a script. Others are YAML or
scripts that only a board can carry out; then there are no facts, and the reader says so.
"""

import json
import shlex
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from fleet.flash.cmdline import words_of
from fleet.flash.fat_reader import FatReader
from fleet.flash.formats import Format
from fleet.flash.render import BEGIN, CMDLINE, TRACES

__all__ = ["facts_of", "starts"]

_MOST: Final = 1 << 20
Facts = dict[str, Any]


def _text(boot: FatReader, name: str) -> str:
    return boot.read(name, most=_MOST).decode("utf-8") if boot.find(name) is not None else ""


def _cloud(boot: FatReader) -> Facts:
    head, _, body = _text(boot, "user-data").partition("\n")
    if head.strip() != "#cloud-config":
        raise ValueError("user-data does not begin with #cloud-config, so cloud-init ignores it")
    found = json.loads(body)
    user = (found.get("users") or [{}])[0]
    return {
        "hostname": found.get("hostname", ""),
        "user": user.get("name", ""),
        "password": bool(user.get("passwd")),
        "ssh_keys": len(user.get("ssh_authorized_keys", ())),
        "ssh_password": bool(found.get("ssh_pwauth")),
        **_cloud_network(boot),
        "locale": found.get("locale", ""),
        "timezone": found.get("timezone", ""),
        "keyboard": found.get("keyboard", {}).get("layout", ""),
        "begins": any(BEGIN in word for command in found.get("runcmd", ()) for word in command),
        "instance": str(json.loads(_text(boot, "meta-data") or "{}").get("instance-id", "")),
    }


def _cloud_network(boot: FatReader) -> Facts:
    text = _text(boot, "network-config")
    if not any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines()):
        return {"wifi": "", "wifi_open": False, "country": ""}
    wlan = json.loads(text)["network"].get("wifis", {}).get("wlan0", {})
    points = wlan.get("access-points", {})
    is_open = any("password" not in point for point in points.values())
    return {"wifi": next(iter(points), ""), "wifi_open": is_open, "country": wlan.get("regulatory-domain", "")}


def _toml(document: Mapping[str, Any]) -> Facts:
    user, ssh, wlan, speech = (document.get(name, {}) for name in ("user", "ssh", "wlan", "locale"))
    return {
        "hostname": document.get("system", {}).get("hostname", ""),
        "user": user.get("name", ""),
        "password": bool(user.get("password")),
        "ssh_keys": len(ssh.get("authorized_keys", ())),
        "ssh_password": bool(ssh.get("password_authentication")),
        "wifi": wlan.get("ssid", ""),
        "wifi_open": bool(wlan.get("ssid") and not wlan.get("password")),
        "country": wlan.get("country", ""),
        "locale": speech.get("lang", ""),
        "timezone": speech.get("timezone", ""),
        "keyboard": speech.get("keymap", ""),
        "begins": any(BEGIN in line for line in document.get("runcmd", {}).get("early", ())),
    }


def _assignments(text: str) -> dict[str, str]:
    """Return NAME=value of a script's head, as a shell would read them."""
    found: dict[str, str] = {}
    for word in shlex.split(text, comments=True):
        name, equals, value = word.partition("=")
        if equals and name.isidentifier() and name.isupper():
            found.setdefault(name, value)
    return found


def _script(boot: FatReader) -> Facts:
    text = _text(boot, "firstrun.sh")
    if "Written by strop flash" not in text:
        raise ValueError("firstrun.sh was not written by Strop")
    found = _assignments(text.split("FIRST=$(", 1)[0])
    ssid = next((line[5:] for line in found.get("WIFI", "").splitlines() if line.startswith("ssid=")), "")
    if ssid.endswith(";"):
        ssid = bytes(int(byte) for byte in ssid.split(";") if byte).decode("utf-8", "replace")
    return {
        "hostname": found.get("NAME", ""),
        "user": found.get("LOGIN", ""),
        "password": bool(found.get("HASH")),
        "ssh_keys": len(found.get("KEYS", "").splitlines()),
        "ssh_password": found.get("SSH_PASSWORD") == "yes",
        "wifi": ssid,
        "wifi_open": bool(ssid and "psk=" not in found.get("WIFI", "")),
        "country": found.get("COUNTRY", ""),
        "locale": found.get("LOCALE", ""),
        "timezone": found.get("ZONE", ""),
        "keyboard": found.get("KEYBOARD", ""),
        "begins": BEGIN in text,
    }


def facts_of(boot: FatReader, found: Format) -> Facts:
    """Return what a board will do by the files of its format; the keys of ``board_facts``, and ``begins``.

    Raises:
        ValueError: Files that are there and cannot be read; the text says which.
    """
    present = [name for name in TRACES[found] if boot.find(name) is not None]
    if not present:
        return {}
    try:
        if found in {Format.CLOUD_INIT, Format.CLOUD_INIT_RPI}:
            return _cloud(boot)
        if found is Format.FIRSTRUN:
            return _script(boot)
        if found is Format.RPI_PRESEED:
            return _toml(tomllib.loads(_text(boot, "rpi-preseed.toml")))
        facts = _toml(tomllib.loads(_text(boot, "custom.toml")))
        if boot.find("firstrun.sh") is not None:
            rest = _script(boot)
            facts.update(locale=rest["locale"], begins=rest["begins"])
        return facts
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        said = str(error) if "Strop" in str(error) or "#cloud" in str(error) else ""
        raise ValueError(said or f"{' and '.join(present)} cannot be read here: not written by Strop") from error


def starts(boot: FatReader, found: Format, mount: str, instance: str) -> list[str]:
    """Return what contradicts the start of a format on the kernel's command line."""
    if boot.find(CMDLINE) is None:
        return [] if found not in {Format.FIRSTRUN, Format.CUSTOM_TOML} else ["there is no cmdline.txt"]
    words = words_of(boot.read(CMDLINE, most=1 << 16))
    runs = [word for word in words if word.startswith("systemd.run=")]
    seeds = [word for word in words if word.startswith("ds=")]
    faults = []
    if boot.find("firstrun.sh") is not None and found in {Format.FIRSTRUN, Format.CUSTOM_TOML}:
        if runs != [f"systemd.run={mount}/firstrun.sh"]:
            faults.append(f"cmdline.txt starts {runs or 'nothing'} instead of {mount}/firstrun.sh")
    elif runs:
        faults.append(f"cmdline.txt starts {runs[0].split('=', 1)[1]}, which is not there")
    if instance and seeds and seeds != [f"ds=nocloud;i={instance}"]:
        faults.append("cmdline.txt and meta-data name different instances")
    if not any(word.startswith("root=") for word in words):
        faults.append("cmdline.txt names no root file system")
    return faults
