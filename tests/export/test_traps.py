# SPDX-License-Identifier: Apache-2.0
"""Each known trap of stock tools, on our own writers and our gate: what we do instead, and what would happen if not.

Files that other tools write, and their cure, are in test_normalise.py; what very old runtimes make of them in
tests/machines.
"""

import functools
import platform
from collections import Counter
from dataclasses import replace

import ai_edge_litert.interpreter
import numpy as np
import pytest
import torch
from torch import nn

from compress.quantize.step import quantize
from edge_contract.errors import ParityError, RuntimeAdapterError
from edge_contract.manifest import Artefact, TensorSpec
from export.check.versions import first_release, numbers
from export.onnx import writer as onnx_writer
from export.parity import fusion, gate
from export.parity.fidelity import Limits
from export.runtimes import execution, matrix
from export.tflite import reader
from export.tflite import writer as tflite_writer
from tests.machines import traps
from tests.support.quant_nets import conv, images, mobile, residual, settled
from tests.zoo import third_party

OLDEST = "2.7.0"  # the oldest tflite-runtime that a target claims


@pytest.fixture(scope="module")
def plan():
    torch.set_num_threads(1)
    return quantize(settled(residual, seed=2), images(96, 1))


@pytest.fixture(scope="module")
def rows():
    return images(40, 2).numpy().transpose(0, 2, 3, 1).copy()


def tflite(plan, folder, name="net.tflite"):
    artefact = tflite_writer.write(plan, folder / name)
    return folder / name, artefact


# --- trap 2: one scale per channel in a fully-connected layer ---


def per_channel(plan):
    """The same integers and the same meaning, but the linear layer's scale is written once per channel."""
    op = next(op for op in plan.operations if op.kind == "linear")
    found = dict(plan.constants)
    for name in (op.weight, op.bias):
        constant = found[name]
        found[name] = replace(constant, scales=np.repeat(constant.scales[:1], len(constant.codes)), axis=0)
    return replace(plan, constants=found)


def linear_weights(path):
    graph = reader.read_file(path).main
    return [graph.tensors[op.inputs[1]] for op in graph.operators if op.kind == "FULLY_CONNECTED"]


def test_linear_weights_have_one_scale(plan, tmp_path):
    assert [len(w.scales) for w in linear_weights(tflite(plan, tmp_path)[0])] == [1]
    wrong, _ = tflite(per_channel(plan), tmp_path)
    assert [len(w.scales) for w in linear_weights(wrong)] == [10]


@pytest.mark.old_runtimes
def test_gate_refuses_per_channel_linear_weights_by_name_where_they_answer_one_constant(plan, rows, tmp_path):
    old = [found for found in matrix.old_runtimes() if found.version == OLDEST]
    if not old:
        pytest.skip(f"tflite-runtime {OLDEST} is missing: python -m tests.machines.old_runtimes")
    good = gate.execute([tflite(plan, tmp_path)], ("litert", "tflite-runtime"), rows, old=old)
    assert gate.check(plan, good, rows).pair("tflite-runtime 2.7.0", "litert").max_steps <= 1
    trapped = per_channel(plan)
    bad = gate.execute([tflite(trapped, tmp_path)], ("litert", "tflite-runtime"), rows, old=old)
    with pytest.raises(
        ParityError, match=r"^tflite-runtime 2\.7\.0: output 'logits' is the same for all 40 inputs; .*"
    ):
        gate.check(trapped, bad, rows)
    # LiteRT and 2.14 compute the very same file rightly: without 2.7 nobody would have seen it.
    gate.check(trapped, bad[:2], rows)


@pytest.mark.old_runtimes
def test_our_files_hold_the_bound_in_every_old_runtime_that_the_target_claims(plan, rows, tmp_path):
    from edge_contract import targets

    old = [m for m in matrix.matrix("tflite", target=targets.load("rpi4")) if m.command]
    if not old:
        pytest.skip("no old runtimes: python -m tests.machines.old_runtimes")
    found = gate.execute([tflite(plan, tmp_path)], ("litert", "tflite-runtime"), rows, old=old)
    report = gate.check(plan, found, rows)
    assert {"2.7.0", "2.11.0", "2.14.0"} <= set(
        next(c for c in matrix.claims(targets.load("rpi4"), "tflite", found) if c.runtime == "tflite-runtime").ran
    )
    assert max(pair.max_steps for pair in report.pairs) <= 2


# --- trap 3: operator versions that are lower than what the operator needs ---


