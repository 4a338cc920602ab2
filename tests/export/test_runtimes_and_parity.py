# SPDX-License-Identifier: Apache-2.0
"""Every artefact in every runtime it claims, in this interpreter or in another one; and what a difference costs."""

import ast
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_contract import canonical, targets
from edge_contract.errors import DataError, MissingDependencyError, ParityError, RuntimeAdapterError, UsageError
from export.memory.macs import macs
from export.onnx import writer as onnx_writer
from export.parity import gate
from export.runtimes import execution as runtimes
from export.runtimes import matrix, probes
from export.runtimes.execution import Execution
from export.tflite import writer as tflite_writer
from export.tflite.reader import read_file


@pytest.fixture(scope="module")
def written(compressed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    onnx = onnx_writer.write(compressed.plan, folder / "model.onnx")
    lite = tflite_writer.write(compressed.plan, folder / "model.tflite")
    return [(folder / onnx.path, onnx), (folder / lite.path, lite)]


@pytest.fixture(scope="module")
def executions(written, inputs):
    return gate.execute(written, ("onnxruntime", "litert", "tflite-runtime"), inputs)


def test_three_runtimes_answer_and_name_themselves(executions):
    found = [(e.runtime, e.delegate) for e in executions]
    assert found == [("onnxruntime", "cpu"), ("litert", "xnnpack"), ("tflite-runtime", "builtin")]
    assert executions[2].version == "2.14.0"
    assert all(e.codes["logits"].shape == (180, 3) for e in executions)
    assert all(e.codes["logits"].dtype == np.int16 for e in executions)


def test_modern_runtimes_agree_to_the_bit_and_the_old_one_within_its_bound(compressed, executions, inputs):
    report = gate.check(compressed.plan, executions, inputs)
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
        gate.check(compressed.plan, changed, inputs)
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
        gate.check(compressed.plan, changed, inputs)
    else:
        with pytest.raises(ParityError, match="litert and tflite-runtime"):
            gate.check(compressed.plan, changed, inputs)


def test_other_classes_break_the_bound_even_within_the_steps():
    base = np.zeros((100, 2), np.int16)
    base[:, 0] = 1
    swapped = base.copy()
    swapped[:5] = [1, 2]
    pair = gate.compare(
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


# --- against the float model ---


@pytest.fixture(scope="module")
def float_logits(compressed, inputs):
    with torch.no_grad():
        return compressed.model(torch.from_numpy(inputs.transpose(0, 3, 1, 2))).numpy()


def test_every_runtime_is_judged_against_the_float_model(compressed, executions, inputs, samples, float_logits):
    report = gate.check(compressed.plan, executions, inputs, reference={"logits": float_logits}, labels=samples.labels)
    assert [row.runtime for row in report.judged] == ["onnxruntime", "litert", "tflite-runtime", "pytorch"]
    for name in ("onnxruntime", "litert", "tflite-runtime", "pytorch"):
        found = report.fidelity(name)
        assert 0 < found.relative_error < 0.1
        assert found.sqnr_db > 20
        assert found.explained > 0.98
        assert found.accuracy.samples == 180
    assert report.fidelity("litert") == report.fidelity("pytorch")  # the same integers
    rows = json.loads(canonical.dumps(report.to_json()))["fidelity"]
    assert rows[0]["against"] == "float model"
    assert rows[0]["change"]["points"] == rows[3]["change"]["points"]


def test_without_a_reference_the_table_is_as_it_was(compressed, executions, inputs):
    document = gate.check(compressed.plan, executions, inputs).to_json()
    assert set(document) == {"plan", "inputs", "runtimes", "pairs"}


def test_answers_that_agree_but_are_far_from_the_float_model_are_refused(compressed, executions, inputs, float_logits):
    """All runtimes compute the plan; the plan is what went wrong."""
    with pytest.raises(
        ParityError, match=r"^output 'logits' in onnxruntime: relative error 1\.[45].*, allowed 0.3 \(against"
    ):
        gate.check(compressed.plan, executions, inputs, reference={"logits": float_logits * -2})


def test_constant_output_is_refused_by_name(compressed, executions, inputs):
    dead = replace(executions[2], codes={**executions[2].codes, "logits": np.full((180, 3), 7, np.int16)})
    with pytest.raises(ParityError) as caught:
        gate.check(compressed.plan, [*executions[:2], dead], inputs)
    assert str(caught.value).startswith("tflite-runtime 2.14.0: output 'logits' is the same for all 180 inputs; do not")


def test_same_output_for_the_same_input_is_no_fault(compressed, written, inputs):
    same = np.repeat(inputs[:1], 3, axis=0)
    found = gate.execute(written, ("litert",), same)
    assert gate.check(compressed.plan, found, same).inputs == 3


def test_file_that_is_not_of_the_plan_is_told_so(compressed, written, inputs, tmp_path):
    """One weight's bit flipped in the file: the runtimes are not to blame, and the message knows."""
    path, artefact = written[1]
    data = bytearray(path.read_bytes())
    codes = np.ascontiguousarray(next(iter(compressed.plan.constants.values())).codes.transpose(1, 2, 3, 0)).tobytes()
    at = (
        data.find(codes)
        if codes in data
        else data.find(
            np.ascontiguousarray(next(iter(compressed.plan.constants.values())).codes.transpose(0, 2, 3, 1)).tobytes()
        )
    )
    data[at] ^= 0x40
    (tmp_path / path.name).write_bytes(data)
    found = gate.execute([(tmp_path / path.name, artefact)], ("litert",), inputs[:40])
    with pytest.raises(
        ParityError, match=r"litert 2\.3\.0: written again from the plan it answers otherwise: the file is not"
    ):
        gate.check(compressed.plan, found, inputs[:40])


# --- files without a plan ---


def real(name, values, version="1"):
    return Execution(name, version, "cpu", {"logits": np.asarray(values, np.float32)})


@pytest.fixture
def answers():
    return np.random.default_rng(0).normal(0, 1, (50, 4)).astype(np.float32)


def test_float_answers_are_compared_across_runtimes_and_with_a_reference(answers):
    near = answers + np.float32(1e-5)
    report = gate.judge_float([real("a", answers), real("b", near)], answers, reference={"logits": answers})
    assert [(row.runtime, row.against) for row in report.judged] == [
        ("a", "float model"), ("b", "float model"), ("b", "a"),
    ]  # fmt: skip
    assert report.fidelity("b").max_abs == pytest.approx(1e-5, rel=0.1)
    assert report.plan_digest == ""


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda x: x * 1.01, r"^output 'logits' in b: relative error 0.01, allowed 0.001 \(against a: "),
        (
            lambda x: np.where(x > 2, np.nan, x),
            r"^b 1: \d+ of 200 numbers of output 'logits' are NaN or infinite, first",
        ),
        (lambda x: x * 0 + 3, r"^b 1: output 'logits' is the same for all 50 inputs"),
    ],
)
def test_a_wrong_runtime_is_refused_by_name(answers, change, complaint):
    with pytest.raises(ParityError, match=complaint):
        gate.judge_float([real("a", answers), real("b", change(answers))], answers)


