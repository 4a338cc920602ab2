# SPDX-License-Identifier: Apache-2.0
"""The end-to-end echo: a connection on which nothing comes back any more is dead, whatever TCP says of it.

Every heartbeat is a row, and every row is acknowledged by the server after its commit. So while rows wait, something
must be heard: the whole way through broker, server and our subscriptions is proved with each of them, and no message
is sent for the proof alone. After silence the link is built anew, with a fresh client and fresh subscriptions.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["Echo"]

SILENT_S: Final = 300.0
LONGEST_S: Final = 3600.0


@dataclass
class Echo:
    """When something was heard last, and how long silence may last.

    A server that is down is silence, too, and for all its devices at once. So the patience is a random share, and
    doubles each time that a new link has not helped.

    Attributes:
        silent_s: Shortest patience, in seconds.
        heard_at: When something was heard, or nothing was to be expected; mono seconds.
        tries: New links since something was heard.
    """

    silent_s: float = SILENT_S
    heard_at: float = 0.0
    tries: int = 0

    def heard(self, mono: float) -> None:
        """A message came."""
        self.heard_at, self.tries = mono, 0

    def is_dead(self, mono: float, *, waits: bool, share: float) -> bool:
        """True if the link is to be built anew, now.

        Args:
            mono: Now.
            waits: We are connected, and rows wait for their acknowledgement.
            share: A uniform random number in [0, 1).

        Example:
            >>> echo = Echo(100.0)
            >>> [echo.is_dead(t, waits=True, share=0.5) for t in (99.0, 151.0, 300.0, 452.0)]
            [False, True, False, True]
        """
        if not waits:
            self.heard_at = mono
            return False
        patience = min(LONGEST_S, self.silent_s * 2.0 ** min(self.tries, 30)) * (1.0 + share)
        if mono - self.heard_at < patience:
            return False
        self.heard_at, self.tries = mono, self.tries + 1
        return True
