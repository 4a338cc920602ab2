# SPDX-License-Identifier: Apache-2.0
"""Wide layers: float32 between int8 codes, in three runtimes, named and bounded by the gate."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from compress.quantize import integer, semantics
from compress.quantize.gates import open_gates
from compress.quantize.graph import FloatOp
from compress.quantize.plan import WIDE, QuantizationPlan
from compress.quantize.step import folded, quantize
from compress.quantize.wide import wide_constants, wide_kind
from edge_contract import targets
from edge_contract.errors import ModelError, ParityError, UnsupportedOperatorError
from export.bundle.artefacts import Request, write_one
from export.bundle.builder import build, verify
from export.edgetpu.preflight import check as preflight
from export.onnx import writer as onnx_writer
from export.parity import gate
from export.parity.fusion import float_operators
from export.parity.off_list import off_list, tie_margin
from export.tflite import reader
from export.tflite import writer as tflite_writer
from tests.support.identity import compare, hidden
from tests.support.quant_nets import images, mobile, residual, settled


def widened(build, chosen, seed=2):
    """A plan whose chosen layers, by place among all layers, are wide."""
    net, x = settled(build, seed=seed), images(96, 1)
    plan = quantize(net, x, correct_bias=False)
    graph = open_gates(folded(net, x[:1]))
    ops, constants, place = [], dict(plan.constants), 0
    for op in plan.operations:
        if op.kind in WIDE:
            if place in chosen:
                source = replace(graph.producer(op.output), name=op.name)
                constants |= {constant.name: constant for constant in wide_constants(source)}
                op = replace(op, kind=wide_kind(source))  # the operation as the plan will have it
            place += 1
        ops.append(op)
    return replace(plan, operations=tuple(ops), constants=constants)


@pytest.fixture(scope="module")
def plan():
    return widened(mobile, {0, 2, 16})  # the stem, a depthwise one, the linear layer


def test_wide_layer_is_the_float_layer_between_two_roundings(plan):
    """Against torch's own convolution of the dequantized input."""
    net = settled(mobile, seed=2)
    stem = plan.operations[0]
    source, target = plan.activations[stem.inputs[0]], plan.activations[stem.output]
    codes = semantics.quantize(images(4, 3), source.scale, source.zero_point)
    real = semantics.dequantize(codes, source.scale, source.zero_point)
    with torch.no_grad():
        wanted = semantics.quantize(net.blocks[0](real), target.scale, target.zero_point)
    found = integer.apply(plan, stem, codes)
    assert (found - wanted).abs().max() <= 1
    assert (found != wanted).float().mean() < 1e-4
    assert len(found.unique()) > 100


def test_wide_evaluation_does_not_depend_on_the_batch(plan):
    x = images(9, 4)
    together = integer.run(plan, x)["logits"]
    apart = np.concatenate([integer.run(plan, one[None])["logits"] for one in x])
    assert np.array_equal(together, apart)


def test_wide_plan_survives_its_file(plan, tmp_path):
    plan.save(tmp_path / "plan.npz")
    again = QuantizationPlan.load(tmp_path / "plan.npz")
    assert again.digest == plan.digest
    weight = again.constants[again.operations[0].weight]
    assert (weight.codes.dtype, weight.is_float, weight.bits) == (np.float32, True, 32)
    assert weight.to_json()["type"] == "float32"


def test_other_weights_are_another_digest(plan):
    name = plan.operations[0].weight
    weight = plan.constants[name]
    changed = replace(weight, codes=weight.codes * np.float32(1 + 2**-20))
    assert replace(plan, constants={**plan.constants, name: changed}).digest != plan.digest


def test_runtimes_compute_wide_layers_in_float_and_agree_within_a_step(plan, tmp_path):
    found, operators = compare(plan, images(40, 2), tmp_path, hidden(plan))
    assert (operators["Conv"], operators["Gemm"], operators["QLinearConv"]) == (2, 1, 14)
    for first, second, third in found.values():
        assert np.abs(first - third).max() <= 2
        assert np.abs(second - third).max() <= 3  # what follows a step may differ by more
    first, second, third = found["logits"]
    assert max(np.abs(first - third).max(), np.abs(second - third).max()) <= 1


def test_onnx_runtime_would_round_the_weights_itself_without_the_clamp(plan, tmp_path):
    """Why the writer puts a Max behind each wide layer."""
    onnx = onnx_writer.onnx_package()
    onnx_writer.write(plan, tmp_path / "wide.onnx")
    assert {left.kind for left in float_operators(tmp_path / "wide.onnx")} >= {"Conv", "Gemm", "Max"}
    model = onnx.load(tmp_path / "wide.onnx")
    clamps = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Max"}
    assert len(clamps) == 3
    for node in model.graph.node:
        node.input[:] = [clamps.get(name, name) for name in node.input]
    for node in [node for node in model.graph.node if node.op_type == "Max"]:
        model.graph.node.remove(node)
    onnx.save(model, tmp_path / "bare.onnx")
    assert not {left.kind for left in float_operators(tmp_path / "bare.onnx")} & {"Conv", "Gemm"}


def test_tflite_file_says_what_is_float(plan, tmp_path):
    tflite_writer.write(plan, tmp_path / "wide.tflite")
    kinds = [operator.kind for operator in reader.read_file(tmp_path / "wide.tflite").main.operators]
    assert (kinds.count("DEQUANTIZE"), kinds.count("QUANTIZE")) == (3, 3)
    start = kinds.index("DEQUANTIZE")
    assert kinds[start : start + 3] == ["DEQUANTIZE", "CONV_2D", "QUANTIZE"]


