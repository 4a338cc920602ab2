# SPDX-License-Identifier: Apache-2.0
"""Predicted memory against the runtime's own: where LiteRT puts its tensors, and what ONNX Runtime's profile tells."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from compress.quantize.step import quantize
from edge_contract.errors import ModelError
from export.memory import onnx, prediction
from export.memory.arena import ALIGNMENT, FOREVER, Block, arena_bytes
from export.onnx import writer as onnx_writer
from export.tflite import reader
from export.tflite import writer as tflite_writer
from tests.export.edgetpu_cases import Net
from tests.support.quant_nets import images, mobile, residual, separable, settled
from tests.zoo import third_party

BOUND = 0.005  # of the runtime's arena


def interpreter(path):
    runtime = pytest.importorskip("ai_edge_litert.interpreter")
    kernels = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    made = runtime.Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=kernels)
    made.allocate_tensors()
    made.invoke()  # tensors whose size depends on data get their place here
    return made


def real_arena(path):
    """Bytes from the first to the last address of the tensors that we say are in the arena."""
    running, graph = interpreter(path), reader.read_file(path).main
    spans = []
    for block in prediction.lives(graph):
        array = running.tensor(block.tensor)()
        start = array.__array_interface__["data"][0]
        spans.append((start, start + array.nbytes))
    return max(end for _, end in spans) - min(start for start, _ in spans)


def joined(spans):
    """Join spans of addresses that touch or overlap, but for the alignment between them."""
    found = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1] + ALIGNMENT:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([start, end])
    return found


@pytest.fixture(scope="module", params=[mobile, residual, separable], ids=lambda build: build.__name__)
def plan(request):
    torch.set_num_threads(1)
    return quantize(settled(request.param), images(64, 1))


def test_the_arena_of_our_files_is_the_runtimes(plan, tmp_path):
    tflite_writer.write(plan, tmp_path / "net.tflite")
    report = prediction.predict(reader.read_file(tmp_path / "net.tflite"))
    real = real_arena(tmp_path / "net.tflite")
    assert abs(report.arena_bytes - real) <= BOUND * real
    assert report.peak_activation_bytes <= report.arena_bytes


# Their tensors have fixed sizes; basic-pitch allocates some while it runs, on the heap, and has its own test.
FIXED = [name for name in third_party.FOUND["mediapipe"] if name != "selfie_segmentation.tflite"]


@pytest.mark.parametrize("name", FIXED)
def test_the_arena_of_others_files_is_the_runtimes(name):
    path = third_party.path("mediapipe", name)
    report, real = prediction.predict(reader.read_file(path)), real_arena(path)
    assert abs(report.arena_bytes - real) <= BOUND * real


def test_a_model_that_unrolls_large_windows_is_found_out():
    # basic-pitch: a file of 204 KB whose convolution 3 × 39 unrolls to 170 MB.
    path = third_party.path("basic-pitch", "nmp.tflite")
    report = prediction.predict(reader.read_file(path))
    running, graph = interpreter(path), reader.read_file(path).main
    # Its planner runs again while it runs, so that scratch tensors and those on the heap must be told apart by place.
    constant = {tensor.index for tensor in graph.tensors if tensor.data is not None}
    spans = []
    for index in {detail["index"] for detail in running.get_tensor_details()} - constant:
        try:
            array = running.tensor(index)()
        except ValueError:  # a tensor that has no memory
            continue
        place = array.__array_interface__["data"][0]
        spans.append((place, place + array.nbytes))
    real = max(end - start for start, end in joined(spans))
    assert report.arena_bytes > 170_000_000
    assert abs(report.arena_bytes - real) <= BOUND * real


def test_the_peak_names_its_operator_and_tensors():
    net = Net((1, 4, 4, 8)).conv(64, 1).conv(4, 1)
    model = reader.read(net.finish(), "net.tflite")
    report = prediction.predict(model)
    assert (report.at_operator, report.peak_kind) == (1, "CONV_2D")
    # The input keeps its place to the end, so that it counts beside both sides of the wide tensor.
    assert report.peak_activation_bytes == 4 * 4 * (8 + 64 + 4)
    sizes = {tensor.name: tensor.size for tensor in model.main.tensors}
    assert [sizes[name] for name in report.peak_tensors] == [1024, 128, 64]
    assert report.weights_bytes == 64 * 8 + 4 * 64 + 4 * (64 + 4)


def test_weights_that_are_unpacked_at_load_are_no_activations():
    path = third_party.path("mediapipe", "face_landmark.tflite")
    report = prediction.predict(reader.read_file(path))
    assert report.persistent_bytes > 1_000_000  # float16 weights as float32
    assert report.total_bytes == report.arena_bytes + report.weights_bytes + report.persistent_bytes


def test_a_view_and_an_overwriting_operator_take_no_memory_of_their_own():
    plain = Net((1, 8, 8, 16)).conv(16).conv(16)
    shared = Net((1, 8, 8, 16)).conv(16).add("RESHAPE", after=[]).conv(16)
    sizes = [prediction.predict(reader.read(net.finish(), "n")).arena_bytes for net in (plain, shared)]
    assert sizes[0] == sizes[1]


def test_an_integer_convolution_unrolls_its_windows():
    small, large = (Net((1, 32, 32, 8)).conv(8, size) for size in (1, 5))
    blocks = [prediction.scratch(reader.read(net.finish(), "n").main) for net in (small, large)]
    assert blocks[0] == ()
    assert blocks[1][0].size == 32 * 32 * 5 * 5 * 8


@pytest.mark.parametrize("seed", range(20))
def test_blocks_that_live_together_never_overlap_and_the_arena_is_no_smaller_than_the_peak(seed):
    generator = np.random.default_rng(seed)
    starts = generator.integers(0, 30, 40)
    blocks = [
        Block(i, int(generator.integers(1, 5000)), int(s), int(s + generator.integers(0, 8)))
        for i, s in enumerate(starts)
    ]
    peak = max(sum(b.size for b in blocks if b.first <= at <= b.last) for at in range(40))
    total = sum(b.size + ALIGNMENT for b in blocks)
    assert peak <= arena_bytes(blocks) <= total


def test_blocks_share_memory_only_when_their_lives_part():
    assert arena_bytes([Block(0, 640, 0, 1), Block(1, 640, 2, 3)]) == 640
    assert arena_bytes([Block(0, 640, 0, 1), Block(1, 640, 1, 3)]) == 1280
    assert arena_bytes([Block(0, 1, 0, FOREVER), Block(1, 1, 0, FOREVER)]) == ALIGNMENT + 1
    assert arena_bytes([]) == 0


def test_too_many_blocks_are_laid_side_by_side():
    assert arena_bytes(Block(i, 1, i, i) for i in range(20_001)) == 20_001 * ALIGNMENT


def test_onnx_results_have_the_bytes_that_the_runtimes_profile_tells(plan, tmp_path):
    # ONNX Runtime does not tell its arena; its profile tells each operator's result, here without fusion.
    import onnxruntime

    onnx_writer.write(plan, tmp_path / "net.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", options, providers=["CPUExecutionProvider"])
    shape = [1, *session.get_inputs()[0].shape[1:]]
    kind = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}
    session.run(None, {session.get_inputs()[0].name: np.zeros(shape, kind[session.get_inputs()[0].type])})
    profile = json.loads(Path(session.end_profiling()).read_text())
    events = [event["args"] for event in profile if event["name"].endswith("_kernel_time")]
    told = sorted(int(event["output_size"]) for event in events)
    predicted = onnx.sizes((tmp_path / "net.onnx").read_bytes(), "net.onnx")
    names = {value.name for value in session.get_inputs()}
    assert sorted(size for name, size in predicted.items() if name not in names) == told


def test_onnx_memory_is_plausible(plan, tmp_path):
    onnx_writer.write(plan, tmp_path / "net.onnx")
    report = onnx.predict((tmp_path / "net.onnx").read_bytes(), "net.onnx")
    assert report.peak_activation_bytes <= report.arena_bytes
    assert report.weights_bytes > 1000
    assert report.peak_tensors


def test_a_damaged_onnx_file_is_one_line():
    with pytest.raises(ModelError, match=r"^net\.onnx: shapes cannot be inferred: \w+$"):
        onnx.predict(b"\x0a\xffgarbage", "net.onnx")
