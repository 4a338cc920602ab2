# SPDX-License-Identifier: Apache-2.0
"""A broker that others run, named by URLs: examined at the start, then used as our own would be.

Nobody starts or ends it here, and its access list and certificates are its operator's: ``strop fleet broker files``
makes what it needs.
"""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from edge_contract.enrolment import SERVER_NAME
from edge_contract.errors import BrokerError
from fleet.adapters.broker_check import Offer, examine
from fleet.adapters.broker_login import PASSWORD, USER, LinkFiles, read_secret
from fleet.config import FleetConfig
from fleet.core.broker_url import BrokerUrls, read_address, read_urls

__all__ = ["ExternalBroker", "login"]

_log = logging.getLogger("strop.fleet.broker")
_AGAIN_S: Final = 0.5


def login(config: FleetConfig, ca: Path, environ: Mapping[str, str] = os.environ) -> LinkFiles:
    """Return how the server proves itself to the broker that its settings name.

    Args:
        config: Settings with ``broker``.
        ca: Folder of the fleet's own CA, which holds the server's pair as a client.
        environ: Where user name and password may stand.

    Raises:
        UsageError: The password's file cannot be read, or others can.
    """
    urls = read_urls(config.broker)
    own = {"": ca / "ca.crt", "system": None}
    password = environ.get(PASSWORD, "")
    if not password and config.broker_password_file:
        password = read_secret(config.broker_password_file)
    return LinkFiles(
        ca=own[config.broker_ca] if config.broker_ca in own else Path(config.broker_ca),
        certificate=Path(config.broker_certificate or ca / f"{SERVER_NAME}.crt"),
        key=Path(config.broker_key or ca / f"{SERVER_NAME}.key"),
        is_tls=urls.is_tls,
        user=environ.get(USER, "") or config.broker_user,
        password=password,
        others=urls.addresses[1:],
    )


class ExternalBroker:
    """What the server asks of its broker, for one that it does not own.

    Args:
        config: Settings with ``broker``.
        files: How to prove ourselves there.
    """

    def __init__(self, config: FleetConfig, files: LinkFiles) -> None:
        self._urls: BrokerUrls = read_urls(config.broker)
        self._tenant, self._files = config.tenant, files
        first = self._urls.addresses[0]
        self.told = read_address(config.device_broker, "device_broker") if config.device_broker else first
        """Where devices reach it."""
        self.offer: Offer | None = None

    @property
    def reach(self) -> tuple[str, int]:
        """Where the server reaches its first node."""
        return self._urls.addresses[0]

    @property
    def files(self) -> LinkFiles:
        """How to prove ourselves there, with the version of MQTT that it speaks."""
        return replace(self._files, level=self.offer.level) if self.offer else self._files

    @property
    def is_alive(self) -> bool:
        """True: whether it is there, the connections say; nobody here can start it."""
        return True

    def start(self, *, patience_s: float = 0.0, for_workers: bool = False) -> Offer:
        """Examine the first node that answers.

        Args:
            patience_s: How long to wait for one that answers.
            for_workers: Shared subscriptions are needed, too.

        Raises:
            BrokerError: No node answers, it refuses us, or it lacks what the fleet needs.
        """
        deadline = time.monotonic() + patience_s
        while self.offer is None:
            try:
                self.offer = self._examined()
            except BrokerError as error:
                if time.monotonic() > deadline:
                    raise
                _log.warning("%s; it is tried again", error)
                time.sleep(_AGAIN_S)
        self._check(self.offer, for_workers=for_workers)
        return self.offer

    def _examined(self) -> Offer:
        for last, address in enumerate(self._urls.addresses, 1 - len(self._urls.addresses)):
            try:
                found = examine(address, self._files, self._tenant)
            except BrokerError as error:
                if not last:
                    raise
                _log.warning("%s; the next node is tried", error)
                continue
            shared = "has" if found.shared else "has no"
            _log.info("broker %s:%d speaks MQTT %s and %s shared subscriptions", *address, found.version, shared)
            return found
        raise AssertionError("unreachable")

    def _check(self, offer: Offer, *, for_workers: bool) -> None:
        if lacks := offer.lacks:
            fix = "see its settings and its access list: the server needs all of strop/v1/#"
            raise BrokerError(f"the broker lacks {' and '.join(lacks)}", where=str(self._urls), fix=fix)
        if for_workers and not offer.shared:
            fix = "leave telemetry to the server: ingest = true, and no worker"
            raise BrokerError("the broker has no shared subscriptions", where=str(self._urls), fix=fix)

    def reload(self) -> None:
        """Do nothing: its operator brings it the new list of revoked certificates."""

    def stop(self) -> None:
        """Do nothing: it goes on."""
