# SPDX-License-Identifier: Apache-2.0
"""A script by which a board fetches its first boot from a web address: for the fleet page, and for boards without ssh.

The script knows the archive's digest, and uses nothing of it before that was compared; the address needs no trust. It
holds no secret: the token comes from a file. The archive is a card's ``strop/`` folder without device name and token.
"""

import hashlib
import io
import shlex
import tarfile
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edge_contract.errors import UsageError
from fleet.flash.payload import PROGRAM, Payload

__all__ = ["archive", "script"]

_SCRIPT: Final = """\
#!/bin/sh
# Installs the Strop agent: sh install.sh DEVICE TOKEN_FILE
# For Python {python} on {machine}. Every byte is compared with its digest before it is used; run it again to go on.
set -eu
umask 077
url={url}
digest={digest}
device=${{1:?usage: sh install.sh DEVICE TOKEN_FILE}}
token=${{2:?usage: sh install.sh DEVICE TOKEN_FILE}}
[ -r "$token" ] || {{ echo "error: $token: no token there" >&2; exit 1; }}
here=$(python3 -I -c 'import os, sys; print("%d.%d %s" % (*sys.version_info[:2], os.uname().machine))')
[ "$here" = {kind} ] || {{ echo "error: this is Python $here, the archive is for {python} {machine}" >&2; exit 1; }}
folder="${{STROP_FOLDER:-$HOME/strop-install}}"
mkdir -p "$folder"
is_whole() {{ echo "$digest  $folder/archive.tar" | sha256sum --check --status 2>/dev/null; }}
if ! is_whole; then
    if command -v curl >/dev/null; then
        curl --fail --silent --show-error --location --continue-at - --output "$folder/archive.tar" "$url" || true
    else
        wget --quiet --continue --output-document="$folder/archive.tar" "$url" || true
    fi
fi
if ! is_whole; then
    rm -f "$folder/archive.tar"
    echo "error: $url is not the archive that this script was made for; nothing was installed" >&2
    exit 1
fi
tar -x -f "$folder/archive.tar" -C "$folder"
printf '%s\\n' "$device" > "$folder/strop/device"
cat -- "$token" > "$folder/strop/token"
if [ "$(id -u)" = 0 ]; then as_root=; else as_root="sudo"; fi
exec $as_root /usr/bin/env python3 -I "$folder/strop/{program}" begin --watch --boot "$folder" ${{STROP_WORDS:-}}
"""


def archive(payload: Payload) -> bytes:
    """Return a payload's files as a tar; the same payload gives the same bytes.

    Raises:
        UsageError: It carries a token.
    """
    if "strop/token" in payload.files:
        raise UsageError("an archive for a web address may carry no token", fix="leave the token out")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as made:
        for name in sorted(payload.files):
            content = payload.files[name]
            data = content if isinstance(content, bytes) else Path(content).read_bytes()
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def script(data: bytes, url: str, python: str, machine: str) -> str:
    """Return the script for an archive that lies at an address.

    Args:
        data: The archive.
        url: ``https://…`` or ``http://…``.
        python, machine: What its wheels are for.

    Raises:
        UsageError: Not such an address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise UsageError(f"'{url}' is no address to fetch from", fix="write https://HOST/strop.tar")
    return _SCRIPT.format(
        url=shlex.quote(url), digest=hashlib.sha256(data).hexdigest(), python=python, machine=machine,
        kind=shlex.quote(f"{python} {machine}"), program=PROGRAM,
    )  # fmt: skip
