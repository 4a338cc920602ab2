# SPDX-License-Identifier: Apache-2.0
"""Keras and SavedModel files through TensorFlow's converter, in a process that may crash without taking us down."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from edge_contract import targets
from edge_contract.errors import (
    DataError,
    MissingDependencyError,
    ModelError,
    TargetError,
    UnsupportedOperatorError,
    UsageError,
)
from export.keras import child, converter, load, operators
from export.keras.cli import keras as verb
from export.keras.faults import Ending, explain
from export.normalise.normaliser import normalise
from export.runtimes import execution
from export.tflite.reader import read

ROOT = Path(__file__).parents[2]
starts_tensorflow = pytest.mark.slow  # importing it takes four seconds of a core, each time


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folder with the models of ``tests/support/keras_models.py``."""
    folder = tmp_path_factory.mktemp("keras")
    script = ROOT / "tests/support/keras_models.py"
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], env={**os.environ, **quiet}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def digits(models):
    with np.load(models / "digits.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def net(models, digits):
    """The trained net, converted to int8."""
    calibration = digits["calibration"]
    return converter.convert(models / "net.keras", calibration=calibration, precision="int8", target="coral-usb")


def fully_connected(data):
    """Scales of each fully-connected weight."""
    graph = read(data, "x").main
    return [len(graph.tensors[op.inputs[1]].scales) for op in graph.operators if op.kind == "FULLY_CONNECTED"]


@starts_tensorflow
def test_every_tensor_of_an_int8_file_is_an_integer(net):
    graph = read(net.data, "net").main
    assert {tensor.dtype for tensor in graph.tensors} <= {"int8", "int32"}
    kinds = [op.kind for op in graph.operators]
    assert kinds.count("DEPTHWISE_CONV_2D") == 2
    assert {"CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED"} <= set(kinds) <= set(kinds) | {"RESHAPE"}
    assert [graph.tensors[index].name for index in (*graph.inputs, *graph.outputs)] == ["input", "output"]
    assert not net.notes


@starts_tensorflow
@pytest.mark.parametrize("runtime", ["litert", "tflite-runtime"])
def test_int8_file_keeps_the_accuracy_of_the_keras_model_in_every_runtime(net, digits, runtime, tmp_path):
    (tmp_path / net.artefact.path).write_bytes(net.data)
    python = execution.python_for(runtime)
    found = execution.run(tmp_path / net.artefact.path, net.artefact, runtime, digits["x"], python)
    answers, wanted = found.values["output"], digits["answers"]
    assert np.linalg.norm(answers - wanted) < 0.06 * np.linalg.norm(wanted)
    right = [(rows.argmax(1) == digits["y"]).mean() for rows in (answers, wanted)]
    assert right[1] > 0.85  # it was trained
    assert abs(right[0] - right[1]) < 0.01


@starts_tensorflow
def test_file_was_normalised_and_checked_in_both_runtimes(net):
    assert read(net.data, "net").metadata["strop.source"]
    assert normalise(net.data, where="net", target=targets.load("coral-usb")).data == net.data
    assert [check.runtime for check in net.checks] == ["litert", "tflite-runtime"] == list(net.artefact.runtimes)
    assert all(check.fidelity.relative_error < 0.06 for check in net.checks)
    document = json.loads(json.dumps(net.to_json()))
    assert document["checks"][1]["version"].startswith("2.14")


@starts_tensorflow
def test_verb_converts_a_saved_model_whatever_the_persons_own_settings(models, tmp_path, monkeypatch):
    """One scale for fully-connected weights: the trap is TensorFlow's default."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keras.py").write_text("raise AssertionError('taken for Keras')\n")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    app = typer.Typer()
    app.command()(verb)
    words = [models / "perceptron", "--out", "p.tflite", "--calibration", models / "perceptron.npz", "--json"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    data = Path("p.tflite").read_bytes()
    assert document["size"] == len(data)
    assert document["artefact"]["input"]["shape"] == [1, 16]
    assert fully_connected(data) == [1, 1]
    trap = (models / "per-channel.tflite").read_bytes()
    assert fully_connected(trap) == [24, 5]
    cured = normalise(trap, where="trap", target=targets.load("rpi4")).data
    assert all(count == 1 for count in fully_connected(cured))


@starts_tensorflow
def test_recurrent_layer_runs_in_float_and_without_calibration_data(models):
    made = converter.convert(models / "recurrent.keras", calibration=None, precision="float32", target="rpi4")
    assert all(check.fidelity.relative_error < 1e-5 for check in made.checks)
    assert [check.runtime for check in made.checks] == ["litert", "tflite-runtime"]
    assert any("control flow (1 WHILE)" in note for note in made.notes)
    assert any("compared on 16 random inputs" in note for note in made.notes)


@starts_tensorflow
def test_segfault_of_the_converter_is_one_line_that_names_the_layer(models, tmp_path):
    samples = np.zeros((4, 7, 4), np.float32)
    with pytest.raises(UnsupportedOperatorError) as refusal:
        converter.convert(models / "recurrent.keras", calibration=samples, precision="int8", target="rpi4")
    text = str(refusal.value)
    assert "TensorFlow crashed (SIGSEGV) while converting to int8: its quantizer cannot read the loop of LSTM" in text
    assert "--precision float32" in text
    assert "unroll=True" in text
    assert "\n" not in text


@starts_tensorflow
def test_operator_without_tflite_form_is_named_with_its_node(models, tmp_path):
    text = (models / "error_function.txt").read_text()
    assert text.count("\n") > 20  # what a person would have to read
    child._refuse(tmp_path, "", text, "", "")
    found = explain(Ending(1, "", tmp_path, 60, 2048), "net.keras")
    with pytest.raises(UnsupportedOperatorError, match=r"Erf \(node '\w+/Erf'\) has no TFLite operator.*gelu"):
        raise found


@starts_tensorflow
def test_memory_is_bounded(models):
    samples = np.ones((2, 4), np.float32)
    limits = converter.Limits(memory_mib=1024)
    with pytest.raises(ModelError, match="needed more than 1024 MiB while running the model; give --memory-mib"):
        converter.convert(models / "greedy", calibration=samples, precision="float32", target="rpi4", limits=limits)


@starts_tensorflow
def test_time_is_bounded(models):
    with pytest.raises(ModelError, match=r"gave no answer in 1 s while (starting|importing TensorFlow)"):
        converter.convert(
            models / "greedy",
            calibration=None,
            precision="float32",
            target="rpi4",
            limits=converter.Limits(timeout_s=1),
        )


@starts_tensorflow
def test_trap_loop_in_an_int8_file_is_refused(models):
    data = (models / "doubling.tflite").read_bytes()
    kinds = [op.kind for op in read(data, "x").main.operators]
    assert {"DEQUANTIZE", "WHILE", "QUANTIZE"} <= set(kinds)  # what the converter calls int8
    with pytest.raises(UnsupportedOperatorError, match=r"control flow \(1 WHILE\) has no int8 form"):
        operators.examine(data, targets.load("rpi4"), "int8", where="doubling")


@starts_tensorflow
def test_trap_float_operators_in_an_int8_file_are_said_and_refused_for_an_accelerator(models):
    data = (models / "attention.tflite").read_bytes()
    notes = operators.examine(data, targets.load("rpi4"), "int8", where="attention")
    assert any("operators that stay in float: 1 NEG" in note for note in notes)
    assert any("BATCH_MATMUL" in note and "not in the list of target 'rpi4'" in note for note in notes)
    with pytest.raises(UnsupportedOperatorError, match="1 NEG; replace these layers"):
        operators.examine(data, targets.load("coral-usb"), "int8", where="attention")


@starts_tensorflow
def test_trap_hidden_variables_become_operators_that_no_runtime_has(models, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes((models / "variables.tflite").read_bytes())
    with pytest.raises(UnsupportedOperatorError, match="no runtime of ours has: READ_VARIABLE, VAR_HANDLE"):
        operators.examine(path.read_bytes(), targets.load("rpi4"), "float32", where="recurrent")


@starts_tensorflow
def test_type_of_the_ends_is_held(models):
    data = (models / "attention.tflite").read_bytes()
    with pytest.raises(ModelError, match=r"tensor '.*' is int8, not float32"):
        operators.examine(data, targets.load("rpi4"), "float32", where="attention")


@pytest.fixture
def files(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "old.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    (tmp_path / "renamed.keras").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    (tmp_path / "text.keras").write_text("no model")
    (tmp_path / "net.zip").write_bytes(b"PK\x03\x04")
    (tmp_path / "good.keras").write_bytes(b"PK\x03\x04")
    return tmp_path


ONES = np.ones((3, 4), np.float32)


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("none.keras", {}, ModelError, "No such file"),
        ("empty", {}, ModelError, "saved_model.pb is missing"),
        ("old.h5", {}, ModelError, r"old format.*\.save\('x\.keras'\)"),
        ("renamed.keras", {}, ModelError, "old format"),
        ("text.keras", {}, ModelError, "no Keras file"),
        ("net.zip", {}, ModelError, "no Keras file"),
        ("good.keras", {"calibration": None}, DataError, "int8 needs calibration data"),
        ("good.keras", {"calibration": ONES.astype(np.uint8)}, DataError, "type uint8; .*preprocessed"),
        ("good.keras", {"calibration": ONES[:0]}, DataError, r"shape \[0, 4\]"),
        ("good.keras", {"calibration": ONES[0]}, DataError, r"shape \[4\]"),
        ("good.keras", {"calibration": ONES * np.inf}, DataError, "NaN or an infinity"),
        ("good.keras", {"precision": "int4"}, UsageError, "use int8 or float32"),
        ("good.keras", {"target": "rpi9"}, TargetError, "unknown target"),
        ("good.keras", {"limits": converter.Limits(memory_mib=500)}, UsageError, "needs 1024 MiB"),
    ],
)
def test_what_needs_no_tensorflow_to_be_refused_is_refused_at_once(files, name, options, error, words):
    chosen = {"calibration": ONES, "precision": "int8", "target": "rpi4", **options}
    with pytest.raises(error, match=words):
        converter.convert(files / name, **chosen)


def test_missing_tensorflow_is_one_line_with_the_install_command(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingDependencyError, match=r'TensorFlow is not installed; pip install "strop\[tensorflow\]"'):
        converter.convert(files / "good.keras", calibration=ONES, precision="int8", target="rpi4")


@pytest.mark.parametrize(
    ("shape", "given", "fixed"),
    [
        ((None, 8, 8, 1), None, (1, 8, 8, 1)),
        ((None, None, None, 3), [24, 32, 3], (1, 24, 32, 3)),
        ((4, 8), [8], (1, 8)),
        ((None, 8), [9], r"the inputs have shape \[9\], the model wants \[8\]"),
        ((None, 8), [8, 1], r"the inputs have shape \[8, 1\], the model wants \[8\]"),
        ((None, None, 8), [5, 9], r"the model wants \[0, 8\].*0: any size"),
        ((None, None, 8), None, r"free dimensions: \[\?, \?, 8\]; give inputs of the size to run with"),
    ],
)
def test_input_gets_batch_one_and_the_sizes_of_the_data(shape, given, fixed):
    if isinstance(fixed, str):
        with pytest.raises(ModelError, match=fixed):
            load.fixed(shape, given)
    else:
        assert load.fixed(shape, given) == fixed


# What Keras and TensorFlow 2.21 said, shortened.
UNKNOWN = (
    "TypeError: <class 'Functional'> could not be deserialized properly.\n\nCould not locate class 'My'. Make sure"
)
LAMBDA = "ValueError: Requested the deserialization of a `Lambda` layer whose `function` is a Python lambda. This"
QUANTIZATION = "RuntimeError: Quantization not yet supported for op: 'CUMSUM'.\nmore"
TWO_OPERATORS = """ConverterError: Could not translate MLIR to FlatBuffer.
loc(callsite(fused["MatrixInverse:", "net/inverse/MatrixInverse@__inference_f_65"] at fused["P:", "P"])): error: 'tf.M'
TF Select ops: Erf, MatrixInverse
Details:"""
THREADS = "F0000 00:00:1795.6 2913 env.cc:84] Check failed: ret == 0 Thread creation via pthread_create() failed."
FATAL = "words\nF0000 00:00:1795.6 2913 graph.cc:84] Check failed: rank == 2 (3 vs. 2)\n*** stack trace: ***\n@"


@pytest.mark.parametrize(
    ("stage", "code", "text", "error", "words"),
    [
        ("loading the model", 1, UNKNOWN, ModelError, "class 'My' is not Keras's own; .*model.export"),
        ("loading the model", 1, LAMBDA, ModelError, "a Lambda layer holds Python code"),
        (
            "loading the model",
            1,
            "ValueError: File not found\nmore",
            ModelError,
            "cannot be loaded: ValueError: File not",
        ),
        ("converting to int8", 1, QUANTIZATION, UnsupportedOperatorError, "operator CUMSUM has no int8 form"),
        ("converting to int8", 1, TWO_OPERATORS, UnsupportedOperatorError, r"Erf, MatrixInverse \(node 'net/inverse/"),
        ("converting to int8", 1, "MemoryError: 3 GiB", ModelError, "more than 2048 MiB while converting to int8"),
        ("converting to int8", 1, "KeyError: 'x'\nmore", ModelError, "failed while converting to int8: KeyError"),
        ("importing TensorFlow", 1, "ImportError: libx.so", MissingDependencyError, "cannot be imported: ImportError"),
        ("converting to int8", -6, THREADS, ModelError, "more than 2048 MiB"),
        ("converting to int8", -9, "", ModelError, "more than 2048 MiB"),
        ("converting to int8", -6, FATAL, ModelError, r"\(SIGABRT\) while converting to int8: Check failed: rank == 2"),
        ("tracing the model", -11, "", ModelError, r"\(SIGSEGV\) while tracing the model without a word"),
        ("importing TensorFlow", -4, "", MissingDependencyError, r"\(SIGILL\) while importing TensorFlow"),
        ("running the model", None, "", ModelError, "no answer in 60 s while running the model"),
    ],
)
def test_endings_are_explained_in_one_line(tmp_path, stage, code, text, error, words):
    (tmp_path / "stage.txt").write_text(stage)
    if code == 1:
        refusal = {"kind": "", "what": text, "where": "", "fix": ""}
        (tmp_path / "refusal.json").write_text(json.dumps(refusal))
    found = explain(Ending(code, text, tmp_path, 60, 2048), "net.keras")
    assert type(found) is error
    assert str(found).startswith("net.keras: ")
    with pytest.raises(error, match=words):
        raise found
    assert len(str(found)) < 500


def test_refusal_of_the_child_arrives_as_it_was_raised(tmp_path):
    (tmp_path / "job.json").write_text(
        json.dumps({"memory_mib": 8192, "model": "x", "precision": "int8", "shape": [4]})
    )
    child._refuse(tmp_path, "ModelError", "2 inputs", "variable 'w'", "make one")
    found = explain(Ending(1, "", tmp_path, 60, 2048), "net.keras")
    assert (type(found), str(found)) == (ModelError, "net.keras, variable 'w': 2 inputs; make one")