def test_one_constant_output_of_several_may_be_right_but_not_all(answers):
    count = np.full((50, 1), 10, np.float32)
    both = Execution("a", "1", "cpu", {"boxes": answers, "count": count})
    assert gate.judge_float([both, replace(both, runtime="b")], answers).notes == ()
    with pytest.raises(ParityError, match="a 1: output 'count' is the same"):
        gate.judge_float([Execution("a", "1", "cpu", {"count": count})], answers)
    known = gate.judge_float([Execution("a", "1", "cpu", {"count": count})], answers, reference={"count": count})
    assert known.fidelity("a", "count").relative_error == 0


def test_nothing_to_compare_with_is_said(answers):
    (note,) = gate.judge_float([real("a", answers)], answers).notes
    assert note == "nothing was there to compare with: one runtime and no reference"
    with pytest.raises(DataError, match="no runtime ran the file"):
        gate.judge_float([], answers)
    with pytest.raises(DataError, match="a: the reference has outputs boxes, the file logits"):
        gate.judge_float([real("a", answers)], answers, reference={"boxes": answers})


# --- runtimes by version ---


def test_matrix_lists_every_runtime_with_its_version(no_old_runtimes):
    found = matrix.matrix()
    assert [(m.runtime, m.version, m.python is None) for m in found] == [
        ("litert", "2.3.0", True), ("tflite-runtime", "2.14.0", False), ("onnxruntime", "1.31.1", True),
    ]  # fmt: skip
    assert [m.name for m in matrix.matrix("onnx")] == ["onnxruntime"]


