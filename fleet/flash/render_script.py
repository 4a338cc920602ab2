# SPDX-License-Identifier: Apache-2.0
"""``firstrun.sh``: what systemd runs once by the kernel's command line, and then deletes itself.

It is started as ``systemd.run=`` before the network, in ``kernel-command-line.target``, and the board restarts after
it (systemd-run-generator(8)). Every step may be done twice, so a power cut only begins it again. Where Raspberry
Pi's helpers are there (``userconf``, ``imager_custom``), they do the work, since they know their image.
"""

import shlex
from collections.abc import Sequence
from typing import Final

from fleet.flash.customisation import Customisation

__all__ = ["command_words", "DROPPED", "begin_script", "firstrun"]

DROPPED: Final = ("systemd.run", "systemd.unit=kernel-command-line.target")
"""Beginnings of the words that such a script has on the command line, and that it takes away again."""

_HEAD: Final = """\
#!/bin/sh
# Written by strop flash. Runs once as root, and deletes itself; each step may be done twice.
exec >>/var/log/strop-firstrun.log 2>&1
BOOT={mount}
HELPER=/usr/lib/raspberrypi-sys-mods/imager_custom
{values}
FIRST=$(getent passwd 1000 | cut -d: -f1)
"""

_HOSTNAME: Final = """\
OLD=$(cat /etc/hostname)
echo "$NAME" >/etc/hostname
sed -i "s/127\\.0\\.1\\.1.*$OLD/127.0.1.1\\t$NAME/" /etc/hosts
grep -q "127.0.1.1" /etc/hosts || printf '127.0.1.1\\t%s\\n' "$NAME" >>/etc/hosts
"""

_USER: Final = """\
if [ -x /usr/lib/userconf-pi/userconf ]; then
  /usr/lib/userconf-pi/userconf "$LOGIN" "${HASH:-!}"
elif [ -n "$FIRST" ] && [ "$FIRST" != "$LOGIN" ]; then
  usermod -l "$LOGIN" "$FIRST"
  groupmod -n "$LOGIN" "$FIRST"
  usermod -m -d "/home/$LOGIN" "$LOGIN"
fi
id -u "$LOGIN" >/dev/null 2>&1 || useradd -m -s /bin/bash "$LOGIN"
for group in sudo video audio plugdev; do usermod -aG "$group" "$LOGIN"; done
[ -z "$HASH" ] || printf '%s:%s\\n' "$LOGIN" "$HASH" | chpasswd -e
if [ -z "$HASH" ]; then
  printf '%s ALL=(ALL:ALL) NOPASSWD:ALL\\n' "$LOGIN" >/etc/sudoers.d/010_strop
  chmod 0440 /etc/sudoers.d/010_strop
fi
"""

_SSH: Final = """\
HOME_OF=$(getent passwd "$LOGIN" | cut -d: -f6)
if [ -n "$KEYS" ]; then
  install -o "$LOGIN" -m 700 -d "$HOME_OF/.ssh"
  printf '%s\\n' "$KEYS" >"$HOME_OF/.ssh/authorized_keys"
  chown "$LOGIN" "$HOME_OF/.ssh/authorized_keys"
  chmod 600 "$HOME_OF/.ssh/authorized_keys"
fi
mkdir -p /etc/ssh/sshd_config.d
echo "PasswordAuthentication $SSH_PASSWORD" >/etc/ssh/sshd_config.d/10-strop.conf
systemctl enable ssh
"""

_WIFI: Final = """\
if command -v raspi-config >/dev/null; then raspi-config nonint do_wifi_country "$COUNTRY"; fi
rfkill unblock wifi
for mark in /var/lib/systemd/rfkill/*:wlan; do [ ! -e "$mark" ] || echo 0 >"$mark"; done
if [ -d /etc/NetworkManager ]; then
  CONNECTION=/etc/NetworkManager/system-connections/strop.nmconnection
  (umask 077; printf '%s\\n' "$WIFI" >"$CONNECTION")
  chmod 600 "$CONNECTION"
else
  (umask 077; printf '%s\\n' "country=$COUNTRY" "$SUPPLICANT" >/etc/wpa_supplicant/wpa_supplicant.conf)
fi
"""

_KEYBOARD: Final = """\
if [ -x "$HELPER" ]; then "$HELPER" set_keymap "$KEYBOARD"
else sed -i "s/^XKBLAYOUT=.*/XKBLAYOUT=\\"$KEYBOARD\\"/" /etc/default/keyboard; fi
"""

_TIMEZONE: Final = """\
ln -sf "/usr/share/zoneinfo/$ZONE" /etc/localtime
echo "$ZONE" >/etc/timezone
"""

_LOCALE: Final = """\
if [ -f /etc/locale.gen ]; then
  sed -i "s/^# *\\($LOCALE .*\\)/\\1/" /etc/locale.gen
  grep -q "^$LOCALE " /etc/locale.gen || echo "$LOCALE UTF-8" >>/etc/locale.gen
  locale-gen
fi
echo "LANG=$LOCALE" >/etc/default/locale
"""

