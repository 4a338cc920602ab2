# SPDX-License-Identifier: Apache-2.0
"""The TFLite reader sees in real files what the schema's own code sees, and refuses what contradicts itself."""

import inspect
import re
import struct
import tracemalloc

import numpy as np
import pytest

from edge_contract.errors import ModelError
from export.normalise.draft import blank
from export.tflite import schema as tflite_schema
from export.tflite.encoder import encode
from export.tflite.reader import read, read_file
from export.tflite.walk import decode
from tests.support import trap_files
from tests.zoo import third_party

THIRD_PARTY = [
    (package, name) for package, names in third_party.FOUND.items() for name in names if name.endswith("tflite")
]


@pytest.fixture(scope="module")
def schema():
    return pytest.importorskip("ai_edge_litert.schema_py_generated")


def snake(name):
    return re.sub(r"(?<=[a-z0-9])([A-Z])|(?<=[WHD])(F)(?=actor)", lambda m: "_" + m[0], name).lower()


def numbered(enumeration):
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


@pytest.mark.parametrize(("ours", "theirs"), [
    ("TensorType", "TensorType"), ("Activation", "ActivationFunctionType"), ("Padding", "Padding"),
    ("BuiltinOptions", "BuiltinOptions"), ("BuiltinOptions2", "BuiltinOptions2"), ("MirrorPad", "MirrorPadMode"),
    ("WeightsFormat", "FullyConnectedOptionsWeightsFormat"), ("LstmKernel", "LSTMKernelType"),
    ("QuantizationDetails", "QuantizationDetails"), ("SparseIndexVector", "SparseIndexVector"),
])  # fmt: skip
def test_enumerations_are_those_of_the_schema(schema, ours, theirs):
    assert dict(enumerate(tflite_schema.ENUMS[ours])) == numbered(getattr(schema, theirs))


def test_operator_numbers_are_those_of_the_schema(schema):
    assert dict(enumerate(tflite_schema.OPERATORS)) == numbered(schema.BuiltinOperator)


