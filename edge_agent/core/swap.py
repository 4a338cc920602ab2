# SPDX-License-Identifier: Apache-2.0
"""Hot swap or stop-then-swap: is there memory for the new model beside the old one?

Hot: the candidate proves itself as a shadow before the switch, and the old model stays as the shadow after it, so
that both are compared. Stop: the runner is ended first, the candidate is tried alone, and on failure the old model
is loaded again; nothing answers meanwhile, and there is nobody to compare with.
"""

from typing import Final

from edge_agent.core.events import Slots

__all__ = ["HOT", "KEPT_KB", "STOP", "choose"]

HOT, STOP = "hot", "stop"
KEPT_KB: Final = 32_000
"""Stays available beside both models: for the system, and for what the runner needs in between."""


def choose(rule: str, *, need_kb: int, memory_kb: int, slots: Slots, bundle: str) -> str:
    """Return ``hot`` or ``stop``.

    Args:
        rule: The setting ``swap``; ``auto`` looks at the memory.
        need_kb: What the candidate will take, 0 if unknown.
        memory_kb: What is available, 0 if unknown.
        slots: Without an active model, or with the candidate as the active one, nothing has to make room.
        bundle: The candidate.

    Example:
        >>> choose("auto", need_kb=50_000, memory_kb=60_000, slots=Slots("a" * 64), bundle="b" * 64)
        'stop'
    """
    if slots.active in ("", bundle):
        return HOT
    if rule in (HOT, STOP):
        return rule
    is_short = memory_kb > 0 and need_kb > 0 and memory_kb < need_kb + KEPT_KB
    return STOP if is_short else HOT
