# SPDX-License-Identifier: Apache-2.0
"""Any torch module as ONNX: recurrent nets, transformers; the same answers in ONNX Runtime, or one clear line."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import typer
from onnx import TensorProto, helper
from torch import nn
from typer.testing import CliRunner

from edge_contract.errors import (
    DataError,
    ModelError,
    ParityError,
    RecipeError,
    UnsupportedOperatorError,
    UsageError,
)
from export.module import exporter
from export.module.cli import float_onnx as verb
from export.onnx.slim import slim


class Recurrent(nn.Module):
    """Two directions, the last state, three classes."""

    def __init__(self, kind):
        super().__init__()
        self.rnn = getattr(nn, kind)(6, 48, batch_first=True, bidirectional=True)
        self.head = nn.Linear(96, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class TinyViT(nn.Module):
    """Patches of 4×4 pixels, one token more for the class, two encoder layers."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(1, 48, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 48))
        self.place = nn.Parameter(0.1 * torch.randn(1, 17, 48))
        layer = nn.TransformerEncoderLayer(48, 4, 96, batch_first=True, dropout=0.1, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(48, 10)

    def forward(self, x):
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], 1)
        return self.head(self.encoder(tokens + self.place)[:, 0])


class TwoInputs(nn.Module):
    """Words by number and a row of measurements; two outputs."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(50, 8), nn.Linear(12, 2)

    def forward(self, words, measured):
        joined = torch.cat([self.words(words).mean(1), measured], 1)
        return {"score": self.head(joined), "joined": joined}


def mlp():
    return nn.Sequential(nn.Linear(640, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


NETS = {
    "lstm": (lambda: Recurrent("LSTM"), (11, 6)),
    "gru": (lambda: Recurrent("GRU"), (11, 6)),
    "vit": (TinyViT, (1, 16, 16)),
    "mlp": (mlp, (640,)),
}


@pytest.fixture(scope="module")
def nets():
    """Name → (net, inputs [9, ...])."""
    torch.manual_seed(0)
    return {name: (make(), torch.randn(9, *shape)) for name, (make, shape) in NETS.items()}


@pytest.fixture(scope="module")
def exported(nets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("float-onnx")
    return {name: exporter.export(net, x, folder / f"{name}.onnx") for name, (net, x) in nets.items()}


def run(path, *inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    return session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})


@pytest.mark.parametrize("name", NETS)
def test_answers_are_those_of_torch_for_any_batch(nets, exported, name):
    net, x = nets[name]
    with torch.no_grad():
        wanted = net.eval()(x).numpy()
    for count in (1, 4, 9):
        (found,) = run(exported[name].path, x[:count])
        np.testing.assert_allclose(found, wanted[:count], rtol=0, atol=2e-5)  # float32 sums in another order
    assert exported[name].fidelity["output"].relative_error < 2e-5
    assert exported[name].inputs == {"input": (0, *NETS[name][1])}


@pytest.mark.parametrize("name", NETS)
def test_file_holds_weights_operators_and_little_else(nets, exported, name):
    net, made = nets[name][0], exported[name]
    model = onnx.load(made.path)
    onnx.checker.check_model(model, full_check=True)
    graph = model.graph
    assert not graph.value_info
    assert not any(node.metadata_props or node.doc_string for node in graph.node)
    assert {entry.version for entry in model.opset_import if not entry.domain} == {18} == {made.opset}
    weights = 4 * sum(p.numel() for p in net.parameters())
    assert made.size < weights + 120 * len(graph.node) + 4096
    assert max(len(name) for node in graph.node for name in (node.name, *node.output)) <= len("output")


def test_recurrent_layers_stay_whole(exported):
    assert exported["lstm"].operators["LSTM"] == exported["gru"].operators["GRU"] == 1


def test_weights_of_recurrent_layers_lie_in_the_order_that_onnx_reads(exported):
    for name, kind in (("lstm", "LSTM"), ("gru", "GRU")):
        graph = onnx.load(exported[name].path).graph
        constants = {tensor.name for tensor in graph.initializer}
        (layer,) = [node for node in graph.node if node.op_type == kind]
        assert set(layer.input[1:4]) <= constants


def test_opset_and_a_fixed_batch_are_what_was_asked_for(nets, tmp_path):
    net, x = nets["mlp"]
    made = exporter.export(net, x, tmp_path / "mlp.onnx", opset=21, dynamic_batch=False, outputs=("logits",))
    assert made.opset == 21
    assert made.inputs["input"] == (1, 640)
    assert made.outputs == {"logits": (1, 10)}
    with pytest.raises(Exception, match="Got: 2 Expected: 1"):
        run(made.path, x[:2])


def test_several_inputs_and_outputs_keep_their_order(tmp_path):
    torch.manual_seed(1)
    net, words, measured = TwoInputs(), torch.randint(0, 50, (5, 7)), torch.randn(5, 4)
    made = exporter.export(net, (words, measured), tmp_path / "two.onnx")
    assert list(made.inputs) == ["input_0", "input_1"]
    wanted = net(words, measured)
    score, joined = run(made.path, words[:1], measured[:1])
    np.testing.assert_allclose(score, wanted["score"][:1].detach(), atol=1e-6)
    np.testing.assert_allclose(joined, wanted["joined"][:1].detach(), atol=1e-6)


def test_weights_beside_the_file_give_the_same_answers_and_an_old_one_is_cleared_away(nets, exported, tmp_path):
    net, x = nets["mlp"]
    out, beside = tmp_path / "big.onnx", tmp_path / "big.onnx.data"
    made = exporter.export(net, x, out, external_bytes=100_000)
    assert beside.stat().st_size > 390_000 > 5000 > out.stat().st_size
    assert made.size == out.stat().st_size + beside.stat().st_size
    assert beside.stat().st_mode == out.stat().st_mode
    np.testing.assert_array_equal(run(out, x)[0], run(exported["mlp"].path, x)[0])
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in (out, beside):
        (moved / file.name).write_bytes(file.read_bytes())
    np.testing.assert_array_equal(run(moved / out.name, x)[0], run(out, x)[0])
    exporter.export(net, x, out)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["big.onnx"]


@pytest.mark.parametrize(("name", "share"), [("lstm", 0.45), ("vit", 0.45)])
def test_dynamic_int8_is_small_and_near(nets, exported, tmp_path, name, share):
    net, x = nets[name]
    made = exporter.dynamic_int8(net, x, tmp_path / f"{name}.onnx")
    assert made.size < share * exported[name].size
    assert 1e-5 < made.fidelity["output"].relative_error < 0.03
    assert made.precision == "dynamic-int8"
    assert made.inputs == exported[name].inputs
    (found,) = run(made.path, x[:1])
    assert found.dtype == np.float32
    assert [file.name for file in tmp_path.iterdir()] == [f"{name}.onnx"]


def test_what_stays_float_is_said(nets, tmp_path):
    net, x = nets["gru"]
    made = exporter.dynamic_int8(net, x, tmp_path / "gru.onnx")
    assert made.operators["GRU"] == 1
    assert "1 GRU in float" in made.notes


def test_net_without_linear_layers_has_nothing_for_dynamic_int8(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    with pytest.raises(ModelError, match="no operator with weights that can become int8 among Conv, Relu"):
        exporter.dynamic_int8(net, torch.randn(2, 1, 8, 8), tmp_path / "conv.onnx")
    assert not list(tmp_path.iterdir())


def test_trap_shapes_of_constants_break_the_stock_quantizer_until_they_are_cleared(nets, tmp_path):
    from onnxruntime.quantization import quantize_dynamic

    from export.module.trace import quietly

    net, x = nets["mlp"]
    raw, out = tmp_path / "raw.onnx", tmp_path / "int8.onnx"
    with quietly():
        proto = torch.onnx.export(net.eval(), (x[:2],), dynamo=True, opset_version=18, verbose=False).model_proto
        onnx.save(proto, raw)
        with pytest.raises(Exception, match="Inferred shape and existing shape differ"):
            quantize_dynamic(raw, out)
        onnx.save(slim(proto), raw)
        quantize_dynamic(raw, out)
    assert out.stat().st_size < 0.3 * raw.stat().st_size


class Branch(nn.Module):
    def forward(self, x):
        if x.mean() > 0:  # the branch
            return 2 * x
        return x


class Loop(nn.Module):
    def forward(self, x):
        while x.abs().max() < 100:  # the loop
            x = 2 * x
        return x


class Filter(nn.Module):
    def forward(self, x):
        return x[:, x.mean(0) > 0]


class Decomposition(nn.Module):
    def forward(self, x):
        matrices = x[:, :, None] * x[:, None, :]
        return torch.linalg.svdvals(matrices)  # the operator


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)  # the operator


class Numpy(nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.numpy() * 2)  # the detour


class BakedBatch(nn.Module):
    def forward(self, x):
        return x.reshape(2, -1, 2).sum(1) if len(x) == 2 else x[:, :2]


class Text(nn.Module):
    def forward(self, x):
        return {"scores": x, "name": "net"}


class Total(nn.Module):
    def forward(self, x):
        return x.sum()


class Tied(nn.Module):
    """A table read by rows and, transposed, as the output's weights."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(5000, 32))

    def forward(self, x):
        return nn.functional.embedding(x, self.table).mean(1) @ self.table.T


