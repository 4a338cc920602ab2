# SPDX-License-Identifier: Apache-2.0
"""Weights of four bits: the same integers in three runtimes, two weights in a byte where a runtime reads that."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from compress.quantize import integer
from compress.quantize.packing import packable, stored_bytes
from compress.quantize.plan import QuantizationPlan
from compress.quantize.step import quantize
from edge_contract import targets
from edge_contract.errors import RuntimeAdapterError
from export.bundle import artefacts
from export.bundle.artefacts import Request, write_one
from export.check import runtimes
from export.onnx import writer as onnx_writer
from export.packed import pack4
from export.parity import gate
from export.parity.fusion import float_operators
from export.runtimes.execution import python_for, run
from export.tflite import reader
from export.tflite import writer as tflite_writer
from tests.support.identity import codes_of, hidden, in_litert, in_onnx, in_pytorch
from tests.support.quant_nets import images, mobile, residual, separable, settled
from tests.zoo import models


def narrowed(plan):
    """The same plan with weights of four bits: 16 times the scale, a sixteenth of the codes."""
    constants = dict(plan.constants)
    for op in plan.operations:
        if op.bias:
            weight, bias = constants[op.weight], constants[op.bias]
            codes = np.clip(np.rint(weight.codes / 16.0), -7, 7).astype(np.int8)
            step = np.float32(16)
            constants[op.weight] = replace(weight, codes=codes, scales=weight.scales * step, bits=4)
            small = np.rint(bias.codes / 16.0).astype(np.int32)
            constants[op.bias] = replace(bias, codes=small, scales=bias.scales * step)
    return replace(plan, constants=constants)


@pytest.fixture(scope="module")
def plans():
    return {build: narrowed(quantize(settled(build, seed=2), images(96, 1))) for build in (mobile, residual, separable)}


def test_two_codes_lie_in_a_byte_the_first_one_low():
    """The example of the ONNX standard: element 0 in bits 0 to 3."""
    assert pack4(np.array([[1, -1], [7, -7]], np.int8)).tolist() == [0xF1, 0x97]
    turned = np.arange(-6, 6, dtype=np.int8).reshape(3, 4).T  # not contiguous
    assert pack4(turned).tolist() == pack4(np.ascontiguousarray(turned)).tolist()


@pytest.mark.parametrize("build", [mobile, residual, separable])
def test_no_integer_differs_in_any_tensor(plans, build, tmp_path):
    plan, x = plans[build], images(24, 2)
    codes, extra = codes_of(plan, x), hidden(plan)
    wanted = in_pytorch(plan, codes, {*extra, *plan.outputs.values()})
    tflite_writer.write(plan, tmp_path / "net.tflite", extra=extra, packed=True)
    onnx_writer.write(plan, tmp_path / "net.onnx", extra=extra, packed=True)
    lite, (onnx, _) = in_litert(tmp_path / "net.tflite", codes.numpy()), in_onnx(tmp_path / "net.onnx", codes.numpy())
    for name in extra:
        assert np.array_equal(lite[name], wanted[name]), f"LiteRT differs in {name}"
        assert np.array_equal(onnx[name], wanted[name]), f"ONNX Runtime differs in {name}"
    assert np.ptp(lite["logits"]) > 50


def test_onnx_stays_in_integers_and_is_smaller_for_every_layer(plans, tmp_path):
    plan = plans[residual]
    sizes = {}
    for packed in (False, True):
        made = onnx_writer.write(plan, tmp_path / "net.onnx", packed=packed)
        sizes[made.precision] = (tmp_path / "net.onnx").stat().st_size
        assert float_operators(tmp_path / "net.onnx") == ()
    saved = stored_bytes(plan) - stored_bytes(plan, "onnx")
    assert saved > 8000
    assert sizes["int8"] - sizes["int4"] == pytest.approx(saved, abs=500)  # a Cast each


def test_tflite_packs_layers_of_single_pixels(plans, tmp_path):
    plan = plans[mobile]
    names = packable(plan, "tflite")
    tflite_writer.write(plan, tmp_path / "net.tflite", packed=True)
    graph = reader.read_file(tmp_path / "net.tflite").main
    found = [op for op in graph.operators if graph.tensors[op.inputs[1]].dtype == "int4"]
    assert len(found) == len(names) == 11  # of 17 layers: not the depthwise ones, nor the stem
    assert {(op.kind, op.version) for op in found} == {("FULLY_CONNECTED", 10)}
    for op in found:
        weight = graph.tensors[op.inputs[1]]
        assert len(weight.scales) == weight.shape[0]  # LiteRT 2.1 gives no others to XNNPACK
        assert weight.shape[1] % 2 == 0


def test_an_odd_row_keeps_bytes():
    """LiteRT gives no odd number of inputs to XNNPACK, and its own kernel rounds otherwise."""
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 7, 3), torch.nn.ReLU(), torch.nn.Conv2d(7, 8, 1), torch.nn.Flatten())
    torch.manual_seed(0)
    plan = narrowed(quantize(torch.nn.Sequential(*net, torch.nn.Linear(8 * 36, 5)).eval(), images(64, 1, 8)))
    assert packable(plan, "tflite") == {"4.weight"}
    assert packable(plan, "onnx") == {"0.weight", "2.weight", "4.weight"}
    assert stored_bytes(plan) - stored_bytes(plan, "tflite") == 8 * 36 * 5 // 2


def test_bits_survive_the_file_and_belong_to_the_digest(plans, tmp_path):
    plan = plans[separable]
    plan.save(tmp_path / "plan.npz")
    again = QuantizationPlan.load(tmp_path / "plan.npz")
    assert again.digest == plan.digest
    assert {again.constants[op.weight].bits for op in again.operations if op.bias} == {4}
    eight = replace(plan, constants={n: replace(c, bits=0) for n, c in plan.constants.items()})
    assert {c.bits for c in eight.constants.values()} == {8, 32}
    assert eight.digest != plan.digest
    x = images(4, 3)
    assert np.array_equal(integer.run(eight, x)["logits"], integer.run(plan, x)["logits"])


def test_a_plan_of_eight_bits_is_not_packed(tmp_path):
    plan = quantize(settled(separable, seed=2), images(96, 1))
    for writer in (onnx_writer, tflite_writer):
        plain = writer.write(plan, tmp_path / "a")
        data = (tmp_path / "a").read_bytes()
        assert writer.write(plan, tmp_path / "a", packed=True) == plain
        assert (tmp_path / "a").read_bytes() == data


@pytest.mark.parametrize(("target", "precision"), [("rpi4", "int4"), ("rpi4:onnx", "int4"), ("coral-usb", "int8")])
def test_each_target_gets_what_it_reads(plans, tmp_path, target, precision):
    made = write_one(plans[mobile], tmp_path / "net", Request.parse(target))
    assert made.precision == precision


def test_packed_files_claim_no_old_runtime(plans, tmp_path):
    request = Request.parse("rpi4")
    made = write_one(plans[mobile], tmp_path / "net.tflite", request)
    (claimed,) = artefacts.claimed([made], [request])
    assert claimed.runtimes == ("litert",)
    answers = runtimes.answers(reader.read_file(tmp_path / "net.tflite"), targets.load("rpi4"))
    assert {answer.name: answer.verdict for answer in answers} == {"litert": "runs", "tflite-runtime": "no"}


def test_an_old_runtime_refuses_a_packed_file_loudly(plans, tmp_path):
    try:
        python = python_for("tflite-runtime")
    except Exception as error:
        pytest.skip(str(error))
    made = tflite_writer.write(plans[mobile], tmp_path / "net.tflite", packed=True)
    with pytest.raises(RuntimeAdapterError):
        run(tmp_path / "net.tflite", made, "tflite-runtime", np.zeros((1, 32, 32, 3), np.float32), python)


def test_gate_holds_four_bits_to_zero(plans, tmp_path):
    plan, inputs = plans[mobile], np.moveaxis(images(40, 5).numpy(), 1, -1)
    made = [
        (tmp_path / "net.onnx", onnx_writer.write(plan, tmp_path / "net.onnx", packed=True)),
        (tmp_path / "net.tflite", tflite_writer.write(plan, tmp_path / "net.tflite", packed=True)),
    ]
    report = gate.check(plan, gate.execute(made, ("onnxruntime", "litert"), inputs), inputs)
    assert {pair.differing for pair in report.pairs} == {0}
    assert {pair.bound for pair in report.pairs} == {gate.IDENTICAL}


def test_mobile_network_loses_a_third_of_its_file(tmp_path):
    plan = narrowed(quantize(models.load("mobilenet-v2"), models.noise(64, 1, (1, 28, 28))))
    sizes = []
    for packed in (False, True):
        tflite_writer.write(plan, tmp_path / "net.tflite", packed=packed)
        sizes.append((tmp_path / "net.tflite").stat().st_size)
    assert sizes[1] < 0.72 * sizes[0]
