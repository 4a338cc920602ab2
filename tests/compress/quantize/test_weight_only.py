# SPDX-License-Identifier: Apache-2.0
"""Rounded weights with float arithmetic, and dynamic int8, as they are simulated."""

import numpy as np
import pytest
import torch
from torch import nn

from compress.quantize.blocks import HIGH, block_size, round_weight
from compress.quantize.dynamic import DynamicInt8, dynamic_linear, quantized_rows
from compress.quantize.layer_weights import layer_weights
from compress.quantize.weight_only import FORMS, simulate, stored_bytes
from edge_contract.errors import ModelError, UnsupportedOperatorError, UsageError
from tests.zoo import others


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("form", list(HIGH))
def test_rounding_errs_by_half_a_step_at_most(form):
    torch.manual_seed(0)
    weight = torch.randn(16, 12, 3, 2)
    rounded = round_weight(weight, form)
    assert rounded.codes.abs().amax(2).eq(HIGH[form]).all()  # the largest of each scale is hit
    error = (rounded.weight(weight.shape) - weight).reshape(rounded.codes.shape).abs()
    assert (error <= rounded.scales * 0.5001).all()


def test_blocks_err_less_than_rows():
    torch.manual_seed(1)
    weight = torch.randn(8, 256) * torch.rand(1, 256) * 3
    errors = {}
    for size in ("block", "row"):
        found = round_weight(weight if size == "block" else weight[:, :251], "weight-only-int4")  # 251 is prime
        errors[size] = float(
            (found.weight(torch.Size((8, found.codes[0].numel()))) - weight[:, : 256 - 5 * (size == "row")]).norm()
        )
    assert errors["block"] < 0.8 * errors["row"]
    assert [block_size(n) for n in (256, 251, 40, 3)] == [32, 251, 20, 3]


def test_rounding_twice_changes_nothing():
    """What the exporter relies on: codes are found again from rounded weights."""
    torch.manual_seed(2)
    for form in HIGH:
        once = round_weight(torch.randn(64, 64), form)
        twice = round_weight(once.weight(torch.Size((64, 64))), form)
        assert torch.equal(once.codes, twice.codes)


def test_zeros_stay_zeros():
    found = round_weight(torch.zeros(2, 32), "weight-only-int4")
    assert found.weight(torch.Size((2, 32))).abs().max() == 0


def test_dynamic_linear_is_what_onnx_defines():
    """DynamicQuantizeLinear, MatMulInteger and Mul in integers, by numpy."""
    torch.manual_seed(3)
    x, weight = torch.randn(1, 5, 24), torch.randn(7, 24)
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = np.float32((np.float32(high) - np.float32(low)) / np.float32(255))
    zero = np.clip(np.rint(-np.float32(low) / scale), 0, 255)
    codes = np.clip(np.rint(x.numpy() / scale) + zero, 0, 255).astype(np.int64)
    steps = (np.abs(weight.numpy()).max(1) / np.float32(127)).astype(np.float32)
    weights = np.rint(weight.numpy() / steps[:, None]).astype(np.int64)
    wanted = ((codes - int(zero)) @ weights.T).astype(np.float32) * (scale * steps)
    assert np.array_equal(dynamic_linear(x, weight).numpy(), wanted)


def test_each_input_has_its_own_range():
    torch.manual_seed(4)
    x, weight = torch.randn(6, 4, 8) * torch.tensor([1.0, 9, 0.1, 3, 5, 0]).view(6, 1, 1), torch.randn(3, 8)
    together = dynamic_linear(x, weight)
    assert torch.equal(together, torch.cat([dynamic_linear(one[None], weight) for one in x]))
    assert quantized_rows(x)[1].shape == (6, 1, 1)


