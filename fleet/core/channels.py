# SPDX-License-Identifier: Apache-2.0
"""Release channels of a model: which version stands for candidate, canary, production, and what stood there before.

A channel names one version of a model, or none. Moving it changes no device: a rollout does that. The history
of a channel is append-only, and which version is good to go back to is read from it.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from edge_contract.errors import RegistryError

__all__ = ["CANARY", "CANDIDATE", "LADDER", "PRODUCTION", "Move", "check_channel", "good_before", "next_channel"]

CANDIDATE: Final = "candidate"
CANARY: Final = "canary"
PRODUCTION: Final = "production"
LADDER: Final = (CANDIDATE, CANARY, PRODUCTION)
"""The channels that every model has, in the order in which a version climbs; others may be named freely."""

VERBS: Final = ("set", "promote", "demote", "retire", "rules")
"""How a channel moved: by hand to any version, up, back, emptied because a version ended, or by the rules."""

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_BAD: Final = ("demote", "retire")


@dataclass(frozen=True)
class Move:
    """One step of a channel's history.

    Attributes:
        number: Grows by one with each move of the server.
        model, channel: What moved.
        verb: One of ``VERBS``.
        old, new: Bundle ids before and after; empty for none.
        time: Seconds since 1970.
        actor: Who.
        reason: Why, in words; may be empty.
    """

    number: int
    model: str
    channel: str
    verb: str
    old: str
    new: str
    time: float
    actor: str
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def check_channel(name: str) -> str:
    """Return the name of a channel.

    Raises:
        RegistryError: It has other characters than small letters, digits and hyphens, or more than 32.

    Example:
        >>> check_channel("site-b")
        'site-b'
    """
    if _NAME.fullmatch(name) is None:
        fix = "use small letters, digits and '-', at most 32, a letter first"
        raise RegistryError(f"{name[:40]!r} is not a channel name", fix=fix)
    return name


def next_channel(held: Collection[str]) -> str:
    """Return the channel that follows the highest one that a version stands in.

    Raises:
        RegistryError: It stands in production: there is nothing above.

    Example:
        >>> next_channel([]), next_channel(["candidate", "site-b"])
        ('candidate', 'canary')
    """
    rungs = [LADDER.index(name) for name in held if name in LADDER]
    if rungs and max(rungs) == len(LADDER) - 1:
        raise RegistryError("it stands in production already", fix="name another channel with --to")
    return LADDER[max(rungs) + 1 if rungs else 0]


def good_before(moves: Iterable[Move], bundle: str, usable: Collection[str]) -> str:
    """Return the bundle that a channel held before another one and that nobody took back; empty if there is none.

    Args:
        moves: The channel's history, newest first.
        bundle: What is to be left; it is never the answer.
        usable: Bundles that are registered and not retired.

    Example:
        >>> moved = lambda n, verb, old, new: Move(n, "m", "production", verb, old, new, 0.0, "op")
        >>> moves = [moved(4, "set", "a", "d"), moved(3, "demote", "b", "a"), moved(2, "set", "a", "b")]
        >>> good_before(moves, "d", {"a", "b", "d"})
        'a'
    """
    bad = {bundle}
    for move in moves:
        # A version that was taken back is good again only if it was brought in anew, which is a newer move.
        if move.new and move.new in usable and move.new not in bad:
            return move.new
        if move.verb in _BAD:
            bad.add(move.old)
    return ""
