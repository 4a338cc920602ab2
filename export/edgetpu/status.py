# SPDX-License-Identifier: Apache-2.0
"""The words of the Edge TPU compiler for one operator, and our verdict beside them.

The statuses are those that ``edgetpu_compiler`` prints, so that a prediction and its log can be laid side by side.
"""

from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "FLAT_OUTPUT",
    "LIMITATION",
    "MAPPED",
    "NOT_SUPPORTED",
    "ONE_SUBGRAPH",
    "PRECISION",
    "RANK",
    "STATUSES",
    "TYPE",
    "VERSION",
    "Finding",
    "OperatorVerdict",
]

MAPPED: Final = "Mapped to Edge TPU"
NOT_SUPPORTED: Final = "Operation not supported"
ONE_SUBGRAPH: Final = "More than one subgraph is not supported"
LIMITATION: Final = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
RANK: Final = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
TYPE: Final = "Operation is working on an unsupported data type"
VERSION: Final = "Operation version not supported"
PRECISION: Final = "Image-interpolation layer won't run precisely enough on Edge TPU"
FLAT_OUTPUT: Final = "For example, a fully-connected or softmax layer with 2D output"
STATUSES: Final = (
    MAPPED, NOT_SUPPORTED, ONE_SUBGRAPH, LIMITATION, RANK, TYPE, VERSION, PRECISION, FLAT_OUTPUT
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """Something that a rule found in one operator.

    Attributes:
        verdict: ``cpu`` (it will not be mapped), ``risk`` (it may not be) or ``likely`` (it will, on thin evidence).
        status: What the compiler would print if it is not mapped.
        detail: What was found, with its numbers.
        advice: A rewrite for this very case; None leaves it to the table of rewrites, empty says that there is none.
    """

    verdict: str
    status: str
    detail: str
    advice: str | None = None


@dataclass(frozen=True)
class OperatorVerdict:
    """The prediction for one operator.

    Attributes:
        index: Its number in the file.
        kind: Such as ``CONV_2D``.
        version: Its version in the file.
        verdict: ``mapped``, ``likely``, ``risk`` or ``cpu``; the first three count as mapped.
        status: The compiler's words for it.
        detail: Why, with numbers; empty when there is nothing to say.
        macs: Multiplications of this operator.
        parameter_bytes: Its constants.
        advice: A rewrite that would help; empty if none is known.
    """

    index: int
    kind: str
    version: int
    verdict: str
    status: str
    detail: str
    macs: int
    parameter_bytes: int
    advice: str

    @property
    def is_mapped(self) -> bool:
        """Predicted to run on the Edge TPU."""
        return self.status == MAPPED

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "index": self.index,
            "operator": self.kind,
            "version": self.version,
            "verdict": self.verdict,
            "status": self.status,
            "detail": self.detail,
            "macs": self.macs,
            "parameter_bytes": self.parameter_bytes,
            "advice": self.advice,
        }
