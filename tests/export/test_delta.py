# SPDX-License-Identifier: Apache-2.0
"""Patches between model files: where the constants lie, which belong together, how few bytes are sent."""

import copy
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from compress.quantize.step import quantize
from edge_agent.delta.apply import Wanted, apply
from edge_contract.deltas import EMPTY
from edge_contract.errors import DataError, UsageError
from export.cli import app
from export.delta import files, maker
from export.delta.locate import MIN_PART, parts_of
from export.delta.maker import make
from export.delta.pairing import pieces
from export.onnx import reader as onnx_reader
from export.onnx import writer as onnx_writer
from export.tflite import reader as tflite_reader
from export.tflite import writer as tflite_writer
from tests.edge_agent.delta.conftest import digest, nudged, weights
from tests.support.quant_nets import images, mobile, settled

WRITERS = {"tflite": tflite_writer, "onnx": onnx_writer}


@pytest.fixture(scope="module")
def plans():
    """A small MobileNet, the same with a head that was trained on, and with a block more."""
    torch.set_num_threads(1)
    samples = images(64, 1)
    net = settled(mobile)
    plan = quantize(net, samples, observer="min-max")
    head = plan.operations[-1]
    weight, bias = plan.constants[head.weight], plan.constants[head.bias]
    rng = np.random.default_rng(0)
    codes = np.clip(weight.codes + np.rint(rng.normal(0, 4, weight.codes.shape)), -127, 127).astype(np.int8)
    moved = replace(bias, codes=(bias.codes + rng.integers(-900, 900, bias.codes.shape)).astype(np.int32))
    changed = {head.weight: replace(weight, codes=codes), head.bias: moved}
    deeper = copy.deepcopy(net)
    blocks = list(deeper.blocks)
    deeper.blocks = torch.nn.Sequential(*blocks[:3], copy.deepcopy(blocks[3]), *blocks[3:])
    return {
        "base": plan,
        "head": replace(plan, constants={**plan.constants, **changed}),
        "deeper": quantize(deeper, samples, observer="min-max"),
    }


@pytest.fixture(scope="module")
def written(plans, tmp_path_factory):
    """(name, format) → bytes of the file."""
    folder, found = tmp_path_factory.mktemp("models"), {}
    for name, plan in plans.items():
        for form, writer in WRITERS.items():
            writer.write(plan, folder / f"{name}.{form}")
            found[name, form] = (folder / f"{name}.{form}").read_bytes()
    return found


def patched(base: bytes, data: bytes, target: bytes, folder: Path) -> bytes:
    for name, content in (("base", base), ("patch", data)):
        (folder / name).write_bytes(content)
    apply(folder / "base", folder / "patch", folder / "out", Wanted(digest(base), digest(target), len(target)))
    return (folder / "out").read_bytes()


def test_the_parts_of_a_tflite_file_are_its_constants_and_scales(written):
    data = written["base", "tflite"]
    found = {(part.name, part.width): data[part.offset : part.offset + part.length] for part in parts_of(data, "x")}
    constants = [t for t in tflite_reader.read(data, "x").main.tensors if t.data and len(t.data) >= MIN_PART]
    widths = {"int8": 1, "int32": 4}
    assert len(constants) > 10
    for tensor in constants:
        assert found[tensor.name, widths[tensor.dtype]] == tensor.data
    many = next(t for t in constants if len(t.scales) * 4 >= MIN_PART)
    assert found[f"{many.name}: scales", 4] == np.array(many.scales, "<f4").tobytes()


def test_the_parts_of_an_onnx_file_are_its_initializers(written):
    data = written["base", "onnx"]
    found = {part.name: part for part in parts_of(data, "x")}
    constants = onnx_reader.read(data, where="x").graph.constants
    large = {name: c.array() for name, c in constants.items() if c.size >= MIN_PART}
    assert len(large) > 10
    assert set(found) == set(large)
    for name, values in large.items():
        part = found[name]
        assert data[part.offset : part.offset + part.length] == values.tobytes()
        assert part.width == values.dtype.itemsize


