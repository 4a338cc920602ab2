# SPDX-License-Identifier: Apache-2.0
"""One vocabulary for what an operator does, whatever its runtime calls it.

ONNX Runtime runs what its optimiser left: ``FusedConv`` is a Conv with an activation or a sum, ``ReorderInput`` changes
the memory's layout, ``QLinear…`` computes in integers. XNNPACK names its kernels: a 1x1 convolution may be
``Fully Connected … GEMM``, and is told as ``dense``, since that is what ran. The runtime's own name is always kept
beside the kind.
"""

import re
from collections.abc import Sequence
from typing import Final

__all__ = ["KINDS", "of_onnx", "of_tflite", "of_xnnpack", "plain_name"]

KINDS: Final = (
    "conv",
    "depthwise",
    "deconv",
    "dense",
    "matmul",
    "pool",
    "add",
    "mul",
    "elementwise",
    "activation",
    "softmax",
    "norm",
    "reduce",
    "reshape",
    "transpose",
    "reorder",
    "concat",
    "slice",
    "pad",
    "resize",
    "gather",
    "quantize",
    "recurrent",
    "copy",
    "delegate",
    "other",
)
Shape = Sequence[int]

_ONNX: Final[dict[str, str]] = {
    kind: name
    for name, kinds in {
        "conv": "Conv FusedConv QLinearConv ConvInteger NhwcFusedConv NhwcConv",
        "deconv": "ConvTranspose QLinearConvTranspose FusedConvTranspose",
        "dense": "Gemm FusedGemm QGemm QLinearGemm",
        "matmul": "MatMul FusedMatMul MatMulInteger QLinearMatMul MatMulIntegerToFloat MatMulNBits "
        "DynamicQuantizeMatMul TransposeMatMul Einsum",
        "pool": "MaxPool AveragePool GlobalAveragePool GlobalMaxPool NhwcMaxPool QLinearAveragePool "
        "QLinearGlobalAveragePool LpPool",
        "add": "Add QLinearAdd Sum BiasAdd",
        "mul": "Mul QLinearMul",
        "elementwise": "Sub Div Pow Sqrt Exp Log Abs Neg Max Min Reciprocal Floor Ceil Round Erf Where Equal Less "
        "Greater Cos Sin And Or Not Cast",
        "activation": "Relu LeakyRelu Clip Sigmoid HardSigmoid HardSwish Tanh Elu Selu PRelu Gelu FastGelu QuickGelu "
        "Mish Softplus QLinearSigmoid QLinearLeakyRelu ThresholdedRelu BiasGelu",
        "softmax": "Softmax LogSoftmax QLinearSoftmax",
        "norm": "BatchNormalization InstanceNormalization LayerNormalization SkipLayerNormalization LpNormalization "
        "LRN GroupNorm SimplifiedLayerNormalization",
        "reduce": "ReduceMean ReduceSum ReduceMax ReduceMin QLinearReduceMean ArgMax ArgMin TopK ReduceProd",
        "reshape": "Reshape Flatten Squeeze Unsqueeze Identity Shape Size",
        "transpose": "Transpose DepthToSpace SpaceToDepth",
        "reorder": "ReorderInput ReorderOutput",
        "concat": "Concat QLinearConcat",
        "slice": "Slice Split",
        "pad": "Pad",
        "resize": "Resize Upsample",
        "gather": "Gather GatherElements GatherND Embedding OneHot Expand Tile",
        "quantize": "QuantizeLinear DequantizeLinear DynamicQuantizeLinear",
        "recurrent": "LSTM GRU RNN DynamicQuantizeLSTM Scan Loop",
        "copy": "MemcpyFromHost MemcpyToHost",
    }.items()
    for kind in kinds.split()
}

_TFLITE: Final[dict[str, str]] = {
    kind: name
    for name, kinds in {
        "conv": "CONV_2D CONV_3D",
        "depthwise": "DEPTHWISE_CONV_2D",
        "deconv": "TRANSPOSE_CONV",
        "dense": "FULLY_CONNECTED",
        "matmul": "BATCH_MATMUL",
        "pool": "MAX_POOL_2D AVERAGE_POOL_2D L2_POOL_2D",
        "add": "ADD ADD_N",
        "mul": "MUL",
        "elementwise": "SUB DIV POW SQRT RSQRT EXP LOG ABS NEG MAXIMUM MINIMUM SQUARE SQUARED_DIFFERENCE FLOOR CEIL "
        "ROUND SELECT SELECT_V2 EQUAL LESS GREATER SIN COS CAST FLOOR_DIV FLOOR_MOD LOGICAL_AND LOGICAL_OR LOGICAL_NOT",
        "activation": "RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1 LEAKY_RELU LOGISTIC HARD_SWISH TANH ELU PRELU GELU",
        "softmax": "SOFTMAX LOG_SOFTMAX",
        "norm": "L2_NORMALIZATION LOCAL_RESPONSE_NORMALIZATION",
        "reduce": "MEAN SUM REDUCE_MAX REDUCE_MIN REDUCE_PROD ARG_MAX ARG_MIN TOPK_V2",
        "reshape": "RESHAPE SQUEEZE EXPAND_DIMS SHAPE",
        "transpose": "TRANSPOSE SPACE_TO_DEPTH DEPTH_TO_SPACE SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND",
        "concat": "CONCATENATION PACK",
        "slice": "SLICE STRIDED_SLICE SPLIT SPLIT_V UNPACK",
        "pad": "PAD PADV2 MIRROR_PAD",
        "resize": "RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR",
        "gather": "GATHER GATHER_ND EMBEDDING_LOOKUP TILE BROADCAST_TO ONE_HOT",
        "quantize": "QUANTIZE DEQUANTIZE",
        "recurrent": "LSTM UNIDIRECTIONAL_SEQUENCE_LSTM UNIDIRECTIONAL_SEQUENCE_RNN RNN SVDF WHILE",
        "delegate": "DELEGATE",
    }.items()
    for kind in kinds.split()
}

