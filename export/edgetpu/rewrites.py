# SPDX-License-Identifier: Apache-2.0
"""What to change in a network so that the Edge TPU maps it: one proposal per operator and reason."""

from typing import Final

from export.edgetpu.status import FLAT_OUTPUT, LIMITATION, PRECISION, RANK, TYPE, VERSION

__all__ = ["advice"]

_RELU6: Final = "train with ReLU6 in its place, or distil into a network that has it"
_TAIL: Final = "put it and what follows into a second model for the CPU, so that the first stays mapped"
_OPERATOR: Final = {
    "HARD_SWISH": _RELU6,
    "GELU": _RELU6,
    "ELU": _RELU6,
    "LEAKY_RELU": "use PReLU with one slope per channel, or ReLU, and fine-tune",
    "DEPTH_TO_SPACE": "use a transposed convolution, or a nearest-neighbour resize and a convolution",
    "SPACE_TO_BATCH_ND": "give the convolution its dilation instead of the pair around it",
    "BATCH_TO_SPACE_ND": "give the convolution its dilation instead of the pair around it",
    "PADV2": "pad with the zero point (PAD), or let the pool pad itself (SAME)",
    "MIRROR_PAD": "pad with zeros",
    "BATCH_MATMUL": f"attention does not map: {_TAIL}",
    "GATHER": _TAIL,
    "GATHER_ND": _TAIL,
    "ARG_MAX": f"read the scores and take the maximum on the CPU; or {_TAIL}",
    "TOPK_V2": _TAIL,
    "DIV": "multiply by the inverse where the divisor is a constant",
    "EXP": _TAIL,
    "CAST": "let the model take int8 or uint8 as it is",
    "REVERSE_V2": "reverse the input before the model, or use a convolution with a permuted kernel",
    "TRANSPOSE": "export channels last, so that no transpose is needed; a 1×1 convolution can permute channels",
    "SPLIT_V": "use SPLIT into equal parts, or slices",
    "UNPACK": "use slices",
    "DEQUANTIZE": "give the model an int8 or uint8 output and convert in your program",
    "QUANTIZE": "give the model an int8 or uint8 input and convert in your program",
}
_REASON: Final = {
    RANK: "keep the batch at 1 and no more than three sizes above 1: no 5-dimensional reshape, no stacked batch",
    TYPE: "quantize the whole model to int8, inputs and outputs too",
    VERSION: "export with older operator versions (for a resize: no half-pixel centres)",
    PRECISION: "resize in smaller steps, use a transposed convolution, or resize after the model on the CPU",
    FLAT_OUTPUT: "use a 1×1 convolution in place of the fully-connected layer",
}
_CONDITION: Final = {
    "CONCATENATION": "concatenate zeros (pad) and add the constant behind it",
    "PACK": "concatenate along another dimension than the batch",
    "SPLIT": "split along another dimension than the batch",
    "CONV_2D": "split the channels, convolve each part, and concatenate",
    "MEAN": "average height and width alone, or pool in two steps",
    "RESIZE_BILINEAR": "make the input smaller, or resize after the model on the CPU",
    "RESIZE_NEAREST_NEIGHBOR": "make the input smaller, or resize after the model on the CPU",
    "RESHAPE": "make the input smaller",
    "SOFTMAX": "leave the softmax to the CPU, after the model",
    "FULLY_CONNECTED": "quantize its weights per tensor",
    "STRIDED_SLICE": "use a convolution or pool with the stride",
    "PRELU": "share the slopes over height and width (Keras: shared_axes=[1, 2])",
}


def advice(kind: str, status: str, *, is_custom: bool = False) -> str:
    """Return a rewrite for an operator that the compiler answers with a status; empty if none is known.

    Example:
        >>> advice("LEAKY_RELU", "Operation not supported")
        'use PReLU with one slope per channel, or ReLU, and fine-tune'
    """
    if is_custom:
        return "run it on the CPU after the model; detection post-processing is best left out of the graph"
    if kind in ("QUANTIZE", "DEQUANTIZE", "CAST", "ARG_MAX") or status not in _REASON:
        return _OPERATOR.get(kind, _CONDITION.get(kind, _TAIL if status != LIMITATION else ""))
    return _REASON[status]
