# SPDX-License-Identifier: Apache-2.0
"""What a gate found. Standard library only."""

from dataclasses import dataclass
from typing import Final

from edge_contract.errors import MeasurementError

__all__ = ["STATUSES", "Finding"]

STATUSES: Final = ("flag", "uncontrolled", "invalid")
"""From the least to the worst."""


@dataclass(frozen=True)
class Finding:
    """One gate's answer.

    Attributes:
        kind: One word, such as ``throttled``.
        status: ``flag``, ``uncontrolled`` or ``invalid``.
        words: What was seen with its values, and what to do about it.
    """

    kind: str
    status: str
    words: str

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise MeasurementError(f"status '{self.status}'", where=f"gate {self.kind}")
