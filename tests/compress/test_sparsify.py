# SPDX-License-Identifier: Apache-2.0
"""Zeros: which weights, when, and that they stay through optimizer, averaging and resumption."""

import copy
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress.memory import zipped_kb
from compress.quantize.step import quantize
from compress.recipe_table import Table
from compress.sources import Tensors
from compress.sparsify.masks import held_zeros, lamp_scores, n_of_m, smallest, sparsity, weights_of
from compress.sparsify.schedule import Ramp, cubic
from compress.sparsify.step import chosen_masks, described, sparsify
from compress.steps.sparsify import Sparsify, read_sparsify
from compress.trainer import Training, train
from edge_contract.errors import ModelError, RecipeError

TRAINING = Training(epochs=4, batch=16, learning_rate=0.02)


def net(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        deep = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 16, 1), nn.ReLU())
        return nn.Sequential(first, deep, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)).eval()


def task(n=96):
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(n) % 3
    return Tensors(torch.rand(n, 1, 6, 6, generator=generator) * 0.5 + y.reshape(-1, 1, 1, 1), y)  # ever brighter


def zeros(model):
    return {name: w.detach() == 0 for name, w in weights_of(model).items()}


@given(st.integers(1, 60), st.integers(0, 40), st.floats(0, 1))
def test_cubic_rises_fast_then_slowly_and_ends_exactly(steps, step, initial):
    final = initial + (1 - initial) * 0.7
    values = [cubic(min(1, t / steps), initial, final) for t in (step, step + 1)]
    assert initial - 1e-12 <= values[0] <= values[1] + 1e-12 <= final + 2e-12
    assert cubic(1.0, initial, final) == final


