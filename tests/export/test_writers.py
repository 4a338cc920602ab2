# SPDX-License-Identifier: Apache-2.0
"""The two files hold the plan's numbers verbatim, in a form that old runtimes read right."""

import collections

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from torch import nn

from compress.quantize.step import quantize
from edge_contract import targets
from edge_contract.errors import ModelError, UnsupportedOperatorError
from export.inspection.inspect import check_operators, describe
from export.onnx import writer as onnx_writer
from export.tflite import writer as tflite_writer
from export.tflite.windows import Window
from tests.support.quant_nets import images, residual, separable, settled


@pytest.fixture(scope="module")
def plan():
    return quantize(settled(residual), images(64, 1))


@pytest.fixture(scope="module")
def lite(plan, tmp_path_factory):
    path = tmp_path_factory.mktemp("lite") / "net.tflite"
    artefact = tflite_writer.write(plan, path, full_names=True)
    return artefact, path.read_bytes(), schema.ModelT.InitFromPackedBuf(bytearray(path.read_bytes()), 0)


def tensors_of(model):
    return {tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors}


def data_of(model, tensor, dtype):
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), dtype).reshape(tensor.shape)


def test_tflite_constants_are_the_plans_verbatim(plan, lite):
    _, _, model = lite
    tensors = tensors_of(model)
    for op in plan.operations:
        if not op.weight:
            continue
        weight, tensor = plan.constants[op.weight], tensors[op.weight]
        codes = data_of(model, tensor, np.int8)
        turned = codes.transpose(0, 3, 1, 2) if op.kind == "conv2d" else codes
        assert np.array_equal(turned, weight.codes)
        assert np.array_equal(tensor.quantization.scale, weight.scales)
        assert not np.any(tensor.quantization.zeroPoint)
        bias = tensors[op.bias]
        assert np.array_equal(data_of(model, bias, "<i4"), plan.constants[op.bias].codes)
        assert np.array_equal(bias.quantization.scale, plan.constants[op.bias].scales)
        assert bias.type == schema.TensorType.INT32


def test_tflite_activations_are_the_plans_verbatim(plan, lite):
    _, _, model = lite
    tensors, names = tensors_of(model), {plan.input: "input", **{n: role for role, n in plan.outputs.items()}}
    seen = 0
    for name, activation in plan.activations.items():
        tensor = tensors.get(names.get(name, name))
        if tensor is not None:
            seen += 1
            assert tensor.type == schema.TensorType.INT8
            assert np.float32(activation.scale) == tensor.quantization.scale[0]
            assert activation.zero_point == tensor.quantization.zeroPoint[0]
    assert seen == len(plan.activations) - 1  # the pooled map is written flat, as the embedding


def test_tflite_holds_no_float_tensor(lite):
    _, _, model = lite
    assert {t.type for t in model.subgraphs[0].tensors} == {schema.TensorType.INT8, schema.TensorType.INT32}


def test_tflite_buffers_are_inside_the_file_and_aligned(lite):
    _, data, _ = lite
    root = schema.Model.GetRootAs(data, 0)
    filled = 0
    for i in range(root.BuffersLength()):
        buffer = root.Buffers(i)
        assert buffer.Offset() == buffer.Size() == 0
        if buffer.DataLength():
            filled += 1
            vector = buffer._tab.Vector(flatbuffers.number_types.UOffsetTFlags.py_type(buffer._tab.Offset(4)))
            assert vector % 16 == 0
    assert filled > 20


def test_tflite_operator_versions_are_those_of_int8(lite):
    _, data, model = lite
    assert data[4:8] == b"TFL3"
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    versions = {names[code.builtinCode]: code.version for code in model.operatorCodes}
    honest = {"CONV_2D": 3, "PAD": 2, "MAX_POOL_2D": 2, "ADD": 2, "MEAN": 2, "FULLY_CONNECTED": 4}
    assert versions == honest
    assert all(code.deprecatedBuiltinCode == code.builtinCode for code in model.operatorCodes)


def test_fully_connected_weights_have_one_scale(lite):
    # Per-channel ones give constant output, with no error, on tflite-runtime 2.7 to 2.9.
    _, _, model = lite
    tensors = model.subgraphs[0].tensors
    for op in model.subgraphs[0].operators:
        if model.operatorCodes[op.opcodeIndex].builtinCode == schema.BuiltinOperator.FULLY_CONNECTED:
            assert len(tensors[op.inputs[1]].quantization.scale) == 1
            break
    else:
        raise AssertionError("no fully-connected operator")


def test_depthwise_weights_have_their_channels_last(tmp_path):
    plan = quantize(settled(separable), images(64, 1))
    tflite_writer.write(plan, tmp_path / "net.tflite", full_names=True)
    model = schema.ModelT.InitFromPackedBuf(bytearray((tmp_path / "net.tflite").read_bytes()), 0)
    op = next(op for op in plan.operations if op.attributes.get("groups", (1,))[0] > 1)
    tensor = tensors_of(model)[op.weight]
    assert tensor.quantization.quantizedDimension == 3
    assert np.array_equal(data_of(model, tensor, np.int8)[0].transpose(2, 0, 1), plan.constants[op.weight].codes[:, 0])