@pytest.mark.parametrize(
    "settings", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False, "batch_first": False}]
)
def test_lstm_cells_are_torchs_where_nothing_is_rounded(monkeypatch, settings):
    """The recurrence alone, against torch.nn.LSTM."""
    monkeypatch.setattr("compress.quantize.dynamic.dynamic_linear", nn.functional.linear)
    torch.manual_seed(5)
    layer = nn.LSTM(4, 6, **{"batch_first": True, **settings}).eval()
    x = torch.randn(3, 5, 4)
    wanted, (state, cell) = layer(x)
    found, (state2, cell2) = DynamicInt8(layer)(x)
    for a, b in ((wanted, found), (state, state2), (cell, cell2)):
        assert torch.allclose(a, b, atol=1e-6)


def test_dynamic_int8_of_convolutions_alone_is_refused_and_of_mixed_networks_counts_what_stays_float():
    with pytest.raises(UnsupportedOperatorError, match="leaves convolutions and GRU cells in float, and there is no"):
        simulate(others.load("unet"), "dynamic-int8")
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(8, 4))
    assert stored_bytes(net, "dynamic-int8") == 4 * (72 + 8 + 4 + 4) + 32  # the linear layer's 32 weights are bytes


TAKEN = [(name, form) for name in others.OTHERS for form in FORMS if (name, form) != ("unet", "dynamic-int8")]


@pytest.mark.parametrize(("name", "form"), TAKEN)
def test_every_form_takes_every_member(name, form):
    net, x = others.load(name), others.inputs(name, 8, 1)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    made = simulate(net, form)
    with torch.no_grad():
        wanted, found = net(x), made(x)
    error = float((found - wanted).norm() / wanted.norm())
    limit = {"float16": 0.002, "weight-only-int8": 0.02, "dynamic-int8": 0.04, "weight-only-int4": 0.4}[form]
    assert 1e-5 < error < limit
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_attention_of_torch_is_simulated_too():
    """nn.MultiheadAttention has a fused path that calls no linear layer."""
    torch.manual_seed(6)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    x = torch.randn(4, 5, 16)
    with torch.no_grad():
        wanted, found = layer(x), simulate(layer, "dynamic-int8")(x)
    assert 1e-4 < float((found - wanted).norm() / wanted.norm()) < 0.05
    assert torch.backends.mha.get_fastpath_enabled()


def test_names_are_module_paths_and_tied_weights_count_once():
    net = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20, bias=False), nn.LayerNorm(20))
    net[1].weight = net[0].weight
    assert [(name, is_table) for name, _, is_table in layer_weights(net)] == [("0.weight", False)]
    assert [name for name, _, _ in layer_weights(nn.Linear(2, 2))] == ["weight"]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # of torch's own, while it exports
@pytest.mark.parametrize("form", FORMS)
def test_exported_programs_are_simulated_like_their_modules(form):
    """A model that was saved and loaded has no layers any more, only operators."""
    torch.manual_seed(7)
    net, x = others.Recurrent(nn.LSTM(3, 8, batch_first=True)).eval(), others.inputs("lstm", 4, 1)
    program = torch.export.export(net, (x,)).module()
    assert {name for name, _, _ in layer_weights(program)} == {name for name, _, _ in layer_weights(net)}
    wanted, found = simulate(net, form)(x), simulate(program, form)(x)
    assert torch.allclose(wanted, found, atol=1e-6)
    assert not torch.allclose(found, program(x), atol=1e-5)


def test_what_cannot_be_rounded_is_refused_by_name():
    with pytest.raises(UsageError, match="unknown form 'int3'"):
        simulate(nn.Linear(2, 2), "int3")
    with pytest.raises(UnsupportedOperatorError, match="no linear, convolution"):
        simulate(nn.ReLU(), "float16")
    net = nn.Sequential(nn.Linear(2, 2))
    nn.init.constant_(net[0].weight, 70000.0)
    with pytest.raises(ModelError, match=r"'0\.weight'.*7e\+04 is beyond float16"):
        simulate(net, "float16")
    nn.init.constant_(net[0].weight, float("nan"))
    with pytest.raises(ModelError, match="NaN"):
        simulate(net, "weight-only-int8")
