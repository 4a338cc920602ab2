# SPDX-License-Identifier: Apache-2.0
"""An operator's version is the one that introduced the newest ability that it uses."""

import pytest

from export.normalise.draft import Draft
from export.normalise.normaliser import normalise
from export.normalise.versions import Use, honest_version
from export.tflite.reader import read
from export.tflite.schema import OPTIONS_OF
from export.tflite.walk import decode
from tests.support import trap_files


def versions(data):
    return {op.kind: op.version for op in read(data, "").main.operators}


def use(kind, inputs, outputs, **options):
    """One operator: inputs and outputs as (dtype, shape, number of scales); None for an absent input."""
    net = trap_files.Net()
    tensors = [t and net.tensor("t", t[1], t[0], None, [0.5] * t[2], axis=len(t[1]) - 1) for t in (*inputs, *outputs)]
    name = OPTIONS_OF.get(kind, kind.title().replace("_", "") + "Options")
    count = len(inputs)
    net.operator(kind, 1, [-1 if t is None else t for t in tensors[:count]], tensors[count], name, **options)
    graph = Draft(*decode(net.finish((), ()), ""), "").graphs[0]
    return Use(graph, graph.operators[0])


I8, F32, I16 = ("int8", (1, 8, 8, 4), 1), ("float32", (1, 8, 8, 4), 0), ("int16", (1, 8, 8, 4), 1)
W8, WC, W4 = ("int8", (1, 3, 3, 4), 1), ("int8", (1, 3, 3, 4), 4), ("int4", (1, 3, 3, 4), 1)
B = ("int32", (4,), 0)
VERSIONS = [
    ("CONV_2D", [F32, F32, F32], F32, {}, 1),
    ("CONV_2D", [F32, W8, F32], F32, {}, 2),
    ("CONV_2D", [I8, WC, B], I8, {}, 3),
    ("CONV_2D", [I16, WC, B], I16, {}, 4),
    ("CONV_2D", [F32, WC, F32], F32, {}, 5),
    ("CONV_2D", [("int8", (1, 8, 8, 8), 1), WC, B], I8, {}, 6),
    ("CONV_2D", [I8, W4, B], I8, {}, 7),
    ("FULLY_CONNECTED", [F32, F32, F32], F32, {}, 1),
    ("FULLY_CONNECTED", [F32, W8, F32], F32, {}, 3),
    ("FULLY_CONNECTED", [I8, W8, B], I8, {}, 4),
    ("FULLY_CONNECTED", [I8, W8, None], I8, {}, 4),
    ("FULLY_CONNECTED", [I8, W8, B], I8, {"keep_num_dims": True}, 5),
    ("FULLY_CONNECTED", [I8, W8], I8, {}, 6),
    ("FULLY_CONNECTED", [F32, W8, F32], F32, {"asymmetric_quantize_inputs": True}, 9),
    ("FULLY_CONNECTED", [I8, W4, B], I8, {}, 10),
    ("FULLY_CONNECTED", [F32, WC, F32], F32, {"keep_num_dims": True}, 12),
    ("ADD", [F32, F32], F32, {}, 1),
    ("ADD", [I8, I8], I8, {}, 2),
    ("MUL", [I8, I8], ("int8", (1, 8, 8, 4), 1), {}, 2),
    ("RESIZE_BILINEAR", [F32, B], F32, {"half_pixel_centers": True}, 3),
    ("PAD", [("float32", (1, 2, 2, 2, 2), 0), B], F32, {}, 4),
    ("TRANSPOSE", [("int8", (1, 2, 2, 2, 2), 1), B], I8, {}, 4),
    ("STRIDED_SLICE", [F32, B, B, B], F32, {"ellipsis_mask": 1}, 6),
    ("SOFTMAX", [I16], I16, {}, 3),
    ("CAST", [("uint32", (1,), 0)], F32, {}, 2),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "inputs", "output", "options", "version"), VERSIONS)
def test_the_version_is_that_of_the_newest_ability_used(kind, inputs, output, options, version):
    assert honest_version(kind, use(kind, inputs, [output], **options)) == version


def test_a_product_that_grows_needs_version_3():
    product = use("MUL", [I8, I8], [("int8", (1, 8, 8, 4), 1)])
    product._graph.tensors[product.outputs[0]]["quantization"]["scale"] = (0.25,)
    assert honest_version("MUL", product) == 3


def test_a_kind_without_rules_keeps_its_version():
    assert honest_version("STABLEHLO_ADD", use("ADD", [F32, F32], [F32])) is None


def test_versions_that_are_too_high_come_down():
    raw = trap_files.padded()
    lofty = trap_files.claiming(raw.data, {"CONV_2D": 6})
    assert versions(normalise(lofty, where="").data)["CONV_2D"] == 3


def test_a_version_beyond_all_known_ones_is_left_alone():
    future = trap_files.claiming(trap_files.padded().data, {"CONV_2D": 99})
    assert versions(normalise(future, where="").data)["CONV_2D"] == 99
