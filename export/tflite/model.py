# SPDX-License-Identifier: Apache-2.0
"""A TFLite file as frozen values: tensors, operators, subgraphs, signatures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from export.tflite.schema import TENSOR_BITS

__all__ = ["Operator", "Signature", "Subgraph", "TFLiteModel", "Tensor"]


@dataclass(frozen=True)
class Tensor:
    """One tensor.

    Attributes:
        index: Its number in the subgraph.
        name: As in the file; bytes that are not UTF-8 are escaped.
        dtype: ``int8``, ``float32`` and so on.
        shape: Sizes [rank]; what is not known until run time is 1 here and -1 in ``shape_signature``.
        shape_signature: Sizes [rank] with -1 for a free one; the shape where the file says nothing else.
        scales: Quantization scales [1] or [channels]; empty if not quantized.
        zero_points: As many as scales.
        axis: The dimension of per-channel scales.
        data: A constant's bytes, little-endian; None for what is computed.
        is_variable: Keeps its value between calls.
        is_external: The constant lies outside the flatbuffer (trap: tflite-runtime before 2.14 does not find it).
    """

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    shape_signature: tuple[int, ...]
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int
    data: bytes | None
    is_variable: bool
    is_external: bool

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes of all elements; 0 for strings and other types without a fixed size."""
        return -(-self.elements * TENSOR_BITS.get(self.dtype, 0) // 8)


@dataclass(frozen=True)
class Operator:
    """One operator: its kind (a custom operator's own name), version, tensors and options.

    Attributes:
        index: Its number in the subgraph.
        kind: ``CONV_2D``, or the name of a custom operator.
        version: The operator version that the file claims.
        inputs: Tensor numbers; -1 for an optional input that is absent.
        outputs: Tensor numbers.
        options: Field → value, enumerations by name (``padding`` is ``SAME``); a custom operator's bytes as ``custom``.
        is_custom: Not one of TFLite's own.
    """

    index: int
    kind: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]
    is_custom: bool


@dataclass(frozen=True)
class Subgraph:
    """One graph: tensors, operators in the order in which they run, inputs and outputs as tensor numbers."""

    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """A named way to call a subgraph: name → tensor number for inputs and outputs."""

    key: str
    subgraph: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


@dataclass(frozen=True)
class TFLiteModel:
    """A whole file.

    Attributes:
        version: Of the schema, 3.
        subgraphs: The first is the model; others belong to control flow.
        metadata: Name → bytes.
        signatures: In the file's order.
        size: Bytes of the file.
        description: What its maker wrote into it.
    """

    version: int
    subgraphs: tuple[Subgraph, ...]
    metadata: Mapping[str, bytes]
    signatures: tuple[Signature, ...]
    size: int
    description: str

    @property
    def main(self) -> Subgraph:
        """The subgraph that runs."""
        return self.subgraphs[0]
