# SPDX-License-Identifier: Apache-2.0
"""Two 4-bit weights in a byte: which layers of a plan a file can hold so, and what the plan then takes.

*TFLite.* Measured on LiteRT 2.1.0 and 2.3.0 (x86, and emulated Cortex-A53, A72 and A76): XNNPACK computes a
FULLY_CONNECTED with packed weights to the plan's integers if the weights have one scale per channel and an even number
of inputs, and as fast as with int8 weights. A packed CONV_2D or DEPTHWISE_CONV_2D runs in an old kernel instead, three
times slower and off by a step in 0.3 to 30 % of its codes. But a convolution with 1×1 kernels and stride 1 *is* a
FULLY_CONNECTED, and such layers hold most weights of mobile networks. The others keep one code in a byte.

*ONNX.* Weights of any layer: ONNX Runtime unpacks them to int8 when it loads the file, so that all kernels are those of
int8 weights. (Under a DequantizeLinear of their own the same weights would leave convolutions and layers in float.)
"""

from compress.quantize.plan import Constant, Operation, QuantizationPlan

__all__ = ["is_pointwise", "packable", "stored_bytes"]


def is_pointwise(op: Operation, weight: Constant) -> bool:
    """Return whether a conv2d sees one pixel at a time, all channels of it: a linear layer on each pixel."""
    a = op.attributes
    is_single = weight.codes.shape[2:] == (1, 1) and tuple(a["stride"]) == (1, 1)
    return op.kind == "conv2d" and is_single and not any(a["padding"]) and a["groups"][0] == 1


def packable(plan: QuantizationPlan, form: str) -> frozenset[str]:
    """Return the names of the weights that a file of a format (``onnx``, ``tflite``) can hold packed and exact."""
    small = [op for op in plan.operations if op.weight and plan.constants[op.weight].bits == 4]
    return frozenset(op.weight for op in small if form == "onnx" or _is_fully_connected(plan, op))


def _is_fully_connected(plan: QuantizationPlan, op: Operation) -> bool:
    weight = plan.constants[op.weight]
    return weight.codes.shape[1] % 2 == 0 and (op.kind == "linear" or is_pointwise(op, weight))


def stored_bytes(plan: QuantizationPlan, form: str = "") -> int:
    """Return the bytes of all constants: half a byte for each weight that is packed, its type's width for all others.

    Args:
        plan: With its constants.
        form: ``onnx`` or ``tflite`` for files of targets that read packed weights; empty for all others
            (tflite-runtime, the Edge TPU).
    """
    small = packable(plan, form) if form else frozenset()
    sizes = {name: constant.codes.nbytes for name, constant in plan.constants.items()}
    return sum((size + 1) // 2 if name in small else size for name, size in sizes.items())
