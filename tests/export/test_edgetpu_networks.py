# SPDX-License-Identifier: Apache-2.0
"""Whole networks, quantized and written by the project: what was published as compiled whole is predicted so."""

import pytest
import torch
from torch import nn

from compress.quantize.step import quantize
from export.edgetpu import preflight
from export.tflite import reader, writer
from tests.zoo import models as zoo
from tests.zoo import third_party


def written(net, inputs, folder):
    plan = quantize(net.eval(), inputs)
    writer.write(plan, folder / "net.tflite", target="coral-usb")
    return reader.read_file(folder / "net.tflite")


def mobilenet_v1(width=0.25):
    """MobileNetV1 (Howard et al. 2017): 13 depthwise-separable pairs."""
    steps = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    channels = [int(32 * width), *(int(c * width) for c, _ in steps)]
    blocks = [zoo.conv(3, channels[0], stride=2)]
    for (_, stride), i, o in zip(steps, channels, channels[1:], strict=False):
        blocks += [zoo.conv(i, i, stride=stride, groups=i), zoo.conv(i, o, 1)]
    return zoo.Classifier(*blocks, features=channels[-1])


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    torch.manual_seed(3)
    torch.set_num_threads(1)
    net = mobilenet_v1()
    with torch.no_grad():
        net.train()
        net(zoo.noise(16, 1, (3, 64, 64)))
    return written(net, zoo.noise(64, 2, (3, 64, 64)), tmp_path_factory.mktemp("mobilenet"))


def test_mobilenet_v1_is_predicted_mapped_whole(mobilenet):
    report = preflight.check(mobilenet)
    assert [o for o in report.operators if not o.is_mapped] == []
    assert report.mapped_macs == 1
    assert report.confidence == "high"
    assert report.cache.colour == "green"
    kinds = [operator.kind for operator in report.operators]
    assert (kinds.count("DEPTHWISE_CONV_2D"), kinds.count("CONV_2D")) == (13, 14)


def test_its_multiplications_are_those_of_the_paper(mobilenet):
    # Counted by hand for width 0.25 at 64 × 64: stem, 13 depthwise, 13 pointwise, one linear layer.
    report = preflight.check(mobilenet)
    size, total, channels = 32, 32 * 32 * 8 * 27, 8
    steps = [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)]
    for outputs, stride in steps:
        size //= stride
        total += size * size * channels * 9 + size * size * channels * outputs
        channels = outputs
    assert sum(operator.macs for operator in report.operators) == total + 256 * 10


def test_parameters_are_the_weights_and_biases(mobilenet):
    report = preflight.check(mobilenet)
    wanted = sum(len(tensor.data) for tensor in mobilenet.main.tensors if tensor.data is not None)
    assert sum(operator.parameter_bytes for operator in report.operators) == wanted
    assert report.cache.parameter_bytes == wanted


def test_ds_cnn_is_predicted_mapped_whole(tmp_path):
    torch.set_num_threads(1)
    model = written(zoo.load("ds-cnn"), zoo.noise(64, 2, (1, 49, 10)), tmp_path)
    report = preflight.check(model)
    assert [(o.kind, o.status, o.detail) for o in report.operators if not o.is_mapped] == []
    assert report.mapped == len(report.operators) >= 11
    assert report.mapped_macs == 1


def test_a_hard_swish_in_front_costs_what_follows(tmp_path):
    # The same network with the activation of MobileNetV3: written as ADD and MUL or as one operator, both are told.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = nn.Sequential(
        zoo.conv(3, 8, act=nn.Hardswish), zoo.conv(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    model = written(net, zoo.noise(64, 2, (3, 16, 16)), tmp_path)
    report = preflight.check(model)
    kinds = {operator.kind for operator in model.main.operators}
    if "HARD_SWISH" in kinds:
        assert report.mapped_macs < 1
    else:
        assert {"ADD", "MUL"} & kinds
        assert report.mapped_macs == 1


@pytest.mark.parametrize("name", third_party.FOUND["mediapipe"])
def test_a_float_model_of_others_is_told_so_operator_by_operator(name):
    model = reader.read_file(third_party.path("mediapipe", name))
    report = preflight.check(model)
    assert report.mapped == 0
    assert len(report.operators) == len(model.main.operators)
    assert {o.status for o in report.operators} <= {
        "Operation is working on an unsupported data type",
        "Operation not supported",
        "Operation is otherwise supported, but not mapped due to some unspecified limitation",
    }