@pytest.fixture
def no_old_runtimes(monkeypatch, tmp_path):
    (tmp_path / "none.json").write_text("{}")
    monkeypatch.setenv(matrix.OLD_RUNTIMES, str(tmp_path / "none.json"))
    return tmp_path / "none.json"


def test_old_runtimes_come_from_a_file_and_follow_by_version(no_old_runtimes):
    table = {
        "tflite-runtime 2.11.0": ["/a"],
        "tflite-runtime 2.7.0": ["env", "X=1", "/b"],
        "tflite-runtime 2.2.0": ["/c"],
    }
    no_old_runtimes.write_text(json.dumps(table))
    old = [m for m in matrix.matrix("tflite") if m.command]
    assert [m.name for m in old] == ["tflite-runtime 2.2.0", "tflite-runtime 2.7.0", "tflite-runtime 2.11.0"]
    assert old[1].command == ("env", "X=1", "/b")
    claimed = matrix.matrix("tflite", target=targets.load("rpi4"))
    assert [m.version for m in claimed if m.command] == ["2.7.0", "2.11.0"]  # rpi4 claims 2.7 to 2.14


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"onnxruntime 1.0": ["/a"]}',
        '{"tflite-runtime": ["/a"]}',
        '{"tflite-runtime 2.7.0": "/a"}',
        '{"a 1": []}',
    ],
)
def test_malformed_file_of_old_runtimes_is_a_usage_error(no_old_runtimes, text):
    no_old_runtimes.write_text(text)
    with pytest.raises(UsageError, match=r"none.json: (cannot be read|no JSON object|entry '.*' is no old runtime)"):
        matrix.old_runtimes()


def test_old_runtimes_that_are_named_must_be_there(monkeypatch):
    monkeypatch.setenv(matrix.OLD_RUNTIMES, "/gone.json")
    with pytest.raises(UsageError, match=r"^\$STROP_OLD_RUNTIMES: no such file: /gone.json; name a runtimes.json"):
        matrix.old_runtimes()


@pytest.fixture
def today(no_old_runtimes):
    """The tflite-runtime of the other environment, listed as an old one."""
    python = runtimes.python_for("tflite-runtime")
    no_old_runtimes.write_text(json.dumps({"tflite-runtime 2.14.0": [str(python)]}))
    return matrix.old_runtimes()


def test_small_probe_gives_what_the_devices_own_code_gives(today, written, inputs, executions):
    """The small probe is for Pythons that are too old; here both run in one Python."""
    found = gate.execute([written[1]], ("tflite-runtime",), inputs[:30], old=today)
    assert [e.title for e in found] == ["tflite-runtime 2.14.0", "tflite-runtime 2.14.0"]
    assert found[1].delegate == "builtin"
    for role, codes in found[1].codes.items():
        assert np.array_equal(codes, executions[2].codes[role][:30])


def test_old_versions_run_a_share_of_the_inputs_and_are_compared_on_it(today, compressed, written, inputs, monkeypatch):
    """Their kernels are slow, and each is asked the same question by the first hundred inputs."""
    monkeypatch.setattr(gate, "OLD_INPUTS", 30)
    old = [replace(e, label="old") for e in gate.execute([written[1]], ("tflite-runtime",), inputs, old=today)[1:]]
    found = [*gate.execute(written, ("onnxruntime", "litert"), inputs), *old]
    reference = {"logits": gate.evaluate(compressed.plan, inputs).values["logits"] * compressed.plan.activations[
        compressed.plan.outputs["logits"]].scale}  # fmt: skip
    shifted = compressed.plan.activations[compressed.plan.outputs["logits"]]
    reference["logits"] -= np.float32(shifted.zero_point * shifted.scale)
    labels = np.arange(180) % 3
    report = gate.check(compressed.plan, found, inputs, reference=reference, labels=labels)
    assert report.pair("litert", "old").by_output["logits"][0] == 30 * 3
    assert report.pair("litert", "onnxruntime").by_output["logits"][0] == 180 * 3
    assert (report.fidelity("old").samples, report.fidelity("litert").samples) == (30, 180)
    assert report.fidelity("litert").relative_error < 1e-6
    why = "their kernels are slow, and the larger the network, the fewer they get"
    assert report.notes == (f"30 of 180 inputs in old 2.14.0: {why}",)


