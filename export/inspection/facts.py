# SPDX-License-Identifier: Apache-2.0
"""What a model file says of itself, whatever its format: the values that ``inspect``, ``diff`` and ``adopt`` share."""

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["ModelFacts", "Scales", "Weight"]

Tensors = dict[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Scales:
    """The quantization of one tensor.

    Attributes:
        name: Of the tensor.
        dtype: Of its integers.
        is_constant: A weight or bias; else an activation.
        scales: [1], or one per channel.
        zero_points: As many.
        axis: The dimension of the channels; None for a single scale.
    """

    name: str
    dtype: str
    is_constant: bool
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int | None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": self.dtype,
            "constant": self.is_constant,
            "count": len(self.scales),
            "smallest": _finite(min(self.scales)),
            "largest": _finite(max(self.scales)),
            "zero_points": sorted(set(self.zero_points)),
            "axis": self.axis,
        }


def _finite(value: float) -> float | None:
    """Return what JSON can hold."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Weight:
    """A constant: its type, its shape, and the bytes that it takes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class ModelFacts:
    """What a model file says of itself.

    Attributes:
        format: ``onnx`` or ``tflite``.
        size: Bytes of the file.
        plan_digest: Digest of the plan that it was written from; empty if not by us.
        operators: (name, version, count); for ONNX the version is that of the operator set.
        inputs, outputs: Name → (type, shape); a free dimension is 0.
        custom: Operators that neither format defines.
        float_operators: (name, count) of operators that compute with real numbers. A quantized ONNX file writes its
            operators on real numbers between DequantizeLinear and QuantizeLinear; a runtime fuses those, and they
            do not count.
        weights: Every constant.
        scales: Every quantized tensor.
        metadata: What its makers wrote into it, as text; of bytes only their number.
        outside: Further files that hold weights.
        makers: (output, operator that computes it), behind any quantizing or dequantizing.
    """

    format: str
    size: int
    plan_digest: str
    operators: tuple[tuple[str, int, int], ...]
    inputs: Tensors
    outputs: Tensors
    custom: tuple[str, ...] = ()
    float_operators: tuple[tuple[str, int], ...] = ()
    weights: tuple[Weight, ...] = ()
    scales: tuple[Scales, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    outside: tuple[str, ...] = ()
    makers: tuple[tuple[str, str], ...] = ()

    @property
    def weights_bytes(self) -> int:
        """Bytes of all constants."""
        return sum(weight.size for weight in self.weights)

    def scale_of(self, tensor: str) -> Scales | None:
        """Return the quantization of a tensor, or None for a real one."""
        return next((found for found in self.scales if found.name == tensor), None)

    def to_json(self) -> dict[str, Any]:
        def tensors(found: Tensors) -> list[dict[str, Any]]:
            return [{"name": name, "dtype": dtype, "shape": list(shape)} for name, (dtype, shape) in found.items()]

        operators = [{"name": name, "version": version, "count": count} for name, version, count in self.operators]
        return {
            "format": self.format,
            "size": self.size,
            "plan": self.plan_digest,
            "operators": operators,
            "inputs": tensors(self.inputs),
            "outputs": tensors(self.outputs),
            "custom_operators": list(self.custom),
            "float_operators": [{"name": name, "count": count} for name, count in self.float_operators],
            "weights": {"count": len(self.weights), "bytes": self.weights_bytes, "outside": list(self.outside)},
            "scales": [found.to_json() for found in self.scales],
            "metadata": dict(self.metadata),
        }
