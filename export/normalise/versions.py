# SPDX-License-Identifier: Apache-2.0
"""Operator versions that tell the truth: the version that introduced what an operator really uses.

A runtime compares a file's operator versions with its own and refuses what is newer. Where a tool writes a version that
is too low, an old runtime loads the file and computes nonsense without an error (per-channel hybrid FULLY_CONNECTED on
tflite-runtime 2.7 to 2.14). Where it is too high, runtimes that could run it refuse.

Each kind has a list of needs; the version is the highest among those that apply. A kind without a list, and a version
higher than any known one, are left as they are.

Reference: TensorFlow's rules in ``tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc`` (2.21), which return
the first rule that applies; the highest is taken here, because versions accumulate.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from export.normalise.draft import NEW, Draft, Graph
from export.tflite.walk import Table

__all__ = ["honest_version", "set_versions"]

# Kind@input: type of that input (0 if unsaid) = version.
_TYPES_TEXT: Final = """
ADD: int8=2 int64=4 float16=6
SUB: int8=2 int64=4
MUL: int8=2 int16=4 int64=5 complex64=6 uint32=7 float16=8
MAX_POOL_2D AVERAGE_POOL_2D SOFTMAX MEAN MIRROR_PAD REDUCE_MAX REDUCE_MIN RELU6 RSQRT TANH LOGISTIC: int8=2 int16=3
LESS GREATER_EQUAL: int8=2 int16=3
SPACE_TO_DEPTH DEPTH_TO_SPACE SPLIT_V SUM LOG_SOFTMAX GREATER LESS_EQUAL SQUARED_DIFFERENCE: int8=2
EXP LOG REDUCE_PROD SQRT: int8=2 int16=2
PAD PADV2: int8=2 int16=3 bool=5
MAXIMUM MINIMUM: int8=2 int16=4
RELU: int8=2 uint8=2 int16=3
LEAKY_RELU: int16=2
GELU: int8=2 uint8=2
ABS: int8=2 uint8=2 int16=4 int32=5
CONCATENATION: int8=2 int16=3 uint32=4 int4=5
PACK: int8=2 int16=3 uint32=4
UNPACK: int8=2 uint8=2 bool=3 int16=4 float16=5 bfloat16=5
SPLIT@1: int8=2 int32=3 int16=4
SLICE: int8=2 string=3 int16=4 uint32=6 int4=7
STRIDED_SLICE: int8=2 bool=3 string=5 uint32=7
TRANSPOSE: int8=2 bool=3 int16=5 int4=7 bfloat16=8
GATHER: int8=2 bool=3 int16=4 int4=7
GATHER_ND: string=2 int16=3 bool=5
TILE: string=2 int8=3
SQUEEZE: string=2
SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND: int8=2 int16=4
RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR: int8=2 int16=4
REVERSE_V2: bool=2 int8=3
ARG_MAX ARG_MIN: int8=2 bool=3
EQUAL: int8=2 string=3 int16=5
NOT_EQUAL: int8=2 string=3 int16=4
SELECT: int8=2 uint32=4
SELECT_V2: uint32=2
FLOOR_DIV: float32=2 int8=3 int16=3
FLOOR_MOD: int8=2 int16=2
RANGE: int64=2
SIGN: int32=2
FILL@1: bool=2 string=2 int8=3 int16=3 float16=4
SPARSE_TO_DENSE@2: int64=2 int8=3 uint8=3
DEQUANTIZE: int8=2 int16=3 float16=3 int4=6 int2=7 uint4=8
BATCH_MATMUL: int8=2 int16=3
TRANSPOSE_CONV@1: int8=2
CONV_2D: int8=3 int16=4
DEPTHWISE_CONV_2D: int8=3 int16=5
FULLY_CONNECTED: int8=4 int16=7
L2_NORMALIZATION QUANTIZE DIV RESHAPE HARD_SWISH PRELU EXPAND_DIMS: float32=1
"""


def _types() -> dict[str, tuple[int, dict[str, int]]]:
    found = {}
    for line in _TYPES_TEXT.strip().splitlines():
        kinds, body = line.split(": ")
        versions = {name: int(number) for name, number in (part.split("=") for part in body.split())}
        for kind in kinds.split():
            name, _, index = kind.partition("@")
            found[name] = (int(index or 0), versions)
    return found


_TYPES: Final = _types()


class Use:
    """What one operator uses of its kind's abilities."""

    def __init__(self, graph: Graph, op: Table) -> None:
        self._graph, self._op = graph, op
        self.inputs: tuple[int, ...] = op["inputs"] or ()
        self.outputs: tuple[int, ...] = op["outputs"] or ()

    def has(self, index: int) -> bool:
        """The input is there."""
        return index < len(self.inputs) and self.inputs[index] >= 0

    def dtype(self, index: int) -> str:
        return self._graph.dtype(self.inputs[index]) if self.has(index) else ""

    def out(self, index: int = 0) -> str:
        return self._graph.dtype(self.outputs[index]) if index < len(self.outputs) else ""

    def rank(self, index: int = 0) -> int:
        return len(self._graph.shape(self.inputs[index])) if self.has(index) else 0

    def option(self, name: str) -> Any:
        return (self._op["builtin_options"] or {}).get(name, 0)

    def scale(self, index: int) -> float:
        """Scale of an input; of the output for -1; 0 if it has none."""
        scales = self._graph.quantized(self.outputs[0] if index < 0 else self.inputs[index]).scales
        return scales[0] if scales else 0.0

    def is_per_channel(self, index: int) -> bool:
        return self.has(index) and len(self._graph.quantized(self.inputs[index]).scales) > 1

    def is_output_per_channel(self) -> bool:
        return len(self._graph.quantized(self.outputs[0]).scales) > 1

    def is_hybrid(self, weights: int = 1) -> bool:
        """Float in and out, int8 weights: the runtime quantizes activations as it goes."""
        return self.dtype(0) == self.out() == "float32" and self.dtype(weights) == "int8"

    def is_sparse(self, index: int) -> bool:
        return self.has(index) and self._graph.tensors[self.inputs[index]]["sparsity"] is not None

    def is_grouped(self) -> bool:
        source, weights = (self._graph.shape(self.inputs[i]) for i in (0, 1))
        return len(source) == len(weights) == 4 and source[3] > 0 and source[3] != weights[3]

    def broadcasts_beyond(self, rank: int) -> bool:
        shapes = [self._graph.shape(tensor) for tensor in self.inputs[:2] if tensor >= 0]
        return len(set(shapes)) > 1 and max(map(len, shapes)) > rank

    def is_either(self, *dtypes: str) -> bool:
        return self.dtype(0) in dtypes or self.out() in dtypes

    def is_rescaled_up(self) -> bool:
        """A product whose integers grow: input scale × input scale ≥ output scale."""
        a, b, out = (self.scale(index) for index in (0, 1, -1))
        return 0 < out <= a * b