def test_operator_versions_are_honest_and_old_enough_for_every_target(plan, tmp_path):
    """A version claims what a runtime must know; each of ours was known in 2.7."""
    operators = reader.read_file(tflite(plan, tmp_path)[0]).main.operators
    versions = {op.kind: op.version for op in operators}
    # int8 came with version 2 or 3; per-channel weights of a convolution need no more.
    wanted = {"CONV_2D": 3, "ADD": 2, "MAX_POOL_2D": 2, "MEAN": 2, "FULLY_CONNECTED": 4, "PAD": 2, "RESHAPE": 1}
    assert versions == {kind: wanted[kind] for kind in versions}
    assert len(versions) >= 5
    for kind, version in versions.items():
        assert numbers(first_release(kind, version)) <= numbers(OLDEST)


def dense(folder, content, dtype):
    """A hand-written file of one fully-connected layer, with its description."""
    layer = traps.Dense()
    (folder / "dense.tflite").write_bytes(content)
    scales = (0.0, 0.0) if dtype == "float32" else (float(layer.scale), float(layer.output_scale))
    source = TensorSpec("input", "input", (1, traps.FEATURES), dtype, "NC", scales[0])
    logits = TensorSpec("logits", "logits", (1, traps.CLASSES), dtype, "NC", scales[1])
    precision = "int8" if dtype == "int8" else "float32"
    return folder / "dense.tflite", Artefact("dense.tflite", "tflite", (), "rpi4", precision, "", source, (logits,))


COARSE = Limits(0.1, 0.9, 5.0)  # one layer of int8 weights


def test_gate_refuses_garbage_of_a_dishonest_version_that_loads_without_a_word(tmp_path):
    """ai-edge-quantizer's dynamic-range layers: tflite-runtime 2.14 answers, and every number is wrong."""
    layer = traps.Dense()
    file = dense(tmp_path, traps.dynamic_range(layer, version=5), "float32")
    found = gate.execute([file], ("litert", "tflite-runtime"), layer.inputs)
    right = {"logits": layer.answers}
    assert gate.judge_float(found[:1], layer.inputs, reference=right, limits=COARSE).fidelity("litert").sqnr_db > 35
    for known in (right, None):  # also where nobody knows the right answers: the two disagree
        with pytest.raises(
            ParityError, match=r"^tflite-runtime 2\.14\.0: output 'logits' is the same for all 40 inputs"
        ):
            gate.judge_float(found, layer.inputs, reference=known, limits=COARSE)


def test_honest_version_is_refused_loudly(tmp_path):
    layer = traps.Dense()
    file = dense(tmp_path, traps.dynamic_range(layer, version=12), "float32")
    with pytest.raises(RuntimeAdapterError, match="Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'"):
        gate.execute([file], ("tflite-runtime",), layer.inputs)


# --- trap 4: constants outside the flatbuffer; trap 5: long names; stale metadata ---


def test_constants_lie_inside_the_file_and_aligned(plan, tmp_path):
    path, _ = tflite(plan, tmp_path)
    data, graph = path.read_bytes(), reader.read_file(path).main
    constants = [tensor for tensor in graph.tensors if tensor.data is not None]
    assert len(constants) >= len(plan.constants)
    assert not any(tensor.is_external for tensor in graph.tensors)
    large = [tensor for tensor in constants if len(tensor.data) >= 64]
    assert large
    assert all(data.find(tensor.data) % 16 == 0 for tensor in large)  # the runtimes read them as vectors
    outside = reader.read(traps.outside(data), "outside").main  # the reader would see it
    assert any(tensor.is_external for tensor in outside.tensors)


def test_file_claims_no_stale_minimum_runtime(plan, tmp_path):
    assert set(reader.read_file(tflite(plan, tmp_path)[0]).metadata) == {"strop.plan"}


# --- needless operators ---


def kinds(path):
    return Counter(op.kind for op in reader.read_file(path).main.operators)


def test_no_transpose_and_no_pad_where_a_convolution_pads_itself(plan, tmp_path):
    found = kinds(tflite(plan, tmp_path)[0])
    assert found["TRANSPOSE"] == 0
    # Stride 2 on even sizes pads one side alone in PyTorch, which neither SAME nor VALID means.
    strided = sum(op.attributes.get("stride", (1, 1)) == (2, 2) and op.kind == "conv2d" for op in plan.operations)
    assert found["PAD"] <= strided
    assert kinds(tflite(quantize(settled(mobile, seed=2), images(64, 1)), tmp_path)[0])["TRANSPOSE"] == 0


def test_transpose_stays_where_a_map_is_flattened(tmp_path):
    """Features keep PyTorch's order: this one is needed."""
    net = settled(lambda: nn.Sequential(conv(3, 4, stride=2), nn.Flatten(), nn.Linear(4 * 64, 5)), seed=1, size=16)
    assert kinds(tflite(quantize(net, images(64, 1, 16)), tmp_path)[0])["TRANSPOSE"] == 1


