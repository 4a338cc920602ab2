# SPDX-License-Identifier: Apache-2.0
"""Small TFLite files that rebuild what public threads tell of the Edge TPU compiler, each with the thread's words.

A case is written operator by operator with the project's own FileBuilder; shapes are those of the thread where it
tells them. ``python -m tests.export.edgetpu_cases FOLDER`` writes files and logs for ``export.edgetpu.agreement``.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from export.tflite.builder import FileBuilder

__all__ = ["CASES", "Net"]

SCALE = np.array([0.02], np.float32)


class Net:
    """A chain of operators on one tensor [1, h, w, c]; every method appends an operator to it."""

    def __init__(self, shape, kind="INT8"):
        self.file, self.shape, self.kind, self.count = FileBuilder(), tuple(shape), kind, 0
        self.start = self.here = self.file.tensor("input", self.shape, kind, scales=SCALE)

    def constant(self, values, kind=None, scales=None):
        values = np.asarray(values)
        if kind is None:
            kind = {"int8": "INT8", "int32": "INT32", "float32": "FLOAT32"}[values.dtype.name]
        self.count += 1
        return self.file.tensor(f"c{self.count}", values.shape, kind, values, scales=scales)

    def ints(self, *values):
        return self.constant(np.array(values, np.int32))

    def add(self, op, shape=None, *, version=1, before=(), after=(), options="", kind=None, scale=None, **fields):
        """Append an operator whose inputs are ``before``, the chain, ``after``."""
        self.shape, self.kind = tuple(self.shape if shape is None else shape), kind or self.kind
        self.count += 1
        scales = SCALE if scale is None else np.array([scale], np.float32)
        output = self.file.tensor(f"t{self.count}", self.shape, self.kind, scales=scales)
        self.file.operator(op, version, [*before, self.here, *after], output, options, **fields)
        self.here = output
        return self

    def conv(self, channels, size=3, stride=1, *, version=3, dilation=(1, 1), groups=1):
        _, h, w, c = self.shape
        weights = self.constant(np.ones((channels, size, size, c // groups), np.int8), scales=SCALE)
        bias = self.constant(np.zeros(channels, np.int32), scales=SCALE)
        steps = {"strideH": stride, "strideW": stride, "dilationHFactor": dilation[0], "dilationWFactor": dilation[1]}
        shape = (1, -(-h // stride), -(-w // stride), channels)
        return self.add("CONV_2D", shape, version=version, after=[weights, bias], options="Conv2DOptions", **steps)

    def depthwise(self, size=3, *, version=3, dilation=(1, 1)):
        c = self.shape[-1]
        weights = self.constant(np.ones((1, size, size, c), np.int8), scales=SCALE)
        bias = self.constant(np.zeros(c, np.int32), scales=SCALE)
        steps = {"strideH": 1, "strideW": 1, "depthMultiplier": 1}
        steps |= {"dilationHFactor": dilation[0], "dilationWFactor": dilation[1]}
        after = [weights, bias]
        return self.add("DEPTHWISE_CONV_2D", version=version, after=after, options="DepthwiseConv2DOptions", **steps)

    def linear(self, units, *, scales=SCALE):
        weights = self.constant(np.ones((units, self.shape[-1]), np.int8), scales=np.resize(scales, len(scales)))
        after = [weights, self.constant(np.zeros(units, np.int32), scales=SCALE)]
        shape = (*self.shape[:-1], units)
        return self.add("FULLY_CONNECTED", shape, version=4, after=after, options="FullyConnectedOptions")

    def pad(self, low=1, high=1, *, axes=(1, 2)):
        pairs = [(low, high) if axis in axes else (0, 0) for axis in range(len(self.shape))]
        shape = tuple(size + sum(pair) for size, pair in zip(self.shape, pairs, strict=True))
        table = self.constant(np.array(pairs, np.int32))
        return self.add("PAD", shape, version=2, after=[table], options="PadOptions")

    def reshape(self, *shape):
        return self.add("RESHAPE", shape, after=[self.ints(*shape)], options="ReshapeOptions", newShape=list(shape))

    def transpose(self, *order):
        shape = tuple(self.shape[axis] for axis in order)
        return self.add("TRANSPOSE", shape, version=2, after=[self.ints(*order)], options="TransposeOptions")

    def mean(self, *axes):
        shape = tuple(size for axis, size in enumerate(self.shape) if axis not in axes)
        return self.add("MEAN", shape, version=2, after=[self.ints(*axes)], options="ReducerOptions", keepDims=False)

    def resize(self, height, width, op="RESIZE_BILINEAR", version=2):
        shape = (1, height, width, self.shape[-1])
        return self.add(op, shape, version=version, after=[self.ints(height, width)])

    def finish(self):
        return self.file.finish({"input": self.start}, {"output": self.here}, {})


def transposes_first():
    """#342: MobileNetV2 exported channels first, in the thread's counts: QUANTIZE, PAD, and then a transpose.

    35 rounds of transpose, convolution, …, transpose back; 17 of them pad, 17 hold a depthwise convolution, 10 add.
    """
    net = Net((1, 3, 34, 34), "UINT8").add("QUANTIZE", version=1, kind="INT8").pad(1, 1, axes=(2, 3))
    for i in range(35):
        net.transpose(0, 2, 3, 1).conv(3)
        if i < 17:
            net.depthwise()
        if i < 10:
            net.add("ADD", version=2, after=[net.here], options="AddOptions")
        net.transpose(0, 3, 1, 2)
        if i < 17:
            net.pad(0, 0, axes=(2, 3))
    return net.mean(3).mean(2).linear(4).add("QUANTIZE", version=1, kind="UINT8").finish()


def atrous():
    """#75: DeepLab, 26 of 113 operators before the first depthwise convolution with dilation."""
    net = Net((1, 33, 33, 8), "UINT8").add("QUANTIZE", version=1, kind="INT8")
    for _ in range(25):
        net.conv(8, 1)
    net.depthwise(dilation=(2, 2))
    for _ in range(86):
        net.conv(8, 1)
    return net.finish()


