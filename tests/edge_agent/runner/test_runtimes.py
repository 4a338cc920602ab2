# SPDX-License-Identifier: Apache-2.0
"""One contract for every runtime: the same checks, on real files in the real runtime."""

from dataclasses import replace

import numpy as np
import pytest

from edge_agent.runner.model import Description, Model
from edge_agent.runner.runtimes import onnx, open_session, runtime_version
from edge_agent.runner.runtimes.litert import InterpreterSession
from edge_agent.runner.tensors import signed
from edge_contract.errors import MissingDependencyError, RuntimeAdapterError
from tests.edge_agent.runner import tiny
from tests.edge_agent.runner.bundles import LABELS, PREPROCESS

WRITERS = {"litert": ("t.tflite", tiny.write_tflite), "onnxruntime": ("t.onnx", tiny.write_onnx)}


@pytest.fixture(params=WRITERS)
def runtime(request):
    return request.param


@pytest.fixture
def written(runtime, tmp_path):
    """(path, artefact) of a model file for the runtime."""
    name, write = WRITERS[runtime]
    return tmp_path / name, write(tiny.make(2), tmp_path / name)


def test_integers_are_those_of_exact_arithmetic(runtime, written):
    path, artefact = written
    model = Model.load(path, Description(artefact, PREPROCESS, "softmax", LABELS), runtime=runtime)
    net, raw = tiny.make(2), tiny.images(60)
    codes = model.infer_raw_codes(raw)
    for role, expected in zip(("logits", "embedding"), zip(*(tiny.reference(net, r) for r in raw)), strict=True):
        off = np.abs(signed(codes[role]).astype(int) - np.array(expected, int))
        assert off.max() <= 1, role  # the mean's ties: each runtime rounds them its own way
        assert (off > 0).mean() < 0.05, role
    assert len(set(codes["logits"].argmax(axis=1))) > 2  # a model that really tells inputs apart


def test_session_names_itself(runtime, written):
    session = open_session(*written, runtime)
    assert (session.runtime, session.version) == (runtime, runtime_version(runtime))
    assert session.delegate == {"litert": "xnnpack", "onnxruntime": "cpu"}[runtime]


def test_outputs_belong_to_the_caller(runtime, written):
    path, artefact = written
    session = open_session(path, artefact, runtime)
    zeros = np.zeros(artefact.input.shape, artefact.input.dtype)
    first = session.run(zeros)["embedding"]
    kept = first.copy()
    session.run(zeros + 99)
    assert (first == kept).all()


def test_input_of_another_shape_is_an_error_and_the_session_goes_on(runtime, written):
    path, artefact = written
    session = open_session(path, artefact, runtime)
    good = np.zeros(artefact.input.shape, artefact.input.dtype)
    before = session.run(good)["logits"]
    with pytest.raises(RuntimeAdapterError, match="inference failed"):
        session.run(np.zeros((1, 3, 3), artefact.input.dtype))
    assert (session.run(good)["logits"] == before).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": (1, 9, 9, 1)}, r"tensor 'input' is u?int8 \[1, .*\] in the file, u?int8 \[1, 9, 9, 1\] by its word"),
        ({"dtype": "float32"}, "float32 .* by its word; export the artefact again"),
    ],
)
def test_description_that_is_not_the_file_s_is_refused(runtime, written, change, words):
    path, artefact = written
    with pytest.raises(RuntimeAdapterError, match=words):
        open_session(path, replace(artefact, input=replace(artefact.input, **change)), runtime)


def test_output_that_the_file_has_not_is_refused(runtime, written):
    path, artefact = written
    named = replace(artefact.outputs[0], name="answers")
    with pytest.raises(RuntimeAdapterError, match=r"'answers'; the file has .*logits"):
        open_session(path, replace(artefact, outputs=(named,)), runtime)


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: data[:100], lambda data: b"PK" + bytes(500)])
def test_spoiled_file_is_refused_in_one_line(runtime, written, spoil):
    path, artefact = written
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(RuntimeAdapterError, match="refuses the file") as caught:
        open_session(path, artefact, runtime)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_refused(runtime, written):
    path, artefact = written
    with pytest.raises(RuntimeAdapterError, match="no such model file"):
        open_session(path.with_name("other"), artefact, runtime)


