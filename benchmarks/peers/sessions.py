# SPDX-License-Identifier: Apache-2.0
"""Run a model file on float samples, whatever type and layout its input has: the same code judges every tool.

One thread, batch 1, default session options: what a user gets who changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import RuntimeAdapterError

__all__ = ["Answers", "Loaded", "Quantization", "answers", "load", "options"]

_SHIFT: Final = {"uint8": 128, "int8": 0}
_READERS: Final = ("DequantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm")  # input, its scale, its zero point, …
_WRITERS: Final = {"DequantizeLinear": 1, "QuantizeLinear": 1, "QLinearConv": 6, "QLinearMatMul": 6, "QGemm": 7}


@dataclass(frozen=True)
class Quantization:
    """Scale and zero point of a file's input or output, and its integer type."""

    scale: float
    zero_point: int
    dtype: str

    def encode(self, values: NDArray[np.float32]) -> NDArray[Any]:
        codes = np.round(values / np.float32(self.scale)) + self.zero_point
        bounds = np.iinfo(self.dtype)
        return np.asarray(np.clip(codes, bounds.min, bounds.max).astype(self.dtype))

    def decode(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        return ((codes.astype(np.float32) - self.zero_point) * np.float32(self.scale)).astype(np.float32)

    def signed(self, codes: NDArray[Any]) -> NDArray[np.int16]:
        return codes.astype(np.int16) - _SHIFT[self.dtype]


@dataclass(frozen=True)
class Loaded:
    """A file in a runtime.

    Attributes:
        prepare: Turns one float32 sample [C, H, W] into what the file takes.
        call: Runs it on a prepared sample and returns the raw logits [K]; this alone is timed.
        source: Quantization of the input, None if it is float.
        sink: Quantization of the logits; also of float logits that the file dequantizes last.
        is_integer: The logits come out as codes.
    """

    prepare: Callable[[NDArray[np.float32]], NDArray[Any]]
    call: Callable[[NDArray[Any]], NDArray[Any]]
    source: Quantization | None
    sink: Quantization | None
    is_integer: bool


@dataclass(frozen=True, eq=False)
class Answers:
    """Logits float32 [N, K], and the signed codes int16 [N, K] behind them where there are any."""

    logits: NDArray[np.float32]
    codes: NDArray[np.int16] | None


def answers(path: Path, inputs: NDArray[np.float32]) -> Answers:
    """Return what a file answers to float32 samples [N, C, H, W].

    Raises:
        RuntimeAdapterError: The runtime refuses the file or fails.
    """
    loaded = load(path)
    raw = np.stack([np.asarray(loaded.call(loaded.prepare(one))).reshape(-1) for one in inputs])
    if loaded.is_integer:
        assert loaded.sink is not None
        return Answers(loaded.sink.decode(raw), loaded.sink.signed(raw))
    codes = None if loaded.sink is None else loaded.sink.signed(loaded.sink.encode(raw))
    return Answers(raw.astype(np.float32), codes)


def load(path: Path) -> Loaded:
    """Open a ``.onnx`` file in ONNX Runtime or a ``.tflite`` file in LiteRT, one thread.

    Raises:
        RuntimeAdapterError: The runtime refuses it.
    """
    try:
        return _onnx(path) if path.suffix == ".onnx" else _tflite(path)
    except Exception as error:  # each runtime has a tree of its own
        raise RuntimeAdapterError(str(error)[:300], where=path.name) from error


def options() -> Any:
    """Return the session options of every ONNX row: one thread that does not spin."""
    import onnxruntime

    found = onnxruntime.SessionOptions()
    found.intra_op_num_threads = found.inter_op_num_threads = 1
    found.log_severity_level = 3
    return found


def _onnx(path: Path) -> Loaded:
    import onnx
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), options(), providers=["CPUExecutionProvider"])
    graph = onnx.load(str(path)).graph
    name, kind = session.get_inputs()[0].name, session.get_inputs()[0].type
    output = session.get_outputs()[0]
    source = None if kind == "tensor(float)" else _reader(graph, name)
    is_integer = output.type != "tensor(float)"
    sink = _writer(graph, output.name, is_integer=is_integer)

    def prepare(sample: NDArray[np.float32]) -> NDArray[Any]:
        return np.ascontiguousarray(sample[None] if source is None else source.encode(sample[None]))

    def call(prepared: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(session.run([output.name], {name: prepared})[0][0])

    return Loaded(prepare, call, source, sink, is_integer)


def _parameters(graph: Any, scale_name: str, zero_name: str) -> Quantization:
    import onnx

    tensors = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            tensors[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    scale, zero = tensors[scale_name], tensors[zero_name]
    return Quantization(float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]), str(zero.dtype))


def _reader(graph: Any, name: str) -> Quantization:
    """Quantization of an integer input: as the first node that reads it is told."""
    for node in graph.node:
        if node.op_type in _READERS and node.input[0] == name:
            return _parameters(graph, node.input[1], node.input[2])
    raise RuntimeAdapterError(f"no {' or '.join(_READERS)} reads the integer input '{name}'")


def _writer(graph: Any, name: str, *, is_integer: bool) -> Quantization | None:
    """Quantization of the logits: as the node that writes them is told; None for floats that were never codes."""
    node = next(node for node in graph.node if name in node.output)
    if node.op_type in _WRITERS and (node.op_type == "DequantizeLinear") is not is_integer:
        first = _WRITERS[node.op_type]
        return _parameters(graph, node.input[first], node.input[first + 1])
    if is_integer:
        raise RuntimeAdapterError(f"the integer logits are written by {node.op_type}, whose scale is not known here")
    return None


def _tflite(path: Path) -> Loaded:
    from ai_edge_litert.interpreter import Interpreter

    lite = Interpreter(model_path=str(path), num_threads=1)
    lite.allocate_tensors()
    first, last = lite.get_input_details()[0], lite.get_output_details()[0]
    for detail in lite.get_output_details():  # ours shows the embedding too, after the logits
        if detail["name"] == "logits":
            last = detail
    source, sink = _detail(first), _detail(last)
    is_channels_last = len(first["shape"]) == 4

    def prepare(sample: NDArray[np.float32]) -> NDArray[Any]:
        turned = sample.transpose(1, 2, 0)[None] if is_channels_last else sample[None]
        if tuple(turned.shape) != tuple(first["shape"]):
            turned = sample[None]
        return np.ascontiguousarray(turned if source is None else source.encode(turned))

    def call(prepared: NDArray[Any]) -> NDArray[Any]:
        lite.set_tensor(first["index"], prepared)
        lite.invoke()
        return np.asarray(lite.get_tensor(last["index"])[0])

    return Loaded(prepare, call, source, sink, sink is not None)


def _detail(detail: Any) -> Quantization | None:
    scale, zero_point = detail["quantization"]
    kind = np.dtype(detail["dtype"]).name
    return None if kind == "float32" else Quantization(float(scale), int(zero_point), kind)