def test_ramp_is_that_of_the_paper_and_silent_afterwards():
    """Zhu & Gupta, figure 2: n = 10 updates from 0 to 87.5 %, every 100 steps."""
    ramp = Ramp(0.0, 0.875, share=0.5, every=100)
    due = {step: ramp.at(step, 2000) for step in range(1, 2001) if ramp.at(step, 2000) is not None}
    assert list(due) == list(range(100, 1001, 100))
    assert [round(due[t], 4) for t in (100, 500, 1000)] == [0.2371, 0.7656, 0.875]
    assert Ramp(0.0, 0.5, share=0.0).at(1, 100) == 0.5  # no ramp: all at once
    assert Ramp(0.0, 0.5, share=1.0, every=7).at(100, 100) == 0.5  # the last step, though no multiple of 7


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.floats(0, 0.9), st.integers(0, 99))
def test_smallest_takes_exactly_its_share_and_nothing_larger_goes_first(sizes, share, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = {str(i): torch.rand(n, generator=generator) for i, n in enumerate(sizes)}
    masks = smallest(scores, share)
    assert sum(int((~m).sum()) for m in masks.values()) == round(share * sum(sizes))
    gone = [float(scores[n][~m].max()) for n, m in masks.items() if (~m).any()]
    inner = [float(scores[n][m].sort().values[: -max(1, len(m) // 50)].min()) for n, m in masks.items() if m.sum() > 1]
    if gone and inner and share < 0.8:
        assert max(gone) <= max(*inner, max(gone))
    assert all(bool(m.any()) for m in masks.values()) or share * sum(sizes) > sum(sizes) - len(sizes)


def test_no_layer_falls_silent():
    masks = smallest({"large": torch.rand(1000) + 10, "small": torch.rand(1000)}, 0.6)
    assert int(masks["small"].sum()) >= 10


def test_lamp_is_its_formula_and_shares_out_by_layer_not_by_scale():
    weight = torch.randn(30, generator=torch.Generator().manual_seed(0))
    squares = weight.double().square()
    expected = [float(s / squares[squares >= s].sum()) for s in squares]
    assert lamp_scores(weight).tolist() == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(lamp_scores(weight * 100), lamp_scores(weight))
    assert lamp_scores(torch.zeros(3)).tolist() == [0, 0, 0]


@given(st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 8)]), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=30)
def test_every_block_keeps_its_n_largest(pattern, outputs, seed):
    kept, block = pattern
    weight = torch.randn(outputs, 16, 3, 3, generator=torch.Generator().manual_seed(seed))
    mask, lost = n_of_m(weight, kept, block)
    rows = weight.permute(0, 2, 3, 1).reshape(-1, block).numpy()
    stays = mask.permute(0, 2, 3, 1).reshape(-1, block).numpy()
    assert (stays.sum(1) == kept).all()
    order = np.sort(np.abs(rows), 1)[:, ::-1]
    assert np.allclose(np.abs(rows * stays).sum(1), order[:, :kept].sum(1), rtol=1e-5)
    assert np.allclose(lost.permute(0, 2, 3, 1).reshape(-1, block)[:, 0], (order[:, kept:] ** 2).sum(1), rtol=1e-4)


@pytest.mark.parametrize("ema", [0.0, 0.98])
@pytest.mark.parametrize("method", ["magnitude", "lamp"])
def test_zeros_grow_while_it_learns_and_are_exact_at_the_end(method, ema):
    model, data = net(), task()
    seen = []
    step = Sparsify(method, 0.7, every=2, training=replace(TRAINING, ema=ema))
    logs = sparsify(step, model, data, seed=0, progress=lambda log: seen.append(sparsity(weights_of(model))))
    assert sparsity(weights_of(model)) == pytest.approx(0.7, abs=0.005)
    assert seen[0] > 0.5 and seen == sorted(seen)  # cubic: most of them soon
    assert logs[-1].loss < logs[0].loss
    assert bool((model[1][0].weight != 0).all())  # depthwise stays dense


def test_pattern_holds_where_inputs_allow_and_layers_without_blocks_stay_dense():
    model, data = net(), task()
    step = Sparsify("n:m", pattern=(2, 4), every=2, training=replace(TRAINING, ema=0.9))
    sparsify(step, model, data, seed=0)
    for name, weight in weights_of(model).items():
        share = float((weight == 0).float().mean())
        assert share == (0.0 if name == "0.0.weight" else 0.5)
    assert (model[4].weight.reshape(-1, 4) != 0).sum(1).tolist() == [2] * 12


def test_pattern_grows_block_by_block():
    weights = {"a": torch.randn(8, 16, generator=torch.Generator().manual_seed(0))}
    step = Sparsify("n:m", pattern=(1, 4))
    shares = [float((~chosen_masks(step, weights, share)["a"]).float().mean()) for share in (0.0, 0.25, 0.5, 1.0)]
    assert shares == [0.0, 0.1875, 0.375, 0.75]


def test_layer_scope_takes_the_same_share_everywhere():
    weights = {"a": torch.randn(50), "b": torch.randn(50) * 100}
    masks = chosen_masks(Sparsify(scope="layer"), weights, 0.4)
    assert [int((~m).sum()) for m in masks.values()] == [20, 20]
    loud = chosen_masks(Sparsify(), weights, 0.4)
    assert int((~loud["a"]).sum()) > 30


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_resumed_run_ends_in_the_same_bits(tmp_path, ema, epoch):
    class Stop(Exception):
        pass

    def stop(log):
        if log.epoch == epoch:
            raise Stop

    step, data = Sparsify(sparsity=0.6, every=2, training=replace(TRAINING, ema=ema)), task()
    whole = net()
    sparsify(step, whole, data, seed=3)
    with pytest.raises(Stop):
        sparsify(step, net(), data, seed=3, checkpoint=tmp_path / "c.pt", progress=stop)
    resumed = net()
    sparsify(step, resumed, data, seed=3, checkpoint=tmp_path / "c.pt")
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_without_epochs_zeros_come_at_once_and_statistics_are_mended():
    model, data = net(), task()
    before = model[0][1].running_mean.clone()
    assert sparsify(Sparsify(sparsity=0.5, training=replace(TRAINING, epochs=0)), model, data, seed=0) == ()
    assert sparsity(weights_of(model)) == pytest.approx(0.5, abs=0.005)
    assert not torch.equal(before, model[0][1].running_mean)


def test_later_training_keeps_the_zeros_and_a_second_step_adds_to_them():
    model, data = net(), task()
    sparsify(Sparsify(sparsity=0.5, training=replace(TRAINING, epochs=0)), model, data, seed=0)
    before = zeros(model)
    weights = {name: w.detach().clone() for name, w in weights_of(model).items()}
    train(model, data.x, data.y, replace(TRAINING, ema=0.9), after_step=held_zeros(model))
    assert all(torch.equal(before[name], found) for name, found in zeros(model).items())
    assert any(not torch.equal(weights[name], w) for name, w in weights_of(model).items())
    sparsify(Sparsify("n:m", pattern=(2, 4), keep=("0.0",), every=2, training=TRAINING), model, data, seed=0)
    after = zeros(model)
    assert all(bool((after[name] | ~before[name]).all()) for name in before)
    assert sparsity(weights_of(model)) > 0.55


def test_less_than_there_is_adds_nothing():
    model, data = net(), task()
    sparsify(Sparsify(sparsity=0.6, training=replace(TRAINING, epochs=0)), model, data, seed=0)
    before = zeros(model)
    sparsify(Sparsify(sparsity=0.2, every=2, training=TRAINING), model, data, seed=0)
    assert all(torch.equal(before[name], found) for name, found in zeros(model).items())


def test_zipped_size_is_that_of_zlib_and_the_plan_keeps_the_zeros():
    model, data = net(), task()
    model[4] = nn.Linear(16, 3)
    dense = zipped_kb(model)
    sparse = copy.deepcopy(model)
    sparsify(Sparsify(sparsity=0.8, training=replace(TRAINING, epochs=0)), sparse, data, seed=0)
    assert zipped_kb(sparse) < 0.75 * dense
    assert zipped_kb(nn.Linear(4, 2, bias=False)) == pytest.approx(0.04, abs=0.01)  # 32 bytes of noise and a header
    plans = [quantize(m, data.x, tie_free=False) for m in (model, sparse)]
    assert zipped_kb(plans[1]) < zipped_kb(plans[0])
    pointwise = next(c for name, c in plans[1].constants.items() if name.startswith("1.1") and name.endswith("weight"))
    assert (pointwise.codes == 0).sum() >= int((sparse[1][1].weight == 0).sum())
    codes = b"".join(constant.codes.tobytes() for constant in plans[1].constants.values())
    assert zipped_kb(plans[1]) == pytest.approx(len(zlib.compress(codes, 9)) / 1000)
    assert "no faster" in described(sparse)


def table(**values):
    return Table(values, "r.toml [step 1]")


def test_step_is_read():
    step = read_sparsify(table(sparsity=0.8, scope="layer", ramp=0.5, every=10, epochs=3, keep=["head"]))
    assert (step.method, step.sparsity, step.scope, step.ramp, step.every) == ("magnitude", 0.8, "layer", 0.5, 10)
    assert (step.training.epochs, step.keep) == (3, ("head",))
    assert read_sparsify(table(method="n:m")).pattern == (2, 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "movement"}, "'method': unknown value 'movement'"),
        ({"sparsity": 1.0}, "'sparsity': 1.0 is out of range"),
        ({"method": "n:m", "pattern": "4:2"}, "'4:2' is no N:M with 0 < N < M"),
        ({"method": "n:m", "pattern": "2-4"}, "'pattern': '2-4' is no N:M"),
        ({"method": "n:m", "sparsity": 0.5}, "'sparsity': method 'n:m' has none"),
        ({"pattern": "2:4"}, r"'pattern': method 'magnitude' has none; remove it, or use method = \"n:m\""),
        ({"method": "lamp", "scope": "layer"}, "'scope': method 'lamp' has none"),
    ],
)
def test_slips_are_answered(values, message):
    with pytest.raises(RecipeError, match=message):
        read_sparsify(table(**values))


def test_wrong_layers_are_one_line():
    data = task()
    with pytest.raises(RecipeError, match=r"step sparsify: key 'keep': no layer '1\.2\.x'"):
        sparsify(Sparsify(keep=("1.2.x",)), net(), data, seed=0)
    with pytest.raises(ModelError, match="no linear layer or convolution can become sparse"):
        sparsify(Sparsify("n:m", pattern=(2, 64)), net(), data, seed=0)
