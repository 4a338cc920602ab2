# SPDX-License-Identifier: Apache-2.0
"""TFLite files with the known traps, built by hand without any converter, each with the right answer beside it.

Every builder returns a Case: bytes, inputs, and what the network means, computed in float64 from the dequantized
numbers. ``outside`` and ``claiming`` turn any file into one with constants behind the flatbuffer, or with other
operator versions.
"""

from dataclasses import dataclass, replace

import numpy as np

from export.normalise.draft import blank, quantization
from export.tflite.encoder import encode
from export.tflite.schema import ENUMS, OPERATORS
from export.tflite.walk import decode

SAME, VALID = 0, 1


@dataclass(frozen=True, eq=False)
class Case:
    """A file, an input [1, ...] float32 or int8 codes, and the real numbers that it must give."""

    data: bytes
    inputs: np.ndarray
    answer: np.ndarray

    def having(self, data):
        return replace(self, data=data)


class Net:
    """Collects tensors and operators of one subgraph."""

    def __init__(self):
        self.tensors, self.operators, self.codes, self.buffers = [], [], {}, [blank("Buffer")]

    def tensor(self, name, shape, dtype, data=None, scales=(), zero_point=0, axis=0, signature=None):
        table = blank("Tensor") | {"name": name.encode(), "shape": tuple(shape), "shape_signature": signature}
        table["type"] = ENUMS["TensorType"].index(dtype.upper())
        if data is not None:
            table["buffer"] = len(self.buffers)
            self.buffers.append(blank("Buffer") | {"data": np.ascontiguousarray(data).tobytes()})
        if len(scales):
            table["quantization"] = quantization(scales, (zero_point,) * len(scales), axis)
        self.tensors.append(table)
        return len(self.tensors) - 1

    def constant(self, name, data, scales=(), axis=0):
        return self.tensor(name, data.shape, data.dtype.name, data, scales, 0, axis)

    def operator(self, kind, version, inputs, output, options, **fields):
        code = self.codes.setdefault((kind, version), len(self.codes))
        number = ENUMS["BuiltinOptions"].index(options)
        chosen = {"builtin_options_type": number, "builtin_options": blank(options) | fields, "opcode_index": code}
        self.operators.append(blank("Operator") | chosen | {"inputs": tuple(inputs), "outputs": (output,)})

    def finish(self, inputs, outputs, names=("input", "output")):
        graph = {
            "tensors": self.tensors,
            "operators": self.operators,
            "inputs": inputs,
            "outputs": outputs,
            "name": b"main",
        }
        codes = [
            blank("OperatorCode") | {"deprecated_builtin_code": min(n, 127), "builtin_code": n, "version": version}
            for n, version in ((OPERATORS.index(kind), version) for kind, version in self.codes)
        ]
        maps = [
            [{"name": f"{name}_{i}".encode(), "tensor_index": t} for i, t in enumerate(side)]
            for name, side in zip(names, (inputs, outputs), strict=True)
        ]
        signature = blank("SignatureDef") | {"inputs": maps[0], "outputs": maps[1], "signature_key": b"serving_default"}
        model = {
            "version": 3,
            "operator_codes": codes,
            "subgraphs": [blank("SubGraph") | graph],
            "buffers": self.buffers,
        }
        return encode(blank("Model") | model | {"description": b"by hand", "signature_defs": [signature]})


def dense_per_channel(*, equal_scales=False, bias=True, rows=1, signature=None, seed=0):
    """An int8 FULLY_CONNECTED [rows, 24] → [rows, 10] with one weight scale for each output: trap 2."""
    rng, net = np.random.default_rng(seed), Net()
    weights = rng.integers(-127, 128, (10, 24)).astype(np.int8)
    scales = np.full(10, 0.004) if equal_scales else np.geomspace(0.0005, 0.02, 10)
    scales = scales.astype(np.float32)
    codes, biases = rng.integers(-128, 128, (rows, 24)).astype(np.int8), rng.integers(-900, 900, 10).astype(np.int32)
    signature = (-1, 24) if signature else None
    x = net.tensor("dense/input/with/a/long/name", (rows, 24), "int8", None, [0.05], -3, signature=signature)
    w = net.constant("dense/weights/with/a/long/name", weights, scales)
    b = [net.constant("dense/bias/with/a/long/name", biases, scales * np.float32(0.05))] if bias else []
    y = net.tensor("dense/output", (rows, 10), "int8", None, [0.6], 4, signature=signature and (-1, 10))
    net.operator("FULLY_CONNECTED", 4 if bias else 6, [x, w, *b], y, "FullyConnectedOptions")
    real = (codes + 3.0) * np.float64(np.float32(0.05))
    answer = real @ (weights * scales[:, None].astype(np.float64)).T
    answer += biases * scales * 0.05 if bias else 0
    return Case(net.finish((x,), (y,)), codes, np.clip(answer, (-128 - 4) * 0.6, (127 - 4) * 0.6))


