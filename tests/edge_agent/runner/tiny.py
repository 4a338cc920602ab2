# SPDX-License-Identifier: Apache-2.0
"""A three-layer int8 classifier, written to TFLite and ONNX by hand from one set of integers.

Conv 3×3 stride 2 + ReLU → global mean → fully connected. Small enough to build in milliseconds, real enough that
every runtime picks its real int8 kernels for it. Weights come from a seed.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_contract.manifest import Artefact, TensorSpec

SIDE, FILTERS, CLASSES = 8, 6, 4
HALF = 128
"""Activations are int8 in TFLite and uint8 in ONNX: the same integers, shifted."""


@dataclass(frozen=True)
class Tiny:
    """The integers: conv weights [F,3,3,1], fully connected [K,F], int32 biases, scales, zero points (signed)."""

    conv: np.ndarray
    conv_bias: np.ndarray
    conv_scales: np.ndarray
    dense: np.ndarray
    dense_bias: np.ndarray
    scales: dict[str, float]
    zeros: dict[str, int]
    dense_scale: float = 1 / 128

    def spec(self, name: str, role: str, shape: tuple[int, ...], layout: str, *, signed: bool) -> TensorSpec:
        zero = self.zeros[name] + (0 if signed else HALF)
        dtype = "int8" if signed else "uint8"
        return TensorSpec(name, role, shape, dtype, layout, self.scales[name], zero)


def make(seed: int = 1) -> Tiny:
    """Draw the weights; the last bias centres the logits, so that all classes occur."""
    rng = np.random.default_rng(seed)
    f32 = lambda v: float(np.float32(v))  # noqa: E731
    scales = {"input": f32(1 / 255), "conv": f32(0.021), "embedding": f32(0.012), "logits": f32(0.043)}
    zeros = {"input": -128, "conv": -128, "embedding": -128, "logits": 3}
    conv_scales = rng.uniform(0.004, 0.012, FILTERS).astype(np.float32)
    drawn = Tiny(
        rng.integers(-127, 128, (FILTERS, 3, 3, 1)).astype(np.int8),
        rng.integers(-4000, 9000, FILTERS).astype(np.int32),
        conv_scales,
        rng.integers(-127, 128, (CLASSES, FILTERS)).astype(np.int8),
        rng.integers(-2000, 2000, CLASSES).astype(np.int32),
        scales,
        zeros,
    )
    seen = np.array([reference(drawn, raw)[1] for raw in images(32, seed=seed)]).astype(np.int64)
    accumulated = (seen + HALF) @ drawn.dense.T.astype(np.int64) + drawn.dense_bias
    centred = drawn.dense_bias - np.rint(accumulated.mean(axis=0)).astype(np.int32)
    return replace(drawn, dense_bias=centred)


def images(count: int, seed: int = 0) -> np.ndarray:
    """Return raw uint8 images [count, 8, 8]: slopes of all directions under noise."""
    rng = np.random.default_rng(seed)
    slope = rng.normal(0, 1, (count, 2))
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    field = slope[:, :1, None] * y + slope[:, 1:, None] * x + rng.normal(0, 0.3, (count, SIDE, SIDE))
    return np.clip(field * 70 + 120, 0, 255).astype(np.uint8)


def reference(net: Tiny, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return signed codes of logits [K] and embedding [F] for one image scaled by 1/255, in exact arithmetic."""
    centred = np.zeros((SIDE + 1, SIDE + 1), np.int64)  # TFLite's SAME: the odd row and column of padding come last
    centred[:SIDE, :SIDE] = raw.astype(np.int64)
    half = SIDE // 2
    patches = np.array([[centred[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] for j in range(half)] for i in range(half)])
    sums = np.einsum("ijyx,fyx->ijf", patches, net.conv[..., 0].astype(np.int64)) + net.conv_bias
    real = sums * (net.scales["input"] * net.conv_scales.astype(np.float64))
    conv = np.clip(np.rint(real / net.scales["conv"]), 0, 255)  # above the zero point, where ReLU cuts
    mean = conv.mean(axis=(0, 1)) * net.scales["conv"] / net.scales["embedding"]
    embedding = np.clip(np.rint(mean), 0, 255).astype(np.int64)
    dense = embedding @ net.dense.T.astype(np.int64) + net.dense_bias
    logits = np.rint(dense * (net.scales["embedding"] * net.dense_scale / net.scales["logits"])) + net.zeros["logits"]
    return np.clip(logits, -HALF, HALF - 1).astype(np.int8), (embedding - HALF).astype(np.int8)


def _quant(scale: Any, zero: int, axis: int = 0) -> Any:
    from ai_edge_litert import schema_py_generated as s

    q = s.QuantizationParametersT()
    q.scale = np.atleast_1d(np.float32(scale))
    q.zeroPoint = np.full(len(q.scale), zero, np.int64)
    q.quantizedDimension = axis
    return q


