# SPDX-License-Identifier: Apache-2.0
"""``site.toml``: what all cards of a site have in common; options of the command line come before it.

::

    [board]                          # every key may be left out but the host name
    hostname      = "cam-7"
    user          = "ops"
    password_file = "ops.password"   # or the environment: STROP_USER_PASSWORD
    ssh_keys      = ["ops.pub"]      # files
    ssh_password  = false
    locale        = "de_DE.UTF-8"
    timezone      = "Europe/Berlin"
    keyboard      = "de"
    [wifi]
    ssid          = "plant"
    password_file = "plant.wifi"     # or the environment: STROP_WIFI_PASSWORD; left out: an open network
    country       = "DE"
    hidden        = false
    [fleet]
    device        = "cam-7"          # left out: the host name
    server        = "https://fleet:8444"
    token_file    = "cam-7.token"
    ca            = "ca.crt"
    [agent]
    wheelhouse    = "wheelhouse"     # left out: nothing is installed
    factory       = "bundle"
    agent_toml    = "agent.toml"
    model         = "digits"
    coral         = false
    coral_package = "libedgetpu1-std.deb"
    [image]
    format        = "cloudinit-rpi"  # left out: found out
    ext4          = false            # the agent's payload into the root file system, by debugfs

Files are named from the folder of ``site.toml``. Passwords and tokens come from files or the environment alone.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from edge_contract.enrolment import TOKEN_PREFIX
from edge_contract.errors import UsageError
from fleet.flash.crypted import hash_password, make_salt, wpa_key
from fleet.flash.customisation import Customisation, Wifi
from fleet.flash.formats import Format
from fleet.flash.image import Made
from fleet.flash.payload import Payload, Settings, build

__all__ = ["Site", "load"]

USER_PASSWORD: Final = "STROP_USER_PASSWORD"  # noqa: S105 - the name of a variable
WIFI_PASSWORD: Final = "STROP_WIFI_PASSWORD"  # noqa: S105
_KEYS: Final[Mapping[str, Mapping[str, type]]] = {
    "board": {
        "hostname": str,
        "user": str,
        "password_file": str,
        "ssh_keys": list,
        "ssh_password": bool,
        "locale": str,
        "timezone": str,
        "keyboard": str,
    },
    "wifi": {"ssid": str, "password_file": str, "country": str, "hidden": bool},
    "fleet": {"device": str, "server": str, "token_file": str, "ca": str},
    "agent": {"wheelhouse": str, "factory": str, "agent_toml": str, "model": str, "coral": bool, "coral_package": str},
    "image": {"format": str, "ext4": bool},
}


@dataclass(frozen=True)
class Site:
    """What cards have in common; passwords are hashed already.

    Attributes:
        customisation: The board; a batch gives it another host name.
        payload: What the agent needs; None: nothing is installed.
        format: Named by a person; None: found out.
        on_root: Whether the payload goes into the root file system.
    """

    customisation: Customisation
    payload: Settings | None = None
    format: Format | None = None
    on_root: bool = False

    def for_device(self, name: str = "", token: Path | None = None, base: Mapping[str, Any] | None = None) -> Made:
        """Return what one card is to become.

        Args:
            name: Host name and device name; empty: those of the settings.
            token: File with its own one-time token; None: that of the settings.
            base: What is known of the base image.

        Raises:
            UsageError: A name or a file that cannot be used.
            EnrolmentError: No token, or one of another server.
        """
        board = replace(self.customisation, hostname=name) if name else self.customisation
        found = Payload()
        if self.payload is not None:
            settings = replace(self.payload, device=name or self.payload.device, token=token or self.payload.token)
            found = build(settings)
        return Made(board, found, self.format, self.on_root, base or {})


def _read_toml(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"is no TOML: {error}", where=str(path)) from error
    for table, values in found.items():
        if table not in _KEYS or not isinstance(values, dict):
            raise UsageError(f"unknown table '{table}'", where=str(path), fix=f"use {', '.join(_KEYS)}")
        for key, value in values.items():
            _check_key(path, table, key, value)
    return found


def _check_key(path: Path, table: str, key: str, value: object) -> None:
    where = f"{path} [{table}]"
    if key in {"password", "token", "psk", "key"}:
        raise UsageError(f"'{key}' does not belong into a settings file", where=where, fix=f"write {key}_file")
    if key not in _KEYS[table]:
        raise UsageError(f"unknown key '{key}'", where=where, fix=f"use {', '.join(_KEYS[table])}")
    kind = _KEYS[table][key]
    if not isinstance(value, kind) or (kind is list and not all(isinstance(one, str) for one in value)):  # type: ignore[attr-defined]
        raise UsageError(f"{key} = {value!r} is of the wrong kind", where=where, fix=f"write a {kind.__name__}")


class _Words:
    """Settings of a file, with the command line's before them; names of files become paths."""

    def __init__(self, tables: Mapping[str, Mapping[str, Any]], folder: Path, given: Mapping[str, Any]) -> None:
        self._tables, self._folder, self._given = tables, folder, given

    def value(self, table: str, key: str) -> Any:
        """Return a value; None if nobody gave one."""
        given = self._given.get(f"{table}.{key}")
        return given if given not in (None, "", [], ()) else self._tables.get(table, {}).get(key)

    def text(self, table: str, key: str) -> str:
        return str(self.value(table, key) or "")

    def path(self, table: str, key: str) -> Path | None:
        """Return a file: given by an option, from the current folder; else from that of the settings."""
        given = self._given.get(f"{table}.{key}")
        if given:
            return Path(given)
        found = self._tables.get(table, {}).get(key)
        return self._folder / str(found) if found else None

    def paths(self, table: str, key: str) -> list[Path]:
        given = self._given.get(f"{table}.{key}")
        if given:
            return [Path(one) for one in given]
        return [self._folder / str(one) for one in self._tables.get(table, {}).get(key, [])]


