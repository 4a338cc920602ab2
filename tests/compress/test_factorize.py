# SPDX-License-Identifier: Apache-2.0
"""Low rank: the algebra against closed forms, layers against the layer they replace, choices against every choice."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress.edits import Edit
from compress.factorize import edit
from compress.factorize.energy import Roots, moments, roots_of
from compress.factorize.ranks import HOWS, Option, allocate, option_at, options, places
from compress.factorize.svd import (
    balanced,
    channel_factors,
    full_rank,
    matrix_of,
    product,
    spatial_factors,
    tails,
    truncated,
)
from compress.factorize.tucker import hooi, hosvd_tails, tucker_factors
from compress.replay import replay
from edge_contract.errors import ModelError


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


WEIGHT = drawn(7, 5, 3, 3)


def factors_of(how, weight, ranks):
    if how == "tucker-2":
        return tucker_factors(weight, ranks)
    return (channel_factors if how == "svd" else spatial_factors)(weight, *ranks)


@pytest.mark.parametrize(("how", "ranks"), [("svd", (7,)), ("spatial-svd", (15,)), ("tucker-2", (5, 7))])
def test_full_rank_loses_nothing(how, ranks):
    factors = factors_of(how, WEIGHT, ranks)
    assert torch.allclose(product(how, factors), WEIGHT, atol=1e-9)
    if how != "tucker-2":
        assert ranks == (full_rank(WEIGHT, how),)


@pytest.mark.parametrize("how", ["svd", "spatial-svd"])
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_error_is_the_tail_of_the_singular_values(how, rank):
    """Eckart and Young: ‖W - W_r‖² = Σ σ² after r."""
    error = (product(how, factors_of(how, WEIGHT, (rank,))) - WEIGHT).square().sum()
    expected = torch.linalg.svdvals(matrix_of(WEIGHT, how))[rank:].square().sum()
    assert float(error) == pytest.approx(float(expected), rel=1e-9)
    assert float(tails(matrix_of(WEIGHT, how))[rank]) == pytest.approx(float(expected), rel=1e-9)


@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 99))
@settings(max_examples=25)
def test_hooi_loses_no_more_than_hosvd_and_hosvd_loses_what_the_table_says(rank_in, rank_out, seed):
    weight = drawn(7, 5, 3, 3, seed=seed)
    total = weight.square().sum()

    def lost(rounds):
        return float(
            (product("tucker-2", tucker_factors(weight, (rank_in, rank_out), rounds=rounds)) - weight).square().sum()
        )

    started, ended = lost(0), lost(30)
    assert started == pytest.approx(float(hosvd_tails(weight)[rank_in, rank_out]), abs=1e-8 * float(total))
    assert ended <= started + 1e-8 * float(total)


def test_hooi_finds_what_is_there():
    """A kernel that was made of 2 input and 3 output directions, under a little noise that HOSVD half believes."""
    core, u, v = drawn(3, 2, 3, 3), torch.linalg.qr(drawn(12, 3)).Q, torch.linalg.qr(drawn(10, 2, seed=1)).Q
    clean = torch.einsum("rsyx,or,is->oiyx", core, u, v)
    inputs, outputs = hooi(clean, (2, 3))
    assert torch.allclose(inputs @ inputs.T, v @ v.T, atol=1e-6)  # the same subspaces
    assert torch.allclose(outputs @ outputs.T, u @ u.T, atol=1e-6)
    assert float(hosvd_tails(clean)[2, 3]) < 1e-9 * float(clean.square().sum())


def test_hooi_improves_where_hosvd_is_not_best():
    weight = drawn(16, 16, 3, 3, seed=5)
    inputs, outputs = hooi(weight, (4, 4))
    kept = torch.einsum("oiyx,or,is->rsyx", weight, outputs, inputs).square().sum()
    started = weight.square().sum() - hosvd_tails(weight)[4, 4]
    assert kept > 1.005 * started


def test_balanced_factors_have_sides_of_equal_length_and_the_same_product():
    factors = (WEIGHT[:3, :4] * 100, drawn(6, 3, 1, 1) / 100)
    made = balanced(factors)
    assert torch.allclose(product("svd", made), product("svd", factors))
    assert torch.allclose(made[0].flatten(1).norm(dim=1), made[1].flatten(1).norm(dim=0))
    dead = balanced((torch.zeros(2, 3), torch.ones(4, 2)))
    assert torch.equal(product("svd", dead), torch.zeros(4, 3))


LAYERS = {
    "linear": (nn.Linear(9, 6), (9,)),
    "pointwise": (nn.Conv2d(6, 8, 1, stride=2), (6, 9, 7)),
    "strided": (nn.Conv2d(4, 6, 3, stride=2, padding=1), (4, 9, 8)),
    "oblong, dilated": (
        nn.Conv2d(4, 6, (5, 3), stride=(1, 2), padding=(4, 0), dilation=(2, 1), bias=False),
        (4, 12, 9),
    ),
    "same": (nn.Conv2d(4, 6, (3, 4), padding="same"), (4, 8, 7)),
    "reflected": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (4, 8, 7)),
    "series": (nn.Conv1d(4, 6, 5, stride=2, padding=2), (4, 20)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize(("name", "how"), list(itertools.product(LAYERS, HOWS)))
def test_layers_at_full_rank_answer_like_the_layer_they_replace(name, how):
    layer, shape = LAYERS[name]
    ranks = edit.most_ranks(layer, how)
    if not ranks:
        with pytest.raises(ModelError, match="no factorisation"):
            edit.thin(layer, how, (1,), where=name)
        return
    made = edit.thin(layer, how, ranks)
    edit.fill(made, factors_of(how, layer.weight.detach(), ranks), layer.bias)
    x = drawn(2, *shape).float()
    with torch.no_grad():
        assert torch.allclose(made(x), layer(x), atol=1e-5)
    assert {type(child) for child in made} == {type(layer)}
    bare = places(nn.Sequential(made), x[:1])
    assert set(bare) >= {"0.expand"} or set(bare) >= {"0.horizontal"}


@pytest.mark.parametrize(("name", "how"), list(itertools.product(LAYERS, HOWS)))
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
def test_cost_of_a_choice_is_what_is_then_measured(name, how):
    from compress.cost import measure

    layer, shape = LAYERS[name]
    if not edit.most_ranks(layer, how):
        return
    ranks = (3, 2) if how == "tucker-2" else (3,)
    x = torch.zeros(1, *shape)
    place = places(nn.Sequential(layer), x)["0"]
    option = option_at(place, Roots(), how, ranks)
    made = measure(nn.Sequential(edit.thin(layer, how, ranks)), x)
    assert (made.macs, made.parameters - (0 if layer.bias is None else 6 + 2 * (name == "pointwise"))) == (
        option.macs,
        option.parameters,
    )
    whole = measure(nn.Sequential(layer), x)
    assert place.whole.macs == whole.macs


def test_options_all_save_and_lose_less_for_more():
    layer = nn.Conv2d(16, 16, 3, padding=1)
    place = places(nn.Sequential(layer), torch.zeros(1, 16, 8, 8))["0"]
    found = options(place, Roots(), round_to=4)
    assert {option.how for option in found} <= set(HOWS)
    assert all(o.macs <= place.whole.macs and o.parameters <= place.whole.parameters for o in found)
    assert all(a.macs < b.macs and a.lost > b.lost for a, b in itertools.pairwise(found))
    assert all(rank % 4 == 0 for option in found for rank in option.ranks)
    tiny = places(nn.Sequential(nn.Conv2d(2, 2, 1)), torch.zeros(1, 2, 4, 4))["0"]
    assert options(tiny, Roots()) == [
        tiny.option("svd", (1,), pytest.approx(float(tails(tiny.module.weight.detach().flatten(1))[1])))
    ]


layer_choices = st.lists(
    st.tuples(st.integers(1, 30), st.floats(0.1, 10)), min_size=1, max_size=4, unique_by=lambda t: t[0]
)


@given(st.lists(layer_choices, min_size=1, max_size=4), st.floats(0.3, 1.0))
@settings(max_examples=60)
def test_allocation_keeps_its_budget_and_is_near_the_best_of_all(layers, share):
    choices = {}
    for i, rows in enumerate(layers):
        choices[str(i)] = [Option("svd", (c,), c, c, lost) for c, lost in rows] + [Option("whole", (), 31, 31, 0.0)]
    most = share * 31 * len(layers)
    every = [combo for combo in itertools.product(*choices.values()) if sum(o.macs for o in combo) <= most]
    found = allocate(choices, "macs", most)
    if not every:
        assert found is None
        return
    assert found is not None
    assert sum(o.macs for o in found.values()) <= most
    best = min(sum(o.lost for o in combo) for combo in every)
    # The relaxation's bound: no more than one layer's largest step above the best.
    step = max(o.lost for rows in choices.values() for o in rows)
    assert sum(o.lost for o in found.values()) <= best + step + 1e-9


def test_roots_turn_and_turn_back():
    moment_in, moment_out = drawn(20, 5), drawn(20, 7, seed=2)
    moment_in[:, 0] = 0  # a channel that is always silent
    roots = Roots(*roots_of(moment_in.T @ moment_in), *roots_of(moment_out.T @ moment_out))
    turned = roots.turn(WEIGHT)
    for how, ranks in (("svd", (7,)), ("spatial-svd", (15,)), ("tucker-2", (5, 7))):
        back = roots.back(factors_of(how, turned, ranks))
        assert torch.allclose(product(how, back), WEIGHT, atol=1e-6)


def test_input_energy_is_the_energy_of_the_outputs():
    """For a linear layer Σ‖W x‖² is exactly what the turned weight's squares say; least squares is then optimal."""
    x = drawn(400, 6).float() @ torch.diag(torch.tensor([5.0, 3.0, 1.0, 0.5, 0.1, 0.05]))
    net = nn.Sequential(nn.Linear(6, 6, bias=False))
    roots = moments(net, {"0": net[0]}, x, gradients=False)["0"]
    weight = net[0].weight.detach()
    outputs = float((x @ weight.T).double().square().sum() / len(x))
    assert float(roots.turn(weight).square().sum()) == pytest.approx(outputs, rel=0.02)  # the damping adds a little

    def error(factors):
        return float((x @ (product("svd", factors) - weight).T).square().sum())

    aware = roots.back(channel_factors(roots.turn(weight), 2))
    assert error(tuple(f.float() for f in aware)) < 0.5 * error(channel_factors(weight, 2))


