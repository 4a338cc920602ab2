# SPDX-License-Identifier: Apache-2.0
"""Run a plan in ONNX Runtime, in LiteRT and in PyTorch, and give the codes of every tensor."""

import collections

import numpy as np
import onnx
import onnxruntime
from ai_edge_litert.interpreter import Interpreter

from compress.quantize import integer, semantics
from compress.quantize.graph import as_maps
from export.onnx import writer as onnx_writer
from export.tflite import writer as tflite_writer

INTEGER_OPERATORS = {
    "QLinearConv", "QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearGlobalAveragePool", "QGemm", "MaxPool",
    "NhwcMaxPool", "Flatten", "Concat", "Transpose",
}  # fmt: skip


def hidden(plan):
    return tuple(op.output for op in plan.operations if op.output not in plan.outputs.values())


def in_onnx(path, codes, shift=128):
    """Run a file in ONNX Runtime; return name → signed codes, and the operators of its optimised graph."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimised.onnx"))
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    # On ARM this is the default; on x86 ONNX Runtime leaves int8 activations in float unless it is told.
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    fed = (codes + shift).astype(np.uint8 if shift else np.int8)
    names = [output.name for output in session.get_outputs()]
    answers = [session.run(None, {"input": fed[i : i + 50]}) for i in range(0, len(fed), 50)]
    found = {name: np.concatenate([answer[i] for answer in answers]) for i, name in enumerate(names)}
    operators = collections.Counter(n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node)
    return {name: values.astype(np.int16) - shift for name, values in found.items()}, operators


def in_litert(path, codes):
    """Run a file in LiteRT, one input at a time; return name → codes, channels first."""
    lite = Interpreter(model_path=str(path), num_threads=1)
    lite.allocate_tensors()
    found = collections.defaultdict(list)
    for one in codes:
        lite.set_tensor(lite.get_input_details()[0]["index"], one.transpose(1, 2, 0)[None].astype(np.int8))
        lite.invoke()
        for detail in lite.get_output_details():
            found[detail["name"]].append(lite.get_tensor(detail["index"])[0].copy())
    stacked = {name: np.stack(rows).astype(np.int16) for name, rows in found.items()}
    return {name: v.transpose(0, 3, 1, 2) if v.ndim == 4 else v for name, v in stacked.items()}


def codes_of(plan, x):
    source = plan.activations[plan.input]
    return semantics.quantize(as_maps(x), source.scale, source.zero_point)


def compare(plan, x, folder, extra=()):
    """Return per shown tensor the codes of ONNX Runtime, LiteRT and PyTorch, and ONNX Runtime's operators."""
    onnx_writer.write(plan, folder / "net.onnx", extra=extra)
    tflite_writer.write(plan, folder / "net.tflite", extra=extra)
    codes = codes_of(plan, x)
    first, operators = in_onnx(folder / "net.onnx", codes.numpy())
    second, shown = in_litert(folder / "net.tflite", codes.numpy()), {**{name: name for name in extra}, **plan.outputs}
    third = in_pytorch(plan, codes, set(shown.values()))
    return {n: (first[n], second[n], third[tensor]) for n, tensor in shown.items()}, operators


def in_pytorch(plan, codes, names, batch=50):
    """Evaluate the plan's integers; return name → codes int16 of the named tensors."""
    parts = collections.defaultdict(list)
    for start in range(0, len(codes), batch):
        values = integer.evaluate(plan, codes[start : start + batch])
        for name in names:
            parts[name].append(values[name].numpy().astype(np.int16))
    return {name: np.concatenate(found) for name, found in parts.items()}
