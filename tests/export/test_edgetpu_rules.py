# SPDX-License-Identifier: Apache-2.0
"""Each condition of each Edge TPU operator, on files written for it: what is mapped, what is not, and why."""

import numpy as np
import pytest

from edge_contract import targets
from export.edgetpu import preflight
from export.edgetpu.rules import RULES
from export.edgetpu.site import Site
from export.tflite import reader
from tests.export.edgetpu_cases import SCALE, Net


def verdict(net, runtime=None, at=-1):
    """The verdict of the last operator of a chain."""
    return preflight.check(reader.read(net.finish(), "net.tflite"), runtime=runtime).operators[at]


def pool(net, kind="AVERAGE_POOL_2D", **more):
    _, h, w, c = net.shape
    fields = {"filterHeight": 2, "filterWidth": 2, "strideH": 2, "strideW": 2, **more}
    return net.add(kind, (1, h // 2, w // 2, c), version=2, options="Pool2DOptions", **fields)


def image(size=16, channels=8):
    return Net((1, size, size, channels))


def logistic(scale):
    return image().add("LOGISTIC", version=2, scale=scale)


def softmax(*shape, scale=1 / 256):
    return Net(shape).add("SOFTMAX", version=2, scale=scale, options="SoftmaxOptions", beta=1.0)


def concat(values, shape=(1, 16, 16, 8)):
    net = image()
    other = net.constant(np.full(shape, values, np.int8), scales=SCALE)
    return net.add("CONCATENATION", (1, 16, 16, 16), version=2, after=[other], options="ConcatenationOptions", axis=3)


def prelu(shape):
    net = image()
    return net.add("PRELU", after=[net.constant(np.zeros(shape, np.int8), scales=SCALE)])


def strided(*strides, **masks):
    net = image()
    ends = [-(-n // s) for n, s in zip(net.shape, strides, strict=True)]
    after = [net.ints(0, 0, 0, 0), net.ints(*net.shape), net.ints(*strides)]
    return net.add("STRIDED_SLICE", ends, version=2, after=after, options="StridedSliceOptions", **masks)


def expanded():
    net = image()
    return net.add("EXPAND_DIMS", (1, 1, 16, 16, 8), after=[net.ints(1)])


def padded_with_value():
    net = image()
    table = net.constant(np.zeros((4, 2), np.int32))
    return net.add("PADV2", version=2, after=[table, net.constant(np.array([5], np.int8), scales=SCALE)])


def computed_weights():
    net = Net((1, 8)).add("RELU", version=2)
    return net.add("FULLY_CONNECTED", (1, 1), version=4, after=[net.here], options="FullyConnectedOptions")


MAPPED_NETS = {
    "convolution": lambda: image().conv(16),
    "convolution with equal dilation": lambda: image().conv(8, dilation=(2, 2)),
    "unequal dilation of a 1-wide kernel": lambda: image().conv(8, 1, dilation=(4, 1)),
    "depthwise with dilation": lambda: image().depthwise(dilation=(2, 2)),
    "mean over height and width": lambda: image().mean(1, 2),
    "mean over four channels": lambda: Net((1, 8, 8, 4)).mean(3),
    "pool": lambda: pool(image()),
    "pad": lambda: image().pad(),
    "pad of channels": lambda: image().pad(axes=(3,)),
    "softmax of a row": lambda: softmax(1, 1000),
    "sigmoid": lambda: logistic(1 / 256),
    "concatenation with zeros": lambda: concat(0),
    "slopes per channel": lambda: prelu((1, 1, 8)),
    "slice": lambda: strided(1, 1, 1, 1),
    "resize by two": lambda: image().resize(32, 32),
    "linear": lambda: Net((1, 64)).linear(10),
    "reshape": lambda: image().reshape(1, 256, 8),
    "uint8": lambda: Net((1, 8, 8, 4), "UINT8").add("RELU", version=2),
}


@pytest.mark.parametrize("name", MAPPED_NETS)
def test_what_coral_documents_is_mapped_without_doubt(name):
    found = verdict(MAPPED_NETS[name]())
    assert (found.verdict, found.detail) == ("mapped", "")


LIMIT = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
NOT = "Operation not supported"

REFUSED = {
    # name: (net, status, words of the detail)
    "unknown operator": (lambda: image().add("HARD_SWISH"), NOT, "not among the operators"),
    "leaky": (lambda: image().add("LEAKY_RELU", version=2, options="LeakyReluOptions", alpha=0.1), NOT, "not among"),
    "padding with a value": (lambda: padded_with_value(), NOT, "not among the operators"),
    "grouped": (lambda: image().conv(8, groups=2), NOT, "weights see 4 of 8 channels"),
    "unequal dilation": (lambda: image().conv(8, dilation=(2, 1)), NOT, "dilation 2 × 1 is unequal"),
    "pool with ReLU": (lambda: pool(image(), fusedActivationFunction=1), NOT, "fused activation RELU"),
    "float": (
        lambda: Net((1, 4, 4, 2), "FLOAT32").add("RELU"),
        "Operation is working on an unsupported data type",
        "'input' is float32, not int8 or uint8",
    ),
    "int16": (
        lambda: Net((1, 4, 4, 2), "INT16").add("RELU"),
        "Operation is working on an unsupported data type",
        "'input' is int16",
    ),
    "two images": (
        lambda: Net((2, 8, 8, 4)).add("RELU", version=2),
        "Tensor has unsupported rank (up to 3 innermost dimensions mapped)",
        "[2, 8, 8, 4]",
    ),
    "mean over the batch": (lambda: image().mean(0), LIMIT, "along the batch"),
    "mean over six channels": (lambda: Net((1, 8, 8, 6)).mean(3), LIMIT, "6 channels"),
    "mean over a large image": (lambda: Net((1, 256, 128, 3)).mean(1, 2), LIMIT, "32768 values"),
    "rows of a linear layer": (
        lambda: Net((4, 64)).linear(10),
        "For example, a fully-connected or softmax layer with 2D output",
        "[4, 10] has more than one row",
    ),
    "long softmax": (lambda: softmax(1, 20_000), LIMIT, "20000 elements are more than 16 000"),
    "concatenation with a constant": (lambda: concat(7), LIMIT, "is not all zeros"),
    "slopes per pixel": (lambda: prelu((16, 16, 8)), LIMIT, "only the innermost dimension"),
    "slice with strides": (lambda: strided(1, 2, 2, 1), LIMIT, "strides [1, 2, 2, 1]"),
    "slice with an ellipsis": (lambda: strided(1, 1, 1, 1, ellipsisMask=1), LIMIT, "ellipsis_mask is set"),
    "large resize": (lambda: image(64, 64).resize(256, 256), LIMIT, "above 2 MiB"),
    "steep resize": (
        lambda: Net((1, 1, 1, 8)).resize(33, 33),
        "Image-interpolation layer won't run precisely enough on Edge TPU",
        "enlarges 33 times",
    ),
    "transpose of an image": (lambda: Net((1, 224, 224, 3)).transpose(0, 3, 1, 2), LIMIT, "above 128 KiB"),
    "five dimensions": (
        lambda: image().reshape(1, 4, 4, 16, 8),
        "Tensor has unsupported rank (up to 3 innermost dimensions mapped)",
        "[1, 4, 4, 16, 8]",
    ),
    "computed weights": (lambda: computed_weights(), LIMIT, "is computed, not a constant"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_in_the_compilers_words(name):
    build, status, words = REFUSED[name]
    found = verdict(build())
    assert (found.verdict, found.status) == ("cpu", status)
    assert words in found.detail


RISKS = {
    "sigmoid of another scale": (lambda: logistic(0.1), "output scale 0.1"),
    "softmax of rows": (lambda: softmax(1, 4, 16), "more than one row"),
    "per-channel linear": (lambda: Net((1, 64)).linear(4, scales=np.full(4, 0.02, np.float32)), "4 weight scales"),
    "largish resize": (lambda: image(64, 64).resize(128, 128), "large resizes may not map"),
    "large reshape": (lambda: Net((1, 128, 128, 64)).reshape(1, 16384, 64), "large reshapes may not map"),
}


@pytest.mark.parametrize("name", RISKS)
def test_what_may_not_be_mapped_counts_as_mapped_with_low_confidence(name):
    build, words = RISKS[name]
    report = preflight.check(reader.read(build().finish(), "net.tflite"))
    found = report.operators[-1]
    assert (found.verdict, found.is_mapped) == ("risk", True)
    assert words in found.detail
    assert report.confidence == "low"
    assert any("may stay on the CPU" in doubt for doubt in report.doubts)


def test_an_undocumented_rule_lowers_the_confidence_to_medium():
    report = preflight.check(reader.read(image().transpose(0, 2, 1, 3).finish(), "net.tflite"))
    assert (report.operators[0].verdict, report.confidence) == ("likely", "medium")


@pytest.mark.parametrize(
    ("build", "runtime"),
    [
        (lambda: image().transpose(0, 2, 1, 3), 14),
        (lambda: prelu((1, 1, 8)), 13),
        (lambda: expanded(), 13),
        (lambda: image().resize(32, 32, version=3), 14),
        (lambda: softmax(1, 4, 16), 14),
        (lambda: Net((1, 8, 8, 4)).mean(3), 13),
        (lambda: image().pad(axes=(3,)), 13),
        (lambda: Net((1, 4, 1, 8)).add("SQUEEZE", (1, 4, 8)), 13),
    ],
)
def test_a_rule_that_came_with_a_runtime_holds_from_it_on(build, runtime):
    assert not verdict(build(), runtime - 1).is_mapped
    assert verdict(build(), runtime).is_mapped


def test_every_listed_operator_has_a_rule_and_every_rule_an_operator():
    listed = targets.load("coral-usb").accelerator.operators
    assert set(listed) == set(RULES)
    assert set(listed) <= set(targets.load("coral-usb").integers["tflite"].operators)


def test_each_refusal_comes_with_a_rewrite_where_one_is_known():
    silent = {name for name, (build, _, _) in REFUSED.items() if not verdict(build()).advice}
    assert silent == set()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: image().conv(8, version=6), "Didn't find op for builtin opcode 'CONV_2D' version '6'"),
        (lambda: image().conv(8).add("EXP", version=2), "Didn't find op for builtin opcode 'EXP' version '2'"),
        (lambda: image().conv(8).add("GELU"), "Op builtin_code out of range: GELU came with TFLite 2.9"),
        (lambda: image().conv(8).add("RELU", version=99), "Didn't find op for builtin opcode 'RELU' version '99'"),
    ],
)
def test_an_operator_newer_than_the_compiler_fails_the_whole_file(build, words):
    report = preflight.check(reader.read(build().finish(), "net.tflite"))
    assert len(report.faults) == 1
    assert report.faults[0].startswith(words)
    assert report.mapped == 0


def test_a_site_reads_small_integer_constants_and_nothing_else():
    net = image()
    net.reshape(1, 256, 8)
    graph = reader.read(net.finish(), "net.tflite").main
    site = Site(graph.operators[0], graph, 14)
    assert site.constant(1) == (1, 256, 8)
    assert site.constant(0) is None
    assert site.constant(5) is None
