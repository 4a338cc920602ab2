# SPDX-License-Identifier: Apache-2.0
"""What int8 means in one file format on a target: types, scales, operators; the section ``[integers.<format>]``."""

from dataclasses import dataclass, field
from typing import Any, Final

from edge_contract.errors import TargetError
from edge_contract.fields import Fields

__all__ = ["Integers", "parse"]

GRANULARITIES: Final = ("channel", "tensor")


@dataclass(frozen=True)
class Integers:
    """What int8 means in one file format on this target.

    Attributes:
        format: ``onnx`` or ``tflite``.
        activation: Type of activations, ``int8`` or ``uint8``; asymmetric, one scale per tensor.
        weight: Type of weights; symmetric, zero point 0, range [-127, 127].
        bias: Type of biases; scale = input scale × weight scale, zero point 0.
        convolution: Scales of convolution weights: one per output ``channel`` or one per ``tensor``.
        fully_connected: The same for fully-connected weights.
        operators: Operators that the writers may use, in the format's own spelling; the highest version is
            the value (TFLite's operator version, ONNX's opset).
        max_rank: Largest tensor rank.
        packed: Operators that may hold two 4-bit weights in a byte, with the version that reads them; empty where
            nothing reads them.
    """

    format: str
    activation: str
    weight: str
    bias: str
    convolution: str
    fully_connected: str
    operators: dict[str, int]
    max_rank: int
    packed: dict[str, int] = field(default_factory=dict)


def parse(format_name: str, document: Any, where: str) -> Integers:
    """Return the meaning in a decoded ``[integers.<format>]`` section.

    Raises:
        TargetError: A key is missing, unknown or of the wrong type.
    """
    f = Fields(document, where, TargetError)
    found = Integers(
        format_name,
        f.text("activation", among=("int8", "uint8")),
        f.text("weight", among=("int8",)),
        f.text("bias", among=("int32",)),
        f.text("convolution", among=GRANULARITIES),
        f.text("fully_connected", among=GRANULARITIES),
        _operators(f.object("operators"), f"{where}.operators"),
        f.integer("max_rank", minimum=1),
        _packed(f.object("packed", {}), f"{where}.packed"),
    )
    unknown = sorted(f.rest())
    if unknown:
        raise TargetError(f"unknown key '{unknown[0]}'", where=where, fix="remove it or correct its spelling")
    return found


def _packed(document: dict[str, Any], where: str) -> dict[str, int]:
    return _operators(document, where) if document else {}


def _operators(document: dict[str, Any], where: str) -> dict[str, int]:
    f = Fields(document, where, TargetError)
    if not document:
        raise TargetError("no operator", where=where)
    return {name: f.integer(name, minimum=1) for name in document}
