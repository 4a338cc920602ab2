# SPDX-License-Identifier: Apache-2.0
"""How the server proves itself to a broker, and where else the broker answers."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_contract.errors import BrokerError, UsageError

__all__ = ["PASSWORD", "USER", "LinkFiles", "read_secret"]

USER: Final = "STROP_BROKER_USER"
PASSWORD: Final = "STROP_BROKER_PASSWORD"  # noqa: S105 - the variable's name
_MOST: Final = 4096


@dataclass(frozen=True)
class LinkFiles:
    """What the server shows to a broker, and what it asks of it.

    Attributes:
        ca: PEM of who may sign the broker's certificate; None asks the system's authorities.
        certificate, key: Of the server as a client, PEM.
        is_tls: False for a broker that is reached without TLS.
        user, password: Beside or in place of the certificate, for a broker that asks for them.
        level: The version of MQTT that is spoken: 5, or 4 for 3.1.1.
        others: Further nodes of the same broker, tried in turn after the first.
    """

    ca: Path | None
    certificate: Path
    key: Path
    is_tls: bool = True
    user: str = ""
    password: str = field(default="", repr=False)
    level: int = 5
    others: tuple[tuple[str, int], ...] = ()

    def context(self) -> ssl.SSLContext | None:
        """Return TLS with the files as they are now; None without TLS.

        Raises:
            BrokerError: A file is missing or is no PEM.
        """
        if not self.is_tls:
            return None
        try:
            context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            where = f"{self.ca}, {self.certificate}, {self.key}"
            raise BrokerError(f"cannot be used for TLS: {error}", where=where) from error
        return context


def read_secret(path: str) -> str:
    """Return the first line of a file that holds a password.

    Raises:
        UsageError: It is not there, is empty, is readable by others, or holds more than a line.
    """
    fix = "one line, mode 0600"
    try:
        if Path(path).stat().st_mode & 0o004:
            raise UsageError("everybody on this machine can read it", where=path, fix=f"chmod 600 {path}")
        text = Path(path).read_bytes()[: _MOST + 1].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the broker's password cannot be read: {error}", where=path, fix=fix) from error
    lines = text.splitlines()
    if len(lines) != 1 or not lines[0] or len(text) > _MOST:
        raise UsageError("does not hold one line with a password", where=path, fix=fix)
    return lines[0]