def test_other_scale_than_the_file_s_is_refused(tmp_path):
    artefact = tiny.write_tflite(tiny.make(2), tmp_path / "t.tflite")
    logits = replace(artefact.outputs[0], scale=artefact.outputs[0].scale * 1.01)
    with pytest.raises(RuntimeAdapterError, match=r"'logits' means 0.043.* in the file, 0.0434"):
        open_session(tmp_path / "t.tflite", replace(artefact, outputs=(logits,)), "litert")


def test_litert_without_its_delegate_says_so(tmp_path):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    path = tmp_path / "t.tflite"
    artefact = tiny.write_tflite(tiny.make(2), path)
    bare = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=bare)
    interpreter.allocate_tensors()
    assert InterpreterSession(interpreter, artefact, "litert", "0").delegate == "builtin"


def test_runtime_without_an_adapter_is_refused_with_the_choice(tmp_path):
    artefact = tiny.write_tflite(tiny.make(2), tmp_path / "t.tflite")
    with pytest.raises(RuntimeAdapterError, match="'abacus'; use one of litert, onnxruntime, tflite-runtime, edg"):
        open_session(tmp_path / "t.tflite", artefact, "abacus")


def test_execution_providers_go_by_name_and_a_missing_one_says_what_is_there(tmp_path):
    artefact = tiny.write_onnx(tiny.make(2), tmp_path / "t.onnx")
    assert open_session(tmp_path / "t.onnx", artefact, "onnxruntime", 1, "CPU").delegate == "cpu"
    with pytest.raises(RuntimeAdapterError, match=r"no execution provider 'openvino'; it has .*cpu"):
        open_session(tmp_path / "t.onnx", artefact, "onnxruntime", 1, "openvino")
    with pytest.raises(RuntimeAdapterError, match="litert takes no delegate 'gpu'; leave it out, or use onnxruntime"):
        open_session(tmp_path / "t.onnx", artefact, "litert", 1, "gpu")


def test_runtime_that_is_not_installed_names_the_line_that_installs_it():
    with pytest.raises(MissingDependencyError, match=r"tflite-runtime .*pip install 'strop\[agent-tflite\]'"):
        runtime_version("tflite-runtime")  # the workstation's environment has numpy 2, so it cannot be there


@pytest.mark.parametrize(
    ("flags", "machine", "expected"),
    [
        ("sse4_2 avx2", "x86_64", True),
        ("avx2 avx_vnni", "x86_64", False),
        ("avx512f avx512_vnni amx_int8", "x86_64", False),
        (None, "x86_64", True),
        ("asimd", "aarch64", False),
    ],
)
def test_exact_kernels_are_asked_for_where_the_fast_ones_may_saturate(tmp_path, monkeypatch, flags, machine, expected):
    monkeypatch.setattr("platform.machine", lambda: machine)
    facts = tmp_path / "cpuinfo"
    if flags is not None:
        facts.write_text(f"flags : {flags}\n")
    assert onnx._may_saturate(facts) is expected


def test_exact_kernels_of_onnx_runtime_give_the_same_integers(tmp_path, monkeypatch):
    path = tmp_path / "t.onnx"
    artefact = tiny.write_onnx(tiny.make(2), path)
    x = np.random.default_rng(0).integers(0, 256, artefact.input.shape).astype(np.uint8)
    fast = open_session(path, artefact, "onnxruntime").run(x)
    monkeypatch.setattr(onnx, "_may_saturate", lambda: True)
    exact = open_session(path, artefact, "onnxruntime").run(x)
    assert {name: v.tolist() for name, v in fast.items()} == {name: v.tolist() for name, v in exact.items()}
