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