def _dilated(use: Use) -> bool:
    return bool(use.option("dilation_w_factor") > 1 or use.option("dilation_h_factor") > 1)


def _asymmetric(use: Use) -> bool:
    return bool(use.option("asymmetric_quantize_inputs"))


def _pixel_centers(use: Use) -> bool:
    return bool(use.option("half_pixel_centers"))


_Needs = tuple[tuple[int, Callable[[Use], Any]], ...]
_HYBRID_RNN: Final[_Needs] = (
    (2, lambda u: u.dtype(1) == "int8" and u.out() == "float32"),
    (3, lambda u: u.dtype(1) == "int8" and u.out() == "float32" and _asymmetric(u)),
)
_BEYOND_4: Final[_Needs] = ((3, lambda u: u.broadcasts_beyond(4)),)
_NEEDS: Final[Mapping[str, _Needs]] = {
    "CONV_2D": (
        (2, Use.is_hybrid),
        (5, lambda u: u.is_hybrid() and u.is_per_channel(1)),
        (6, Use.is_grouped),
        (7, lambda u: u.dtype(1) == "int4"),
        (8, lambda u: u.dtype(0) == "int16" and u.dtype(1) == "int8" and u.option("quantized_bias_type")),
    ),
    "DEPTHWISE_CONV_2D": (
        (2, _dilated),
        (4, Use.is_hybrid),
        (6, lambda u: u.is_hybrid() and u.is_per_channel(1)),
        (7, lambda u: u.dtype(1) == "int4"),
    ),
    "FULLY_CONNECTED": (
        (2, lambda u: u.option("weights_format")),
        (3, Use.is_hybrid),
        (5, lambda u: u.option("keep_num_dims")),
        (6, lambda u: len(u.inputs) < 3),  # an absent bias may also be written as -1, which all read
        (8, lambda u: u.is_sparse(1)),
        (9, lambda u: u.is_hybrid() and _asymmetric(u)),
        (10, lambda u: u.dtype(1) == "int4"),
        (11, lambda u: u.dtype(0) == "int16" and u.dtype(1) == "int8" and u.option("quantized_bias_type")),
        (12, lambda u: u.is_hybrid() and u.is_per_channel(1)),
        (13, lambda u: u.dtype(0) == "int16" and u.dtype(1) == "int4"),
        (14, lambda u: u.dtype(1) == "int2"),
    ),
    "TRANSPOSE_CONV": (
        (3, lambda u: u.has(3)),
        (4, lambda u: u.option("fused_activation_function")),
        (5, lambda u: u.dtype(0) == "int16" and u.option("quantized_bias_type")),
    ),
    "ADD": (
        (3, lambda u: u.dtype(0) == "int16" and u.scale(0) and not u.option("pot_scale_int16")),
        (5, lambda u: u.dtype(0) == "int16" and not u.scale(0)),
    ),
    "SUB": (*_BEYOND_4, (5, lambda u: u.dtype(0) == "int16" and not u.option("pot_scale_int16"))),
    "MUL": ((3, Use.is_rescaled_up), (7, lambda u: u.dtype(0) == "int16" and not u.scale(0))),
    "DIV": ((2, lambda u: u.broadcasts_beyond(4)),),
    "MAXIMUM": _BEYOND_4,
    "MINIMUM": _BEYOND_4,
    "PAD": ((4, lambda u: u.rank() > 4),),
    "PADV2": ((4, lambda u: u.rank() > 4),),
    "TRANSPOSE": ((4, lambda u: u.rank() > 4), (6, lambda u: u.rank() > 5), (8, lambda u: u.rank() > 6)),
    "SLICE": ((5, lambda u: u.rank() > 4),),
    "STRIDED_SLICE": (
        (4, lambda u: u.rank() > 4),
        (6, lambda u: u.option("ellipsis_mask") or u.option("new_axis_mask")),
        (8, lambda u: u.option("offset")),
    ),
    "SPACE_TO_BATCH_ND": ((3, lambda u: u.rank() != 4),),
    "BATCH_TO_SPACE_ND": ((3, lambda u: u.rank() != 4),),
    "RESIZE_BILINEAR": ((3, _pixel_centers),),
    "RESIZE_NEAREST_NEIGHBOR": ((3, _pixel_centers), (3, lambda u: u.option("align_corners"))),
    "GATHER": ((5, lambda u: u.option("batch_dims")), (6, lambda u: u.dtype(1) == "int16")),
    "GATHER_ND": ((4, lambda u: u.dtype(1) == "int16"),),
    "SELECT": ((3, lambda u: max(u.rank(i) for i in (0, 1, 2)) >= 5),),
    "BATCH_MATMUL": ((4, lambda u: u.is_hybrid() and _asymmetric(u)),),
    "QUANTIZE": (
        (2, lambda u: u.out() == "int16"),
        (3, lambda u: u.is_per_channel(0) or u.is_output_per_channel()),
        (4, lambda u: u.is_either("int4")),
        (5, lambda u: u.is_either("uint4")),
    ),
    "DEQUANTIZE": ((5, lambda u: u.is_per_channel(0)),),
    "L2_NORMALIZATION": ((2, lambda u: u.out() == "int8"),),
    "CAST": (
        (2, lambda u: u.is_either("uint32")),
        (3, lambda u: u.is_either("int8")),
        (4, lambda u: u.is_either("uint16")),
        (5, lambda u: u.is_either("float64", "float16")),
        (6, lambda u: u.dtype(0) == "int4"),
        (7, lambda u: u.is_either("bfloat16")),
        (8, lambda u: u.is_either("int2", "uint4")),
    ),
    "RNN": _HYBRID_RNN,
    "UNIDIRECTIONAL_SEQUENCE_RNN": _HYBRID_RNN,
    "BIDIRECTIONAL_SEQUENCE_RNN": _HYBRID_RNN,
    "BIDIRECTIONAL_SEQUENCE_LSTM": _HYBRID_RNN,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        (2, lambda u: u.is_hybrid(2)),
        (3, lambda u: u.is_hybrid(2) and _asymmetric(u)),
        (4, lambda u: u.option("diagonal_recurrent_tensors")),
        (5, lambda u: u.dtype(0) == "int16" and u.dtype(2) == "int8"),
    ),
    "LSTM": (
        (2, lambda u: u.option("kernel_type")),
        (3, lambda u: u.is_hybrid(2)),
        (4, lambda u: u.is_hybrid(2) and _asymmetric(u)),
        (5, lambda u: u.dtype(0) == "int16" and u.dtype(2) == "int8"),
    ),
    "SVDF": (
        (2, Use.is_hybrid),
        (3, lambda u: u.dtype(0) == "int8"),
        (4, lambda u: u.is_hybrid() and _asymmetric(u)),
    ),
}