@pytest.mark.parametrize("is_qdq", [False, True])
def test_onnx_constants_are_the_plans_verbatim(is_qdq, plan, tmp_path):
    onnx_writer.write(plan, tmp_path / "net.onnx", is_qdq=is_qdq, full_names=True)
    model = onnx.load(tmp_path / "net.onnx")
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, constant in plan.constants.items():
        assert found[name].dtype == constant.codes.dtype
        assert np.array_equal(found[name], constant.codes)
        if f"{name}/scale" in found:  # QLinearConv has no scale of the bias: it follows from the others
            assert np.array_equal(np.atleast_1d(found[f"{name}/scale"]), constant.scales)
    seen = 0
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            name = dict(plan.outputs).get(node.output[0], node.output[0])
            activation, seen = plan.activations[name], seen + 1
            assert found[node.input[1]] == np.float32(activation.scale)
            assert found[node.input[2]] == activation.zero_point + 128
    assert seen > 4


def test_onnx_file_asks_for_nothing_that_old_runtimes_lack(plan, tmp_path):
    onnx_writer.write(plan, tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    assert not {"Clip", "Relu", "Pad", "ReduceMean"} & {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("writer", [onnx_writer, tflite_writer])
def test_short_names_save_bytes_and_keep_inputs_and_outputs(writer, plan, tmp_path):
    writer.write(plan, tmp_path / "short")
    writer.write(plan, tmp_path / "full", full_names=True)
    short, full = describe(tmp_path / "short"), describe(tmp_path / "full")
    assert (tmp_path / "short").stat().st_size < (tmp_path / "full").stat().st_size - 400
    assert (short.inputs, short.outputs, short.plan_digest) == (full.inputs, full.outputs, full.plan_digest)


def test_equal_zero_points_are_written_once(lite):
    _, data, model = lite
    root = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    places = collections.defaultdict(set)
    for i, tensor in enumerate(model.subgraphs[0].tensors):
        if tensor.quantization is not None and len(tensor.quantization.zeroPoint) > 1:
            table = root.Tensors(i).Quantization()._tab
            places[len(tensor.quantization.zeroPoint)].add(table.Vector(table.Offset(10)))
    assert places
    assert all(len(found) == 1 for found in places.values())


@pytest.mark.parametrize("writer", [onnx_writer, tflite_writer])
def test_same_plan_gives_the_same_bytes(writer, plan, tmp_path):
    writer.write(plan, tmp_path / "a")
    writer.write(plan, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_description_says_what_the_file_says(plan, lite, tmp_path):
    onnx_artefact = onnx_writer.write(plan, tmp_path / "net.onnx")
    lite_artefact, data, _ = lite
    (tmp_path / "net.tflite").write_bytes(data)
    for artefact in (onnx_artefact, lite_artefact):
        facts = describe(tmp_path / artefact.path)
        assert facts.plan_digest == artefact.plan_digest == plan.digest
        assert facts.format == artefact.format
        assert facts.inputs == {"input": (artefact.input.dtype, artefact.input.shape)}
        assert facts.outputs == {spec.name: (spec.dtype, spec.shape) for spec in artefact.outputs}
    assert lite_artefact.input.shape == (1, 32, 32, 3)
    assert lite_artefact.input.layout == "NHWC"
    assert onnx_artefact.input.shape == (0, 3, 32, 32)
    assert onnx_artefact.input.zero_point == lite_artefact.input.zero_point + 128
    assert [spec.role for spec in lite_artefact.outputs] == ["logits", "embedding"]


@pytest.mark.parametrize("content", [b"", b"TFL3TFL3" * 4, b"\x00\x01garbage", b"\x1c\x00\x00\x00TFL3"])
def test_file_that_is_no_model_is_one_clear_line(content, tmp_path):
    (tmp_path / "net.tflite").write_bytes(content)
    with pytest.raises(ModelError, match=r"net\.tflite: not a (model|whole TFLite) file: .*; give ") as caught:
        describe(tmp_path / "net.tflite")
    assert "\n" not in str(caught.value)


def test_operator_that_a_target_lacks_is_named(tmp_path):
    # A max pool that pads signed codes needs PADV2, which the Edge TPU does not map.
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.MaxPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    tflite_writer.write(quantize(net, images(64, 1)), tmp_path / "net.tflite")
    facts = describe(tmp_path / "net.tflite")
    check_operators(facts, targets.load("rpi4"), where="net.tflite")
    with pytest.raises(UnsupportedOperatorError, match=r"operator PADV2 version 2 is not on target 'coral-usb'"):
        check_operators(facts, targets.load("coral-usb"), where="net.tflite")


def test_format_that_a_target_does_not_read_is_named(plan, tmp_path):
    onnx_writer.write(plan, tmp_path / "net.onnx")
    with pytest.raises(UnsupportedOperatorError, match="target 'coral-usb' reads tflite; export that format"):
        check_operators(describe(tmp_path / "net.onnx"), targets.load("coral-usb"), where="net.onnx")


WINDOWS = {
    # size, out, kernel, stride, dilation, PyTorch's padding → PAD or scheme
    "3×3 keeps the size": (Window(28, 28, 3, 1), 1, (1, 1), True),
    "stride 2 on an even size starts one pixel early": (Window(28, 14, 3, 2), 1, (1, 0), False),
    "stride 2 on an odd size is SAME": (Window(27, 14, 3, 2), 1, (1, 1), True),
    "no padding": (Window(28, 26, 3, 1), 0, (0, 0), False),
    "dilation": (Window(16, 16, 3, 1, 2), 2, (2, 2), True),
    "padding that is never read at the end": (Window(8, 5, 2, 2), 1, (1, 1), False),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_padding_scheme_is_what_the_window_reads(name):
    window, before, explicit, is_same = WINDOWS[name]
    assert window.explicit(before) == explicit
    assert (window.same() == explicit and window.is_same_size) is is_same