_END: Final = """\
sync
WORDS='s/ systemd\\.run[^ ]*//g; s/ systemd\\.unit=kernel-command-line\\.target//'
sed -e "$WORDS" "$BOOT/cmdline.txt" >"$BOOT/cmdline.new"
sync "$BOOT/cmdline.new"
mv "$BOOT/cmdline.new" "$BOOT/cmdline.txt"
sync "$BOOT/cmdline.txt"
rm -f "$BOOT/firstrun.sh"
sync
exit 0
"""
"""On FAT a renamed file may be empty after a power cut, unless it is synced once more under its new name."""

_BEGIN: Final = """\
#!/bin/sh
# Written by strop flash. Begins the first boot of the agent; may be run again.
set -eu
BOOT=${0%/strop/*}
LINES=$(mktemp)
sed "s|{boot}|$BOOT|g" >"$LINES" <<'STROP_LINES'
"""


def _connection(wanted: Customisation) -> str:
    """Return a NetworkManager keyfile (nm-settings-keyfile(5)); a name with odd letters is a list of bytes."""
    wifi = wanted.wifi
    if wifi is None:
        return ""
    name = (
        wifi.ssid if wifi.ssid.isascii() and not set(wifi.ssid) & set(";\\#") and wifi.ssid == wifi.ssid.strip() else ""
    )
    ssid = name or "".join(f"{byte};" for byte in wifi.ssid.encode())
    head = ["[connection]", "id=strop-wifi", "type=wifi", "[wifi]", "mode=infrastructure", f"ssid={ssid}"]
    secret = ["[wifi-security]", "key-mgmt=wpa-psk", f"psk={wifi.key}"] if wifi.key else []
    hidden = ["hidden=true"] if wifi.is_hidden else []
    return "\n".join([*head, *hidden, *secret, "[ipv4]", "method=auto", "[ipv6]", "method=auto"])


def _supplicant(wanted: Customisation) -> str:
    """Return a network of ``wpa_supplicant.conf``, for images before NetworkManager."""
    wifi = wanted.wifi
    if wifi is None:
        return ""
    key = f"psk={wifi.key}" if wifi.key else "key_mgmt=NONE"
    hidden = ["scan_ssid=1"] if wifi.is_hidden else []
    return "\n".join(
        [
            "ctrl_interface=DIR=/var/run/wpa_supplicant GROUP=netdev",
            "network={",
            f"ssid={wifi.ssid.encode().hex()}",
            *hidden,
            key,
            "}",
        ]
    )


def _values(wanted: Customisation) -> dict[str, str]:
    wifi = wanted.wifi
    return {
        "NAME": wanted.hostname,
        "LOGIN": wanted.user,
        "HASH": wanted.password_hash,
        "KEYS": "\n".join(wanted.ssh_keys),
        "SSH_PASSWORD": "yes" if wanted.ssh_password else "no",
        "COUNTRY": wifi.country if wifi else "",
        "WIFI": _connection(wanted),
        "SUPPLICANT": _supplicant(wanted),
        "KEYBOARD": wanted.keyboard,
        "ZONE": wanted.timezone,
        "LOCALE": wanted.locale,
    }


def _steps(wanted: Customisation) -> list[str]:
    steps = (
        (_HOSTNAME, True),
        (_USER, wanted.user),
        (_SSH, wanted.has_ssh),
        (_WIFI, wanted.wifi),
        (_KEYBOARD, wanted.keyboard),
        (_TIMEZONE, wanted.timezone),
        (_LOCALE, wanted.locale),
    )
    return [step for step, is_wanted in steps if is_wanted]


def firstrun(wanted: Customisation, mount: str, begin: str, *, only_rest: bool = False) -> bytes:
    """Return ``firstrun.sh``.

    Args:
        wanted: The board.
        mount: Where the boot partition is mounted.
        begin: The script that begins the agent's first boot; empty: nothing is installed.
        only_rest: Beside ``custom.toml``: do only what that has no key for.
    """
    values = {key: value for key, value in _values(wanted).items() if key == "LOCALE" or not only_rest}
    lines = "\n".join(f"{key}={shlex.quote(value)}" for key, value in values.items())
    steps = ([_LOCALE] if wanted.locale else []) if only_rest else _steps(wanted)
    last = [f"sh {shlex.quote(begin)}\n"] if begin else []
    return "".join([_HEAD.format(mount=shlex.quote(mount), values=lines), *steps, *last, _END]).encode()


def command_words(mount: str) -> list[str]:
    """Return the words of the kernel's command line that start it."""
    action = "systemd.run_success_action=reboot"
    return [f"systemd.run={mount}/firstrun.sh", action, "systemd.unit=kernel-command-line.target"]


def begin_script(lines: Sequence[str]) -> bytes:
    """Return ``strop/first-boot.sh``, which runs shell lines with ``{boot}`` replaced by the mount point."""
    return (_BEGIN + "\n".join(lines) + '\nSTROP_LINES\nsh -e "$LINES"\nrm -f "$LINES"\n').encode()
