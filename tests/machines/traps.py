# SPDX-License-Identifier: Apache-2.0
"""TFLite files of the kind that other tools write and old runtimes get wrong, each beside its cure.

Written by hand, so that each holds its one fault and nothing else. Which tools write them: ai-edge-quantizer 0.10 all
three, TFLiteConverter the per-channel layer.
"""

import numpy as np
from numpy.typing import NDArray

from export.tflite.builder import ALIGNMENT, FileBuilder

__all__ = ["Dense", "dynamic_range", "full_integer", "outside"]

CLASSES, FEATURES = 6, 24


class Dense:
    """One fully-connected layer: float weights [6, 24] whose rows differ in size, and what they answer.

    Attributes:
        scale: One step of the int8 input, and of the output.
    """

    def __init__(self) -> None:
        generator = np.random.default_rng(5)
        self.weights = generator.normal(0, 1, (CLASSES, FEATURES)) * np.array([4, 2, 1, 1, 0.5, 0.25])[:, None]
        self.codes = generator.integers(-100, 100, (40, FEATURES)).astype(np.int8)
        self.scale, self.output_scale = np.float32(0.02), np.float32(0.5)

    @property
    def inputs(self) -> NDArray[np.float32]:
        """Real inputs [40, 24]."""
        return self.codes.astype(np.float32) * self.scale

    @property
    def answers(self) -> NDArray[np.float64]:
        """What the float layer answers, [40, 6]."""
        return self.inputs.astype(np.float64) @ self.weights.T

    def quantized(self, *, per_channel: bool) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Return int8 weights and their scales, one for each row or one for all."""
        largest = np.abs(self.weights).max(axis=1) if per_channel else np.abs(self.weights).max(keepdims=True)[0]
        scales = (largest / 127).astype(np.float32)
        return np.rint(self.weights / scales[:, None]).astype(np.int8), scales


def full_integer(layer: Dense, *, per_channel: bool) -> bytes:
    """Return the layer on int8 inputs and outputs."""
    file, (codes, scales) = FileBuilder(), layer.quantized(per_channel=per_channel)
    source = file.tensor("input", (1, FEATURES), "INT8", scales=np.array([layer.scale]))
    weight = file.tensor("weight", codes.shape, "INT8", codes, scales=scales)
    zeros = np.zeros(CLASSES, np.int32)
    bias = file.tensor("bias", zeros.shape, "INT32", zeros, scales=scales * layer.scale)
    target = file.tensor("logits", (1, CLASSES), "INT8", scales=np.array([layer.output_scale]))
    file.operator("FULLY_CONNECTED", 4, [source, weight, bias], target, "FullyConnectedOptions")
    return file.finish({"input": source}, {"logits": target}, {})


def dynamic_range(layer: Dense, *, version: int) -> bytes:
    """Return the layer on float inputs and per-channel int8 weights; such layers came with version 12."""
    file, (codes, scales) = FileBuilder(), layer.quantized(per_channel=True)
    source = file.tensor("input", (1, FEATURES), "FLOAT32")
    weight = file.tensor("weight", codes.shape, "INT8", codes, scales=scales)
    target = file.tensor("logits", (1, CLASSES), "FLOAT32")
    inputs, options = [source, weight, -1], {"asymmetricQuantizeInputs": False}
    file.operator("FULLY_CONNECTED", version, inputs, target, "FullyConnectedOptions", **options)
    return file.finish({"input": source}, {"logits": target}, {})


def outside(data: bytes) -> bytes:
    """Return a file with its constants behind the flatbuffer, found by ``Buffer.offset`` and ``size``."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    used = {tensor.buffer for tensor in model.subgraphs[0].tensors}
    moved = [(b, bytes(b.data)) for i, b in enumerate(model.buffers) if i in used and b.data is not None]
    for buffer, content in moved:
        buffer.data, buffer.offset, buffer.size = None, 1, len(content)  # any offset: only its place counts now
    behind = _aligned(len(_packed(flatbuffers, model)))
    tail = b""
    for buffer, content in moved:
        buffer.offset = behind + len(tail)
        tail += content.ljust(_aligned(len(content)), b"\0")
    return _packed(flatbuffers, model).ljust(behind, b"\0") + tail


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _packed(flatbuffers, model) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
