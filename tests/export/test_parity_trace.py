# SPDX-License-Identifier: Apache-2.0
"""Which operation two runtimes compute differently: found, named, and told apart from what merely inherited it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from compress.quantize.plan import QuantizationPlan
from compress.quantize.step import quantize
from edge_contract import canonical
from edge_contract.errors import DataError, ParityError, UsageError
from export.onnx import writer as onnx_writer
from export.parity import gate, trace
from export.parity.kernels import Kernels
from export.runtimes import execution
from export.tflite import writer as tflite_writer
from tests.support.quant_nets import conv, images, mobile, residual, settled


@pytest.fixture(scope="module")
def plan():
    torch.set_num_threads(1)
    return quantize(settled(residual, seed=2), images(96, 1))


@pytest.fixture(scope="module")
def rows():
    return images(12, 2).numpy().transpose(0, 2, 3, 1).copy()


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_modern_runtimes_compute_every_operation_as_planned(plan, rows, runtime):
    found = gate.trace(plan, rows, runtime)
    assert [row.name for row in found.rows] == [op.name for op in plan.operations]
    assert found.cause is None
    assert all(row.alone == ((0, 0), (0, 0)) for row in found.rows)
    assert sum(row.values for row in found.rows) > 300_000
    assert str(found) == f"{runtime} and pytorch compute every operation alike"


def test_two_runtimes_are_compared_with_each_other(plan, rows):
    found = gate.trace(plan, rows[:2], "litert", "onnxruntime")
    assert (found.first, found.second, found.cause) == ("litert", "onnxruntime", None)


def test_old_kernels_are_named_by_the_first_operation_that_they_round_otherwise(rows):
    """The cascade grows layer by layer; alone, a kernel moves a few codes by one step, and an addition none."""
    plan = quantize(settled(mobile, seed=2), images(96, 1))
    found = gate.trace(plan, rows, "tflite-runtime")
    cause = found.cause
    assert cause.kind == "conv2d"
    assert cause.alone[0] == (cause.differing, cause.max_steps)  # nothing came before it
    assert cause.alone[1] == (0, 0)  # PyTorch's own codes are the plan's
    later = [row for row in found.rows if row.kind == "add" and row.differing]
    assert later
    assert all(row.alone[0] == (0, 0) for row in later)  # it inherits all of it
    assert all(row.alone[0][1] <= 1 for row in found.rows)
    assert str(found).startswith(f"tflite-runtime and pytorch part first in '{cause.name}' (conv2d): ")
    table = json.loads(canonical.dumps(found.to_json()))
    first = next(row for row in table["operations"] if row["name"] == cause.name)
    assert first["alone"] == [{"differing": cause.differing, "max_steps": 1}, {"differing": 0, "max_steps": 0}]


def changed(plan: QuantizationPlan, name: str) -> QuantizationPlan:
    """The plan with another bias in one operation."""
    op = next(op for op in plan.operations if op.name == name)
    bias = plan.constants[op.bias]
    other = replace(bias, codes=bias.codes + np.int32(20_000))
    return replace(plan, constants={**plan.constants, op.bias: other})


def test_operation_of_a_wrong_kernel_is_named_in_the_refusal(plan, rows, monkeypatch):
    """ONNX Runtime is given another bias in the fourth convolution, wherever a file is written for it."""
    name = [op.name for op in plan.operations if op.kind == "conv2d"][3]
    write = onnx_writer.write
    monkeypatch.setattr(onnx_writer, "write", lambda p, path, **k: replace(write(changed(p, name), path, **k)))
    found = gate.trace(plan, rows, "onnxruntime")
    assert found.cause.name == name
    moved = [row.name for row in found.rows if row.alone[0][0]]
    assert moved == [name]  # all others compute rightly what they are given
    assert sum(row.differing > 0 for row in found.rows) > 3


def test_the_gate_names_the_operation(plan, rows, monkeypatch, tmp_path):
    name = [op.name for op in plan.operations if op.kind == "conv2d"][3]
    write = onnx_writer.write
    monkeypatch.setattr(onnx_writer, "write", lambda p, path, **k: write(changed(p, name), path, **k))
    files = [
        (tmp_path / a.path, a)
        for a in (onnx_writer.write(plan, tmp_path / "m.onnx"), tflite_writer.write(plan, tmp_path / "m.tflite"))
    ]
    found = gate.execute(files, ("onnxruntime", "litert"), rows)
    with pytest.raises(ParityError) as caught:
        gate.check(plan, found, rows)
    assert f"onnxruntime and litert part first in '{name}' (conv2d): " in str(caught.value)
    assert f" steps in '{name}' (conv2d), given its own inputs; docs/parity.md" in str(caught.value)
    assert str(caught.value).startswith("onnxruntime and litert: ")
    assert "\n" not in str(caught.value)


def test_pool_and_flatten_that_the_shipped_file_joins_are_shown_apart(plan, rows, tmp_path):
    """The one difference between the shipped file and the shown one; its answers are the same."""
    shipped = tflite_writer.write(plan, tmp_path / "shipped.tflite")
    answer = execution.run(tmp_path / "shipped.tflite", shipped, "litert", rows)
    shown = trace._activations(plan, rows, "litert", None)
    for role, name in plan.outputs.items():
        assert np.array_equal(answer.codes[role], shown[name].reshape(len(rows), -1))


def test_what_cannot_be_traced_is_refused(plan, rows):
    with pytest.raises(UsageError, match=r"runtime 'tensorrt' is not here; use one of pytorch, litert, "):
        gate.trace(plan, rows, "tensorrt")
    with pytest.raises(DataError, match="no inputs to trace"):
        gate.trace(plan, rows[:0], "litert")


def test_explanation_never_hides_the_refusal(plan, rows):
    """Where the operation cannot be found, for want of a runtime, the clause says so instead of raising."""
    first = gate.evaluate(plan, rows)
    logits = first.codes["logits"].copy()
    logits[3] += 1
    second = replace(first, runtime="tensorrt", codes={**first.codes, "logits": logits})
    kernels = Kernels(plan, rows, first)
    text = kernels.explain(first, second)
    assert kernels.alone_steps(first) == 0
    assert kernels.alone_steps(first, second) is None
    assert text == ("check the versions of the runtimes (the operation was not found: runtime 'tensorrt' is not here)")


def deep():
    """Many layers without an addition or a pool: small roundings add up."""
    layers = [conv(3, 8)] + [conv(8, 8, act=None if i % 2 else nn.ReLU6) for i in range(14)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6))


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    """A plan, inputs, and executions of it that differ by many steps although each kernel only rounds."""
    plan = quantize(settled(deep, seed=0), images(96, 1))
    path = tmp_path_factory.mktemp("far") / "net.tflite"
    artefact, x = tflite_writer.write(plan, path), images(60, 2).numpy().transpose(0, 2, 3, 1).copy()
    return plan, x, gate.execute([(path, artefact)], ("litert", "tflite-runtime"), x)


@pytest.fixture
def no_steps(monkeypatch):
    """The bound of a shallow network set to zero steps, so that this one is beyond it on any machine."""
    monkeypatch.setattr(gate, "FIXED_POINT", gate.Bound(0, 0.9))


def test_steps_that_added_up_are_allowed_when_every_kernel_alone_only_rounds(far, no_steps):
    plan, x, executions = far
    report = gate.check(plan, executions, x)
    pair = report.pair("litert", "tflite-runtime")
    assert pair.max_steps > 0
    assert pair.alone_steps == 1
    assert pair.is_within
    assert pair.to_json()["alone_steps"] == 1
    assert report.pair("litert", "pytorch").alone_steps is None  # exact pairs have no such way out


def test_answers_that_do_not_come_again_are_no_evidence(far, no_steps):
    """The file was another one, or damaged: the plan's own kernels cannot excuse its answers."""
    plan, x, (first, second) = far
    logits = second.codes["logits"].copy()
    logits[:, 0] += 1
    moved = replace(second, codes={**second.codes, "logits": logits})
    with pytest.raises(ParityError, match=r"tflite-runtime 2\.14\.0: written again from the plan it answers otherwise"):
        gate.check(plan, [first, moved], x)


