# SPDX-License-Identifier: Apache-2.0
"""What each operator of a model file has to do: products, bytes in and out, bytes of weights, what is fused into it."""

from pathlib import Path

from edge_contract.operator_work import OperatorWork
from export.inspection import work_onnx, work_tflite
from export.inspection.inspect import is_tflite

__all__ = ["operators"]


def operators(path: Path) -> tuple[OperatorWork, ...]:
    """Return the operators of a ``.tflite`` or ``.onnx`` file in the order in which they run, at batch 1.

    Operators that the runtime runs inside of another one (an activation behind a convolution, the DequantizeLinear
    and QuantizeLinear around integers) are counted there and have no line of their own.

    Raises:
        ModelError: It cannot be read, or its shapes cannot be inferred.
        MissingDependencyError: An ONNX file, and the package onnx is not installed.
    """
    if is_tflite(path):
        return work_tflite.operators(path)
    return work_onnx.operators(path)
