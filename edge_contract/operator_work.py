# SPDX-License-Identifier: Apache-2.0
"""What one operator of a model file has to do, in numbers: the words between who reads files and who predicts times."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edge_contract.errors import ContractError

__all__ = ["OperatorWork", "from_json", "to_json"]


@dataclass(frozen=True)
class OperatorWork:
    """One operator.

    Attributes:
        kind: ``conv``, ``pointwise`` (a convolution of one tap), ``depthwise``, ``dense``, ``pool``, ``mean``,
            ``add``, ``mul``, ``activation``, ``concat``, ``reshape``, ``pad``, ``quantize``; else the file's own name
            of it in small letters.
        type: What it computes with: ``float32`` or ``int8``.
        products: Multiply-accumulates; of a pool the numbers that it looks at.
        inputs: Bytes that it reads beside its weights.
        outputs: Bytes that it writes.
        weights: Bytes of its constants.
        channels: Of its input and of its output; of a dense layer its features.
        fused: Operators that the runtime runs inside of this one, such as the activation behind a convolution.
    """

    kind: str
    type: str
    products: int = 0
    inputs: int = 0
    outputs: int = 0
    weights: int = 0
    channels: tuple[int, int] = (1, 1)
    fused: int = 0

    @property
    def name(self) -> str:
        """Kind and type in one word: operators of one name cost alike for what they do.

        Example:
            >>> OperatorWork("conv", "int8").name
            'int8 conv'
        """
        return f"{self.type} {self.kind}"

    @property
    def moved(self) -> int:
        """Bytes that go in and out, weights too."""
        return self.inputs + self.outputs + self.weights


def to_json(operators: Iterable[OperatorWork]) -> list[dict[str, Any]]:
    """Return operators as JSON objects."""
    return [{**asdict(one), "channels": list(one.channels)} for one in operators]


def from_json(document: Any, where: str = "operators") -> tuple[OperatorWork, ...]:
    """Return the operators that ``to_json`` wrote.

    Raises:
        ContractError: Something else.

    Example:
        >>> one = OperatorWork("dense", "float32", 640, 256, 40, 2600, (64, 10))
        >>> from_json(to_json([one])) == (one,)
        True
    """
    if not isinstance(document, Sequence) or isinstance(document, str):
        raise ContractError("no list of operators", where=where)
    try:
        return tuple(OperatorWork(**{**one, "channels": tuple(one["channels"])}) for one in document)
    except (TypeError, KeyError) as error:
        raise ContractError(f"no operator: {error}", where=where) from error
