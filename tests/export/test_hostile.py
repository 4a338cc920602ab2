# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile model files: one error of ours or an answer, in bounded memory; never anything else."""

import contextlib
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edge_contract import targets
from edge_contract.errors import StropError
from export.inspection import inspect
from export.normalise.normaliser import normalise
from export.tflite.reader import read
from export.tflite.walk import decode
from tests.support import trap_files
from tests.support.hostile import damaged, lying
from tests.zoo import third_party

PI = targets.load("rpi4")
SMALL = [
    trap_files.padded().data,
    trap_files.swish_net(size=4).data,
    trap_files.dense_per_channel(signature=True).data,
    trap_files.dynamic("DEPTHWISE_CONV_2D").data,
    trap_files.outside(trap_files.dense_per_channel().data),
]
TREES = [decode(data, "")[0] for data in SMALL]
PATIENT = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
FEW = settings(PATIENT, max_examples=12)


def onnx_files():
    """A small convolution network with constants and metadata."""
    onnx = pytest.importorskip("onnx")
    helper, tensor = onnx.helper, onnx.helper.make_tensor_value_info
    weights = onnx.numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c"], ["y"])]
    graph = helper.make_graph(nodes, "net", [tensor("x", 1, [1, 3, 8, 8])], [tensor("y", 1, [1, 4, 8, 8])], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return [model.SerializeToString()]


@contextlib.contextmanager
def bounded(size, *, factor=40, floor=40 << 20):
    """Fail if Python objects take more than ``factor`` times the file, and ``floor`` bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= factor * size + floor
    finally:
        tracemalloc.stop()


def judge(action, data):
    """An answer or a StropError of one line; nothing else, and not much memory."""
    with bounded(len(data)):
        try:
            action(data)
        except StropError as refusal:
            assert "\n" not in str(refusal)
            assert len(str(refusal)) < 2000


def look(data):
    """Read a file as an inspector does: touch everything."""
    model = read(data, "net.tflite")
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            assert tensor.size >= 0
            assert tensor.data is None or isinstance(tensor.data, bytes)
        for operator in graph.operators:
            assert all(-1 <= index < len(graph.tensors) for index in (*operator.inputs, *operator.outputs))


def rewrite(data):
    """Normalise for any computer, and for one; what comes out can be read, and changes no more."""
    for target in (None, PI):
        found = normalise(data, where="net.tflite", target=target)
        assert normalise(found.data, where="net.tflite", target=target).data == found.data


@pytest.fixture
def describe(tmp_path):
    """Describe bytes as a file of a kind, as ``strop inspect`` does."""

    def told(data, suffix):
        path = tmp_path / f"net{suffix}"
        path.write_bytes(data)
        return inspect.describe(path)

    return told


@PATIENT
@given(damaged(SMALL))
@example(b"")
@example(b"\0\0\0\0TFL3")
@example(b"\xff\xff\xff\xffTFL3")
@example(b"\x08\0\0\0TFL3\0\0\0\0")
def test_a_damaged_tflite_file_is_read_or_refused(data):
    judge(look, data)


@PATIENT
@given(lying(TREES))
def test_a_tflite_file_that_lies_is_read_or_refused(data):
    judge(look, data)


@PATIENT
@given(damaged(SMALL))
def test_a_damaged_tflite_file_is_normalised_or_refused(data):
    judge(rewrite, data)


@PATIENT
@given(lying(TREES))
def test_a_tflite_file_that_lies_is_normalised_or_refused(data):
    judge(rewrite, data)


@PATIENT
@given(damaged(SMALL))
def test_a_damaged_tflite_file_is_described_or_refused(describe, data):
    judge(lambda data: describe(data, ".tflite"), data)


@PATIENT
@given(lying(TREES))
def test_a_tflite_file_that_lies_is_described_or_refused(describe, data):
    judge(lambda data: describe(data, ".tflite"), data)


@PATIENT
@given(damaged(onnx_files()))
def test_a_damaged_onnx_file_is_described_or_refused(describe, data):
    judge(lambda data: describe(data, ".onnx"), data)


@pytest.mark.parametrize("action", [look, rewrite])
@FEW
@given(draws=st.data())
def test_a_damaged_third_party_file_is_read_or_refused(action, draws):
    file = third_party.path("mediapipe", "hand_recrop.tflite").read_bytes()
    judge(action, draws.draw(damaged([file])))


@FEW
@given(draws=st.data())
def test_a_damaged_third_party_onnx_file_is_described_or_refused(describe, draws):
    file = third_party.path("basic-pitch", "nmp.onnx").read_bytes()
    judge(lambda data: describe(data, ".onnx"), draws.draw(damaged([file])))


def chain(count):
    """A network of PADs that pad nothing, none of which can be folded."""
    net = trap_files.Net()
    x = y = net.tensor("input", (1, 4, 4, 2), "int8", None, [0.05])
    table = net.constant("pads", np.zeros((4, 2), np.int32))
    for _ in range(count):
        source, y = y, net.tensor("middle", (1, 4, 4, 2), "int8", None, [0.05])
        net.operator("PAD", 2, [source, table], y, "PadOptions")
    return net.finish((x,), (y,))


def test_four_times_the_operators_take_about_four_times_as_long():
    """Passes that ask 'who reads this?' by walking all operators would take sixteen times."""
    times = []
    for count in (700, 2800):
        data, start = chain(count), time.process_time()
        normalise(data, where="", target=PI)
        times.append(time.process_time() - start)
    assert times[1] < 10 * times[0]
