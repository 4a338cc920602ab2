# SPDX-License-Identifier: Apache-2.0
"""A Raspberry Pi computes what this computer computes: every integer of every feature map, in both runtimes."""

import hashlib
import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.quantize import integer, semantics
from compress.quantize.step import quantize
from edge_contract.manifest import Artefact, TensorSpec
from export.onnx import writer as onnx_writer
from export.parity import gate
from export.runtimes import execution
from export.tflite import writer as tflite_writer
from tests.machines import arm64
from tests.machines.answers import answers
from tests.machines.unpacked import ROOT, script
from tests.support.quant_nets import images, mobile, residual, separable, settled
from tests.zoo import models

pytestmark = [
    pytest.mark.machines,
    pytest.mark.skipif(bool(arm64.missing()), reason=arm64.missing() or "ARM64 is here"),
]
CPUS = tuple(arm64.CPUS)
IMAGES = 8
# ONNX Runtime computes on uint8 × int8 where x86 is the target and on int8 × int8 where ARM is.
FILES = {"litert": "litert", "onnxruntime, uint8": "onnxruntime", "onnxruntime, int8": "onnxruntime"}


def blocks(build):
    return settled(build, seed=2), images(96, 1), images(IMAGES, 2)


def member(name, samples=96, count=IMAGES):
    shape = models.MEMBERS[name].shape
    return models.load(name), models.noise(samples, 1, shape), models.noise(count, 2, shape)


NETS = {
    "mobile": lambda: blocks(mobile),
    "residual": lambda: blocks(residual),
    "separable": lambda: blocks(separable),
    **{name: lambda name=name: member(name) for name in ("mobilenet-v2", "mobilenet-v3", "resnet-8", "ds-cnn")},
    "efficientnet-lite0": lambda: member("efficientnet-lite0", samples=64, count=1),
}


@dataclass(frozen=True, eq=False)
class Case:
    """A network's file for one runtime, its inputs, and what PyTorch's integer evaluation says of each output."""

    path: Path
    artefact: Artefact
    runtime: str
    inputs: Path
    expected: dict[str, np.ndarray]

    def job(self, outputs: Path) -> dict[str, Any]:
        words = {"path": str(self.path), "runtime": self.runtime, "inputs": str(self.inputs), "outputs": str(outputs)}
        return {**words, "artefact": self.artefact.to_json()}


def hidden(plan):
    return tuple(op.output for op in plan.operations if op.output not in plan.outputs.values())


def shown(plan, artefact, names):
    """The artefact with its feature maps as further outputs, in the file's own type and layout."""
    like, is_onnx = artefact.outputs[0], artefact.format == "onnx"
    specs = []
    for name in names:
        found = plan.activations[name]
        c, *area = found.shape
        shape = (0 if is_onnx else 1, *((c, *area) if is_onnx else (*area, c)))
        layout = "NC" if not area else "NCHW" if is_onnx else "NHWC"
        zero = found.zero_point + (128 if like.dtype == "uint8" else 0)
        specs.append(TensorSpec(name, "output", shape, like.dtype, layout, found.scale, zero))
    return replace(artefact, outputs=(*artefact.outputs, *specs))


def write(plan, file, path, extra):
    if file == "litert":
        return tflite_writer.write(plan, path, extra=extra)
    return onnx_writer.write(plan, path, activation=file.split()[1], extra=extra)