def test_a_larger_network_gives_old_versions_fewer_inputs(written, monkeypatch):
    """It follows from the file, not from a clock: the same model has the same table on every computer."""
    path = written[1][0]
    graph = read_file(path).main
    each = sum(macs(operator, graph) for operator in graph.operators)
    assert gate.old_share(path) == gate.OLD_INPUTS  # a small network
    monkeypatch.setattr(gate, "OLD_MACS", 21 * each + each // 2)
    assert gate.old_share(path) == 21
    monkeypatch.setattr(gate, "OLD_MACS", 1)
    assert gate.old_share(path) == gate.OLD_LEAST


def test_of_few_inputs_one_may_change_its_class():
    rows = np.tile(np.array([[3, 1]], np.int16), (12, 1))
    exact = Execution("litert", "2.3.0", "xnnpack", {"logits": rows})

    def moved(count):
        codes = rows.copy()
        codes[:count] = [1, 3]
        return gate.compare(exact, Execution("tflite-runtime", "2.7.0", "builtin", {"logits": codes}))

    assert [moved(count).is_within for count in (0, 1, 2)] == [True, True, False]
    assert moved(1).bound.same_class == 11 / 12


def test_old_probe_is_python_3_7():
    source = Path(runtimes.__file__).with_name("old_probe.py").read_text()
    tree = ast.parse(source, feature_version=(3, 7))
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert imported == {"importlib", "json", "sys", "pathlib", "typing", "numpy"}


def test_version_that_is_not_what_the_file_says_is_refused(today, written, inputs):
    wrong = replace(today[0], version="2.7.0")
    with pytest.raises(MissingDependencyError, match=r"^tflite-runtime 2.7.0: it is tflite-runtime 2.14.0; correct"):
        matrix.run_in(wrong, *written[1], inputs[:1])


def test_small_probe_repeats_the_runtimes_complaint(today, written, inputs, tmp_path):
    path, artefact = written[1]
    (tmp_path / "cut.tflite").write_bytes(path.read_bytes()[:2000])
    with pytest.raises(RuntimeAdapterError, match=r"^model.tflite in .*python: .*; run the same command by hand"):
        matrix.run_in(today[0], tmp_path / "cut.tflite", artefact, inputs[:1])
    logits, *rest = artefact.outputs
    other = replace(artefact, outputs=(replace(logits, name="scores"), *rest))
    with pytest.raises(RuntimeAdapterError, match=r"no output 'scores'; the file has logits"):
        matrix.run_in(today[0], path, other, inputs[:1])


def test_program_that_answers_no_json_is_one_clear_line():
    with pytest.raises(RuntimeAdapterError, match=r"^x: answers 'hello', which is no JSON object"):
        probes.ask([sys.executable, "-c", "print('hello')"], probes.environment(), where="x")
    with pytest.raises(RuntimeAdapterError, match=r"^x: was killed by signal 6"):
        probes.ask([sys.executable, "-c", "import os; os.abort()"], probes.environment(), where="x")


def test_claims_say_what_ran_and_what_did_not(executions):
    found = {claim.runtime: claim for claim in matrix.claims(targets.load("rpi4"), "tflite", executions)}
    assert found["tflite-runtime"].ran == ("2.14.0",)
    assert found["litert"].to_json() == {"runtime": "litert", "minimum": "2.1.0", "below": "2.4.0", "ran": ["2.3.0"]}
    assert matrix.claims(targets.load("rpi4"), "tflite", executions[:1])[0].ran == ()
