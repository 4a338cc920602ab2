# SPDX-License-Identifier: Apache-2.0
"""How a network was restructured: records that are kept beside the weights and done again to a fresh network.

A restructured network is never pickled: the factory's network, the records and a state dict are enough, and survive a
change of the code that decided them.
"""

from dataclasses import dataclass
from typing import Any

__all__ = ["Change", "Edit", "Edits"]

Change = tuple[str, str, tuple[int, ...]]
"""(layer, how, numbers): removed channels of a pruning group, or the ranks of a factorisation."""


@dataclass(frozen=True)
class Edit:
    """One restructuring, decided on one graph: ``prune`` or ``factorize``, and its changes in order."""

    kind: str
    changes: tuple[Change, ...]

    def to_state(self) -> dict[str, Any]:
        """Return it as lists and texts, for a checkpoint."""
        return {"kind": self.kind, "changes": [[layer, how, list(numbers)] for layer, how, numbers in self.changes]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Edit":
        """Return what ``to_state`` wrote."""
        changes = ((str(layer), str(how), tuple(map(int, numbers))) for layer, how, numbers in state["changes"])
        return cls(str(state["kind"]), tuple(changes))


Edits = tuple[Edit, ...]
