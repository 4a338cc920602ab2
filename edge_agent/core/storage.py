# SPDX-License-Identifier: Apache-2.0
"""What the core says and leaves out when the disk is short, or too much was written to it."""

from edge_agent.core.effects import CountLost, Effect, Note
from edge_agent.core.events import Conditions

__all__ = ["notices", "spared"]


def notices(before: Conditions, now: Conditions) -> list[Effect]:
    """Return what to say when a limit is broken or kept again: once for each change.

    Example:
        >>> [note.body for note in notices(Conditions(), Conditions(storage="full"))]
        [{'kind': 'storage_low', 'reason': 'full'}]
        >>> notices(Conditions(storage="full"), Conditions(storage="full"))
        []
    """
    found: list[Effect] = []
    if now.storage != before.storage:
        is_low = bool(now.storage)
        body = {"kind": "storage_low", "reason": now.storage} if is_low else {"kind": "storage_ok"}
        found.append(Note("alarm" if is_low else "event", body))
    if now.written and not before.written:
        found.append(Note("event", {"kind": "write_budget", "reason": now.written}))
    return found


def spared(note: Note, now: Conditions) -> Effect:
    """Return a metric row, or the count of its loss while the disk is short: the heartbeat itself says the same."""
    return CountLost(note.cls) if now.storage else note