class _Writer:
    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as s

        self.s, self.graph, self.model = s, s.SubGraphT(), s.ModelT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.buffers, self.model.operatorCodes = [s.BufferT()], []

    def tensor(self, name: str, shape: tuple[int, ...], kind: str, quant: Any = None, data: Any = None) -> int:
        t = self.s.TensorT()
        t.name, t.shape, t.quantization = name.encode(), np.array(shape, np.int32), quant
        t.type = getattr(self.s.TensorType, kind)
        t.buffer = 0
        if data is not None:
            b = self.s.BufferT()
            b.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            t.buffer = len(self.model.buffers)
            self.model.buffers.append(b)
        self.graph.tensors.append(t)
        return len(self.graph.tensors) - 1

    def op(self, code: str, version: int, inputs: list[int], outputs: list[int], kind: str, **options: Any) -> None:
        s = self.s
        c = s.OperatorCodeT()
        c.builtinCode = getattr(s.BuiltinOperator, code)
        c.deprecatedBuiltinCode, c.version = c.builtinCode, version
        o = s.OperatorT()
        o.opcodeIndex, o.inputs, o.outputs = len(self.model.operatorCodes), inputs, outputs
        o.builtinOptionsType = getattr(s.BuiltinOptions, kind)
        o.builtinOptions = getattr(s, f"{kind}T")()
        for key, value in options.items():
            setattr(o.builtinOptions, key, value)
        self.model.operatorCodes.append(c)
        self.graph.operators.append(o)

    def save(self, path: Path, inputs: list[int], outputs: list[int]) -> None:
        import flatbuffers

        self.graph.inputs, self.graph.outputs = inputs, outputs
        self.model.version, self.model.subgraphs = 3, [self.graph]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        path.write_bytes(bytes(builder.Output()))


def write_tflite(net: Tiny, path: Path) -> Artefact:
    """Write int8 NHWC with per-channel convolution and per-tensor fully connected."""
    w, half = _Writer(), SIDE // 2
    q = {name: _quant(net.scales[name], net.zeros[name]) for name in net.scales}
    x = w.tensor("input", (1, SIDE, SIDE, 1), "INT8", q["input"])
    kernel = w.tensor("k", net.conv.shape, "INT8", _quant(net.conv_scales, 0), net.conv)
    bias_scale = np.float32(net.scales["input"]) * net.conv_scales
    bias = w.tensor("kb", (FILTERS,), "INT32", _quant(bias_scale, 0), net.conv_bias)
    y = w.tensor("conv", (1, half, half, FILTERS), "INT8", q["conv"])
    relu = w.s.ActivationFunctionType.RELU
    w.op("CONV_2D", 3, [x, kernel, bias], [y], "Conv2DOptions", strideH=2, strideW=2, fusedActivationFunction=relu)
    axes = w.tensor("axes", (2,), "INT32", None, np.array([1, 2], np.int32))
    e = w.tensor("embedding", (1, FILTERS), "INT8", q["embedding"])
    w.op("MEAN", 2, [y, axes], [e], "ReducerOptions", keepDims=False)
    dense = w.tensor("d", net.dense.shape, "INT8", _quant(net.dense_scale, 0), net.dense)
    dense_bias_scale = np.float32(net.scales["embedding"]) * np.float32(net.dense_scale)
    dense_bias = w.tensor("db", (CLASSES,), "INT32", _quant(dense_bias_scale, 0), net.dense_bias)
    z = w.tensor("logits", (1, CLASSES), "INT8", q["logits"])
    w.op("FULLY_CONNECTED", 4, [e, dense, dense_bias], [z], "FullyConnectedOptions")
    w.save(path, [x], [z, e])
    outputs = (
        net.spec("logits", "logits", (1, CLASSES), "NC", signed=True),
        net.spec("embedding", "embedding", (1, FILTERS), "NC", signed=True),
    )
    source = net.spec("input", "input", (1, SIDE, SIDE, 1), "NHWC", signed=True)
    return Artefact(path.name, "tflite", ("litert", "tflite-runtime"), "rpi4", "int8", "", source, outputs)