_XNNPACK: Final[tuple[tuple[str, str], ...]] = (
    (r"DWConv", "depthwise"),
    (r"^Deconvolution", "deconv"),
    (r"^Convolution", "conv"),
    (r"^Fully Connected", "dense"),
    (r"^(Dynamic )?Fully Connected", "dense"),
    (r"^Batch Matrix Multiply|^Scaled Dot-Product", "matmul"),
    (r"Pooling|Unpooling", "pool"),
    (r"^Add\b", "add"),
    (r"^Multiply\b", "mul"),
    (r"Softmax", "softmax"),
    (r"Reduce|^Mean|^Sum|^Argmax", "reduce"),
    (r"Reshape", "reshape"),
    (r"Transpose|Depth To Space|Space To Depth", "transpose"),
    (r"^Concatenate", "concat"),
    (r"Slice|Split", "slice"),
    (r"Pad\b", "pad"),
    (r"Resize", "resize"),
    (r"^Convert", "quantize"),
    (r"^Copy", "copy"),
    (r"Sigmoid|Tanh|HardSwish|Hardswish|Clamp|ReLU|ELU|GELU", "activation"),
    (r"Normali[sz]ation|^RMS|^RoPE", "norm"),
    (r"\(N[DC]", "elementwise"),
)


def of_onnx(op: str, inputs: Sequence[Shape] = ()) -> str:
    """Return the kind of an ONNX Runtime operator; a Conv whose filters see one channel of several is depthwise.

    Example:
        >>> of_onnx("FusedConv", [(1, 32, 14, 14), (32, 1, 3, 3)]), of_onnx("ReorderInput"), of_onnx("MyOwn")
        ('depthwise', 'reorder', 'other')
    """
    kind = _ONNX.get(op, "other")
    weights = inputs[1] if len(inputs) > 1 else ()
    if kind == "conv" and len(weights) > 2 and weights[1] == 1 and weights[0] > 1 and _channels(op, inputs) > 1:
        return "depthwise"
    return kind


def _channels(op: str, inputs: Sequence[Shape]) -> int:
    """Return the channels that a convolution reads: the last dimension in integer and NHWC kernels."""
    place = -1 if op.startswith(("Nhwc", "QLinear")) else 1
    return inputs[0][place] if len(inputs[0]) > 2 else 1


def of_tflite(op: str) -> str:
    """Return the kind of a TFLite builtin operator.

    Example:
        >>> of_tflite("DEPTHWISE_CONV_2D"), of_tflite("TfLiteXNNPackDelegate"), of_tflite("HashTable")
        ('depthwise', 'delegate', 'other')
    """
    return _TFLITE.get(op.upper(), "delegate" if "delegate" in op.lower() else "other")


def of_xnnpack(tag: str) -> str:
    """Return the kind of an XNNPACK kernel by its own name.

    Example:
        >>> of_xnnpack("Convolution (NHWC, QC8) DWConv"), of_xnnpack("Subtract (ND)"), of_xnnpack("Add (ND)")
        ('depthwise', 'elementwise', 'add')
    """
    return next((kind for pattern, kind in _XNNPACK if re.search(pattern, tag)), "other")


def plain_name(name: str) -> str:
    """Return a node's name as the file has it: ONNX Runtime's optimiser marks what it rewrote.

    Example:
        >>> plain_name("b_nchwc_kernel_time"), plain_name("conv1_quant_token_3_kernel_time"), plain_name("fused relu_1")
        ('b', 'conv1', 'relu_1')
    """
    name = name.removesuffix("_kernel_time")
    name = re.sub(r"(_token_\d+|_nchwc|_nhwc|_quant|_QuantizeLinear|/fused)+$", "", name)
    return name.removeprefix("fused ")
