# SPDX-License-Identifier: Apache-2.0
"""The float files compute what PyTorch computes, to the last bits of float32, in both runtimes."""

import collections

import numpy as np
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn
from torch.nn import functional as F

from compress.quantize.gates import open_gates
from compress.quantize.step import folded
from edge_contract.errors import UnsupportedOperatorError
from export.inspection.inspect import describe
from export.onnx import float_writer as float_onnx_writer
from export.tflite import float_writer as float_tflite_writer
from tests.support.quant_nets import images, mobile, residual, separable, settled
from tests.zoo.models import MEMBERS, load, noise


class Everything(nn.Module):
    """Gates, products, joins, odd padding, a clamp that no runtime fuses, a flatten of a map."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, groups=8, padding=2, dilation=2)
        self.third, self.head = nn.Conv2d(8, 8, 1), nn.Linear(16 * 16, 5)

    def forward(self, x):
        x = F.hardswish(self.first(x))
        y = F.silu(self.second(x))
        gate = F.hardsigmoid(self.third(F.adaptive_avg_pool2d(y, 1)))
        z = torch.sigmoid(self.third(y)) * y + torch.clamp(self.third(x), 0, 0.5)
        pooled = F.max_pool2d(torch.cat([y * gate, F.relu6(z)], 1), 3, 2, 1)
        return self.head(pooled.flatten(1))


NETS = {
    "everything": (Everything, 3, 16),
    "mobile": (mobile, 3, 32),
    "residual": (residual, 3, 32),
    "separable": (separable, 3, 32),
}


def outputs_of(path, x):
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return dict(zip([o.name for o in session.get_outputs()], session.run(None, {"input": x.numpy()}), strict=True))
    lite = Interpreter(model_path=str(path), num_threads=1)
    lite.allocate_tensors()
    found = collections.defaultdict(list)
    for one in x.numpy():
        lite.set_tensor(lite.get_input_details()[0]["index"], one.transpose(1, 2, 0)[None])
        lite.invoke()
        for detail in lite.get_output_details():
            found[detail["name"]].append(lite.get_tensor(detail["index"])[0].copy())
    return {name: np.stack(rows) for name, rows in found.items()}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("writer", [float_onnx_writer, float_tflite_writer])
def test_float_files_compute_what_pytorch_computes(writer, name, tmp_path):
    build, _, size = NETS[name]
    net, x = settled(build, seed=3, size=size), images(8, 5, size)
    path = tmp_path / ("net.onnx" if writer is float_onnx_writer else "net.tflite")
    artefact = writer.write(folded(net, x[:1]), path)
    with torch.no_grad():
        expected = net(x).numpy()
    found = outputs_of(path, x)
    assert np.abs(found["logits"] - expected).max() < 2e-5 * max(1.0, np.abs(expected).max())
    assert [spec.role for spec in artefact.outputs] == list(found) == ["logits", "embedding"]
    assert artefact.precision == artefact.input.dtype == "float32"
    facts = describe(path)
    assert facts.inputs == {"input": ("float32", artefact.input.shape)}


@pytest.mark.parametrize("name", ["resnet-8", "ds-cnn"])
@pytest.mark.parametrize("writer", [float_onnx_writer, float_tflite_writer])
def test_zoo_in_float(writer, name, tmp_path):
    net, x = load(name), noise(5, 3, MEMBERS[name].shape)
    path = tmp_path / ("net.onnx" if writer is float_onnx_writer else "net.tflite")
    writer.write(folded(net, x[:1]), path)
    with torch.no_grad():
        assert np.allclose(outputs_of(path, x)["logits"], net(x).numpy(), atol=1e-5)


@pytest.mark.parametrize("writer", [float_onnx_writer, float_tflite_writer])
def test_same_graph_gives_the_same_bytes_and_opened_gates_are_refused(writer, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    graph = folded(net.eval(), images(1, 0, 8))
    writer.write(graph, tmp_path / "a")
    writer.write(graph, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(UnsupportedOperatorError, match="layer '1': a float 'add_constant'; open no gates first"):
        writer.write(open_gates(graph), tmp_path / "c")


def test_hard_swish_stays_one_operator_in_float(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    graph = folded(net, images(1, 0, 8))
    float_onnx_writer.write(graph, tmp_path / "net.onnx")
    float_tflite_writer.write(graph, tmp_path / "net.tflite")
    assert "HardSwish" in {name for name, _, _ in describe(tmp_path / "net.onnx").operators}
    assert "HARD_SWISH" in {name for name, _, _ in describe(tmp_path / "net.tflite").operators}
