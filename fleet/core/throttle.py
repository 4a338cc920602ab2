# SPDX-License-Identifier: Apache-2.0
"""How often one may try: attempts that failed make the next one wait, and entries of a kind are bounded in time."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Allowance", "Throttle"]

_FREE: Final = 5
_LONGEST_S: Final = 300.0
_FORGET_S: Final = 3600.0
_KEYS: Final = 10_000


@dataclass
class Throttle:
    """Failures by key; after five, each one doubles the wait, up to five minutes. An hour forgets.

    The number of keys is bounded: whoever tries from ten thousand addresses makes it forget the oldest.

    Example:
        >>> one = Throttle()
        >>> for _ in range(7): one.failed("alice", now=0.0)
        >>> one.wait_s("alice", now=0.0), one.wait_s("alice", now=3.0), one.wait_s("bob", now=0.0)
        (4.0, 1.0, 0.0)
    """

    _seen: OrderedDict[str, tuple[int, float]] = field(default_factory=OrderedDict)

    def wait_s(self, key: str, now: float) -> float:
        """Return how long the next attempt has to wait, 0.0 if it may come."""
        count, last = self._seen.get(key, (0, 0.0))
        if count < _FREE or now - last > _FORGET_S:
            return 0.0
        return max(0.0, last + min(_LONGEST_S, 2.0 ** (count - _FREE)) - now)

    def failed(self, key: str, now: float) -> None:
        """Count a failure."""
        count, last = self._seen.pop(key, (0, now))
        self._seen[key] = (1 if now - last > _FORGET_S else count + 1, now)
        if len(self._seen) > _KEYS:
            self._seen.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Forget a key's failures."""
        self._seen.pop(key, None)


@dataclass
class Allowance:
    """At most ``most`` events in each ``period_s``; what is over is counted, and told with the next that passes.

    Example:
        >>> few = Allowance(most=2, period_s=60.0)
        >>> [few.take(now) for now in (0.0, 1.0, 2.0, 3.0, 61.0)]
        [0, 0, None, None, 2]
    """

    most: int
    period_s: float
    _since: float = 0.0
    _taken: int = 0
    _left_out: int = 0

    def take(self, now: float) -> int | None:
        """Return how many were left out before this one, or None if this one is left out, too."""
        if now - self._since >= self.period_s:
            self._since, self._taken = now, 0
        if self._taken >= self.most:
            self._left_out += 1
            return None
        self._taken += 1
        told, self._left_out = self._left_out, 0
        return told