def test_a_wrong_kernel_in_an_old_runtime_is_not_excused(far, no_steps, monkeypatch):
    """Another bias in one layer, wherever a file is written: that operation alone is off by many steps."""
    plan, x, (first, _) = far
    name = next(op.name for op in plan.operations if op.kind == "linear")
    write = tflite_writer.write

    def shifted(p, path, **k):
        op = next(op for op in p.operations if op.name == name)
        bias = p.constants[op.bias]
        step = p.activations[op.output].scale / (p.activations[op.inputs[0]].scale * p.constants[op.weight].scales[0])
        moved = replace(bias, codes=(bias.codes + np.int32(round(3 * step))).astype(np.int32))
        return write(replace(p, constants={**p.constants, op.bias: moved}), path, **k)

    monkeypatch.setattr(tflite_writer, "write", shifted)
    found = gate.trace(plan, x[:4], "tflite-runtime")
    assert found.alone_steps >= 2
    logits = gate.trace(plan, x, "tflite-runtime").answers[0]
    old = replace(first, runtime="tflite-runtime", version="2.14.0", delegate="builtin", codes=logits)
    assert Kernels(plan, x, gate.evaluate(plan, x)).alone_steps(old) >= 2
    with pytest.raises(
        ParityError, match=rf"tflite-runtime is off by up to \d steps in '{name}' \(linear\), given its own inputs"
    ):
        gate.check(plan, [old], x)
