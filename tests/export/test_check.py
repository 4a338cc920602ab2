# SPDX-License-Identifier: Apache-2.0
"""``strop export check``: what is refused, what is warned of, and in which words, on our files and on others'."""

import json

import numpy as np
import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

from compress.quantize.step import quantize
from edge_contract import targets
from edge_contract.errors import ModelError, TargetError
from export.check.cli import check
from export.check.file import check_file
from export.onnx import writer as onnx_writer
from export.tflite import writer as tflite_writer
from tests.export.edgetpu_cases import Net
from tests.support.quant_nets import images, separable, settled
from tests.zoo import third_party

app = typer.Typer()
app.command()(check)
RPI4, CORAL = targets.load("rpi4"), targets.load("coral-usb")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("files")
    plan = quantize(settled(separable), images(64, 1))
    tflite_writer.write(plan, folder / "net.tflite")
    onnx_writer.write(plan, folder / "net.onnx")
    return folder


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("target", targets.names())
def test_every_target_takes_our_file(target, files):
    report = check_file(files / "net.tflite", targets.load(target))
    assert report.refusals == ()
    assert report.precision == "int8"
    assert (report.tpu is not None) == (target.startswith("coral"))
    assert {answer.verdict for answer in report.runtimes} <= {"runs"}


def test_an_onnx_file_is_for_targets_that_read_it(files):
    assert check_file(files / "net.onnx", RPI4).refusals == ()
    refused = check_file(files / "net.onnx", CORAL)
    assert refused.refusals == ("the target reads tflite, not onnx: export that format",)


def test_people_see_the_compilers_lines_and_machines_see_json(files):
    found = run(files / "net.tflite", "--target", "coral-usb")
    assert found.exit_code == 0
    assert "Number of operations that will run on CPU: 0" in found.stdout
    assert "a prediction, not the compiler" in found.stdout
    assert "On-chip memory used for caching model parameters: " in found.stdout
    assert "edgetpu_compiler is not on PATH" in found.stdout
    assert found.stdout.rstrip().endswith("coral-usb: takes the file")
    document = json.loads(run(files / "net.tflite", "--target", "coral-usb", "--json").stdout)
    assert document["edgetpu"]["cpu"] == 0
    assert document["edgetpu"]["mapped_macs"] == 1
    assert document["memory"]["arena_bytes"] > 0


def test_a_refusal_ends_with_code_1_and_says_why(files):
    found = run(files / "net.onnx", "--target", "coral-usb")
    assert found.exit_code == 1
    assert "refused: the target reads tflite, not onnx" in found.stdout


def test_a_float_model_of_others_is_refused_by_a_coral_and_told_what_int8_would_bring():
    path = third_party.path("mediapipe", "palm_detection_lite.tflite")
    found = run(path, "--target", "coral-usb")
    assert found.exit_code == 1
    assert "the model computes in float32; quantize it to int8" in found.stdout
    assert "as int8 with fixed sizes, 119 of 119 operators would run on the Edge TPU" in found.stdout
    assert run(path, "--target", "rpi4").exit_code == 0


def test_basic_pitch_is_warned_of_for_its_operators_and_its_memory():
    path = third_party.path("basic-pitch", "nmp.tflite")
    report = check_file(path, RPI4)
    assert report.memory.arena_bytes > 170_000_000
    assert any("MIRROR_PAD" in warning for warning in report.warnings)
    quantized = check_file(path, CORAL).quantized
    assert quantized.first_cut().kind == "MIRROR_PAD"


def test_a_custom_operator_that_no_runtime_has_is_refused():
    path = third_party.path("mediapipe", "selfie_segmentation.tflite")
    report = check_file(path, RPI4)
    assert len(report.refusals) == 2  # in both runtimes
    assert all("custom operator Convolution2DTransposeBias" in refusal for refusal in report.refusals)


def test_a_model_over_the_targets_memory_is_refused_with_its_numbers(files, tmp_path):
    text = (targets.resources.files("edge_contract") / "targets/rpi4.toml").read_text("utf-8")
    small = tmp_path / "small.toml"
    small.write_text(text.replace("model_kib = 524288", "model_kib = 8"), "utf-8")
    report = check_file(files / "net.tflite", targets.load(str(small)))
    assert len(report.refusals) == 1
    assert "the target gives a model 8192 bytes" in report.refusals[0]
    assert f"weights {report.memory.weights_bytes}" in report.refusals[0]


def saved(net, folder):
    path = folder / "made.tflite"
    path.write_bytes(net.finish())
    return path


