# SPDX-License-Identifier: Apache-2.0
"""Shared values: the best clustering against every clustering, and values that stay shared while they are tuned."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress.cluster import kmeans
from compress.cluster.codes import few_codes, shared_codes
from compress.cluster.kmeans import centroids, linear, lloyd, optimal
from compress.cluster.step import cluster, described, share, values_of
from compress.memory import zipped_kb
from compress.quantize.step import Quantizer, quantize
from compress.recipe_table import Table
from compress.sources import Tensors
from compress.sparsify.masks import sparsity, weights_of
from compress.sparsify.step import sparsify
from compress.steps.cluster import Cluster, read_cluster
from compress.steps.quantize import Settings
from compress.steps.sparsify import Sparsify
from compress.trainer import Training
from edge_contract.errors import ModelError, RecipeError

TRAINING = Training(epochs=3, batch=16, learning_rate=0.01)


def error(values, found, counts=None):
    owner = np.searchsorted((found[1:] + found[:-1]) / 2, values)
    return float((np.ones(len(values)) if counts is None else counts) @ (values - found[owner]) ** 2)


def best_of_all(values, k, counts):
    """The least error over every way to cut the sorted values into k runs."""
    order = np.argsort(values)
    v, w = values[order], counts[order]
    least = np.inf
    for cuts in itertools.combinations(range(1, len(v)), k - 1):
        bounds = [0, *cuts, len(v)]
        runs = [(v[a:b], w[a:b]) for a, b in itertools.pairwise(bounds)]
        least = min(least, sum(float(c @ (r - (c @ r) / c.sum()) ** 2) for r, c in runs))
    return least


@given(st.lists(st.floats(-50, 50, width=16), min_size=2, max_size=9), st.integers(1, 5), st.integers(0, 9))
@settings(max_examples=80)
def test_optimal_is_the_best_of_all_clusterings(numbers, k, seed):
    values = np.array(numbers, np.float64)
    counts = np.random.default_rng(seed).integers(1, 5, len(values)).astype(float)
    found = optimal(values, k, counts)
    assert len(found) <= k and (np.diff(found) > 0).all()
    distinct = len(np.unique(values))
    if distinct <= k:
        assert error(values, found) == 0
    else:
        assert error(values, found, counts) == pytest.approx(best_of_all(values, k, counts), rel=1e-7, abs=1e-7)


def test_optimal_is_never_worse_than_scikit_learn():
    cluster_library = pytest.importorskip("sklearn.cluster")
    values = np.random.default_rng(0).standard_normal(300) ** 3
    theirs = cluster_library.KMeans(12, n_init=2, random_state=0).fit(values[:, None])
    ours = error(values, optimal(values, 12))
    assert ours <= theirs.inertia_ * (1 + 1e-9)
    assert ours <= error(values, lloyd(values, linear(values, 12)))


def test_numbers_far_from_zero_lose_no_digits():
    values = 1e6 + np.array([0.0, 0.001, 0.5, 0.501])
    assert optimal(values, 2) - 1e6 == pytest.approx([0.0005, 0.5005], abs=1e-9)


def test_lloyd_settles_and_keeps_centroids_without_values():
    assert lloyd(np.array([0.0, 0.2]), np.array([0.0, 50.0])).tolist() == [0.1, 50.0]
    assert linear(np.array([-1.0, 3.0, 0.0]), 3).tolist() == [-1.0, 1.0, 3.0]


def test_many_values_are_binned_and_end_near_the_best(monkeypatch):
    values = np.random.default_rng(1).standard_normal(4000)
    exact = error(values, optimal(values, 8))
    monkeypatch.setattr(kmeans, "EXACT", 1000)
    assert error(values, centroids(values, 8)) <= exact * 1.001


def net(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        body = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        return nn.Sequential(first, body, nn.Linear(96, 3)).eval()


def task(n=96):
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(n) % 3
    return Tensors(torch.rand(n, 1, 6, 6, generator=generator) * 0.5 + y.reshape(-1, 1, 1, 1), y)  # ever brighter


def test_gradient_of_a_shared_value_is_the_sum_over_its_members():
    weight = torch.tensor([[0.0, 1.0, 1.1], [-2.0, 0.0, 0.9]])
    sharing = share(weight, 2)
    assert weight.unique().tolist() == pytest.approx([-2.0, 0.0, 1.0])
    gradient = torch.tensor([[5.0, 1.0, 2.0], [7.0, 5.0, 3.0]])
    summed = sharing.gradient(gradient)
    assert summed.tolist() == [
        [0, pytest.approx(6 / 3**0.5), pytest.approx(6 / 3**0.5)],
        [7, 0, pytest.approx(6 / 3**0.5)],
    ]
    # The norm over the weights is the norm over the two values: √(6² + 7²).
    assert float(summed.norm()) == pytest.approx(85**0.5)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_values_stay_shared_and_move_while_they_are_tuned(ema):
    model, data = net(), task()
    raw = net()
    cluster(Cluster(clusters=8, least=200, training=replace(TRAINING, epochs=0)), raw, data, seed=0)
    logs = cluster(Cluster(clusters=8, least=200, training=replace(TRAINING, ema=ema)), model, data, seed=0)
    assert logs[-1].loss < logs[0].loss
    assert values_of(model) == {"0.0": 144, "1.0": 8, "2": 8}  # the first has fewer than 200 weights
    assert not torch.equal(model[2].weight.unique(), raw[2].weight.unique())
    groups = [model[2].weight[raw[2].weight == value].unique().numel() for value in raw[2].weight.unique()]
    assert groups == [1] * 8  # who shares with whom is decided once
    assert not model[2].weight._backward_hooks


def test_zeros_of_a_sparse_model_stay_zeros():
    model, data = net(), task()
    sparsify(Sparsify(sparsity=0.6, training=replace(TRAINING, epochs=0)), model, data, seed=0)
    before = {name: w.detach() == 0 for name, w in weights_of(model).items()}
    cluster(Cluster(clusters=4, least=1, training=TRAINING), model, data, seed=0)
    assert all(torch.equal(w.detach() == 0, before[name]) for name, w in weights_of(model).items())
    assert max(values_of(model).values()) == 5
    assert sparsity(weights_of(model)) == pytest.approx(0.6, abs=0.01)


def test_resumed_run_ends_in_the_same_bits(tmp_path):
    class Stop(Exception):
        pass

    def stop(log):
        if log.epoch == 2:
            raise Stop

    step, data, whole, resumed = Cluster(clusters=8, training=replace(TRAINING, ema=0.9)), task(), net(), net()
    cluster(step, whole, data, seed=3)
    with pytest.raises(Stop):
        cluster(step, net(), data, seed=3, checkpoint=tmp_path / "c.pt", progress=stop)
    cluster(step, resumed, data, seed=3, checkpoint=tmp_path / "c.pt")
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_packed_size_falls_and_the_plan_is_made():
    model, data = net(), task()
    before, plan_before = zipped_kb(model), zipped_kb(quantize(model, data.x))
    cluster(Cluster(clusters=4, least=200, training=replace(TRAINING, epochs=0)), model, data, seed=0)
    assert zipped_kb(model) < 0.35 * before
    assert zipped_kb(quantize(model, data.x)) < plan_before
    assert "no faster" in described(model) and described(model).startswith("4 to 144 values a layer")


@given(st.integers(2, 20), st.integers(0, 99))
@settings(max_examples=30)
def test_few_codes_are_few_and_as_near_as_integers_can_be(k, seed):
    generator = np.random.default_rng(seed)
    exact = np.clip(generator.standard_normal((8, 20)) * 40, -127, 127)
    codes = few_codes(exact, np.ones(exact.size), k, 127)
    used = np.unique(codes[codes != 0])
    assert codes.dtype == np.int8 and len(used) <= k
    assert ((codes == 0) >= (np.abs(exact) < 0.5)).all()
    live = exact[np.abs(exact) >= 0.5]
    best = error(live, optimal(live, k))
    # Rounding a centroid costs at most a quarter per weight, the grain a little more.
    assert float(((codes - exact) ** 2).sum()) <= best + 0.30 * exact.size


def test_codes_of_a_plan_are_shared_after_folding_and_pack_better():
    model, data = net(), task()
    quantizer = Quantizer(model, data.x)
    plain = quantizer.plan(Settings())
    graph = shared_codes(quantizer.graph, 6, least=200)
    plan = quantizer.decide(graph, Settings())
    counts = {name: len(np.unique(c.codes)) for name, c in plan.constants.items() if name.endswith("weight")}
    assert counts["1.0.weight"] <= 7 and counts["2.weight"] <= 7
    assert counts["0.0.weight"] > 20  # fewer than 200 weights
    assert zipped_kb(plan) < 0.7 * zipped_kb(plain)
    widened = replace(graph, operations=tuple(replace(op, wide=True, codes=None) for op in graph.operations))
    assert all(op.codes is None for op in shared_codes(widened, 6).operations)


def test_kept_and_missing_layers():
    data = task()
    model = net()
    cluster(Cluster(clusters=4, keep=("2",), training=replace(TRAINING, epochs=0)), model, data, seed=0)
    assert values_of(model) == {"0.0": 144, "1.0": 4, "2": 288}
    with pytest.raises(RecipeError, match="step cluster: key 'keep': no layer 'head'"):
        cluster(Cluster(keep=("head",)), net(), data, seed=0)
    with pytest.raises(ModelError, match="no linear layer or convolution has 10000 weights"):
        cluster(Cluster(least=10_000), net(), data, seed=0)


def test_weights_that_are_no_numbers_are_refused():
    model = net()
    model[2].weight.data[0, 0] = float("inf")
    with pytest.raises(ModelError, match=r"2\.weight: weights hold NaN"):
        cluster(Cluster(), model, task(), seed=0)


def table(**values):
    return Table(values, "r.toml [step 1]")


def test_step_is_read():
    step = read_cluster(table(clusters=32, least=100, keep=["head"], epochs=1))
    assert (step.clusters, step.least, step.keep, step.training.epochs) == (32, 100, ("head",), 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clusters": 1}, "'clusters': 1 is too small"),
        ({"clusters": 300}, "'clusters': 300 is more than int8 tells apart; give 2 to 256"),
        ({"method": "kmeans"}, "'method': unknown value 'kmeans'; write 'k-means'"),
    ],
)
def test_slips_are_answered(values, message):
    with pytest.raises(RecipeError, match=message):
        read_cluster(table(**values))
