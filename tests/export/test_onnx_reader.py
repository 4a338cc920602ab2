# SPDX-License-Identifier: Apache-2.0
"""Our reader of ONNX files sees what the package onnx sees, and a damaged or hostile file costs one line."""

import tracemalloc
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_contract.errors import ModelError
from export.inspection import inspect
from export.onnx import reader
from tests.zoo import third_party


def net(*initializers, nodes=None, **options):
    """An ONNX file that multiplies by its constants."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = nodes or [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "net", [x], [y], list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], **options)


def weight(shape=(4, 3)):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return numpy_helper.from_array(values, "w")


def read(model):
    return reader.read(model.SerializeToString(), where="net.onnx")


def refused(data, folder=None):
    with pytest.raises(ModelError) as refusal:
        model = reader.read(data, where="net.onnx", folder=folder)
        [constant.array() for constant in model.graph.constants.values()]
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("source", ["ours", "theirs"])
def test_it_reads_what_onnx_reads(source, bundle_folder):
    path = bundle_folder / "model.onnx" if source == "ours" else third_party.path("basic-pitch", "nmp.onnx")
    found, known = reader.read_file(path), onnx.load(path)
    assert Counter(n.kind for n in found.graph.nodes) == Counter(n.op_type for n in known.graph.node)
    assert [n.inputs for n in found.graph.nodes] == [tuple(n.input) for n in known.graph.node]
    assert len(found.graph.constants) == len(known.graph.initializer)
    for initializer in known.graph.initializer:
        mine, theirs = found.graph.constants[initializer.name], numpy_helper.to_array(initializer)
        assert (mine.dtype, mine.shape, mine.size) == (str(theirs.dtype), theirs.shape, theirs.nbytes)
        np.testing.assert_array_equal(mine.array(), theirs)
    for mine, theirs in zip(found.graph.nodes, known.graph.node, strict=True):
        for attribute in theirs.attribute:
            value = helper.get_attribute_value(attribute)
            if isinstance(value, (int, float)):
                assert mine.attributes[attribute.name] == value
            elif isinstance(value, list) and value:
                assert list(mine.attributes[attribute.name]) == value


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TensorProto.FLOAT, [0.5, -1.0, 3e38]),
        (TensorProto.DOUBLE, [0.5, -1.0, 1e300]),
        (TensorProto.INT64, [0, -1, 2**62]),
        (TensorProto.INT32, [0, -1, 2**31 - 1]),
        (TensorProto.INT8, [-128, 0, 127]),
        (TensorProto.UINT8, [0, 128, 255]),
        (TensorProto.UINT64, [0, 1, 2**63 + 5]),
        (TensorProto.BOOL, [1, 0, 1]),
        (TensorProto.FLOAT16, [0.5, -1.0, 65504.0]),
    ],
)
def test_numbers_in_typed_fields_are_those_of_onnx(kind, values):
    tensor = helper.make_tensor("w", kind, [3], values)
    found = read(net(tensor)).graph.constants["w"].array()
    expected = numpy_helper.to_array(tensor)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_inner_graphs_are_counted(tmp_path):
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["z"])], "b", [], [helper.make_empty_tensor_value_info("z")]
    )
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    model = net(numpy_helper.from_array(np.array(True), "c"), nodes=[choice])
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    assert inspect.describe(tmp_path / "net.onnx").operators == (("If", 17, 1), ("Relu", 17, 2))


# --- damaged and hostile ---


def test_a_file_cut_short_is_refused_or_read_but_never_crashes(bundle_folder):
    data = (bundle_folder / "model.onnx").read_bytes()
    kept = 0
    for end in range(0, len(data), max(1, len(data) // 200)):
        try:
            reader.read(data[:end], where="net.onnx")
        except ModelError:
            continue
        kept += 1  # cut between two fields behind the graph
    assert kept < 5


def test_flipped_bytes_never_crash(bundle_folder):
    random, data = np.random.default_rng(0), (bundle_folder / "model.onnx").read_bytes()
    outcomes = Counter()
    for _ in range(300):
        changed = bytearray(data)
        for place in random.integers(0, len(data), 3):
            changed[place] = int(random.integers(0, 256))
        try:
            model = reader.read(bytes(changed), where="net.onnx")
            [constant.array() for constant in model.graph.constants.values()]
            outcomes["read"] += 1
        except ModelError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
    assert min(outcomes["read"], outcomes["refused"]) > 20


def test_memory_is_bounded_by_the_limit_and_not_by_the_file(monkeypatch):
    """An empty node costs two bytes in the file and hundreds in a parser that keeps them all."""
    monkeypatch.setattr(reader, "_MAX_PARTS", 5000)
    data = b"\x3a" + varint(2_000_000) + b"\x0a\x00" * 1_000_000  # graph { node {} node {} … }
    tracemalloc.start()
    assert "more than 5000 parts" in refused(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6


def varint(value):
    parts = []
    while value >= 128:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def test_graphs_inside_graphs_end_somewhere():
    data = b""
    for _ in range(60):  # graph { node { attribute { g: graph … } } }
        attribute = b"\x32" + varint(len(data)) + data
        node = b"\x2a" + varint(len(attribute)) + attribute
        data = b"\x0a" + varint(len(node)) + node
    assert "graphs inside graphs" in refused(b"\x3a" + varint(len(data)) + data)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"dims": [2, 2]}, "12 numbers for shape [2, 2]"),
        ({"dims": [-4, -3]}, "of type 1 and shape [-4, -3]"),
        ({"dims": [1 << 40, 1 << 40]}, "12 numbers for shape"),
        ({"data_type": 99}, "of type 99"),
        ({"raw_data": b"123"}, "3 bytes of float32"),
    ],
)
def test_constants_that_contradict_themselves_are_refused(change, complaint):
    tensor = weight()
    for field, value in change.items():
        if field == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)
        else:
            setattr(tensor, field, value)
    assert complaint in refused(net(tensor).SerializeToString())


@pytest.mark.parametrize("data", [b"", b"no", b"\x00" * 64, b"\x3a\x00", b"\xff" * 30], ids=repr)
def test_what_is_no_onnx_file_is_refused(data):
    assert "not a model file" in refused(data)


# --- weights in other files ---


def outside(location, **places):
    tensor = weight()
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **places}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return net(tensor).SerializeToString()


def test_weights_beside_the_model_are_read(tmp_path):
    values = np.arange(12, dtype=np.float32)
    (tmp_path / "w.bin").write_bytes(b"skip" + values.tobytes())
    model = reader.read(outside("w.bin", offset=4, length=48), where="net.onnx", folder=tmp_path)
    np.testing.assert_array_equal(model.graph.constants["w"].array(), values.reshape(4, 3))
    assert model.outside == ("w.bin",)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "a/../../secret.bin", "link.bin"])
def test_weights_outside_the_model_s_folder_are_refused(tmp_path, location):
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    assert "outside the model's folder" in refused(outside(location), folder)


@pytest.mark.parametrize(
    ("places", "complaint"),
    [
        ({"offset": 8}, "no 48 bytes at 8"),
        ({"length": 47}, "no 48 bytes at 0"),
        ({"offset": "-1"}, "'-1' is not a number of bytes"),
        ({"offset": "9" * 30}, "is not a number of bytes"),
    ],
)
def test_places_that_the_other_file_does_not_have_are_refused(tmp_path, places, complaint):
    (tmp_path / "w.bin").write_bytes(bytes(48))
    assert complaint in refused(outside("w.bin", **places), tmp_path)


def test_a_missing_other_file_is_named(tmp_path):
    assert "'w.bin': cannot be read (No such file" in refused(outside("w.bin"), tmp_path)