def dynamic(kind="FULLY_CONNECTED", *, version=None, seed=0):
    """Float in and out with per-channel int8 weights, claiming the version of the stock quantizer: trap 3.

    FULLY_CONNECTED 5 (12 is honest), CONV_2D 1 (5), DEPTHWISE_CONV_2D 1 (6).
    """
    rng, net = np.random.default_rng(seed), Net()
    shapes = {"FULLY_CONNECTED": (10, 24), "CONV_2D": (10, 3, 3, 4), "DEPTHWISE_CONV_2D": (1, 3, 3, 4)}
    shape = shapes[kind]
    axis = 3 if kind.startswith("DEPTH") else 0
    weights = rng.integers(-127, 128, shape).astype(np.int8)
    scales = np.geomspace(0.0005, 0.02, shape[axis]).astype(np.float32)
    source = (1, 24) if len(shape) == 2 else (1, 8, 8, 4)
    values = rng.standard_normal(source).astype(np.float32)
    outputs = (1, 10) if len(shape) == 2 else (1, 8, 8, shape[axis])
    x, w = net.tensor("input", source, "float32"), net.constant("weights", weights, scales, axis)
    b = net.constant("bias", np.linspace(-1, 1, shape[axis]).astype(np.float32))
    y = net.tensor("output", outputs, "float32")
    claimed = version or {"FULLY_CONNECTED": 5}.get(kind, 1)
    fields = {"padding": SAME, "stride_w": 1, "stride_h": 1} if len(shape) == 4 else {"asymmetric_quantize_inputs": 1}
    if kind.startswith("DEPTH"):
        fields["depth_multiplier"] = 1
    options = {"CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions"}
    net.operator(kind, claimed, [x, w, b], y, options.get(kind, "FullyConnectedOptions"), **fields)
    broad = [1] * len(shape)
    broad[axis] = -1
    real = weights * scales.reshape(broad).astype(np.float64)
    answer = values @ real.T if len(shape) == 2 else convolved(values, real, depthwise=axis == 3)
    return Case(net.finish((x,), (y,)), values, answer + np.linspace(-1, 1, shape[axis]))