@pytest.mark.parametrize("target", ["rpi4:tflite", "rpi4:onnx", "generic-x86:onnx", "coral-usb:tflite"])
def test_targets_take_wide_layers(plan, tmp_path, target):
    request = Request.parse(target)
    write_one(plan, tmp_path / "wide.bin", request)


def test_edge_tpu_leaves_a_wide_layer_and_what_follows_to_the_cpu(tmp_path):
    plan = widened(mobile, {16})
    tflite_writer.write(plan, tmp_path / "wide.tflite")
    report = preflight(reader.read_file(tmp_path / "wide.tflite"), targets.load("coral-usb"))
    last = report.operators[-3:]
    assert [operator.kind for operator in last] == ["DEQUANTIZE", "FULLY_CONNECTED", "QUANTIZE"]
    assert not any(operator.is_mapped for operator in last)
    assert report.mapped == len(report.operators) - 3


def test_gate_names_wide_layers_with_their_bound(plan, tmp_path):
    made = [(tmp_path / "net.onnx", onnx_writer.write(plan, tmp_path / "net.onnx"))]
    made.append((tmp_path / "net.tflite", tflite_writer.write(plan, tmp_path / "net.tflite")))
    inputs = np.moveaxis(images(60, 5).numpy(), 1, -1)
    executions = gate.execute(made, ("onnxruntime", "litert"), inputs)
    report = gate.check(plan, executions, inputs)
    assert [row.kind for row in report.off_list] == ["float_conv2d", "float_conv2d", "float_linear"]
    for row in report.off_list:
        assert row.reason == "computed in float32"
        assert set(row.alone) == {"onnxruntime", "litert"}
        assert row.max_steps <= 1
    assert report.pair("onnxruntime", "litert").bound == gate.OFF_LIST
    assert report.to_json()["off_list"][0]["alone"]["litert"]["max_steps"] <= 1


def test_gate_refuses_a_wide_plan_whose_other_layer_is_computed_otherwise(plan, tmp_path, monkeypatch):
    """An allowance for wide layers is none for the others: here the runtimes run the file of another plan."""
    made = [(tmp_path / "net.onnx", onnx_writer.write(plan, tmp_path / "net.onnx"))]
    inputs = np.moveaxis(images(60, 5).numpy(), 1, -1)
    executions = gate.execute(made, ("onnxruntime",), inputs)
    other = next(op for op in plan.operations[3:] if op.kind == "conv2d")
    bias = plan.constants[other.bias]
    moved = replace(bias, codes=bias.codes + np.int32(round(0.6 * bias.codes.std())))
    wrong = replace(plan, constants={**plan.constants, bias.name: moved})
    monkeypatch.setattr("export.parity.trace.onnx_writer.write", lambda _, *a, **k: _written(wrong, *a, **k))
    with pytest.raises(ParityError, match=f"'{other.name}' \\(conv2d\\) differ"):
        gate.check(plan, executions, inputs)


_written = onnx_writer.write


def test_plans_without_ties_have_nothing_off_the_list():
    net, x = settled(residual, seed=2), images(96, 1)
    assert off_list(quantize(net, x)) == {}
    loose = quantize(net, x, tie_free=False, observer="squared-error")  # other ranges may miss a tie by chance
    kinds = {op.name: op.kind for op in loose.operations}
    assert {kinds[name] for name in off_list(loose)} == {"add", "global_pool"}


def test_margin_is_that_of_the_paper_and_pencil():
    """Sums of codes in steps of 1 and 1 into steps of 3: thirds, at least a sixth from a tie; into 2: ties."""
    plan = quantize(settled(residual, seed=2), images(96, 1))
    op = next(op for op in plan.operations if op.kind == "add")
    for scale, margin in ((3.0, 1 / 6), (2.0, 0.0)):
        scales = dict.fromkeys(op.inputs, 1.0) | {op.output: scale}
        specs = {n: replace(s, scale=scales.get(n, s.scale)) for n, s in plan.activations.items()}
        assert tie_margin(replace(plan, activations=specs), op) == pytest.approx(margin)


def test_layers_without_weights_cannot_be_wide():
    with pytest.raises(UnsupportedOperatorError, match="a 'mul' cannot be kept in float32"):
        wide_kind(FloatOp("mul", "gate", ("a", "b"), "c", (1,)))
    op = FloatOp("linear", "head", ("x",), "y", (1,), weight=torch.tensor([[1e39]], dtype=torch.float64))
    with pytest.raises(ModelError, match="leaves the range of float32"):
        wide_constants(replace(op, bias=torch.zeros(1)))


def test_bundle_of_a_wide_plan_pins_no_hash(compressed, samples, tmp_path):
    """Another CPU sums floats in another order: its answers are held to steps of the plan, not to one hash."""
    x = torch.from_numpy(samples.raw[:96, None] / np.float32(255))
    graph = open_gates(folded(compressed.model, x[:1]))
    plan = compressed.plan
    first = plan.operations[0]
    source = replace(graph.producer(first.output), name=first.name)
    constants = {constant.name: constant for constant in wide_constants(source)}
    ops = (replace(first, kind=wide_kind(source)), *plan.operations[1:])
    wide = replace(plan, operations=ops, constants={**plan.constants, **constants})
    built = build(replace(compressed, plan=wide), tmp_path / "bundle", version="1.0.0", samples=samples)
    golden = json.loads((tmp_path / "bundle" / "golden.json").read_text())
    assert golden["entries"] == []
    assert golden["max_steps"] >= 2
    assert [row.name for row in built.parity.off_list] == [first.name]
    assert verify(tmp_path / "bundle") == built.manifest
