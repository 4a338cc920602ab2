# SPDX-License-Identifier: Apache-2.0
"""What lies on one channel of orders, ``job/next`` or ``job/next/<model>``, before it is taken up or put away."""

from dataclasses import dataclass

__all__ = ["Desk"]


@dataclass(frozen=True)
class Desk:
    """One channel's envelope.

    Attributes:
        envelope: Digest of the last envelope that is not dealt with yet; empty when there is none.
        payload: The envelope itself.
        checking: Digest of the envelope that the trust helper has in hand.
        refused: Digest of an envelope that was refused; it stays retained, and is not checked again.
        check_at, checks: When to ask the trust helper again, after how many failures.
        behind: Key of the lane whose order has to end first, None if none is in the way.
    """

    envelope: str = ""
    payload: bytes = b""
    checking: str = ""
    refused: str = ""
    check_at: float | None = None
    checks: int = 0
    behind: str | None = None
