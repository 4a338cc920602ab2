# SPDX-License-Identifier: Apache-2.0
"""Reconstruction: rounding against all 2ⁿ roundings and the nearest, biases, and whole networks."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from compress.quantize import integer
from compress.quantize.calibrate import calibrate
from compress.quantize.decide import decide
from compress.quantize.gates import open_gates
from compress.quantize.graph import FloatOp, as_maps, compute, evaluate
from compress.quantize.hessian import descend, objective, round_together
from compress.quantize.reconstruct import ROUNDINGS, reconstruct
from compress.quantize.rounding import Seen, moments, rounded, wanted_weight
from compress.quantize.rows import by_group, input_rows, output_rows
from compress.quantize.step import folded
from edge_contract.errors import UsageError
from tests.support.quant_nets import images, mobile, residual, separable, settled

RULES = {"samples": 64, "embedding": False, "tie_free": True, "fixed_point": True, "correct_bias": False}


def correlated(rows, width, seed=0):
    """Rows [rows, width] whose columns are mixtures of two sources, float64."""
    generator = torch.Generator().manual_seed(seed)
    sources = torch.randn(rows, 2, generator=generator, dtype=torch.float64)
    mixed = sources @ torch.randn(2, width, generator=generator, dtype=torch.float64)
    return mixed + 0.1 * torch.randn(rows, width, generator=generator, dtype=torch.float64)


def hessian_of(rows):
    return rows.T @ rows / len(rows)


def brute_force(wanted, hessian):
    """The smallest objective over all roundings up or down of weights [1, n]."""
    corners = itertools.product(*[(math.floor(w), math.floor(w) + 1) for w in wanted[0].tolist()])
    return min(float(objective(torch.tensor([c], dtype=torch.float64), wanted, hessian)) for c in corners)


def test_rounding_together_comes_near_the_best_of_all_roundings():
    excess = []
    for seed in range(12):
        hessian = hessian_of(correlated(200, 8, seed))
        wanted = 5 * torch.randn(1, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        best = brute_force(wanted, hessian)
        tried = round_together(wanted, hessian), wanted.round()
        excess.append([float(objective(codes, wanted, hessian)) / best for codes in tried])
    together, nearest = np.array(excess).T
    assert np.median(together) < 1.6
    assert np.median(nearest) > 8
    assert (together <= nearest + 1e-9).all()


def test_rounding_together_is_rounding_to_the_nearest_where_inputs_are_uncorrelated():
    wanted = 9 * torch.randn(4, 6, dtype=torch.float64)
    assert torch.equal(round_together(wanted, torch.eye(6, dtype=torch.float64)), wanted.round())


def test_rounding_together_never_errs_more_than_the_nearest_and_keeps_the_limit():
    generator = torch.Generator().manual_seed(1)
    wanted = 6 * torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
    rows = torch.randn(3, 20, 7, generator=generator, dtype=torch.float64)
    hessian = rows.transpose(1, 2) @ rows / 20
    codes = round_together(wanted, hessian, limit=7)
    assert codes.abs().max() <= 7
    nearest = wanted.round().clamp(-7, 7)
    assert (objective(codes, wanted, hessian) <= objective(nearest, wanted, hessian) + 1e-12).all()


def test_descent_ends_where_no_single_move_helps():
    wanted = torch.randn(2, 6, dtype=torch.float64) * 4
    hessian = hessian_of(correlated(100, 6))
    codes = descend(wanted.round(), wanted, hessian)
    best = objective(codes, wanted, hessian)
    for i, step in itertools.product(range(6), (-1.0, 1.0)):
        moved = codes.clone()
        moved[:, i] += step
        assert (objective(moved, wanted, hessian) >= best - 1e-9).all()


# --- one layer ---


@pytest.mark.parametrize("kind", ["dense", "depthwise", "strided", "linear"])
def test_rows_times_weights_are_the_layers_output(kind):
    torch.manual_seed(0)
    attributes = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": (1,)}
    shape = (6, 4, 3, 3)
    if kind == "depthwise":
        attributes, shape = attributes | {"groups": (4,)}, (8, 1, 3, 3)
    if kind == "strided":
        attributes = attributes | {"stride": (2, 1), "padding": (0, 1, 2, 0), "dilation": (1, 2)}
    if kind == "linear":
        attributes, shape = {}, (6, 4)
    op = FloatOp(
        "linear" if kind == "linear" else "conv2d",
        "l",
        ("x",),
        "y",
        (),
        torch.randn(shape),
        torch.zeros(shape[0]),
        attributes,
    )
    x = torch.randn(5, 4) if kind == "linear" else torch.randn(5, 4, 9, 9)
    products = input_rows(op, x) @ by_group(op, op.weight).transpose(1, 2)
    assert torch.allclose(products, output_rows(op, compute(op, x)), atol=1e-5)


def linear_seen(rows, weight, targets=None, **more):
    op = FloatOp("linear", "l", ("x",), "y", (len(weight),), weight, torch.zeros(len(weight)), **more)
    answers = rows @ weight.T if targets is None else targets
    scales = np.full(len(weight), float(weight.abs().max()) / 127, np.float32)
    return Seen(op, scales, lambda: zip(rows.split(50), answers.split(50), strict=True))


def test_moments_are_those_of_all_rows():
    rows = correlated(230, 5).float() + 3
    found = moments(linear_seen(rows, torch.randn(2, 5)))
    assert torch.allclose(found.hessian[0], torch.cov(rows.double().T, correction=0), atol=1e-4)
    assert torch.allclose(found.inputs[0], rows.double().mean(0), atol=1e-5)


def test_wanted_weights_undo_an_error_of_the_inputs():
    rows, weight = torch.randn(400, 4), torch.randn(3, 4)
    seen = linear_seen(rows * 1.25, weight, rows @ weight.T)  # the integer network gives a quarter too much
    wanted, _ = wanted_weight(weight.double()[None], moments(seen))
    assert torch.allclose(wanted[0], weight.double() / 1.25, atol=0.05)
    seen = linear_seen(rows * 0.0, weight, rows @ weight.T)  # nothing is seen: the weights stay
    assert torch.allclose(wanted_weight(weight.double()[None], moments(seen))[0][0], weight.double(), atol=1e-6)


def test_correlated_inputs_lose_less_than_with_the_nearest():
    rows = correlated(600, 24, 5).float()
    weight = torch.randn(4, 24, generator=torch.Generator().manual_seed(6))
    seen = linear_seen(rows, weight, weight_bits=4)
    seen = replace(seen, scales=np.full(4, float(weight.abs().max()) / 7, np.float32))
    codes = rounded(seen)
    step = float(seen.scales[0])
    nearest = (weight / step).round().clamp(-7, 7)
    errors = [float((rows @ (torch.as_tensor(c).float() * step - weight).T).var(0).mean()) for c in (codes, nearest)]
    assert np.abs(codes).max() <= 7
    assert errors[0] < errors[1] / 3


# --- whole networks ---


def prepared(build, seed=0, samples=64):
    net, x = settled(build, seed), images(samples, 1)
    with torch.no_grad():
        graph = open_gates(folded(net, x[:1]))
        observed = calibrate(graph, as_maps(x), observer="min-max")
        return net, x, graph, observed, decide(graph, observed, **RULES)


def error(net, plan, x):
    with torch.no_grad():
        return float((torch.from_numpy(integer.predict(plan, x)) - net(x)).square().mean())


@pytest.mark.parametrize("build", [separable, mobile])
def test_reconstruction_brings_the_network_nearer_to_the_float_one(build):
    net, x, graph, observed, plan = prepared(build)
    fresh = images(64, 2)
    errors = {"plan": error(net, plan, fresh)}
    for rounding in ("nearest", "together"):
        made = decide(reconstruct(graph, plan, as_maps(x), rounding=rounding), observed, **RULES)
        assert {n: a.scale for n, a in made.activations.items()} == {n: a.scale for n, a in plan.activations.items()}
        errors[rounding] = error(net, made, fresh)
    assert errors["nearest"] < errors["plan"], errors
    assert errors["together"] < errors["plan"], errors


def test_reconstruction_keeps_the_nearest_codes_if_asked_and_its_decided_plan_holds_what_it_chose():
    _, x, graph, observed, plan = prepared(separable)
    made = reconstruct(graph, plan, as_maps(x), rounding="nearest")
    again = decide(made, observed, **RULES)
    for op, planned in zip(made.operations, again.operations, strict=True):
        if op.codes is not None:
            assert np.array_equal(op.codes.numpy(), plan.constants[planned.weight].codes)
            assert np.array_equal(op.codes.numpy(), again.constants[planned.weight].codes)
            assert np.array_equal(again.constants[planned.weight].scales, plan.constants[planned.weight].scales)


def test_means_of_every_layer_are_the_float_networks_after_reconstruction():
    _, x, graph, observed, plan = prepared(residual)
    made = decide(reconstruct(graph, plan, as_maps(x), rounding="nearest"), observed, **RULES)
    gaps = []
    for one in (plan, made):
        codes = integer.evaluate(
            one, integer.semantics.quantize(x, one.activations[one.input].scale, one.activations[one.input].zero_point)
        )
        total = 0.0
        with torch.no_grad():
            for name, real in evaluate(graph, x):
                spec = one.activations[name]
                found = integer.semantics.dequantize(codes[name], spec.scale, spec.zero_point)
                total += float(((found - real).transpose(0, 1).flatten(1).mean(1).abs() / spec.scale).mean())
        gaps.append(total)
    assert gaps[1] < 0.5 * gaps[0]


def test_reconstruction_is_the_same_twice_and_leaves_wide_layers_alone():
    _, x, graph, _, plan = prepared(separable, samples=16)
    first, second = (reconstruct(graph, plan, as_maps(x)) for _ in range(2))
    for a, b in zip(first.operations, second.operations, strict=True):
        assert a.codes is None or torch.equal(a.codes, b.codes)
    wide = replace(graph, operations=(replace(graph.operations[0], wide=True), *graph.operations[1:]))
    observed = calibrate(wide, as_maps(x))
    made = reconstruct(wide, decide(wide, observed, **RULES), as_maps(x))
    assert made.operations[0].codes is None
    assert made.operations[1].codes is not None


def test_unknown_rounding_is_refused():
    _, x, graph, _, plan = prepared(separable, samples=16)
    with pytest.raises(UsageError, match=r"unknown rounding 'up'; use one of nearest, together"):
        reconstruct(graph, plan, as_maps(x), rounding="up")
    assert ROUNDINGS == ("nearest", "together")


def test_inputs_that_never_change_leave_the_weights_as_they_are():
    """What rounding leaves of a variance of 0 may be negative; it must not pass for data (64 constant inputs)."""
    op = FloatOp("linear", "head", ("x",), "y", (4,), weight=torch.randn(4, 64), bias=torch.zeros(4))
    x = torch.full((512, 64), 0.0123) * torch.linspace(1, 3, 64)
    seen = Seen(op, np.full(4, 0.04, np.float32), lambda: [(part, part @ op.weight.T) for part in x.split(16)])
    wanted, damped = wanted_weight(op.weight[None].double(), moments(seen))
    assert bool((torch.linalg.eigvalsh(damped) > 0).all())
    assert torch.allclose(wanted[0].float(), op.weight, atol=1e-3)
    assert np.abs(rounded(seen) * 0.04 - op.weight.numpy()).max() <= 0.0201