def honest_version(kind: str, use: Use) -> int | None:
    """Return the version that introduced all that an operator uses; None for a kind without rules."""
    if kind not in _TYPES and kind not in _NEEDS:
        return None
    index, versions = _TYPES.get(kind, (0, {}))
    needed = [version for version, applies in _NEEDS.get(kind, ()) if applies(use)]
    return max([1, versions.get(use.dtype(index), 1), *needed])


def _highest(kind: str) -> int:
    """The highest version that the rules of a kind know."""
    _, versions = _TYPES.get(kind, (0, {}))
    return max([1, *versions.values(), *(version for version, _ in _NEEDS.get(kind, ()))])


def set_versions(draft: Draft) -> list[str]:
    """Give each operator its honest version; return what changed, one line for each kind and pair of versions."""
    changed: dict[tuple[str, int, int], int] = {}
    for graph in draft.graphs:
        for op in graph.operators:
            kind, (number, custom, claimed) = draft.kind(op), op["code"]
            honest = honest_version(kind, Use(graph, op))
            if honest is None or honest == claimed or claimed > _highest(kind):
                continue
            op["code"] = (number, custom, honest)
            if claimed != NEW:
                changed[kind, claimed, honest] = changed.get((kind, claimed, honest), 0) + 1
    return [f"{kind} version {old} → {new} ({count}×)" for (kind, old, new), count in changed.items()]