def test_tied_weights_are_stored_once(tmp_path):
    torch.manual_seed(2)
    made = exporter.export(Tied(), torch.randint(0, 5000, (4, 3)), tmp_path / "tied.onnx")
    assert made.size < 5000 * 32 * 4 + 4096


def line_of(mark, source=__file__):
    lines = Path(source).read_text().splitlines()
    return [number for number, line in enumerate(lines, 1) if line.rstrip().endswith(f"# {mark}")]


@pytest.mark.parametrize(
    ("net", "error", "mark", "words"),
    [
        (Branch(), ModelError, "the branch", "torch.where"),
        (Loop(), ModelError, "the loop", "torch.where"),
        (Numpy(), ModelError, "the detour", "use torch operators"),
        (Decomposition(), UnsupportedOperatorError, "the operator", "aten._linalg_svd has no ONNX form"),
        (Bessel(), UnsupportedOperatorError, "the operator", "bessel_j0 has no ONNX form"),
        (Filter(), ModelError, "", "size depends on data; return a fixed number of rows"),
        (BakedBatch(), ModelError, "", "works for one batch size only"),
        (Text(), ModelError, "", "something else than tensors"),
        (Total(), ModelError, "", "shape [] for 6 inputs; return tensors with the batch first"),
        (nn.Linear(5, 2), ModelError, "", "cannot be run on inputs of shape [6, 4]"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_cannot_be_exported_is_one_line_with_the_place_and_a_rewrite(net, error, mark, words, tmp_path, capfd):
    with pytest.raises(error) as refusal:
        exporter.export(net, torch.randn(6, 4), tmp_path / "x.onnx")
    text = str(refusal.value)
    assert words in text
    assert refusal.value.fix
    assert len(text.splitlines()) == 1
    if mark:
        assert any(f"test_float_onnx.py:{number}" in text for number in line_of(mark))
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


class Counter(nn.Module):
    """Answers otherwise at each call: the traced program cannot be what was evaluated."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


def test_wrong_answers_are_refused_and_leave_the_file_that_was_there(tmp_path):
    out = tmp_path / "x.onnx"
    out.write_bytes(b"the one before")
    with pytest.raises(ParityError, match=r"output 'output' in ONNX Runtime is not torch's: relative error"):
        exporter.export(Counter(), torch.randn(4, 3), out)
    assert out.read_bytes() == b"the one before"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("options", "inputs", "error", "words"),
    [
        ({"opset": 17}, torch.ones(2, 4), UsageError, "use 18 to 21"),
        ({"outputs": ("a", "b")}, torch.ones(2, 4), UsageError, "2 names for 1 outputs"),
        ({}, torch.ones(0, 4), DataError, r"inputs of shape \[0, 4\]"),
        ({}, (torch.ones(2, 4), torch.ones(3, 4)), DataError, "as many for each argument"),
    ],
)
def test_wrong_words_are_said(options, inputs, error, words, tmp_path):
    with pytest.raises(error, match=words):
        exporter.export(nn.Linear(4, 2), inputs, tmp_path / "x.onnx", **options)


def test_missing_folder_is_said_before_anything_is_traced(tmp_path):
    with pytest.raises(DataError, match="make its folder"):
        exporter.export(nn.Linear(4, 2), torch.ones(2, 4), tmp_path / "none" / "x.onnx")


def test_module_keeps_its_modes_and_nothing_is_printed(tmp_path, capfd):
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
    net[2].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    exporter.export(net, torch.randn(5, 4), tmp_path / "x.onnx")
    assert [module.training for module in net] == [True, True, False]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert capfd.readouterr() == ("", "")


def test_slim_follows_names_into_branches():
    def value(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])

    # A body that reads a tensor of the outer graph, has a name that the numbering would choose, and gives it on.
    body = [
        helper.make_graph([helper.make_node(kind, ["an outer tensor"], ["t0"])], kind, [], [value("t0")])
        for kind in ("Abs", "Neg")
    ]
    nodes = [
        helper.make_node("Add", ["x", "x"], ["an outer tensor"], doc_string="why"),
        helper.make_node("If", ["which"], ["chosen by the branch"], then_branch=body[0], else_branch=body[1]),
        helper.make_node("Exp", ["chosen by the branch"], ["y"]),
    ]
    which = helper.make_tensor_value_info("which", TensorProto.BOOL, [])
    graph = helper.make_graph(nodes, "outer", [value("x"), which], [value("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    before = model.SerializeToString()
    slim(model)
    onnx.checker.check_model(model, full_check=True)
    assert [list(node.output) for node in model.graph.node] == [["t1"], ["t2"], ["y"]]
    assert model.graph.node[1].attribute[0].g.node[0].input == ["t1"]
    feeds = {"x": np.array([1, -3], np.float32), "which": np.array(True)}
    answers = [onnxruntime.InferenceSession(data).run(None, feeds)[0] for data in (before, model.SerializeToString())]
    np.testing.assert_array_equal(*answers)


@pytest.fixture
def call():
    app = typer.Typer()
    app.command()(verb)

    def invoke(*words):
        return CliRunner().invoke(app, [str(word) for word in words])

    return invoke


def test_verb_exports_a_compressed_folder_by_its_own_data(call, compressed_folder, inputs, tmp_path):
    out = tmp_path / "bars.onnx"
    done = call(compressed_folder, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["outputs"] == {"logits": [0, 3]}
    assert document["fidelity"]["logits"]["relative_error"] < 1e-5
    (found,) = run(out, torch.from_numpy(np.ascontiguousarray(inputs[:3].transpose(0, 3, 1, 2))))
    assert found.shape == (3, 3)


def test_verb_exports_a_callable_with_weights_and_inputs(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strop_float_task.py").write_text(
        "from torch import nn\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(15, 32))\n"
    )
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(15, 32)).state_dict(), "w.pt")
    np.savez("data.npz", x=np.random.default_rng(0).normal(size=(4, 5, 3)))
    name = "strop_float_task:net"
    words = (name, "--inputs", "data.npz", "--weights", "w.pt", "--out", "net.onnx", "--fixed-batch")
    done = call(*words)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("net.onnx: ")
    assert "output: relative error" in done.stdout
    for wrong, error, text in (
        ((name, "--out", "x.onnx"), UsageError, "give --inputs"),
        (("nothing", "--out", "x.onnx"), UsageError, "neither a folder nor module:callable"),
        (("strop_float_task:nets", "--inputs", "data.npz", "--out", "x.onnx"), RecipeError, "has no 'nets'"),
        ((name, "--inputs", "w.pt", "--out", "x.onnx"), DataError, "no arrays"),
        ((name, "--out", "x.onnx", "--precision", "int4"), UsageError, "float32, weight-only-int8"),
    ):
        failure = call(*wrong).exception
        assert isinstance(failure, error)
        assert text in str(failure)