def thermal_face():
    """thermal-face: a RESHAPE to five dimensions and a PACK of what has four."""
    net = Net((1, 8, 8, 16)).conv(16).reshape(1, 8, 8, 4, 4)
    return net.add("PACK", (1, 2, 8, 8, 4, 4), version=2, after=[net.here], options="PackOptions", axis=1).finish()


def activations(name):
    """#272, #597: YOLOv5 with an activation after each convolution; the first one cuts the graph."""

    def build():
        net = Net((1, 16, 16, 8))
        for _ in range(3):
            net.conv(8).add(name)
        return net.finish()

    return build


def leaky_tiny_yolo():
    """YOLOv3-tiny's start: QUANTIZE and a convolution are mapped, the LEAKY_RELU behind them is not."""
    net = Net((1, 32, 32, 3), "UINT8").add("QUANTIZE", version=1, kind="INT8").conv(8)
    net.add("LEAKY_RELU", version=2, options="LeakyReluOptions", alpha=0.1)
    pool = {"filterHeight": 2, "filterWidth": 2, "strideH": 2, "strideW": 2}
    return net.add("MAX_POOL_2D", (1, 16, 16, 8), version=2, options="Pool2DOptions", **pool).conv(16).finish()


def float_ends():
    """f0cal/google-coral#20: QUANTIZE in front and DEQUANTIZE at the end cost themselves alone."""
    net = Net((1, 16, 16, 3), "FLOAT32").add("QUANTIZE", version=1, kind="INT8").conv(8).depthwise().conv(8, 1)
    return net.mean(1, 2).linear(4).add("DEQUANTIZE", version=2, kind="FLOAT32").finish()


def batch():
    """#30: a batch of 30."""
    net = Net((30, 16, 16, 3))
    weights = net.constant(np.ones((4, 3, 3, 3), np.int8), scales=SCALE)
    after = [weights, net.constant(np.zeros(4, np.int32), scales=SCALE)]
    steps = {"strideH": 1, "strideW": 1}
    return net.add("CONV_2D", (30, 16, 16, 4), version=3, after=after, options="Conv2DOptions", **steps).finish()


MAPPED = "Mapped to Edge TPU"
NONE = "Operation not supported"
PLACE = "More than one subgraph is not supported"
RANK = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"

# name → (build, compiler, the compiler's table where the thread or the file tells it, in counts)
CASES: dict[str, tuple[Callable[[], bytes], str, dict[tuple[str, str], int]]] = {
    "transposes-342": (
        transposes_first,
        "15.0.340273435",
        {
            ("TRANSPOSE", NONE): 70,
            ("PAD", MAPPED): 1,
            ("PAD", PLACE): 17,
            ("ADD", PLACE): 10,
            ("MEAN", PLACE): 2,
            ("CONV_2D", PLACE): 35,
            ("DEPTHWISE_CONV_2D", PLACE): 17,
            ("FULLY_CONNECTED", PLACE): 1,
            ("QUANTIZE", MAPPED): 1,
            ("QUANTIZE", PLACE): 1,
        },
    ),
    "atrous-75": (
        atrous,
        "2.1.302470888",
        {
            ("QUANTIZE", MAPPED): 1,
            ("CONV_2D", MAPPED): 25,
            ("DEPTHWISE_CONV_2D", RANK): 1,
            ("CONV_2D", PLACE): 86,
        },
    ),
    "thermal-face": (
        thermal_face,
        "2.1.302470888",
        {("CONV_2D", MAPPED): 1, ("RESHAPE", RANK): 1, ("PACK", NONE): 1},
    ),
    "hard-swish-272": (
        activations("HARD_SWISH"),
        "15.0.340273435",
        {("CONV_2D", MAPPED): 1, ("HARD_SWISH", NONE): 3, ("CONV_2D", PLACE): 2},
    ),
    "leaky-tiny-yolo": (
        leaky_tiny_yolo,
        "15.0.340273435",
        {
            ("QUANTIZE", MAPPED): 1,
            ("CONV_2D", MAPPED): 1,
            ("LEAKY_RELU", NONE): 1,
            ("MAX_POOL_2D", PLACE): 1,
            ("CONV_2D", PLACE): 1,
        },
    ),
    "float-ends-20": (
        float_ends,
        "2.0.267685300",
        {
            ("QUANTIZE", "Operation is otherwise supported, but not mapped due to some unspecified limitation"): 1,
            ("CONV_2D", MAPPED): 2,
            ("DEPTHWISE_CONV_2D", MAPPED): 1,
            ("MEAN", MAPPED): 1,
            ("FULLY_CONNECTED", MAPPED): 1,
            ("DEQUANTIZE", "Operation is working on an unsupported data type"): 1,
        },
    ),
    "batch-30": (batch, "2.0.267685300", {("CONV_2D", RANK): 1}),
}


def log_of(compiler, rows):
    """The compiler's log of a case, in the compiler's own layout."""
    lines = [f"Edge TPU Compiler version {compiler}", "", f"{'Operator':31}{'Count':11}Status", ""]
    return "\n".join([*lines, *(f"{kind:31}{count:<11}{status}" for (kind, status), count in rows.items())]) + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, (build, compiler, rows) in CASES.items():
        (folder / f"{name}.tflite").write_bytes(build())
        (folder / f"{name}_edgetpu.log").write_text(log_of(compiler, rows), "utf-8")
