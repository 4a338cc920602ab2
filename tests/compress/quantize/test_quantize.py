# SPDX-License-Identifier: Apache-2.0
"""Every integer that a plan decides: closed forms, odd weights, and samples that must be refused."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from compress.quantize import integer, semantics
from compress.quantize.graph import evaluate
from compress.quantize.step import folded, quantize
from edge_contract.errors import DataError, ModelError, UnsupportedOperatorError, UsageError
from tests.support.quant_nets import images, mobile, residual, separable, settled


def linear_net(weight, bias, act=None):
    """x [N, C, 1, 1] → flatten → one linear layer with given numbers."""
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    return nn.Sequential(nn.Flatten(), layer, *([act] if act else []))


def columns(*rows):
    """Samples [N, C, 1, 1] from rows, repeated so that no warning about their number is due."""
    return torch.tensor(rows, dtype=torch.float32).repeat(64, 1)[:, :, None, None]


def test_one_layer_by_hand():
    # Input 0..2.55: scale 0.01, zero point -128. Weights ±1.27: scale 0.01. Output -2.55·1.27..: by the same rule.
    net = linear_net([[1.27, 0.0], [-0.635, 1.27]], [0.0, 0.5])
    samples = columns([0.0, 0.0], [2.55, 2.55], [2.55, 0.0], [0.0, 2.55])
    plan = quantize(net, samples, fixed_point=False, observer="min-max")
    source, target = plan.activations[plan.input], plan.activations[plan.outputs["logits"]]
    assert source.scale == pytest.approx(0.01)
    assert source.zero_point == -128
    weight, bias = plan.constants["1.weight"], plan.constants["1.bias"]
    assert weight.codes.tolist() == [[127, 0], [-64, 127]]  # -63.5 rounds half to even
    assert weight.scales == pytest.approx([0.01])
    # 0.5 / (0.01 × 0.01), and 64: the rounded weight -0.64 for -0.635 takes 0.005 × the mean input 1.275 off
    assert bias.codes.tolist() == [0, 5064]
    assert bias.scales[0] == np.float32(source.scale) * weight.scales[0]
    low, high = 0.5 - 0.635 * 2.55, 0.5 + 1.27 * 2.55  # of all four samples
    assert target.scale == pytest.approx((high - low) / 255, rel=1e-6)
    x = torch.tensor([[1.0, 2.0]])[:, :, None, None]
    sums = np.array([127 * 100, -64 * 100 + 127 * 200 + 5064])
    expected = np.rint(sums * 0.01 * 0.01 / target.scale) + target.zero_point
    assert integer.run(plan, x)["logits"].tolist() == [expected.tolist()]
    assert integer.predict(plan, x)[0] == pytest.approx([1.27, 2.4], abs=target.scale)


def test_bias_scale_is_input_scale_times_weight_scale_everywhere():
    plan = quantize(settled(mobile), images(64, 1))
    for op in plan.operations:
        if op.weight:
            source = np.float32(plan.activations[op.inputs[0]].scale)
            assert np.array_equal(plan.constants[op.bias].scales, source * plan.constants[op.weight].scales)
            assert plan.constants[op.weight].codes.dtype == np.int8
            assert plan.constants[op.weight].codes.min() >= -127
            assert plan.constants[op.bias].codes.dtype == np.int32


def test_convolutions_have_a_scale_per_channel_and_linear_layers_one():
    plan = quantize(settled(separable), images(64, 1))
    for op in plan.operations:
        if op.weight:
            weight = plan.constants[op.weight]
            assert (weight.axis, len(weight.scales)) == ((0, len(weight.codes)) if op.kind == "conv2d" else (None, 1))


@pytest.mark.parametrize("build", [mobile, residual, separable])
def test_integer_network_follows_the_float_one_in_every_tensor(build):
    net = settled(build, seed=3)
    plan, x = quantize(net, images(96, 1)), images(24, 2)
    source = plan.activations[plan.input]
    codes = integer.evaluate(plan, semantics.quantize(x, source.scale, source.zero_point))
    with torch.no_grad():
        for name, real in evaluate(folded(net, x[:1]), x):
            spec = plan.activations[name]
            error = semantics.dequantize(codes[name], spec.scale, spec.zero_point) - real
            ratio = 10 * math.log10(float(real.pow(2).mean() / error.pow(2).mean()))
            assert ratio > 28, (name, ratio)  # 8 bits give about 40 dB, less what earlier layers add


def test_relu_is_the_saturation_of_the_codes():
    plan = quantize(settled(residual), images(64, 1))
    relu = [op for op in plan.operations if op.kind in ("conv2d", "add")]
    zero_points = {op.name: plan.activations[op.output].zero_point for op in relu}
    assert zero_points["blocks.0.0"] == -128
    assert zero_points["blocks.2"] == -128  # the ReLU after the addition
    assert zero_points["blocks.2.body.1.0"] > -128


def test_relu6_never_spends_codes_above_six():
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 2, 1)
    conv.weight.data.fill_(40.0)
    net = nn.Sequential(conv, nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    plan = quantize(net, torch.rand(64, 1, 4, 4), tie_free=False)
    assert plan.activations[plan.operations[0].output].scale * 255 == pytest.approx(6.0)


def test_max_pool_and_flatten_share_their_inputs_codes():
    plan = quantize(settled(residual), images(64, 1))
    for op in plan.operations:
        if op.kind in ("max_pool", "flatten"):
            before, after = plan.activations[op.inputs[0]], plan.activations[op.output]
            assert (before.scale, before.zero_point) == (after.scale, after.zero_point)


def test_additions_have_scales_without_ties():
    plan = quantize(settled(mobile), images(64, 1))
    sums = [op for op in plan.operations if op.kind == "add"]
    assert len(sums) == 3
    generator = np.random.default_rng(0)
    for op in sums:
        a, b = (plan.activations[name] for name in op.inputs)
        steps = (generator.integers(-128, 128, (2, 20_000)) - np.array([[a.zero_point], [b.zero_point]])).T
        exact = steps @ np.array([a.scale, b.scale]) / plan.activations[op.output].scale
        assert np.abs(exact - np.floor(exact) - 0.5).min() > 9e-4


def test_embedding_is_the_input_of_the_last_linear_layer():
    plan = quantize(settled(mobile), images(64, 1))
    assert plan.outputs["embedding"] == plan.operations[-1].inputs[0]
    codes = integer.run(plan, images(5, 3))
    assert {role: values.shape for role, values in codes.items()} == {"logits": (5, 10), "embedding": (5, 24)}
    assert "embedding" not in quantize(settled(mobile), images(64, 1), embedding=False).outputs


def test_model_without_linear_layer_has_no_embedding():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ModelError, match=r"no linear layer, so no embedding; quantize with embedding=False"):
        quantize(net, images(64, 1))
    assert set(quantize(net, images(64, 1), embedding=False).outputs) == {"logits"}


def test_outlier_that_min_max_follows_is_clipped_by_percentile_and_squared_error():
    net, samples = settled(separable), images(64, 1)
    samples[0, 0, 0, 0] = 90.0
    wide = quantize(net, samples, observer="min-max").activations["x"].scale
    narrow = quantize(net, samples, observer="percentile", percentile=99.9).activations["x"].scale
    best = quantize(net, samples).activations["x"].scale
    assert wide == pytest.approx(90 / 255, rel=1e-3)
    assert narrow < wide / 20
    assert narrow < best < 0.9 * wide


def test_unknown_observer_is_refused():
    with pytest.raises(UsageError, match="unknown observer 'mse'"):
        quantize(settled(separable), images(64, 1), observer="mse")


# --- weights and ranges at the edge ---


def test_channel_of_zeros_keeps_its_bias():
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    net[0].weight.data[:] = torch.tensor([0.8, 0.0, 1e-38]).view(3, 1, 1, 1)
    net[0].bias.data[:] = torch.tensor([0.1, 0.7, -0.4])
    net[3].weight.data, net[3].bias.data = torch.eye(3), torch.zeros(3)
    plan = quantize(net, torch.rand(64, 1, 4, 4))
    found = integer.predict(plan, torch.full((1, 1, 4, 4), 0.5))[0]
    assert found == pytest.approx([0.5, 0.7, -0.4], abs=0.02)
    assert (plan.constants["0.weight"].scales > 0).all()


def test_layer_of_zeros_gives_its_bias():
    plan = quantize(linear_net([[0.0, 0.0]], [3.25]), columns([0.0, 1.0], [1.0, 0.0]))
    assert integer.predict(plan, columns([0.5, 0.5])[:1])[0] == pytest.approx([3.25], rel=1e-3)


def test_dead_relu_gives_zeros_and_a_usable_scale():
    plan = quantize(linear_net([[1.0, 1.0]], [-9.0], nn.ReLU()), columns([0.0, 1.0], [1.0, 0.0]), embedding=False)
    target = plan.activations[plan.outputs["logits"]]
    assert target.scale > 0
    assert integer.predict(plan, columns([0.3, 1.0])[:1]).tolist() == [[0.0]]


def test_bias_that_would_overflow_grows_the_weights_scale_and_is_reported():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    net[0].weight.data[:] = torch.tensor([1e-9, 1.0]).view(2, 1, 1, 1)
    net[0].bias.data[:] = torch.tensor([5.0, 0.0])
    net[3].weight.data, net[3].bias.data = torch.eye(2), torch.zeros(2)
    plan = quantize(net, torch.rand(64, 1, 4, 4))
    assert plan.notes == ("layer '0': 1 weight scales grown, so that the bias fits in int32",)
    assert np.abs(plan.constants["0.bias"].codes.astype(np.int64)).max() <= 2**30
    assert integer.predict(plan, torch.rand(1, 1, 4, 4))[0][0] == pytest.approx(5.0, abs=0.05)


def test_sums_of_the_widest_layers_stay_in_int32_or_are_refused():
    wide = linear_net([[1.0, -1.0] * 40_000], [0.0])
    with pytest.raises(UnsupportedOperatorError, match="layer '1': its sums may overflow int32; split it into two"):
        quantize(wide, torch.rand(64, 80_000, 1, 1))


def test_range_beyond_float32_names_the_tensor():
    with pytest.raises(ModelError, match=r"tensor 'linear': range .* is too wide; normalise before this layer"):
        quantize(linear_net([[1e25, 0.0]], [0.0]), columns([0.0, 1.0], [1.0, 0.0]))


def test_overflow_on_the_calibration_data_names_the_layer():
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(1, 1))
    for i in (0, 1):
        net[i].weight.data.fill_(1e38)
    with pytest.raises(ModelError, match=r"layer '1': its output is NaN or infinite on the calibration data"):
        quantize(net, torch.rand(64, 1, 1, 1) + 1)


# --- calibration samples ---


def test_few_samples_are_noted():
    plan = quantize(settled(separable), images(63, 1))
    assert plan.samples == 63
    assert plan.notes[0].startswith("only 63 calibration samples")
    assert quantize(settled(separable), images(64, 1)).notes == ()


BAD = {
    "none": (torch.zeros(0, 3, 32, 32), "calibration data: no samples; give at least 64 typical inputs"),
    "double": (torch.rand(64, 3, 32, 32, dtype=torch.float64), "float64 of shape [64, 3, 32, 32]; give float32"),
    "bytes": (torch.zeros(64, 3, 32, 32, dtype=torch.uint8), "uint8 of shape [64, 3, 32, 32]"),
    "one row": (torch.rand(3, 32), "float32 of shape [3, 32]"),
    "constant": (torch.full((64, 3, 32, 32), 0.5), "all values are equal"),
    "nan": (torch.rand(64, 3, 32, 32).index_fill(0, torch.tensor([7]), float("nan")), "sample 7: NaN or an infinity"),
}


@pytest.mark.parametrize("name", BAD)
def test_unusable_calibration_data_is_one_clear_line(name):
    samples, what = BAD[name]
    with pytest.raises(DataError) as caught:
        quantize(settled(separable), samples)
    assert what in str(caught.value)


def test_samples_of_another_shape_are_refused():
    with pytest.raises(ModelError, match=r"cannot be traced on an input of shape \[1, 1, 32, 32\]"):
        quantize(settled(separable), torch.rand(64, 1, 32, 32))


def test_plan_refuses_inputs_of_another_shape_and_nan():
    plan = quantize(settled(separable), images(64, 1))
    with pytest.raises(ModelError, match=r"input of shape \[2, 3, 16, 16\]; give float32 of shape \[N, 3, 32, 32\]"):
        integer.run(plan, torch.zeros(2, 3, 16, 16))
    with pytest.raises(DataError, match="input: NaN or an infinity"):
        integer.run(plan, torch.full((1, 3, 32, 32), float("nan")))


def test_no_inputs_give_no_outputs():
    plan = quantize(settled(separable), images(64, 1))
    assert integer.run(plan, torch.zeros(0, 3, 32, 32))["logits"].shape == (0, 10)