def test_gradient_moment_of_logits_is_the_fisher_of_the_softmax():
    """At the logits E[g gᵀ] = E[diag(p) - p pᵀ] (Martens & Grosse, section 2); 20 000 drawn answers come near."""
    net = nn.Sequential(nn.Linear(4, 3))
    x = drawn(20_000, 4).float()
    root = moments(net, {"0": net[0]}, x, gradients=True)["0"].outputs
    p = net(x).detach().softmax(1).double()
    expected = torch.diag(p.mean(0)) - p.T @ p / len(p)
    assert torch.allclose(root @ root, expected, atol=0.01)


def test_moments_leave_the_model_as_it_was():
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    moments(net, {"0": net[0]}, drawn(32, 4).float(), gradients=True)
    assert net.training and net[0].weight.grad is None
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_records_replay_on_a_fresh_network_that_then_takes_the_weights():
    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 4)).eval()

    example = torch.zeros(1, 1, 8, 8)
    changes = (("0", "svd", (2,)), ("1", "tucker-2", (3, 4)), ("3", "svd", (2,)))
    first = edit.apply(build(), changes)
    for value in first.parameters():
        nn.init.normal_(value)
    record = Edit.from_state(Edit("factorize", changes).to_state())
    second = replay(build(), example, [record])
    second.load_state_dict(first.state_dict())
    x = drawn(3, 1, 8, 8).float()
    assert torch.equal(first(x), second(x))
    assert "1.core.weight" in second.state_dict()


def test_a_layer_in_two_places_stays_one():
    shared = nn.Linear(4, 4)
    net = edit.apply(nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)}), [("a", "svd", (2,))])
    assert net["a"] is net["b"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("heat", "svd", (2,)), "heat: there is no such layer; use 'head'"),
        (("head", "svd", (9,)), r"head: ranks \[9\] of a layer that has at most \[4\]"),
        (("head", "svd", (0,)), "give 1 or more"),
        (("head", "tucker-2", (2, 2)), "head: Linear has no factorisation 'tucker-2'"),
        (("deep", "svd", (1,)), "deep: Conv2d has no factorisation"),
    ],
)
def test_a_record_that_does_not_fit_says_so(change, message):
    net = nn.ModuleDict({"head": nn.Linear(6, 4), "deep": nn.Conv2d(4, 4, 3, groups=4)})
    with pytest.raises(ModelError, match=message):
        edit.apply(net, [change])


def test_truncation_needs_no_more_than_the_matrix_has():
    left, right = truncated(drawn(3, 8), 3)
    assert left.shape == (3, 3) and right.shape == (3, 8)