def write_onnx(net: Tiny, path: Path) -> Artefact:
    """Write QDQ with uint8 activations × int8 weights, NCHW."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants: list[Any] = []
    nodes: list[Any] = []

    def const(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def codes(name: str) -> list[str]:
        zero = np.uint8(net.zeros[name] + HALF)
        return [const(f"{name}_s", np.float32(net.scales[name])), const(f"{name}_z", zero)]

    def dequantize(source: str, params: list[str], out: str, axis: int | None = None) -> str:
        extra = {} if axis is None else {"axis": axis}
        nodes.append(helper.make_node("DequantizeLinear", [source, *params], [out], **extra))
        return out

    q = {name: codes(name) for name in net.scales}
    zeros8, zeros32 = np.zeros(FILTERS, np.int8), np.zeros(FILTERS, np.int32)
    kernel = const("k", net.conv.transpose(0, 3, 1, 2))
    kf = dequantize(kernel, [const("k_s", net.conv_scales), const("k_z", zeros8)], "kf", 0)
    kb_scale = np.float32(net.scales["input"]) * net.conv_scales
    kb = dequantize(const("kb", net.conv_bias), [const("kb_s", kb_scale), const("kb_z", zeros32)], "kbf", 0)
    xf = dequantize("input", q["input"], "xf")
    pads = [0, 0, 1, 1]
    nodes.append(helper.make_node("Conv", [xf, kf, kb], ["cf"], strides=[2, 2], pads=pads))
    nodes.append(helper.make_node("Relu", ["cf"], ["rf"]))
    nodes.append(helper.make_node("QuantizeLinear", ["rf", *q["conv"]], ["conv"]))
    nodes.append(helper.make_node("GlobalAveragePool", [dequantize("conv", q["conv"], "conv_f")], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"], axis=1))
    nodes.append(helper.make_node("QuantizeLinear", ["flat", *q["embedding"]], ["embedding"]))
    ef = dequantize("embedding", q["embedding"], "ef")
    df = dequantize(const("d", net.dense), [const("d_s", np.float32(net.dense_scale)), const("d_z", np.int8(0))], "df")
    db_scale = np.float32(net.scales["embedding"]) * np.float32(net.dense_scale)
    db = dequantize(const("db", net.dense_bias), [const("db_s", db_scale), const("db_z", np.int32(0))], "dbf")
    nodes.append(helper.make_node("Gemm", [ef, df, db], ["lf"], transB=1))
    nodes.append(helper.make_node("QuantizeLinear", ["lf", *q["logits"]], ["logits"]))
    u8 = TensorProto.UINT8
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", u8, [1, 1, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("logits", u8, [1, CLASSES]),
            helper.make_tensor_value_info("embedding", u8, [1, FILTERS]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    outputs = (
        net.spec("logits", "logits", (1, CLASSES), "NC", signed=False),
        net.spec("embedding", "embedding", (1, FILTERS), "NC", signed=False),
    )
    source = net.spec("input", "input", (1, 1, SIDE, SIDE), "NCHW", signed=False)
    return Artefact(path.name, "onnx", ("onnxruntime",), "generic-x86", "int8", "", source, outputs)


def write_logarithm(path: Path, first: int = 0) -> Artefact:
    """Write a float ONNX model: the logarithm of two of four pixels; a black one gives minus infinity."""
    from onnx import TensorProto, helper, numpy_helper

    ends = [
        numpy_helper.from_array(np.array(v, np.int64), n)
        for n, v in (("from", [first]), ("to", [first + 2]), ("axis", [1]))
    ]
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"], axis=1),
        helper.make_node("Slice", ["flat", "from", "to", "axis"], ["two"]),
        helper.make_node("Log", ["two"], ["logits"]),
    ]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("input", ["n", 1, 2, 2]), ("logits", ["n", 2]))
    ]
    graph = helper.make_graph(nodes, "log", infos[:1], infos[1:], ends)
    opset = helper.make_opsetid("", 17)
    path.write_bytes(helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString())
    source = TensorSpec("input", "input", (0, 1, 2, 2), "float32", "NCHW")
    logits = TensorSpec("logits", "logits", (0, 2), "float32", "NC")
    return Artefact(path.name, "onnx", ("onnxruntime",), "generic-x86", "float32", "", source, (logits,))


def write_mean(path: Path) -> Artefact:
    """Write an 8-bit ONNX model for regression: the mean of 2 × 2 pixels, in steps of 1/255."""
    from onnx import TensorProto, helper, numpy_helper

    step, zero = np.float32(1 / 255), np.uint8(0)
    constants = [numpy_helper.from_array(np.array(v), n) for n, v in (("step", step), ("zero", zero))]
    nodes = [
        helper.make_node("DequantizeLinear", ["input", "step", "zero"], ["real"]),
        helper.make_node("GlobalAveragePool", ["real"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"], axis=1),
        helper.make_node("QuantizeLinear", ["flat", "step", "zero"], ["bright"]),
    ]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, shape)
        for name, shape in (("input", [1, 1, 2, 2]), ("bright", [1, 1]))
    ]
    graph = helper.make_graph(nodes, "mean", infos[:1], infos[1:], constants)
    opset = helper.make_opsetid("", 17)
    path.write_bytes(helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString())
    source = TensorSpec("input", "input", (1, 1, 2, 2), "uint8", "NCHW", float(step), 0)
    output = TensorSpec("bright", "output", (1, 1), "uint8", "NC", float(step), 0)
    return Artefact(path.name, "onnx", ("onnxruntime",), "generic-x86", "int8", "", source, (output,))