def convolved(values, weights, *, depthwise=False):
    """A 3×3 SAME convolution with stride 1: values [1, H, W, I], weights [O, 3, 3, I] or [1, 3, 3, I] → float64."""
    padded = np.pad(values.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("nhwiyx,oyxi->nhwi" if depthwise else "nhwiyx,oyxi->nhwo", windows, weights)


def swish_net(*, producer=True, shown=False, clamp=0, seed=0, size=12, channels=8):
    """int8 CONV_2D (or the input itself) → HARD_SWISH, as converters write MobileNetV3."""
    rng, net = np.random.default_rng(seed), Net()
    codes = rng.integers(-128, 128, (1, size, size, channels)).astype(np.int8)
    x = net.tensor("input", codes.shape, "int8", None, [0.05], -5)
    real, source = (codes + 5.0) * np.float64(np.float32(0.05)), x
    if producer:
        weights = rng.integers(-127, 128, (channels, 3, 3, channels)).astype(np.int8)
        scales = np.linspace(0.001, 0.003, channels).astype(np.float32)
        w, b = (
            net.constant("weights", weights, scales),
            net.constant("bias", np.zeros(channels, np.int32), scales * np.float32(0.05)),
        )
        source = net.tensor("before", codes.shape, "int8", None, [0.07], 10)
        fields = {"padding": SAME, "stride_w": 1, "stride_h": 1, "fused_activation_function": clamp}
        net.operator("CONV_2D", 3, [x, w, b], source, "Conv2DOptions", **fields)
        exact = convolved(real, weights * scales.reshape(-1, 1, 1, 1).astype(np.float64))
        step = np.float64(np.float32(0.07))
        low = -10 if clamp else -138
        real = np.clip(np.rint(exact / step), low, 117) * step
    y = net.tensor("output", codes.shape, "int8", None, [0.05], -120)
    net.operator("HARD_SWISH", 1, [source], y, "HardSwishOptions")
    answer = real * np.clip(real + 3, 0, 6) / 6
    return Case(net.finish((x,), (y, source) if shown else (y,)), codes, np.clip(answer, -8 * 0.05, 247 * 0.05))


def padded(*, pads=((0, 1), (0, 1)), size=8, stride=2, zero=None, seed=0):
    """int8 PAD → VALID CONV_2D 3×3, as Keras writes stride 2 after ZeroPadding2D."""
    rng, net = np.random.default_rng(seed), Net()
    codes = rng.integers(-128, 128, (1, size, size, 4)).astype(np.int8)
    height, width = (size + sum(pair) for pair in pads)
    out = ((height - 3) // stride + 1, (width - 3) // stride + 1)
    x = net.tensor("input", codes.shape, "int8", None, [0.05], 7)
    table = net.constant("pads", np.array([(0, 0), *pads, (0, 0)], np.int32))
    middle = net.tensor("padded", (1, height, width, 4), "int8", None, [0.05], 7)
    if zero is None:
        net.operator("PAD", 2, [x, table], middle, "PadOptions")
    else:
        value = net.tensor("value", (1,), "int8", np.array([zero], np.int8), [0.05], 7)
        net.operator("PADV2", 2, [x, table, value], middle, "PadV2Options")
    weights = rng.integers(-127, 128, (6, 3, 3, 4)).astype(np.int8)
    scales = np.linspace(0.001, 0.003, 6).astype(np.float32)
    w, b = (
        net.constant("weights", weights, scales),
        net.constant("bias", np.zeros(6, np.int32), scales * np.float32(0.05)),
    )
    y = net.tensor("output", (1, *out, 6), "int8", None, [0.08], -11)
    net.operator("CONV_2D", 3, [middle, w, b], y, "Conv2DOptions", padding=VALID, stride_w=stride, stride_h=stride)
    return Case(net.finish((x,), (y,)), codes, np.zeros(0))


def outside(data):
    """The same model with every constant behind the flatbuffer, as stock quantizers write larger ones: trap 4."""
    root, _ = decode(data, "")
    moved = [buffer for buffer in root["buffers"] if buffer["data"]]
    contents = [buffer["data"] for buffer in moved]
    for buffer in moved:
        buffer |= {"data": None, "offset": 1 << 40, "size": 1}  # as wide as the true ones will be
    at = -(-len(encode(root)) // 16) * 16
    tail = b""
    for buffer, content in zip(moved, contents, strict=True):
        buffer |= {"offset": at + len(tail), "size": len(content)}
        tail += content + bytes(-len(content) % 16)
    return encode(root).ljust(at, b"\0") + tail


def claiming(data, versions):
    """The same model with other operator versions: kind → version."""
    root, _ = decode(data, "")
    for code in root["operator_codes"]:
        kind = OPERATORS[max(code["deprecated_builtin_code"], code["builtin_code"])]
        code["version"] = versions.get(kind, code["version"])
    return encode(root)


def newer(data, slots):
    """The same file by a future schema: the Model table has so many fields, of which we do not know the last."""
    root = int.from_bytes(data[:4], "little")
    vtable = root - int.from_bytes(data[root : root + 4], "little", signed=True)
    size = int.from_bytes(data[vtable : vtable + 2], "little")
    wide = (
        data[vtable + 2 : vtable + size].ljust(2 + 2 * slots - 2, b"\0") + b"\4\0"
    )  # the last lies where the first does
    place = -(-len(data) // 4) * 4
    out = bytearray(data.ljust(place, b"\0") + (4 + 2 * slots).to_bytes(2, "little") + wide)
    out[root : root + 4] = (root - place).to_bytes(4, "little", signed=True)
    return bytes(out)
