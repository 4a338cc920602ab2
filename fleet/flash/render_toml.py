# SPDX-License-Identifier: Apache-2.0
r"""The two TOML formats of Raspberry Pi: ``custom.toml`` (Bookworm) and ``rpi-preseed.toml`` (2026).

Keys of the first: raspberrypi-sys-mods, ``init_config``, config_version 1. Of the second: rpi-preseed,
``schema/rpi-preseed.schema`` and ``doc/rpi-preseed.5``. The reader of the second is a shell script that knows two
escapes in a string, ``\\`` and ``\"``, so text is written with those alone and must be printable.
"""

from collections.abc import Mapping, Sequence

from edge_contract.errors import UsageError
from fleet.flash.customisation import Customisation

__all__ = ["custom_toml", "preseed_toml"]

Value = str | bool | int | Sequence[str]


def _text(value: str) -> str:
    if not value.isprintable():
        raise UsageError(f"{value[:40]!r} has letters that cannot be written", fix="use printable letters")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _text(value)
    return "[" + ", ".join(_text(one) for one in value) + "]"


def _document(version: str, sections: Mapping[str, Mapping[str, Value]]) -> bytes:
    lines = [f"config_version = {version}"]
    for name, values in sections.items():
        if values:
            lines += ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in values.items())]
    return ("\n".join(lines) + "\n").encode()


def _given(**values: Value) -> dict[str, Value]:
    """Return the values that say something."""
    return {key: value for key, value in values.items() if value not in ("", (), [])}


def _user(wanted: Customisation) -> dict[str, Value]:
    if not wanted.user:
        return {}
    found = _given(name=wanted.user, password=wanted.password_hash)
    return {**found, "password_encrypted": True} if wanted.password_hash else found


def _ssh(wanted: Customisation) -> dict[str, Value]:
    if not wanted.has_ssh:
        return {}
    keys = _given(authorized_keys=wanted.ssh_keys)
    return {"enabled": True, "password_authentication": wanted.ssh_password, **keys}


def _wlan(wanted: Customisation) -> dict[str, Value]:
    wifi = wanted.wifi
    if wifi is None:
        return {}
    key: dict[str, Value] = {"password": wifi.key, "password_encrypted": True} if wifi.key else {}
    return {"ssid": wifi.ssid, **key, "hidden": wifi.is_hidden, "country": wifi.country}


def custom_toml(wanted: Customisation) -> bytes:
    """Return ``custom.toml``; it has no key for the locale and none for commands."""
    sections: dict[str, Mapping[str, Value]] = {
        "system": {"hostname": wanted.hostname},
        "user": _user(wanted),
        "ssh": _ssh(wanted),
        "wlan": _wlan(wanted),
        "locale": _given(keymap=wanted.keyboard, timezone=wanted.timezone),
    }
    return _document("1", sections)


def preseed_toml(wanted: Customisation, commands: Sequence[str]) -> bytes:
    """Return ``rpi-preseed.toml``.

    Args:
        wanted: The board.
        commands: Shell lines that root runs before the network is up; they have 25 seconds, of 30 for the whole phase.
    """
    user = _user(wanted)
    if user:
        user["groups"] = ("sudo",)
        if not wanted.password_hash:
            user["passwordless_sudo"] = True
    speech = {"locales": (wanted.locale,), "lang": wanted.locale} if wanted.locale else {}
    sections: dict[str, Mapping[str, Value]] = {
        "system": {"hostname": wanted.hostname},
        "user": user,
        "ssh": _ssh(wanted),
        "wlan": _wlan(wanted),
        "locale": {**_given(keymap=wanted.keyboard, timezone=wanted.timezone), **speech},
        "runcmd": {"early": tuple(commands), "early_cmd_timeout": 25} if commands else {},
    }
    return _document('"1.0"', sections)