def cases_of(name, folder):
    net, calibration, x = NETS[name]()
    plan = quantize(net, calibration)
    source, extra = plan.activations[plan.input], hidden(plan)
    found = integer.evaluate(plan, semantics.quantize(x, source.scale, source.zero_point))
    tensors = {**{tensor: tensor for tensor in extra}, **plan.outputs}
    expected = {shown_as: found[tensor].numpy().astype(np.int8) for shown_as, tensor in tensors.items()}
    inputs = folder / f"{name}.npy"
    np.save(inputs, x.permute(0, 2, 3, 1).contiguous().numpy())
    made = {}
    for file, runtime in FILES.items():
        path = folder / f"{name} {file}"
        artefact = shown(plan, write(plan, file, path, extra), extra)
        made[name, file] = Case(path, artefact, runtime, inputs, expected)
    return made


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """(Network, file) → case."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("arm64")
    return {key: case for name in NETS for key, case in cases_of(name, folder).items()}


@pytest.fixture(scope="module", params=CPUS)
def board(request, cases, tmp_path_factory):
    """All cases on one emulated processor: (network, file) → (who computed, codes channels first)."""
    folder = tmp_path_factory.mktemp(request.param)
    outputs = [folder / f"{i}.npz" for i in range(len(cases))]
    jobs = [case.job(path) for case, path in zip(cases.values(), outputs, strict=True)]
    (folder / "jobs.json").write_text(json.dumps(jobs), "utf-8")
    command = [arm64.python(request.param), "-m", "tests.machines.answers", folder / "jobs.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    facts = [json.loads(line) for line in done.stdout.splitlines()]
    found = {}
    for key, case, path, said in zip(cases, cases.values(), outputs, facts, strict=True):
        with np.load(path) as archive:
            found[key] = said, channels_first(case, dict(archive))
    return found


def channels_first(case, codes):
    turned = {spec.name for spec in case.artefact.outputs if spec.layout == "NHWC"}
    return {name: v.transpose(0, 3, 1, 2) if name in turned else v for name, v in codes.items()}


def digest(codes):
    return hashlib.sha256(b"".join(np.ascontiguousarray(codes[name]).tobytes() for name in sorted(codes))).hexdigest()


def differing(first, second):
    assert set(first) == set(second)
    return {name: n for name in first if (n := int((first[name] != second[name]).sum()))}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", NETS)
def test_emulated_board_computes_the_plans_integers(board, cases, name, file):
    said, found = board[name, file]
    expected = cases[name, file].expected
    assert said["delegate"] == ("xnnpack" if file == "litert" else "cpu")
    assert differing(found, expected) == {}
    assert digest(found) == digest(expected)
    assert sum(codes.size for codes in found.values()) > 100_000
    assert np.ptp(found["logits"].astype(np.int16)) > 50  # the range is used: equality is not that of constants


@pytest.mark.parametrize("file", ["litert", "onnxruntime, uint8"])
@pytest.mark.parametrize("name", NETS)
def test_this_computer_gives_the_same_hash(cases, name, file):
    case = cases[name, file]
    said, codes = answers(case.path, case.artefact, case.runtime, np.load(case.inputs))
    found = channels_first(case, codes)
    assert said["delegate"] == ("xnnpack" if file == "litert" else "cpu")
    assert differing(found, case.expected) == {}
    assert digest(found) == digest(case.expected)


def test_exporter_can_ask_a_board_like_any_other_interpreter(cases):
    """The parity gate's own way to another Python, and the probe that devices run."""
    case = cases["mobile", "litert"]
    artefact = replace(case.artefact, outputs=case.artefact.outputs[:2])
    inputs = np.load(case.inputs)
    there = execution.run(case.path, artefact, "litert", inputs, arm64.python("cortex-a53"))
    here = execution.run(case.path, artefact, "litert", inputs)
    assert (there.delegate, there.version) == (here.delegate, here.version) == ("xnnpack", here.version)
    assert there.digest() == here.digest()
    assert there.digest("embedding") == here.digest("embedding")


@pytest.fixture
def blind(tmp_path):
    """A board whose processor's properties cannot be read, as in a service that is denied /sys."""
    place = arm64.python("cortex-a72").parent
    (tmp_path / "sys/devices/system/cpu").mkdir(parents=True)
    for name in ("possible", "present"):
        (tmp_path / "sys/devices/system/cpu" / name).write_text("")
    for name in ("usr", "lib", "etc"):
        (tmp_path / name).symlink_to(place / f"root-{arm64.PYTHON}" / name)
    emulated = (place / "python-cortex-a72").read_text("utf-8").splitlines()[3:]
    lines = [
        line.replace("$here", str(place)).replace(f'-L "{place}/root-{arm64.PYTHON}"', '-L "$here"')
        for line in emulated
    ]
    script(tmp_path / "python", *lines)
    return tmp_path / "python"


def test_board_that_cannot_read_its_processor_says_that_it_lost_xnnpack(cases, blind):
    """LiteRT goes on without an exception, with kernels that round elsewhere: the delegate's name must tell."""
    case = cases["mobile", "litert"]
    artefact, inputs = replace(case.artefact, outputs=case.artefact.outputs[:2]), np.load(case.inputs)
    there = execution.run(case.path, artefact, "litert", inputs, blind)
    assert there.delegate == "builtin"
    pair = gate.compare(there, execution.run(case.path, artefact, "litert", inputs))
    assert pair.bound != gate.IDENTICAL
    assert pair.is_within
