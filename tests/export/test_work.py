# SPDX-License-Identifier: Apache-2.0
"""The operators of model files as work: products against the network's own count, bytes against the shapes."""

from collections import Counter

import pytest
import torch
from torch import nn

from benchmarks.training.files import write_files
from benchmarks.training.variants import Variant
from compress import cost
from compress.quantize.step import quantize
from edge_contract import operator_work
from edge_contract.errors import ContractError, ModelError
from edge_contract.operator_work import OperatorWork
from export.inspection.work import operators

HEAVY = ("conv", "pointwise", "depthwise", "dense")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small network with every kind of layer that multiplies, a residual, and an activation behind a sum."""
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.wide = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 8, 1)
            self.deep, self.head = nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Linear(8, 4)
            self.pool = nn.AdaptiveAvgPool2d(1)

        def forward(self, x):
            x = torch.relu(self.stem(x))
            x = torch.relu(x + self.wide(torch.relu(self.deep(x))))
            return self.head(torch.flatten(self.pool(x), 1))

    net, x = Net().eval(), torch.rand(64, 1, 12, 12)
    plan = quantize(net, x, embedding=False, observer="min-max", correct_bias=False)
    return net, x[:1], write_files(net, x[:1], plan, tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize("form", ["float onnx", "float tflite", "int8 onnx", "int8 tflite"])
def test_products_are_those_of_the_network(written, form):
    net, x, paths = written
    found = operators(paths[form])
    assert sum(op.products for op in found if op.kind in HEAVY) == cost.measure(net, x).macs
    assert Counter(op.kind for op in found if op.kind in HEAVY) == dict.fromkeys(HEAVY, 1)
    assert {op.type for op in found} == {"int8" if form.startswith("int8") else "float32"}


@pytest.mark.parametrize("form", ["float onnx", "float tflite", "int8 onnx", "int8 tflite"])
def test_bytes_are_those_of_the_shapes(written, form):
    width = 1 if form.startswith("int8") else 4
    by_kind = {op.kind: op for op in operators(written[2][form])}
    places = 6 * 6
    stem = by_kind["conv"]
    assert stem.inputs == width * (144 if form.endswith("onnx") else 169)  # a PAD of its own stands before it
    assert (stem.outputs, stem.channels) == (width * 8 * places, (1, 8))
    assert by_kind["depthwise"].channels == (8, 8) and by_kind["dense"].channels == (8, 4)
    assert by_kind["depthwise"].inputs == by_kind["depthwise"].outputs == width * 8 * places
    assert by_kind["add"].inputs == 2 * by_kind["add"].outputs == 2 * width * 8 * places
    weights = 8 * 8 * width + 8 * 4  # biases are int32 or float32
    assert weights <= by_kind["pointwise"].weights <= weights + 200  # scales and zero points of integers


@pytest.mark.parametrize("form", ["float onnx", "float tflite"])
def test_an_activation_behind_a_convolution_has_no_line_of_its_own(written, form):
    found = operators(written[2][form])
    assert next(op.fused for op in found if op.kind == "conv") == 1
    assert next(op.fused for op in found if op.kind == "pointwise") == 0
    assert not [op for op in found if op.kind == "quantize"]


def test_a_gate_keeps_its_operators(tmp_path):
    one = Variant("gated", 0.5)
    paths = write_files(one.network(), one.inputs(1), None, tmp_path)
    for path in paths.values():
        kinds = Counter(op.kind for op in operators(path))
        assert kinds["mul"] >= 2 and kinds["activation"] >= 3 and kinds["mean"] == 3


def test_what_is_no_model_is_refused(tmp_path):
    for name in ("a.onnx", "b.tflite"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(ModelError):
            operators(tmp_path / name)
    with pytest.raises(ModelError, match="cannot be read"):
        operators(tmp_path / "none.tflite")


def test_words_cross_as_json():
    ops = (OperatorWork("conv", "int8", 10, 1, 2, 3, (4, 5), 1), OperatorWork("add", "float32"))
    assert operator_work.from_json(operator_work.to_json(ops)) == ops and ops[0].moved == 6
    for broken in (
        "text",
        {"kind": "conv"},
        [{"kind": "conv"}],
        [{"channels": [1, 1], "kind": "x", "type": "y", "z": 1}],
    ):
        with pytest.raises(ContractError):
            operator_work.from_json(broken)