def _secret(path: Path | None, variable: str) -> str:
    """Return a secret's line from a file, else from the environment; empty if neither is there."""
    if path is None:
        return os.environ.get(variable, "")
    try:
        text = path.read_text("utf-8").rstrip("\r\n")
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise UsageError("is not text", where=str(path)) from error
    if not text or "\n" in text:
        raise UsageError("is to hold one line, the secret", where=str(path), fix="write it with a text editor")
    return text


def _ssh_keys(paths: list[Path]) -> tuple[str, ...]:
    lines: list[str] = []
    for path in paths:
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot be read: {error}", where=str(path)) from error
        if "PRIVATE KEY" in text:
            raise UsageError("is a private key", where=str(path), fix=f"name {path.name}.pub")
        lines += [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return tuple(lines)


def _wifi(words: _Words) -> Wifi | None:
    ssid = words.text("wifi", "ssid")
    if not ssid:
        return None
    password = _secret(words.path("wifi", "password_file"), WIFI_PASSWORD)
    key = wpa_key(ssid, password) if password else ""
    return Wifi(ssid, key, words.text("wifi", "country"), bool(words.value("wifi", "hidden")))


def _board(words: _Words, *, is_named: bool) -> Customisation:
    hostname = words.text("board", "hostname") or words.text("fleet", "device") or ("" if is_named else "unnamed")
    if not hostname:
        raise UsageError("no host name", where="board.hostname", fix="add --hostname NAME")
    user = words.text("board", "user")
    password = _secret(words.path("board", "password_file"), USER_PASSWORD) if user else ""
    return Customisation(
        hostname=hostname,
        user=user,
        password_hash=hash_password(password, make_salt()) if password else "",
        ssh_keys=_ssh_keys(words.paths("board", "ssh_keys")),
        ssh_password=bool(words.value("board", "ssh_password")),
        wifi=_wifi(words),
        locale=words.text("board", "locale"),
        timezone=words.text("board", "timezone"),
        keyboard=words.text("board", "keyboard"),
    )


def _token_file(words: _Words) -> Path | None:
    found = words.path("fleet", "token_file")
    if found is not None and found.name.startswith(f"{TOKEN_PREFIX}."):
        fix = "take it back with 'strop fleet enrol revoke': others may have read it; and name a file"
        raise UsageError("this is a token and not a file with one", where="fleet.token_file", fix=fix)
    return found


def _payload(words: _Words, hostname: str) -> Settings | None:
    wheelhouse = words.path("agent", "wheelhouse")
    if wheelhouse is None:
        if words.text("fleet", "server") or _token_file(words):
            fix = "add --wheelhouse; 'strop flash wheelhouse' makes one"
            raise UsageError("a fleet server without an agent to install", where="fleet.server", fix=fix)
        return None
    return Settings(
        device=words.text("fleet", "device") or hostname,
        server=words.text("fleet", "server"),
        token=_token_file(words),
        wheelhouse=wheelhouse,
        factory=words.path("agent", "factory"),
        agent_toml=words.path("agent", "agent_toml"),
        ca=words.path("fleet", "ca"),
        model=words.text("agent", "model"),
        coral=bool(words.value("agent", "coral")),
        coral_package=words.path("agent", "coral_package"),
    )


def _format(name: str) -> Format | None:
    if not name:
        return None
    try:
        return Format(name)
    except ValueError as error:
        raise UsageError(f"unknown format '{name}'", where="image.format", fix=f"use {', '.join(Format)}") from error


def load(path: Path | None, given: Mapping[str, Any] | None = None, *, is_named: bool = True) -> Site:
    """Return the settings of a site.

    Args:
        path: ``site.toml``; None: only what was given.
        given: Values of the command line by ``table.key``; they come before the file's.
        is_named: Whether a host name must be there; a batch names its devices itself.

    Raises:
        UsageError: A key, value or file that cannot be used.
    """
    tables = _read_toml(path) if path is not None else {}
    words = _Words(tables, path.parent if path is not None else Path(), given or {})
    board = _board(words, is_named=is_named)
    on_root = bool(words.value("image", "ext4"))
    return Site(board, _payload(words, board.hostname), _format(words.text("image", "format")), on_root)