def test_constants_behind_the_flatbuffer_are_found():
    """Large files keep their buffers outside; two numbers of the buffer's table say where."""
    flatbuffers = pytest.importorskip("flatbuffers")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    payload = weights(256)
    buffer, tensor, graph, model = schema.BufferT(), schema.TensorT(), schema.SubGraphT(), schema.ModelT()
    buffer.offset, buffer.size = 1024, len(payload)
    tensor.buffer, tensor.type, tensor.name = 1, schema.TensorType.INT8, "far"
    graph.tensors, model.subgraphs, model.buffers = [tensor], [graph], [schema.BufferT(), buffer]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    data = bytes(builder.Output()).ljust(1024, b"\0") + payload
    (part,) = parts_of(data, "x")
    assert (part.name, part.offset, part.length, part.width) == ("far", 1024, 256, 1)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_parts_of_a_damaged_file_stay_inside_it(written, data):
    form = data.draw(st.sampled_from(["tflite", "onnx"]))
    broken = bytearray(written["base", form])
    at = data.draw(st.integers(8, len(broken) - 1))
    broken[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    del broken[data.draw(st.integers(at, len(broken))) :]
    end = 0
    for part in parts_of(bytes(broken), "x"):
        assert part.offset >= end
        assert part.length % part.width == 0
        end = part.offset + part.length
    assert end <= len(broken)
    assert sum(piece.length for piece in pieces(written["base", form], bytes(broken))) == len(broken)


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_a_head_only_retrain_sends_the_head(written, form, tmp_path):
    base, target = written["base", form], written["head", form]
    patch = make(base, target)
    changed = [row for row in patch.rows if row.kind != "copy"]
    assert patch.codec == "tensors"
    assert len(changed) <= 3, "the head's weight, perhaps its bias, and what lies between: the plan's digest"
    named = [row for row in patch.rows if "between" not in row.name]
    assert sum(row.bytes for row in named if row.kind == "copy") > 0.95 * sum(row.bytes for row in named)
    assert len(patch.data) < 900  # 240 weights with 3 bits of change, 10 biases, a digest of 64 letters, the container
    assert patched(base, patch.data, target, tmp_path) == target


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_a_layer_more_renames_all_and_each_tensor_still_finds_its_partner(written, form, tmp_path):
    base, target = written["base", form], written["deeper", form]
    patch = make(base, target)
    rows = {row.name: row for row in patch.rows if row.width == 1 and row.bytes >= 400 and "between" not in row.name}
    assert sum(row.kind in ("copy", "sparse", "dense") for row in rows.values()) >= 0.9 * len(rows)
    assert len(patch.data) < 0.5 * len(target)
    assert patched(base, patch.data, target, tmp_path) == target


def test_scattered_steps_cost_little_more_than_their_entropy():
    """10 % of ±1 hold H(0.1) + 0.1 = 0.569 bits a byte."""
    base = weights(400_000)
    data, _ = maker.with_tensors(base, nudged(base, 0.1))
    entropy = -0.1 * math.log2(0.1) - 0.9 * math.log2(0.9) + 0.1
    assert entropy * 400_000 / 8 < len(data) < 1.03 * entropy * 400_000 / 8


def test_the_smallest_way_is_chosen_and_full_is_said_where_nothing_helps(tmp_path):
    base = weights(30_000)
    moved = base[15_000:] + base[:15_000]
    far = make(base, moved)
    assert len(far.data) < 300, "what only moved is found in the base, wherever it lies"
    assert len(far.data) == min(len(far.data), *far.others.values())
    other = weights(30_000, seed=8)
    unlike = make(base, other)
    assert (unlike.codec, unlike.is_worth_it) == ("zstd", False)
    assert len(unlike.data) > maker.WORTH * len(other)
    text = make(base, b"a label\n" * 2000)
    assert (text.codec, text.base, text.is_worth_it) == ("zstd", EMPTY, True)
    assert patched(b"", text.data, b"a label\n" * 2000, tmp_path) == b"a label\n" * 2000


def test_a_file_too_large_to_compare_is_refused(monkeypatch):
    monkeypatch.setattr(maker, "MAX_INPUT_BYTES", 10)
    with pytest.raises(UsageError, match="more than 10 bytes"):
        make(b"x" * 11, b"y")


def test_files_of_more_operations_than_devices_take_fall_back(monkeypatch):
    monkeypatch.setattr("edge_agent.delta.container.MAX_CONTROL_BYTES", 2)
    base = weights(9000)
    assert make(base, nudged(base, 0.05)).codec != "tensors"


def test_two_equal_files_and_a_file_against_a_folder_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    with pytest.raises(DataError, match="same bytes"):
        files.between(tmp_path / "a", tmp_path / "a")
    with pytest.raises(UsageError, match="one is a folder"):
        files.between(tmp_path, tmp_path / "a")


def test_the_command_prints_what_each_tensor_costs_and_writes_the_patch(written, tmp_path, tmp_path_factory):
    for name in ("base", "head"):
        (tmp_path / f"{name}.tflite").write_bytes(written[name, "tflite"])
    words = ["delta", str(tmp_path / "base.tflite"), str(tmp_path / "head.tflite"), "--out", str(tmp_path / "out")]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    assert "by tensors" in shown.output
    assert "tensors are as they were" in shown.output
    (patch,) = (tmp_path / "out").iterdir()
    base, target = written["base", "tflite"], written["head", "tflite"]
    assert patch.name == f"{digest(base)[:12]}-{digest(target)[:12]}.tensors.delta"
    data = patch.read_bytes()
    assert patched(base, data, target, tmp_path_factory.mktemp("device")) == target
    (document,) = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    assert document["bytes"] == patch.stat().st_size
    assert document["path"] == str(patch)
    assert {"name", "kind", "width", "bytes", "cost"} == set(document["tensors"][0])


def test_the_server_s_process_makes_the_same_patch(written, tmp_path):
    base, target = written["base", "onnx"], written["head", "onnx"]
    (tmp_path / "a").write_bytes(base)
    (tmp_path / "b").write_bytes(target)
    command = [sys.executable, "-m", "export.delta", str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "c")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout)
    assert (tmp_path / "c").read_bytes() == make(base, target).data
    assert (facts["codec"], facts["bytes"]) == ("tensors", (tmp_path / "c").stat().st_size)
    failed = subprocess.run([*command[:-2], str(tmp_path / "none"), "x"], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ")