def test_a_per_channel_linear_layer_is_wrong_on_old_runtimes_without_an_error(tmp_path):
    net = Net((1, 64)).linear(4, scales=np.full(4, 0.02, np.float32))
    report = check_file(saved(net, tmp_path), RPI4)
    answers = {answer.name: answer for answer in report.runtimes}
    assert answers["litert"].verdict == "runs"
    assert answers["tflite-runtime"].verdict == "wrong"
    assert "constant output, with no error, before 2.10" in answers["tflite-runtime"].detail
    assert any("would be WRONG" in warning for warning in report.warnings)


def test_a_dishonest_hybrid_layer_is_wrong_on_all_old_runtimes(tmp_path):
    net = Net((1, 64), "FLOAT32")
    weights = net.constant(np.ones((4, 64), np.int8), scales=np.full(4, 0.02, np.float32))
    net.add("FULLY_CONNECTED", (1, 4), version=5, after=[weights], options="FullyConnectedOptions")
    report = check_file(saved(net, tmp_path), RPI4)
    assert [answer.verdict for answer in report.runtimes] == ["runs", "wrong"]


@pytest.mark.parametrize(
    ("version", "verdict"), [(3, "runs"), (5, "runs"), (6, "from"), (7, "from"), (8, "no"), (99, "no")]
)
def test_an_operator_version_decides_which_runtimes_read_it(version, verdict, tmp_path):
    report = check_file(saved(Net((1, 8, 8, 4)).conv(4, version=version), tmp_path), RPI4)
    answer = next(answer for answer in report.runtimes if answer.name == "tflite-runtime")
    assert answer.verdict == verdict


def test_a_newer_version_than_any_runtime_has_is_refused(tmp_path):
    report = check_file(saved(Net((1, 8, 8, 4)).conv(4, version=99), tmp_path), RPI4)
    assert len(report.refusals) == 2


def test_a_file_that_the_compiler_does_not_load_is_refused_by_a_coral(tmp_path):
    path = saved(Net((1, 8, 8, 4)).conv(4, version=6), tmp_path)
    assert "Didn't find op for builtin opcode 'CONV_2D' version '6'" in check_file(path, CORAL).refusals[0]


def test_an_older_edge_tpu_runtime_is_aimed_at(tmp_path):
    path = saved(Net((1, 16, 16, 8)).conv(8).resize(32, 32, version=3), tmp_path)
    counts = [json.loads(run(path, "--target", "coral-usb", "--runtime", r, "--json").stdout) for r in (13, 14)]
    assert [document["edgetpu"]["mapped"] for document in counts] == [1, 2]


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "not a model file"), (b"\x1c\x00\x00\x00TFL3", "not a whole TFLite file")]
)
def test_a_file_that_is_none_is_one_line(content, words, tmp_path):
    (tmp_path / "net.tflite").write_bytes(content)
    with pytest.raises(ModelError, match=words) as caught:
        check_file(tmp_path / "net.tflite", CORAL)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_an_unknown_target_are_named(tmp_path):
    with pytest.raises(ModelError, match=r"lost\.tflite: cannot be read"):
        check_file(tmp_path / "lost.tflite", CORAL)
    found = run(tmp_path / "lost.tflite", "--target", "rpi9")
    assert isinstance(found.exception, TargetError)


def test_a_truncated_file_is_refused_wherever_it_ends(files, tmp_path):
    data = (files / "net.tflite").read_bytes()
    for end in range(8, len(data), len(data) // 23):
        (tmp_path / "cut.tflite").write_bytes(data[:end])
        with pytest.raises(ModelError):
            check_file(tmp_path / "cut.tflite", CORAL)


def test_a_larger_network_says_what_it_takes(tmp_path):
    torch.set_num_threads(1)
    net = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4))
    tflite_writer.write(quantize(net.eval(), images(64, 1)), tmp_path / "net.tflite")
    found = run(tmp_path / "net.tflite", "--target", "zero2")
    assert "memory: weights " in found.stdout
    assert "most at operator 1 MEAN" in found.stdout  # the wide map, the input and the means live there together


def test_a_constant_that_claims_to_be_huge_is_not_made(tmp_path):
    net = Net((1, 8), "FLOAT32")
    packed = net.file.tensor("packed", (2,), "FLOAT16", np.zeros(2, np.float16))
    huge = net.file.tensor("huge", (40_000, 40_000, 40_000), "FLOAT32")
    net.file.operator("DEQUANTIZE", 1, [packed], huge)
    net.add("ADD", after=[huge], options="AddOptions")
    report = check_file(saved(net, tmp_path), CORAL)
    assert report.quantized.operators[-1].parameter_bytes < 1_000_000
    assert "the target gives a model" in " ".join(report.refusals)
