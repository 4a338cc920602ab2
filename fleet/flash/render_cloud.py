# SPDX-License-Identifier: Apache-2.0
"""The three files that cloud-init reads from the boot partition: ``user-data``, ``meta-data``, ``network-config``.

They are written as JSON, which is YAML too: nothing has to be quoted twice, and ``strop flash verify`` reads them
back with the standard library. Keys: cloud-init's documentation, "Module reference" and "Networking config Version 2".
On Raspberry Pi's images the network is netplan with NetworkManager; a 64-digit password there is a derived key.
"""

import json
from typing import Any, Final

from fleet.flash.customisation import Customisation, Wifi

__all__ = ["GROUPS", "meta_data", "network_config", "user_data"]

GROUPS: Final = ("adm", "audio", "cdrom", "dialout", "games", "netdev", "plugdev", "render", "sudo", "users", "video")
HEAD: Final = b"#cloud-config\n"


def _yaml(value: Any) -> bytes:
    # Letters outside ASCII stay as they are: YAML would read JSON's surrogate pairs as two letters.
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _user(wanted: Customisation) -> dict[str, Any]:
    user: dict[str, Any] = {
        "name": wanted.user,
        "groups": list(GROUPS),
        "shell": "/bin/bash",
        "sudo": "ALL=(ALL:ALL) ALL" if wanted.password_hash else "ALL=(ALL:ALL) NOPASSWD:ALL",
        "lock_passwd": not wanted.password_hash,
    }
    if wanted.password_hash:
        user["passwd"] = wanted.password_hash
    if wanted.ssh_keys:
        user["ssh_authorized_keys"] = list(wanted.ssh_keys)
    return user


def user_data(wanted: Customisation, commands: list[list[str]]) -> bytes:
    """Return ``user-data``.

    Args:
        wanted: The board.
        commands: What is run once as root at the end of the first boot, word by word.
    """
    document: dict[str, Any] = {"hostname": wanted.hostname, "manage_etc_hosts": True, "manage_resolv_conf": False}
    if wanted.user:
        document["users"] = [_user(wanted)]
        document["ssh_pwauth"] = wanted.ssh_password
    if wanted.locale:
        document["locale"] = wanted.locale
    if wanted.timezone:
        document["timezone"] = wanted.timezone
    if wanted.keyboard:
        document["keyboard"] = {"layout": wanted.keyboard}
    ssh = [["systemctl", "enable", "--now", "ssh"]] if wanted.has_ssh else []
    if ssh or commands:
        document["runcmd"] = ssh + commands
    return HEAD + _yaml(document)


def meta_data(wanted: Customisation, instance: str) -> bytes:
    """Return ``meta-data``; an instance id that is new on every card makes cloud-init begin anew."""
    return _yaml({"dsmode": "local", "instance-id": instance, "local-hostname": wanted.hostname})


def network_config(wifi: Wifi) -> bytes:
    """Return ``network-config`` of a wireless network; the cable goes on working by DHCP."""
    point: dict[str, Any] = {"password": wifi.key} if wifi.key else {"auth": {"key-management": "none"}}
    if wifi.is_hidden:
        point["hidden"] = True
    wlan = {
        "dhcp4": True,
        "optional": True,
        "regulatory-domain": wifi.country,
        "access-points": {wifi.ssid: point},
    }
    cable = {"dhcp4": True, "dhcp6": True, "optional": True}
    return _yaml({"network": {"version": 2, "ethernets": {"eth0": cable}, "wifis": {"wlan0": wlan}}})
