# SPDX-License-Identifier: Apache-2.0
"""Every artefact in every runtime it claims, in this interpreter or in another one; and what a difference costs."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_contract.errors import MissingDependencyError, ParityError, RuntimeAdapterError, UsageError
from export import onnx_writer, parity, runtimes, tflite_writer
from export.runtimes import Execution


@pytest.fixture(scope="module")
def written(compressed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    onnx = onnx_writer.write(compressed.plan, folder / "model.onnx")
    lite = tflite_writer.write(compressed.plan, folder / "model.tflite")
    return [(folder / onnx.path, onnx), (folder / lite.path, lite)]


@pytest.fixture(scope="module")
def executions(written, inputs):
    return parity.execute(written, ("onnxruntime", "litert", "tflite-runtime"), inputs)


def test_three_runtimes_answer_and_name_themselves(executions):
    found = [(e.runtime, e.delegate) for e in executions]
    assert found == [("onnxruntime", "cpu"), ("litert", "xnnpack"), ("tflite-runtime", "builtin")]
    assert executions[2].version == "2.14.0"
    assert all(e.codes["logits"].shape == (180, 3) for e in executions)
    assert all(e.codes["logits"].dtype == np.int16 for e in executions)


def test_modern_runtimes_agree_to_the_bit_and_the_old_one_within_its_bound(compressed, executions, inputs):
    report = parity.check(compressed.plan, executions, inputs)
    assert len(report.pairs) == 6
    exact = [("onnxruntime", "litert"), ("onnxruntime", "pytorch"), ("litert", "pytorch")]
    for first, second in exact:
        pair = report.pair(first, second)
        assert (pair.differing, pair.max_steps, pair.same_class) == (0, 0, 1.0)
        assert pair.values == 180 * (3 + 24)
    old = report.pair("litert", "tflite-runtime")
    assert old.max_steps <= 2
    assert old.same_class >= 0.98
    assert report.to_json()["runtimes"]["tflite-runtime"] == {"version": "2.14.0", "delegate": "builtin"}


def test_another_interpreter_gives_the_same_integers(written, inputs, executions):
    path, artefact = written[1]
    elsewhere = runtimes.run(path, artefact, "litert", inputs[:20], Path(sys.executable))
    assert elsewhere.delegate == "xnnpack"
    for role, codes in elsewhere.codes.items():
        assert np.array_equal(codes, executions[1].codes[role][:20])


def test_classes_are_right_more_often_than_not(executions, samples):
    right = executions[1].codes["logits"].argmax(axis=1) == samples.labels
    assert right.mean() > 0.85  # a trained model: equality above is not that of noise


def moved(execution, steps, count):
    logits = execution.codes["logits"].copy()
    logits.reshape(-1)[:count] += steps
    return replace(execution, codes={**execution.codes, "logits": logits})


def test_one_integer_off_between_exact_runtimes_is_refused(compressed, executions, inputs):
    changed = [moved(executions[0], 1, 1), executions[1]]
    with pytest.raises(ParityError) as caught:
        parity.check(compressed.plan, changed, inputs)
    assert str(caught.value).startswith(
        "onnxruntime and litert: 1 of 540 integers of 'logits' differ, by up to 1 steps, 100.00 % same classes; "
        "allowed: at most 0 steps and 100 % same classes; "
    )


@pytest.mark.parametrize(("steps", "is_within"), [(4, True), (9, False)])
def test_fixed_point_kernels_have_a_bound_too(compressed, executions, inputs, steps, is_within):
    old = replace(executions[1], runtime="tflite-runtime", delegate="builtin")
    # All logits of an input move together, so that its class stays.
    changed = [executions[1], moved(old, steps, 3)]
    if is_within:
        parity.check(compressed.plan, changed, inputs)
    else:
        with pytest.raises(ParityError, match="litert and tflite-runtime"):
            parity.check(compressed.plan, changed, inputs)


def test_other_classes_break_the_bound_even_within_the_steps():
    base = np.zeros((100, 2), np.int16)
    base[:, 0] = 1
    swapped = base.copy()
    swapped[:5] = [1, 2]
    pair = parity.compare(
        Execution("a", "1", "builtin", {"logits": base}), Execution("b", "1", "builtin", {"logits": swapped})
    )
    assert pair.max_steps == 2
    assert pair.same_class == 0.95
    assert not pair.is_within


def test_golden_digest_is_that_of_the_int8_bytes():
    codes = np.array([[-128, 127]], np.int16)
    import hashlib

    assert Execution("a", "1", "cpu", {"logits": codes}).digest() == hashlib.sha256(b"\x80\x7f").hexdigest()


# --- finding interpreters ---


def test_callers_choice_of_interpreter_wins():
    chosen = {"litert": Path("/somewhere/python")}
    assert runtimes.python_for("litert", chosen) == Path("/somewhere/python")
    assert runtimes.python_for("litert") is None


def test_environment_names_the_interpreter(monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("")
    monkeypatch.setenv(runtimes.EXTERNAL_PYTHON, str(python))
    assert runtimes.python_for("tflite-runtime") == python


def test_runtime_that_is_nowhere_says_how_to_name_it(monkeypatch, tmp_path):
    monkeypatch.setenv(runtimes.EXTERNAL_PYTHON, str(tmp_path / "gone"))
    with pytest.raises(MissingDependencyError, match=r"runtime 'tflite-runtime' is not installed; .*--runtime-python"):
        runtimes.python_for("tflite-runtime")
    assert runtimes.available("tflite") == ("litert",)


@pytest.mark.parametrize("option", ["tflite-runtime", "=x", "tensorrt=/usr/bin/python3", "litert="])
def test_wrong_interpreter_option_is_a_usage_error(option):
    with pytest.raises(UsageError, match="names no interpreter; write NAME=PATH"):
        runtimes.parse_pythons([option])


def test_interpreter_that_cannot_start_is_one_clear_line(written, inputs):
    path, artefact = written[1]
    with pytest.raises(MissingDependencyError, match=r"runtime 'litert' in /no/python: cannot be started"):
        runtimes.run(path, artefact, "litert", inputs[:1], Path("/no/python"))


def test_interpreter_without_the_runtime_repeats_its_complaint(written, inputs):
    path, artefact = written[1]
    with pytest.raises(RuntimeAdapterError, match=r"runtime 'tflite-runtime' in .*: .*pip install 'strop\[agent-tfl"):
        runtimes.run(path, artefact, "tflite-runtime", inputs[:1], Path(sys.executable))


def test_damaged_file_is_refused_by_its_runtime(written, inputs, tmp_path):
    path, artefact = written[1]
    (tmp_path / "model.tflite").write_bytes(path.read_bytes()[:2000])
    with pytest.raises(RuntimeAdapterError, match="litert"):
        runtimes.run(tmp_path / "model.tflite", artefact, "litert", inputs[:1])
