# SPDX-License-Identifier: Apache-2.0
"""Mixed precision: the integer program against every combination, its refusals, and what it does to a graph."""

import itertools
import math

import numpy as np
import pytest
import torch

from compress.quantize import mixed
from compress.quantize.graph import FloatGraph, FloatOp
from compress.quantize.mixed import Limit, apply, choose
from edge_contract.errors import BudgetError, ModelError, UsageError

CHOICES = ("4", "8", "float")


def tables(seed, layers, *, whole=True):
    """Random losses that fall, and costs that grow, with the bits."""
    draw = np.random.default_rng(seed)
    losses, sizes, times = {}, {}, {}
    for i in range(layers):
        loss = np.sort(draw.exponential(1.0, 3))[::-1]
        size = draw.integers(4, 60) * np.array([1, 2, 8]) + (0 if whole else draw.random(3))
        losses[f"l{i}"] = dict(zip(CHOICES, loss.tolist(), strict=True))
        sizes[f"l{i}"] = dict(zip(CHOICES, size.tolist(), strict=True))
        times[f"l{i}"] = dict(zip(CHOICES, draw.random(3).tolist(), strict=True))
    return losses, sizes, times


def brute_force(losses, limits):
    """(loss, first cost) of the best combination, or None."""
    best = None
    for picks in itertools.product(CHOICES, repeat=len(losses)):
        spent = [sum(one.costs[layer][pick] for layer, pick in zip(losses, picks, strict=True)) for one in limits]
        if any(cost > one.most for cost, one in zip(spent, limits, strict=True)):
            continue
        found = (sum(losses[layer][pick] for layer, pick in zip(losses, picks, strict=True)), spent[0])
        best = found if best is None else min(best, found)
    return best


@pytest.mark.parametrize("seed", range(12))
def test_choice_is_the_best_of_all_combinations(seed):
    losses, sizes, times = tables(seed, 6, whole=seed % 2 == 0)
    least, most = (sum(pick(row.values()) for row in sizes.values()) for pick in (min, max))
    limits = [Limit("size_bytes", sizes, least + (most - least) * (0.1 + 0.07 * seed))]
    if seed % 3 == 0:
        limits.append(Limit("latency_ms", times, 0.5 * sum(max(row.values()) for row in times.values())))
    best = brute_force(losses, limits)
    made = choose(losses, limits)
    assert best is not None
    assert made.loss == pytest.approx(best[0], rel=1e-6)
    assert made.costs["size_bytes"] == pytest.approx(best[1], rel=1e-6)
    assert all(made.costs[one.name] <= one.most for one in limits)


def test_a_limit_that_is_met_to_the_byte_is_met():
    losses, sizes, _ = tables(3, 8)
    exact = choose(losses, [Limit("size_bytes", sizes, 900)]).costs["size_bytes"]
    assert choose(losses, [Limit("size_bytes", sizes, exact)]).costs["size_bytes"] == exact
    assert choose(losses, [Limit("size_bytes", sizes, exact - 1)]).costs["size_bytes"] < exact


def test_of_equal_losses_the_cheapest_is_taken():
    losses = {"a": {"4": 0.0, "8": 0.0, "float": 0.0}, "b": {"4": 1.0, "8": 0.25, "float": 0.25}}
    sizes = {name: {"4": 1.0, "8": 2.0, "float": 8.0} for name in losses}
    made = choose(losses, [Limit("size_bytes", sizes, 100.0)])
    assert dict(made.choices) == {"a": "4", "b": "8"}


def test_a_layer_has_only_the_choices_that_it_lists():
    losses = {"a": {"8": 0.5}, "b": {"4": 1.0, "8": 0.25}}
    sizes = {"a": {"4": 1.0, "8": 2.0}, "b": {"4": 1.0, "8": 2.0}}
    assert dict(choose(losses, [Limit("size_bytes", sizes, 3.0)]).choices) == {"a": "8", "b": "4"}


def test_an_impossible_budget_says_the_smallest_possible():
    losses, sizes, _ = tables(1, 4)
    smallest = sum(min(row.values()) for row in sizes.values())
    with pytest.raises(BudgetError, match=f"size_bytes 10 is below {smallest}, the smallest possible; allow at least"):
        choose(losses, [Limit("size_bytes", sizes, 10)])
    assert choose(losses, [Limit("size_bytes", sizes, smallest)]).costs["size_bytes"] == smallest


def test_two_limits_that_exclude_each_other():
    losses = {"a": {"4": 1.0, "8": 0.0}}
    limits = [Limit("size_bytes", {"a": {"4": 1, "8": 2}}, 1), Limit("latency_ms", {"a": {"4": 2, "8": 1}}, 1)]
    with pytest.raises(BudgetError, match="no mix of bits keeps size_bytes and latency_ms together; relax one of them"):
        choose(losses, limits)


@pytest.mark.parametrize("loss", [-0.1, math.nan, math.inf])
def test_a_loss_that_is_no_loss_is_refused(loss):
    with pytest.raises(UsageError, match="layer 'a': its losses"):
        choose({"a": {"8": loss}}, [Limit("size_bytes", {"a": {"8": 1}}, 1)])


def test_tables_must_fit():
    with pytest.raises(UsageError, match="layer 'a': size_bytes has no cost for '8'"):
        choose({"a": {"8": 1.0}}, [Limit("size_bytes", {"a": {"4": 1}}, 1)])
    with pytest.raises(UsageError, match="no limit"):
        choose({"a": {"8": 1.0}}, [])


def graph():
    """Two layers of one module path, and a linear one whose codes an earlier pass has rounded."""
    ones = {"weight": torch.ones(2, 2, 1, 1), "bias": torch.zeros(2)}
    first = FloatOp("conv2d", "stem", ("x",), "a", (2, 1, 1), **ones)
    second = FloatOp("conv2d", "stem", ("a",), "b", (2, 1, 1), **ones)
    flat = FloatOp("flatten", "forward", ("b",), "c", (2,))
    codes = torch.ones(2, 2, dtype=torch.int8)
    last = FloatOp("linear", "head", ("c",), "d", (2,), torch.ones(2, 2), torch.zeros(2), codes=codes)
    return FloatGraph("x", (2, 1, 1), "d", (first, second, flat, last))


def test_choices_become_bits_and_wide_layers():
    made = apply(graph(), {"stem#2": "4", "head": "float"})
    assert [(op.weight_bits, op.wide) for op in made.operations] == [(8, False), (4, False), (8, False), (8, True)]
    assert made.operations[3].codes is None  # they were of other bits
    again = apply(made, {"head": "8", "stem#2": "8", "stem": "8"})
    assert [(op.weight_bits, op.wide) for op in again.operations] == [(8, False)] * 4


def test_codes_of_a_layer_that_keeps_its_bits_stay():
    before = graph()
    assert apply(before, {"head": "8"}).operations[3].codes is before.operations[3].codes
    assert apply(before, {}).operations == before.operations


def test_names_and_choices_that_do_not_exist():
    with pytest.raises(ModelError, match="no convolution or linear layer 'heat'; write 'head'"):
        apply(graph(), {"heat": "4"})
    with pytest.raises(ModelError, match="no convolution or linear layer 'forward'"):
        apply(graph(), {"forward": "4"})
    with pytest.raises(UsageError, match="layer 'head': unknown choice '2'; use 4, 8, float"):
        apply(graph(), {"head": "2"})


def test_noise_adds_where_decibels_do_not():
    # Two independent errors of 20 dB each make one of 17 dB.
    assert -10 * math.log10(mixed.noise(20.0) + mixed.noise(20.0)) == pytest.approx(16.99, abs=0.01)
