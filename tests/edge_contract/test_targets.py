# SPDX-License-Identifier: Apache-2.0
"""The targets that come with Strop: loadable, true to their names, and their operators exist."""

import re
from importlib import resources

import pytest

from edge_contract import targets
from edge_contract.errors import TargetError

every_target = pytest.mark.parametrize("name", targets.names())


@every_target
def test_a_target_is_called_like_its_file_and_knows_a_runtime(name):
    target = targets.load(name)
    assert target.name == name
    assert target.runtimes
    assert all(target.runtime(runtime.name) is runtime for runtime in target.runtimes)


@every_target
def test_int8_means_the_same_everywhere_but_for_the_sign_of_activations(name):
    for integers in targets.load(name).integers.values():
        assert (integers.weight, integers.bias) == ("int8", "int32")
        assert integers.convolution == "channel"
        assert integers.fully_connected == "tensor"


@every_target
def test_activations_are_unsigned_in_onnx_files_for_x86_alone(name):
    target = targets.load(name)
    if "onnx" in target.integers:
        assert (target.integers["onnx"].activation == "uint8") == (target.architecture == "x86_64")
    assert target.integers["tflite"].activation == "int8"


@every_target
def test_tflite_operators_are_spelled_as_the_format_spells_them(name):
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    known = vars(schema.BuiltinOperator)
    assert [op for op in targets.load(name).integers["tflite"].operators if op not in known] == []


@every_target
def test_onnx_operators_have_the_version_of_opset_21(name):
    defs = pytest.importorskip("onnx.defs")
    integers = targets.load(name).integers.get("onnx")
    for operator, version in (integers.operators if integers else {}).items():
        assert defs.get_schema(operator, 21).since_version == version


def test_what_the_writers_need_is_on_every_target():
    needed = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MEAN", "RESHAPE", "PAD", "MAX_POOL_2D"}
    for name in targets.names():
        assert needed <= set(targets.load(name).integers["tflite"].operators)


def test_a_coral_maps_fewer_operators_with_a_cache_and_its_board_runs_no_agent():
    usb, board, pi = (targets.load(name) for name in ("coral-usb", "coral-devboard", "rpi4"))
    assert usb.integers == board.integers
    assert usb.memory.parameter_cache_kib == 6 * 1024
    assert pi.memory.parameter_cache_kib == 0
    assert (usb.runs_agent, board.runs_agent) == (True, False)
    assert "TRANSPOSE_CONV" in usb.integers["tflite"].operators


@pytest.mark.parametrize(
    ("version", "admitted"),
    [("2.7.0", True), ("2.14.0", True), ("2.14.0.post1", True), ("2.15", False), ("2.6.9", False), ("", False)],
)
def test_a_version_lies_in_a_range_or_not(version, admitted):
    assert targets.load("rpi3").runtime("tflite-runtime").admits(version) is admitted


def test_the_versions_that_the_tests_run_with_are_admitted():
    pinned = {"litert": "2.3.0", "onnxruntime": "1.31.1", "tflite-runtime": "2.14.0"}
    x86 = targets.load("generic-x86")
    assert all(x86.runtime(name).admits(version) for name, version in pinned.items())
    assert x86.runtime("edgetpu") is None


def test_an_unknown_target_lists_the_known_ones():
    with pytest.raises(TargetError, match=r"unknown target 'rpi9'; use one of coral-devboard, .*, zero2$") as caught:
        targets.load("rpi9")
    assert caught.value.exit_code == 2


def test_a_target_of_ones_own_is_read_from_a_file(tmp_path):
    text = (resources.files("edge_contract") / "targets" / "rpi5.toml").read_text("utf-8")
    own = tmp_path / "kiosk.toml"
    own.write_text(re.sub('name = "rpi5"', 'name = "kiosk"', text, count=1), "utf-8")
    assert targets.load(str(own)).name == "kiosk"


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(TargetError, match=r"lost\.toml: cannot be read: "):
        targets.load(str(tmp_path / "lost.toml"))
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(TargetError, match=r"latin\.toml: cannot be read: "):
        targets.load(str(tmp_path / "latin.toml"))


def coral_text():
    return (resources.files("edge_contract") / "targets" / "coral-usb.toml").read_text("utf-8")


def old(text):
    """A file as schema 1 had it: no accelerator, no memory for one model."""
    text = text.replace("strop.target/2", "strop.target/1")
    text = re.sub(r"\[accelerator\][\s\S]*", "", text)
    return re.sub(r"model_kib = .*\n", "", text)


@every_target
def test_a_file_of_schema_1_is_read_as_before(name):
    text = (resources.files("edge_contract") / "targets" / f"{name}.toml").read_text("utf-8")
    new, before = targets.load(name), targets.parse(old(text), where="old.toml")
    assert before.integers == new.integers
    assert before.runtimes == new.runtimes
    assert before.accelerator is None
    assert before.memory.model_kib == before.memory.ram_kib // 2


@every_target
def test_one_model_may_take_half_of_the_memory(name):
    memory = targets.load(name).memory
    assert memory.model_kib == memory.ram_kib // 2


def test_an_accelerator_in_a_file_of_schema_1_is_an_unknown_key():
    text = coral_text().replace("strop.target/2", "strop.target/1")
    with pytest.raises(TargetError, match=r"board\.toml: unknown key 'accelerator'; remove it"):
        targets.parse(text, where="board.toml")


def test_a_corals_accelerator_is_the_edge_tpu_with_numbers_that_fit_each_other():
    for name in ("coral-usb", "coral-devboard"):
        target = targets.load(name)
        accelerator = target.accelerator
        assert (accelerator.name, accelerator.runtime) == ("edgetpu", 14)
        assert accelerator.cache_kib == target.memory.parameter_cache_kib < accelerator.sram_kib
        assert set(accelerator.operators.values()) <= {10, 13, 14}
        assert set(accelerator.operators) <= set(target.integers["tflite"].operators)
    assert all(targets.load(name).accelerator is None for name in ("rpi3", "rpi4", "rpi5", "zero2", "generic-x86"))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('name = "edgetpu"\ncompiler', 'name = "npu"\ncompiler', r"board.toml.accelerator.name: unknown value 'npu'"),
        ("sram_kib = 8192", "sram_kib = 4096", "accelerator: cache_kib 6144 is more than sram_kib 4096"),
        ("runtime = 14  #", "speed = 3\nruntime = 14  #", "accelerator: unknown key 'speed'"),
        ("TANH = 10", "TANH = 0", "accelerator.operators.TANH: 0 is below 1"),
        ("model_kib = 524288", "model_kib = 1048577", "memory: model_kib 1048577 is more than ram_kib 1048576"),
        ("model_kib = 524288", "model_kib = 0", "memory.model_kib: 0 is below 1"),
    ],
)
def test_a_fault_in_the_new_keys_is_named(before, after, words):
    text = coral_text()
    assert before in text
    with pytest.raises(TargetError, match=words):
        targets.parse(text.replace(before, after, 1), where="board.toml")


def test_an_accelerator_runs_an_operator_from_a_runtime_on():
    accelerator = targets.load("coral-usb").accelerator
    assert accelerator.runs("TRANSPOSE", 14)
    assert not accelerator.runs("TRANSPOSE", 13)
    assert not accelerator.runs("HARD_SWISH", 14)
