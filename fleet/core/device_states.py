# SPDX-License-Identifier: Apache-2.0
"""A device that gets no orders: in quarantine, or out of the fleet for good. Pure."""

from dataclasses import dataclass
from typing import Any, Final

__all__ = ["DECOMMISSIONED", "QUARANTINED", "Standing"]

QUARANTINED: Final = "quarantined"
DECOMMISSIONED: Final = "decommissioned"


@dataclass(frozen=True)
class Standing:
    """Why a device gets no orders.

    Attributes:
        state: ``quarantined`` or ``decommissioned``.
        since: Seconds since 1970.
        reason: In words.
        actor: Who said so; ``server`` where it acted by itself.
    """

    state: str
    since: float
    reason: str
    actor: str

    def to_json(self) -> dict[str, Any]:
        return {"state": self.state, "since": self.since, "reason": self.reason, "by": self.actor}
