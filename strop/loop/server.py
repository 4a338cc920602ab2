# SPDX-License-Identifier: Apache-2.0
"""The fleet server as the loop sees it: one that may be away for a while, and comes back, perhaps on another port."""

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from edge_contract.errors import BrokerError, StoreError, StropError
from fleet.client import FleetClient, connect
from strop.loop.config import LoopConfig
from strop.loop.journal import LaterError

__all__ = ["Server", "is_outage"]

T = TypeVar("T")
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 60.0
_AWAY: Final = ("the server answered 5", "the server failed")


def is_outage(error: StropError) -> bool:
    """True if an error says that the server is away or broken, not that it refuses.

    Example:
        >>> is_outage(StropError("the server answered 502")), is_outage(StropError("signal 3 is not known"))
        (True, False)
    """
    cause = type(error.__cause__).__module__.split(".")[0] if error.__cause__ is not None else ""
    return cause in ("httpx", "httpcore") or isinstance(error, BrokerError) or str(error).startswith(_AWAY)


class Server:
    """Asks a fleet server, again and again while it is away.

    Args:
        config: Where it is, and for how long it may be away.
        say: Is told when it is away.
        sleep, monotonic: The clock.
    """

    def __init__(
        self,
        config: LoopConfig,
        say: Callable[[str], None],
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._say, self.sleep, self.monotonic = config, say, sleep, monotonic

    def _client(self) -> FleetClient:
        config = self._config
        return connect(config.data, config.server, config.token_file)

    def do(self, job: Callable[[FleetClient], T]) -> T:
        """Return what a job gives; one that met an outage is begun again, so it must look before it changes anything.

        Raises:
            LaterError: It was away for longer than ``server_s``.
            StropError: It refused.
        """
        deadline, wait = self.monotonic() + self._config.limits.server_s, _FIRST_WAIT_S
        while True:
            try:
                client = self._opened()
                return job(client)
            except StropError as error:
                if not (is_outage(error) or isinstance(error, _AwayError)):
                    raise
                if self.monotonic() + wait > deadline:
                    waited = f"the server was away for {self._config.limits.server_s:g} s: {error}"
                    raise LaterError(waited, fix="start it, then: strop loop run --resume") from error
                self._say(f"the server is away ({error}); it is asked again in {wait:g} s")
            self.sleep(wait)
            wait = min(_LONGEST_WAIT_S, 2.0 * wait)

    def _opened(self) -> FleetClient:
        try:
            return self._client()
        except StoreError as error:  # its data folder says that no server runs
            raise _AwayError(error.what, where=error.where, fix=error.fix) from error

    def call(self, method: str, path: str, document: Any = None) -> Any:
        """Return the answer of one call that may be repeated; raises as ``do``."""
        return self.do(lambda client: client.call(method, path, document))


class _AwayError(StropError):
    """No server runs on the data folder at this moment."""
