# SPDX-License-Identifier: Apache-2.0
"""Files on the runtimes of boards that nobody updates: ours answer right, and other people's, which do not, why.

Not part of ``make test``: ``make test-old-runtimes``.
"""

import functools
import json
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from compress.quantize import integer
from compress.quantize.step import quantize
from edge_agent.runner.tensors import dequantize, encode
from edge_contract import targets
from export.normalise.normaliser import normalise
from export.runtimes import matrix, old_probe
from export.tflite import reader, writer
from tests.machines import old_runtimes, stock, traps
from tests.machines.unpacked import ROOT
from tests.support.quant_nets import images, mobile, residual, separable, settled
from tests.zoo import data, models

pytestmark = [
    pytest.mark.old_runtimes,
    pytest.mark.skipif(bool(old_runtimes.missing()), reason=old_runtimes.missing() or "the old runtimes are here"),
]
VERSIONS = old_runtimes.VERSIONS
BEFORE_2_10 = ("2.7.0", "2.8.0", "2.9.1")
PROBE = old_probe.__file__


def ask(command, content, inputs, folder):
    """Return the kernels and name → rows of each output of a file's bytes, or the runtime's refusal."""
    (folder / "model.tflite").write_bytes(content)
    np.save(folder / "inputs.npy", inputs)
    words = [*command, PROBE, folder / "model.tflite", folder / "inputs.npy", folder / "outputs.npz"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode in (0, 1), done.stderr  # a crash is neither an answer nor a refusal
    if done.returncode == 1:
        return done.stderr.strip().splitlines()[-1], {}
    facts = json.loads(done.stdout)
    with np.load(folder / "outputs.npz") as archive:
        return facts["delegate"], {name: archive[str(i)][:, 0] for i, name in enumerate(facts["outputs"])}


@pytest.fixture
def old(tmp_path):
    """Ask a version of tflite-runtime."""
    pythons = old_runtimes.runtimes()
    return lambda version, content, inputs: ask(pythons[f"tflite-runtime {version}"], content, inputs, tmp_path)


@pytest.fixture
def litert(tmp_path):
    """Ask this environment's LiteRT."""
    return lambda content, inputs: ask([sys.executable], content, inputs, tmp_path)


def relative_error(answer, reference):
    return float(np.linalg.norm(answer - reference) / np.linalg.norm(reference))


def test_the_exporters_matrix_finds_them():
    found = {old.name: list(old.command) for old in matrix.old_runtimes()}
    assert found == old_runtimes.runtimes()
    assert list(found) == [f"tflite-runtime {version}" for version in VERSIONS]


# --- our files ---


@dataclass(frozen=True, eq=False)
class Written:
    """A network's TFLite file with inputs, the plan's integers and the float network's logits for them."""

    content: bytes
    artefact: object
    inputs: np.ndarray
    codes: np.ndarray
    logits: np.ndarray


def blocks(build):
    return settled(build, seed=2), images(96, 1), images(40, 2)


def member(name, samples=96, count=40):
    shape = models.MEMBERS[name].shape
    return models.load(name), models.noise(samples, 1, shape), models.noise(count, 2, shape)


def trained(name):
    if not data.FOLDER.exists():
        pytest.skip(f"Fashion-MNIST is missing: {data.INSTALL}")
    return models.load(name), data.calibration(128), data.scaled(data.load("t10k")[0][:200])


# Additions and products of hard-swish and of gates round twice as well: 17 of them in MobileNetV3 (seen: 5 steps).
STEPS = {"mobilenet-v3": 6}
NETS = {
    "mobile": lambda: blocks(mobile),
    "residual": lambda: blocks(residual),
    "separable": lambda: blocks(separable),
    "mobilenet-v2": lambda: trained("mobilenet-v2"),
    "mobilenet-v3": lambda: trained("mobilenet-v3"),
    "resnet-8": lambda: member("resnet-8"),
    "ds-cnn": lambda: member("ds-cnn"),
    "efficientnet-lite0": lambda: member("efficientnet-lite0", samples=64, count=6),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    @functools.cache
    def make(name):
        torch.set_num_threads(1)
        net, calibration, x = NETS[name]()
        plan = quantize(net, calibration)
        path = tmp_path_factory.mktemp("old") / "net.tflite"
        artefact = writer.write(plan, path)
        with torch.no_grad():
            logits = net(x).numpy()
        rows = x.permute(0, 2, 3, 1).contiguous().numpy()
        return Written(path.read_bytes(), artefact, rows, integer.run(plan, x)["logits"], logits)

    return make


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NETS)
def test_our_file_answers_right(old, written, name, version):
    """To the bit where XNNPACK computes (2.12), else within the steps that kernels which round twice add up to."""
    net = written(name)
    spec = net.artefact.output("logits")
    delegate, outputs = old(version, net.content, encode(net.artefact.input, net.inputs))
    codes = outputs["logits"]
    steps = np.abs(codes.astype(np.int32) - net.codes)
    same_class = (codes.argmax(axis=1) == net.codes.argmax(axis=1)).mean()
    of_plan = relative_error(dequantize(spec, net.codes), net.logits)
    of_old = relative_error(dequantize(spec, codes), net.logits)
    print(f"{name} {version}: {delegate}, {steps.max()} steps, {same_class:.3f}, {of_old:.4f} (plan {of_plan:.4f})")
    assert steps.max() <= (0 if delegate == "xnnpack" else STEPS.get(name, 4))
    assert same_class >= 0.98
    assert of_old <= of_plan * 1.1 + 0.005
    assert np.ptp(codes.astype(np.int32)) > 50


# --- the files of others, and ours of them ---


@pytest.fixture(scope="module")
def layer():
    return traps.Dense()


def normalised(content):
    return normalise(content, where="", target=targets.load("rpi4")).data


@pytest.mark.parametrize("version", VERSIONS)
def test_per_channel_dense_layer_is_constant_before_2_10_and_per_tensor_is_right(old, layer, version):
    """Why our dense layers have one scale: these answers come without an error or a warning."""
    trapped, cured = (traps.full_integer(layer, per_channel=per_channel) for per_channel in (True, False))
    for content in (cured, normalised(trapped), normalised(cured)):
        _, found = old(version, content, layer.codes)
        assert relative_error(found["logits"] * layer.output_scale, layer.answers) < 0.02
    _, found = old(version, trapped, layer.codes)
    if version in BEFORE_2_10:
        assert np.ptp(found["logits"]) == 0
    else:
        assert relative_error(found["logits"] * layer.output_scale, layer.answers) < 0.02


@pytest.mark.parametrize("version", VERSIONS)
def test_dynamic_range_layer_of_a_wrong_version_is_garbage_and_of_the_right_one_refused(old, layer, version):
    dishonest = traps.dynamic_range(layer, version=5)
    _, found = old(version, dishonest, layer.inputs)
    assert relative_error(found["logits"], layer.answers) > 0.5
    for content in (traps.dynamic_range(layer, version=12), normalised(dishonest)):
        refusal, found = old(version, content, layer.inputs)
        assert found == {}
        assert "Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'" in refusal


@pytest.mark.parametrize("version", VERSIONS)
def test_constants_outside_the_flatbuffer_are_refused_and_inside_are_read(old, layer, version):
    trapped = traps.outside(traps.full_integer(layer, per_channel=False))
    refusal, found = old(version, trapped, layer.codes)
    assert found == {}
    assert "lacks data" in refusal
    _, found = old(version, normalised(trapped), layer.codes)
    assert relative_error(found["logits"] * layer.output_scale, layer.answers) < 0.02


def test_the_same_files_are_right_in_todays_litert(litert, layer):
    """The faults are the old runtimes', or the files' claims about themselves: the numbers in them are right."""
    inside = traps.full_integer(layer, per_channel=False)
    for content in (inside, traps.outside(inside), traps.full_integer(layer, per_channel=True)):
        _, found = litert(content, layer.codes)
        assert relative_error(found["logits"] * layer.output_scale, layer.answers) < 0.02
    for version in (5, 12):
        _, found = litert(traps.dynamic_range(layer, version=version), layer.inputs)
        assert relative_error(found["logits"], layer.answers) < 0.02


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """TensorFlow's own int8 file of two dense layers: its bytes and the float answers."""
    path = tmp_path_factory.mktemp("stock") / "stock.tflite"
    command = [sys.executable, "-m", "tests.machines.stock", path]
    subprocess.run(command, check=True, capture_output=True, timeout=200, cwd=ROOT)
    return path.read_bytes(), np.load(path.with_suffix(".npy"))


@pytest.mark.parametrize("version", VERSIONS)
def test_converters_own_file_is_wrong_before_2_10_and_our_normaliser_cures_it(old, converted, version):
    content, answers = converted
    graph = reader.read(content, "stock").main
    source, target = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    codes = np.rint(stock.samples(40, 2) / source.scales[0] + source.zero_points[0]).clip(-128, 127).astype(np.int8)

    def error(data):
        (found,) = old(version, data, codes)[1].values()
        return relative_error((found - np.float32(target.zero_points[0])) * target.scales[0], answers)

    assert error(normalised(content)) < 0.05
    assert (error(content) > 0.5) == (version in BEFORE_2_10)