@pytest.mark.parametrize("table", sorted(tflite_schema.TABLES))
def test_fields_lie_in_the_slots_of_the_schema(schema, table):
    methods = dict(inspect.getmembers(getattr(schema, table), inspect.isfunction))
    found = {}
    for name, method in methods.items():
        place = re.search(r"Offset\((\d+)\)", inspect.getsource(method))
        if (
            place
            and not name.endswith(("AsNumpy", "IsNone"))
            and name.removesuffix("Length") not in methods.keys() - {name}
        ):
            found[(int(place[1]) - 4) // 2] = snake(name)
    ours = dict(enumerate(field.name for field in tflite_schema.TABLES[table]))
    deprecated = {"new_height", "new_width", "key"}  # in old files alone; the generated code leaves them out
    assert {slot: name for slot, name in ours.items() if name not in deprecated} == found


def text(value):
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize(("package", "name"), THIRD_PARTY)
def test_third_party_files_are_read_as_the_schemas_own_code_reads_them(schema, package, name):
    data = third_party.path(package, name).read_bytes()
    model, theirs = read(data, name), schema.ModelT.InitFromPackedBuf(bytearray(data), 0)
    graph = theirs.subgraphs[0]
    assert len(model.subgraphs) == len(theirs.subgraphs)
    assert list(model.main.inputs) == list(graph.inputs)
    assert list(model.main.outputs) == list(graph.outputs)
    kinds = numbered(schema.BuiltinOperator)
    assert len(model.main.operators) == len(graph.operators)
    for ours, op in zip(model.main.operators, graph.operators, strict=True):
        code = theirs.operatorCodes[op.opcodeIndex]
        expected = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        assert ours.kind == (text(code.customCode) if expected == "CUSTOM" else expected)
        assert (ours.version, list(ours.inputs), list(ours.outputs)) == (
            code.version,
            list(op.inputs),
            list(op.outputs),
        )
    for ours, tensor in zip(model.main.tensors, graph.tensors, strict=True):
        assert (ours.name, list(ours.shape)) == (
            text(tensor.name),
            list(tensor.shape if tensor.shape is not None else ()),
        )
        assert ours.dtype == numbered(schema.TensorType)[tensor.type].lower()
        content = theirs.buffers[tensor.buffer].data
        assert (ours.data or b"") == (b"" if content is None else bytes(content))
        scale = tensor.quantization.scale if tensor.quantization is not None else None
        assert list(ours.scales) == list(np.asarray(scale if scale is not None else (), np.float32).tolist())
    assert set(model.metadata) == {text(entry.name) for entry in theirs.metadata or []}


def test_options_carry_names_and_defaults():
    case = trap_files.padded()
    pad, conv = read(case.data, "").main.operators
    assert (pad.kind, dict(pad.options)) == ("PAD", {})
    assert conv.options["padding"] == "VALID"
    assert (conv.options["stride_h"], conv.options["dilation_w_factor"]) == (2, 1)
    assert conv.options["fused_activation_function"] == "NONE"


def test_signatures_name_their_tensors():
    model = read(trap_files.dense_per_channel(signature=True).data, "")
    (signature,) = model.signatures
    assert (signature.key, dict(signature.inputs), dict(signature.outputs)) == (
        "serving_default",
        {"input_0": 0},
        {"output_0": 3},
    )
    assert (model.main.tensors[0].shape, model.main.tensors[0].shape_signature) == ((1, 24), (-1, 24))


def test_constants_behind_the_flatbuffer_are_read_and_marked():
    inside = trap_files.dense_per_channel().data
    plain, moved = read(inside, "").main.tensors, read(trap_files.outside(inside), "").main.tensors
    assert [t.data for t in plain] == [t.data for t in moved]
    assert [t.is_external for t in moved] == [t.data is not None for t in moved]
    assert not any(t.is_external for t in plain)


def test_encoding_what_was_decoded_gives_the_same_model():
    for package, name in THIRD_PARTY[:3]:
        root, _ = decode(third_party.path(package, name).read_bytes(), name)
        data = encode(root)
        again, _ = decode(data, name)
        assert again == root
        assert encode(again) == data


def test_what_is_equal_is_written_once():
    root, _ = decode(trap_files.swish_net().data, "")
    tensors = root["subgraphs"][0]["tensors"]
    channels = 8
    size, first = len(encode(root)), tensors[1]
    tensors.append(dict(first))  # shares name, shape, scales, zero points and quantization
    assert len(encode(root)) - size <= 32
    tensors.append(first | {"quantization": first["quantization"] | {"scale": (0.5,) * channels}})
    assert len(encode(root)) - size <= 32 * 2 + 24 + 4 * channels + 8
    again, _ = decode(encode(root), "")
    assert again == root


def test_constants_are_aligned_to_16_bytes(schema):
    model = schema.Model.GetRootAs(bytearray(encode(decode(trap_files.swish_net().data, "")[0])), 0)
    tables = [model.Buffers(index)._tab for index in range(model.BuffersLength())]
    places = [tab.Vector(tab.Offset(4)) for tab in tables if tab.Offset(4)]
    assert len(places) == 2
    assert all(place % 16 == 0 for place in places)


def changed(edit):
    """A padded convolution whose decoded tables were edited."""
    root, _ = decode(trap_files.padded().data, "")
    edit(root, root["subgraphs"][0])
    return encode(root)


def in_root(**fields):
    return lambda root, graph: root.update(fields)


def in_graph(**fields):
    return lambda root, graph: graph.update(fields)


def in_tensor(index, **fields):
    return lambda root, graph: graph["tensors"][index].update(fields)


def in_operator(index, **fields):
    return lambda root, graph: graph["operators"][index].update(fields)


def in_options(**fields):
    return lambda root, graph: graph["operators"][1]["builtin_options"].update(fields)


def in_scales(**fields):
    return lambda root, graph: graph["tensors"][3]["quantization"].update(fields)


def in_signature(**fields):
    return lambda root, graph: root["signature_defs"][0].update(fields)


BEYOND = [blank("Buffer") | {"offset": 1 << 40, "size": 9}]
REFUSED = {
    "another schema version": (in_root(version=2), "schema version 2 is not 3"),
    "no subgraph": (in_root(subgraphs=[]), "it has no subgraph"),
    "an input that is not there": (
        in_graph(inputs=(99,)),
        "input of the subgraph: tensor 99 does not exist, there are 6",
    ),
    "a negative output": (in_graph(outputs=(-1,)), "output of the subgraph: tensor -1"),
    "a buffer that is not there": (in_tensor(1, buffer=77), "tensor 1 'pads': buffer 77 does not exist"),
    "a type that is not known": (in_tensor(0, type=99), "tensor 0 'input' has the unknown type 99"),
    "a negative size": (in_tensor(0, shape=(1, -8, 8, 4)), r"tensor 0 'input' has the shape \(1, -8, 8, 4\)"),
    "a rank beyond reason": (in_tensor(0, shape=(1,) * 500), "has the shape"),
    "a size below the free one": (in_tensor(0, shape_signature=(-2, 8, 8, 4)), r"has the shape \(-2, 8, 8, 4\)"),
    "shapes of two ranks": (in_tensor(0, shape_signature=(1, 8)), "has shapes of rank 4 and 2"),
    "a constant that is too short": (in_tensor(3, shape=(6, 3, 3, 400)), "has 216 bytes, its shape needs 21600"),
    "scales without their channels": (in_scales(scale=(1.0, 1.0)), "2 scales, 6 zero points"),
    "scales along no dimension": (in_scales(quantized_dimension=9), r"6 scales along dimension 9 of \[6, 3, 3, 4\]"),
    "a scale that is not finite": (in_scales(scale=(float("nan"),) * 6), "has a scale that is no positive number"),
    "a negative scale": (in_scales(scale=(-1.0,) * 6), "has a scale that is no positive number"),
    "a code that is not there": (in_operator(0, opcode_index=5), "operator 0: code 5 does not exist, there are 2"),
    "an operand that is not there": (in_operator(1, inputs=(2, 3, 44)), "CONV_2D: input: tensor 44 does not exist"),
    "an operand too few": (in_operator(1, inputs=(2,)), "operator 1 CONV_2D lacks an input"),
    "an absent weight": (in_operator(1, inputs=(2, -1, 4)), "operator 1 CONV_2D lacks an input"),
    "an inner tensor that is not there": (in_operator(1, intermediates=(7,)), "intermediate: tensor 7 does not exist"),
    "a branch that is not there": (
        in_operator(0, builtin_options2_type=23, builtin_options2={"branch_subgraph_indices": (0, 4)}),
        "operator 0 PAD: subgraph 4 does not exist",
    ),
    "no output": (in_operator(1, outputs=()), "operator 1 CONV_2D has no output"),
    "a stride of zero": (in_options(stride_w=0), "operator 1 CONV_2D has stride_w 0"),
    "a negative dilation": (in_options(dilation_h_factor=-1), "has dilation_h_factor -1"),
    "another's options": (in_operator(1, builtin_options_type=5), "carries Pool2DOptions instead of Conv2DOptions"),
    "no options": (in_operator(1, builtin_options=None), "has stride_w 0"),
    "a signature of no subgraph": (in_signature(subgraph_index=3), "subgraph 3 does not exist"),
    "a signature of no tensor": (in_signature(inputs=[{"name": b"", "tensor_index": 66}]), "tensor 66 does not exist"),
    "metadata in no buffer": (in_root(metadata=[{"name": b"x", "buffer": 50}]), "buffer 50 does not exist"),
    "a constant behind the end": (in_root(buffers=BEYOND), "9 bytes at 1099511627776 reach past"),
}


@pytest.mark.parametrize(("edit", "words"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_contradicts_itself_is_refused_in_one_line(edit, words):
    with pytest.raises(ModelError, match=words) as refusal:
        read(changed(edit), "net.tflite")
    assert str(refusal.value).startswith("net.tflite: not a whole TFLite file: ")
    assert "\n" not in str(refusal.value)


def test_a_file_of_a_newer_schema_is_read_and_one_with_a_thousand_fields_is_refused():
    plain = trap_files.padded().data
    assert read(trap_files.newer(plain, 11), "").main == read(plain, "").main
    with pytest.raises(ModelError, match=r"the table at .* has a broken directory"):
        read(trap_files.newer(plain, 1000), "")


def test_every_truncation_is_refused():
    data = trap_files.padded().data
    for length in range(len(data) - 1):
        with pytest.raises(ModelError):
            read(data[:length], "net.tflite")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"none\.tflite: cannot be read \(No such file"):
        read_file(tmp_path / "none.tflite")


def test_a_file_beyond_2_gib_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.tflite"
    with path.open("wb") as file:
        file.truncate((2 << 30) + 1)  # sparse: no disk is used
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="more than the 2 GiB that a TFLite file can hold"):
            read_file(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def aliased(count):
    """A file of 4 bytes for each of many tensors, all of which are one empty table."""
    model = struct.pack("<HHHHH2xiII", 10, 12, 4, 0, 8, 12, 3, 4)  # vtable at 8; table at 20: version, subgraphs
    graphs = struct.pack("<II", 1, 12)  # at 32
    graph = struct.pack("<HHH2xiI", 6, 8, 4, 8, 4)  # vtable at 40; table at 48: tensors
    end = 60 + 4 * count + 4
    tensors = b"".join(struct.pack("<I", end - 60 - 4 * index) for index in range(count))  # from 60 on
    empty = struct.pack("<HHi", 4, 4, 4)
    return struct.pack("<I", 20) + b"TFL3" + model + graphs + graph + struct.pack("<I", count) + tensors + empty


def peak_of(data):
    tracemalloc.start()
    try:
        with pytest.raises(ModelError) as refusal:
            read(data, "net.tflite")
        return tracemalloc.get_traced_memory()[1], str(refusal.value)
    finally:
        tracemalloc.stop()


def test_a_table_named_a_hundred_thousand_times_is_refused_in_bounded_memory():
    assert len(decode(aliased(5), "few.tflite")[0]["subgraphs"][0]["tensors"]) == 5
    data = aliased(100_000)
    peak, words = peak_of(data)
    assert "it points to the same bytes over and over" in words
    assert peak < 16 * len(data) + (24 << 20)


def test_one_long_vector_that_every_tensor_shares_is_refused_in_bounded_memory():
    """Readers of tensors work once for each that shares, however small the file."""
    root, _ = decode(trap_files.padded().data, "")
    tensors, scale = root["subgraphs"][0]["tensors"], tuple(float(n) for n in range(1, 20_001))
    shape = (20_000,)
    shared = tensors[0] | {
        "shape": shape,
        "quantization": tensors[3]["quantization"] | {"scale": scale, "zero_point": None},
    }
    assert len(read(changed(in_graph(tensors=[*tensors, shared | {"quantization": None}])), "").main.tensors) == 7
    data = changed(in_graph(tensors=[*tensors, *(shared | {"name": b"%d" % index} for index in range(2000))]))
    peak, words = peak_of(data)
    assert len(data) < 400_000
    assert "it points to the same bytes over and over" in words
    assert peak < 16 * len(data) + (24 << 20)


def test_one_long_name_that_every_tensor_shares_is_refused_in_bounded_memory():
    root, _ = decode(trap_files.padded().data, "")
    long = root["subgraphs"][0]["tensors"][0] | {"name": b"\xff" * 200_000}
    data = changed(in_graph(tensors=[long] * 2000))
    peak, words = peak_of(data)
    assert "it points to the same bytes over and over" in words
    assert peak < 16 * len(data) + (24 << 20)
    with pytest.raises(ModelError, match="has the unknown type") as refusal:
        read(changed(in_graph(tensors=[long | {"type": 99}])), "net.tflite")
    assert len(str(refusal.value)) < 300


def test_constants_that_lie_over_each_other_are_refused_in_bounded_memory():
    root, _ = decode(trap_files.padded().data, "")
    content = bytes(1 << 20)
    root["buffers"] += [blank("Buffer") | {"data": content}]
    root["buffers"] += [blank("Buffer") | {"offset": 4096 + i, "size": 1 << 19} for i in range(1000)]
    data = encode(root)
    peak, words = peak_of(data)
    assert "its constants lie over each other" in words
    assert peak < 4 * len(data) + (4 << 20)
