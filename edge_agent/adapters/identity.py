# SPDX-License-Identifier: Apache-2.0
"""The identity folder: who this device is to the server. Standard library only, for the control process reads it.

::

    identity/ca.crt, root.json, job.pub   whom we believe: TLS, TUF, orders
             device.key (0600), device.crt our key and its certificate; after a renewal links into keys/
             endpoints.json               where the server is
             facts.json                   the certificate's serial and dates, so that nobody has to parse it
             binding.json                 the board that this identity belongs to (``binding``)
             keys/<serial>/, current      the pairs of a renewal (``renewal``)
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_agent.adapters import time_floor
from edge_agent.core.renewal import renew_at
from edge_contract import canonical, durable
from edge_contract.errors import ContractError

__all__ = ["FACTS", "CertificateLife", "endpoints", "life", "read_json", "server_urls", "shown"]

FACTS: Final = "facts.json"


@dataclass(frozen=True)
class CertificateLife:
    """One certificate: serial number in hex, begin and end in seconds since 1970."""

    serial: str
    not_before: float
    not_after: float

    def write(self, folder: Path) -> None:
        """Write ``facts.json`` into an identity folder."""
        facts = {"serial": self.serial, "not_before": self.not_before, "not_after": self.not_after}
        durable.write(folder / FACTS, canonical.dumps(facts))

    def remember(self, folder: Path) -> None:
        """Lift the floor of the time to the certificate's begin: our CA has signed that it was so late."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        time_floor.remember(folder, self.not_before, self.not_before)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file, empty when it is missing, damaged or no object."""
    try:
        document = canonical.loads(path.read_bytes())
    except (OSError, ContractError):
        return {}
    return document if isinstance(document, dict) else {}


def endpoints(data: Path) -> dict[str, Any]:
    """Return where the server is, as the enrolment was told; empty before it."""
    return read_json(data / "identity" / "endpoints.json")


def server_urls(data: Path) -> list[str]:
    """Return the server's addresses, files first, then enrolment."""
    found = endpoints(data)
    return [str(found[key]) for key in ("device_url", "enrol_url") if found.get(key)]


def life(data: Path) -> CertificateLife | None:
    """Return serial and dates of our certificate; None without an identity, or with one older than this file."""
    found = read_json(data / "identity" / FACTS)
    try:
        dates = (canonical.as_float(found["not_before"]), canonical.as_float(found["not_after"]))
        return CertificateLife(str(found["serial"]), *dates)
    except (KeyError, ContractError):
        return None


def shown(data: Path, device: str, system: float) -> dict[str, Any] | None:
    """Return what ``status`` shows of the certificate, by the system's clock; None without one.

    Args:
        data: The device's data folder.
        device: Its name.
        system: The system's clock, seconds since 1970.
    """
    found = life(data)
    if found is None:
        return None
    due = renew_at(found.not_before, found.not_after, device)
    return {
        "serial": found.serial,
        "not_after": found.not_after,
        "days_left": round((found.not_after - system) / 86_400, 1),
        "renewal_in_days": round((due - system) / 86_400, 1),
    }