def test_hard_swish_is_written_as_additions_and_products(tmp_path):
    """int8 HARD_SWISH is 3 to 5 times slower than float in LiteRT: XNNPACK does not take it."""
    net = settled(lambda: nn.Sequential(conv(3, 8, stride=2, act=nn.Hardswish), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                        nn.Linear(8, 5)), seed=1)  # fmt: skip
    plan = quantize(net, images(64, 1))
    found = kinds(tflite(plan, tmp_path)[0])
    assert found["HARD_SWISH"] == 0
    assert found["MUL"] >= 1
    onnx_writer.write(plan, tmp_path / "net.onnx")
    assert fusion.float_operators(tmp_path / "net.onnx") == ()


# --- int8 activations in ONNX Runtime on x86 ---

X86 = platform.machine() in ("x86_64", "AMD64")


@pytest.mark.parametrize("build", [residual, mobile])
def test_onnx_runtime_fuses_everything_of_the_file_for_x86(build, tmp_path):
    onnx_writer.write(quantize(settled(build, seed=2), images(64, 1)), tmp_path / "net.onnx")
    assert fusion.float_operators(tmp_path / "net.onnx") == ()


@pytest.mark.skipif(not X86, reason="on ARM signed activations are fused too")
def test_int8_activations_stay_in_float_on_x86_and_the_check_sees_it(plan, tmp_path):
    path = tmp_path / "net.onnx"
    onnx_writer.write(plan, path, activation="int8")
    left = Counter(found.kind for found in fusion.float_operators(path))
    assert left["Add"] + left["GlobalAveragePool"] >= 2
    assert left["DequantizeLinear"] >= 2
    assert fusion.float_operators(path, int8_allowed=True) == ()  # what a session on ARM does


def test_check_sees_the_operators_of_a_float_file():
    left = Counter(found.kind for found in fusion.float_operators(third_party.path("basic-pitch", "nmp.onnx")))
    assert sum(count for kind, count in left.items() if "Conv" in kind) == 32
    assert left["Log"] == 1


# --- XNNPACK dropped without a word ---


@pytest.fixture
def without_xnnpack(monkeypatch):
    """What LiteRT does where it cannot read the CPU's properties: its own kernels, and no exception."""
    module = ai_edge_litert.interpreter
    kind = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    monkeypatch.setattr(
        module, "Interpreter", functools.partial(module.Interpreter, experimental_op_resolver_type=kind)
    )


def test_dropped_delegate_is_seen_by_name_and_noted(rows, tmp_path, without_xnnpack):
    plan = quantize(settled(mobile, seed=2), images(96, 1))
    path, artefact = tflite(plan, tmp_path)
    found = execution.run(path, artefact, "litert", rows)
    assert found.delegate == "builtin"
    report = gate.check(plan, [found], rows)
    (pair,) = report.pairs
    assert pair.bound == replace(gate.FIXED_POINT, same_class=(len(rows) - 1) / len(rows))  # one of so few may change
    assert pair.differing > 0  # they are other integers: a hash of XNNPACK's would not hold
    assert report.notes == (
        "litert 2.3.0 ran kernels 'builtin', not XNNPACK: a device's integers differ by some steps",
    )
    assert report.to_json()["notes"] == list(report.notes)


def test_delegate_that_runs_is_seen_by_name(plan, rows, tmp_path):
    path, artefact = tflite(plan, tmp_path)
    found = execution.run(path, artefact, "litert", rows[:2])
    assert found.delegate == "xnnpack"
    assert gate.check(plan, [found], rows[:2]).notes == ()


# --- third-party files ---


def spec(name, role, facts):
    dtype, shape = facts[name]
    return TensorSpec(name, role, (0 if shape[0] == 0 else 1, *shape[1:]), dtype, "NC")


def adopted(path):
    from export.inspection import inspect

    facts = inspect.describe(path)
    (source,) = facts.inputs
    outputs = tuple(spec(name, "output", facts.outputs) for name in sorted(facts.outputs))
    return path, Artefact(path.name, facts.format, (), "", "float32", "", spec(source, "input", facts.inputs), outputs)


def test_third_party_audio_model_is_judged_across_runtimes_and_formats():
    """Spotify's basic-pitch as ONNX and TFLite on chords: three runtimes, three outputs, one answer."""
    files = [adopted(third_party.path("basic-pitch", name)) for name in third_party.FOUND["basic-pitch"]]
    time = np.arange(43844) / 22050
    chords = [sum(np.sin(2 * np.pi * f * time) for f in chord) for chord in ((440, 554), (262, 330, 392), (196,))]
    inputs = 0.2 * np.stack(chords).astype(np.float32)[..., None]
    found = gate.execute(files, ("onnxruntime", "litert", "tflite-runtime"), inputs)
    report = gate.judge_float(found, inputs)
    assert len(report.judged) == 3 * 3
    assert max(row.fidelity.relative_error for row in report.judged) < 1e-3
    assert {row.output for row in report.judged} == {f"StatefulPartitionedCall:{i}" for i in range(3)}
