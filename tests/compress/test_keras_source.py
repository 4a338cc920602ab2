# SPDX-License-Identifier: Apache-2.0
"""Keras models as networks: equal to Keras' own answers, layer by layer, or refused with the layer's name."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compress import cost, recipe, sources
from compress.prune.graph import PruningGraph
from compress.quantize.step import quantize
from compress.sources import keras_file, notes_of
from compress.sources.keras_windows import same_padding
from edge_contract.errors import MissingDependencyError, ModelError, UnsupportedOperatorError

ROOT = Path(__file__).resolve().parents[2]
GOOD = ("mobile", "flattened", "excited", "nested", "series", "upward", "normalised")


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """Keras models and what the child process makes of each, written by one TensorFlow process."""
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("keras")
    environment = {**os.environ, **keras_file._environment(folder)}
    script = ROOT / "tests" / "support" / "keras_sources.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], env=environment, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def load(shelf, name):
    return keras_file.put_together(shelf / name, name)


@pytest.mark.parametrize("name", GOOD)
@torch.no_grad()
def test_network_answers_as_keras_does(shelf, name):
    net = load(shelf, name)
    with np.load(shelf / f"{name}.npz") as archive:
        x, y = archive["x"], archive["y"]
    found = net(torch.from_numpy(np.moveaxis(x, -1, 1).copy()))
    if any("softmax" in note for note in notes_of(net)):
        found = found.softmax(1)
    # Both compute in float32; a dozen layers of random weights add up in another order.
    assert np.abs(found.numpy() - y).max() <= 1e-5 * max(1.0, np.abs(y).max())


def test_last_softmax_is_left_out_and_said(shelf):
    net = load(shelf, "mobile")
    assert notes_of(net) == ("the softmax of 'scores' was left out: training and integers work on the logits",)
    assert (net(torch.zeros(2, 3, 30, 26)).sum(1) - 1).abs().min() > 1e-3


def test_random_layers_are_left_out_and_said(shelf):
    assert "RandomFlip" in notes_of(load(shelf, "normalised"))[0]
    assert "GaussianNoise" in notes_of(load(shelf, "nested"))[0]


def test_layers_keep_their_names_and_are_pytorchs_own(shelf):
    net = load(shelf, "nested")
    kinds = {name: type(module) for name, module in net.named_modules() if not list(module.children())}
    assert all(kind.__module__.startswith("torch.nn.modules") for kind in kinds.values())
    assert sum(name.startswith("inner.") for name in kinds) == 2
    shared = load(shelf, "excited")
    assert [node.target for node in shared.graph.nodes].count("twice") == 2


def test_batch_normalisation_learns_again_with_its_statistics(shelf):
    net = load(shelf, "mobile")
    norm = next(module for module in net.modules() if isinstance(module, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    assert norm.momentum == pytest.approx(0.1)
    net.train()(torch.randn(4, 3, 30, 26)).sum().backward()
    assert (norm.running_mean != before).any()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert any(isinstance(module, nn.Dropout) for module in net.modules())


def test_every_step_takes_the_network(shelf):
    net, x = load(shelf, "mobile"), torch.randn(64, 3, 30, 26)
    assert quantize(net, x).operations
    graph = PruningGraph(net, x[:1])
    before = cost.measure(net, x[:1]).macs
    group = max(graph.groups, key=lambda one: one.width)
    graph.remove(group.name, range(group.width // 2))
    assert cost.measure(net, x[:1]).macs < before
    assert net(x).shape == (64, 5)


def test_old_format_is_read_too(shelf):
    assert load(shelf, "old")(torch.zeros(2, 2, 9, 7)).shape == (2, 3)


def test_free_size_is_the_recipes(shelf):
    assert load(shelf, "normalised")(torch.zeros(1, 3, 20, 20)).shape == (1, 2)


REFUSED = {
    "recurrent": (
        UnsupportedOperatorError,
        (
            "recurrent, layer 'memory' (LSTM): no form as a PyTorch layer here; replace the layer, or convert the file "
            "as it is with strop export keras"
        ),
    ),
    "not_finite": (ModelError, "not_finite, weight 'broken/kernel': holds NaN or Inf; train the model again"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_model_is_refused_by_the_name_of_its_layer(shelf, name):
    kind, message = REFUSED[name]
    with pytest.raises(kind) as caught:
        load(shelf, name)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two_inputs", "x.keras: 2 inputs and 1 outputs; make a model of one float32 input and one output"),
        ("coded", "x.keras, model 'coded': Coded is a class of Python code, not a graph of layers; build it with"),
    ],
)
def test_what_the_child_refuses_is_one_line(shelf, name, message):
    done = subprocess.CompletedProcess([], 1, b"", b"")
    text = str(keras_file._explain(shelf / name, done, "x.keras"))
    assert message in text and "\n" not in text


def test_wrong_layer_is_found_by_comparison(shelf, tmp_path):
    folder = tmp_path / "flattened"
    folder.mkdir()
    for file in (shelf / "flattened").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    with np.load(folder / "values.npz") as archive:
        values = {name: archive[name] for name in archive.files}
    values["1"] = values["1"] + 0.01  # as if Keras' max pool were another one
    np.savez(folder / "values.npz", **values)
    with pytest.raises(ModelError, match=r"layer 'max_pooling2d.*' \(MaxPooling2D\): differs from Keras by 0\.01"):
        keras_file.put_together(folder, "flattened")


@pytest.mark.slow
def test_recipe_names_a_keras_file(shelf, tmp_path, kitchen):
    text = kitchen.text.replace("strop_tiny_task:student", str(shelf / "flattened.keras"))
    read = recipe.load(kitchen(text))
    assert read.model.is_trained
    assert sources.load_model(read)(torch.zeros(1, 2, 9, 7)).shape == (1, 3)


def test_what_is_no_keras_file_is_refused_before_tensorflow_starts(tmp_path):
    (tmp_path / "x.keras").write_bytes(b"hello")
    with pytest.raises(ModelError, match=r"x\.keras: no Keras file; write it again with model\.save"):
        keras_file.load_keras(tmp_path / "x.keras")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ModelError, match=r"holds operations, and no layers .* strop export keras"):
        keras_file.load_keras(tmp_path / "saved")
    with pytest.raises(ModelError, match=r"saved_model\.pb is missing"):
        keras_file.load_keras(tmp_path)
    with pytest.raises(ModelError, match="cannot be read"):
        keras_file.load_keras(tmp_path / "gone.keras")


def test_missing_tensorflow_is_the_install_line(tmp_path, monkeypatch):
    (tmp_path / "x.keras").write_bytes(b"PK\x03\x04")
    monkeypatch.setattr(keras_file.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'pip install "strop\[tensorflow\]"'):
        keras_file.load_keras(tmp_path / "x.keras")


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (2, 2, 1), (5, 3, 1), (3, 1, 2)])
def test_same_padding_gives_the_outputs_that_keras_promises(size, kernel, stride, dilation):
    before, after = same_padding(size, kernel, stride, dilation)
    reach = dilation * (kernel - 1) + 1
    assert (size + before + after - reach) // stride + 1 == -(-size // stride)
    assert 0 <= after - before <= 1
