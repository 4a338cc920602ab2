# SPDX-License-Identifier: Apache-2.0
"""The latency table: measured with a stopwatch of a known law, looked up between its points, and pruned by."""

import json

import pytest
import torch
from torch import nn

from compress.latency import SCHEMA, LatencyTable, Site, places
from compress.prune.graph import PruningGraph
from compress.prune.ledger import Ledger
from compress.prune.step import cut, totals
from compress.recipe_table import Table
from compress.sources import Tensors
from compress.steps.prune import Prune, read_prune, stages
from compress.stopwatch import build
from edge_contract.errors import BudgetError, MeasurementError, ModelError, RecipeError
from tests.zoo import models

LAYERS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
CALL_MS = 0.02


def law_ms(place):
    """A law for each layer that is bilinear in its widths: products, reads, writes, and a start."""
    inputs, outputs = place.widths
    area = 1
    for length in place.site.size:
        area *= length
    taps = 1
    for length in place.site.kernel:
        taps *= length
    products = outputs * taps * (1 if place.site.is_depthwise else inputs)
    return 1e-3 + 1e-7 * area * products + 1e-6 * inputs + 2e-6 * outputs


def stopwatch(model, example):
    return CALL_MS + sum(law_ms(place) for place in places(model, example))


def residual():
    torch.manual_seed(1)
    return models.resnet8().eval(), torch.zeros(1, 3, 32, 32)


def test_places_name_every_layer_with_what_decides_its_time():
    net = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1, groups=4), nn.ReLU(), nn.Flatten(2), nn.Linear(9, 5))
    first, second = places(net, torch.zeros(1, 4, 6, 6))
    assert (first.name, str(first.site), first.widths) == ("0", "Conv2d 3×3 depthwise stride 2×2 on 6×6", (4, 4))
    assert (second.name, second.site.size, second.widths) == ("3", (4,), (9, 5))


def test_table_finds_the_law_again_at_every_width():
    net, example = residual()
    table = build(net, example, stopwatch, round_to=4)
    assert table.rest_ms == pytest.approx(CALL_MS)
    for place in places(net, example):
        assert table.layer_ms(place.site, *place.widths) == pytest.approx(law_ms(place))
        inputs, outputs = place.widths
        narrower = type(place)(place.name, place.site, (inputs, outputs - 3), place.module)
        assert table.layer_ms(place.site, inputs, outputs - 3) == pytest.approx(law_ms(narrower))


def test_layers_of_one_shape_are_measured_once():
    asked = []

    def counting(model, example):
        asked.append(model)
        return stopwatch(model, example)

    net = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(5)))
    done = []
    build(net, torch.zeros(1, 8, 6, 6), counting, round_to=8, progress=lambda at, of: done.append((at, of)))
    assert len(asked) == 3 and done == [(1, 1)]  # the network, three copies, one copy


def test_a_layer_beside_others_costs_less_than_alone_and_the_sum_is_still_the_network():
    """Layers that overlap in the network: single ones add up to more than the whole."""

    def overlapping(model, example):
        found = [law_ms(place) for place in places(model, example)]
        return sum(found) if len(found) <= 3 else 0.5 * sum(found)

    net, example = residual()
    table = build(net, example, overlapping)
    total = sum(table.layer_ms(place.site, *place.widths) for place in places(net, example))
    assert table.rest_ms == 0 and total == pytest.approx(overlapping(net, example))


@pytest.mark.parametrize("scope", ["saving", "global", "layer"])
@pytest.mark.parametrize("share", [0.5, 0.75])
def test_pruned_network_meets_its_latency_on_the_same_stopwatch(scope, share):
    net, example = residual()
    before, table = stopwatch(net, example), build(net, example, stopwatch, round_to=4)
    data = Tensors(torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 10)
    step = Prune(method="magnitude", target={"latency": share}, table="t.json", scope=scope, round_to=4, stages=2)
    full = totals(step, net, example, table=table)
    assert full["latency"] == pytest.approx(before)
    for stage in stages(step):
        cut(stage, net, data, full=full, table=table)
    after = stopwatch(net, example)
    assert after <= share * before
    assert after > (share - 0.15) * before


def test_ledger_predicts_what_the_stopwatch_says_after_the_cut():
    net, example = residual()
    table = build(net, example, stopwatch, round_to=4)
    graph = PruningGraph(net, example)
    kept = {group.name: 4 * (index + 1) for index, group in enumerate(graph.groups)}
    ledger = Ledger(net, example, graph.groups, table)
    predicted = ledger.total("latency", kept)
    name = graph.groups[0].name
    assert ledger.saved("latency", {}, name, 4) == pytest.approx(
        ledger.total("latency", {}) - ledger.total("latency", {name: 4})
    )
    for group in graph.groups:
        if kept[group.name] < group.width:
            graph.remove(group.name, range(group.width - kept[group.name]))
    assert stopwatch(net, example) == pytest.approx(predicted, rel=1e-6)


def test_table_is_the_same_after_a_file(tmp_path):
    net, example = residual()
    table = build(net, example, stopwatch, about="a law")
    table.save(tmp_path / "t.json")
    again = LatencyTable.load(tmp_path / "t.json")
    assert again == table and again.about == "a law"


def test_missing_layer_is_named_with_what_it_is():
    net, example = residual()
    table = build(net, example, stopwatch)
    other = nn.Sequential(nn.Conv2d(3, 8, 5), nn.Flatten(), nn.Linear(8 * 28 * 28, 10))
    what = r"0: the latency table has no Conv2d 5×5 on 32×32; build the table on this network"
    with pytest.raises(MeasurementError, match=what):
        Ledger(other, example, (), table).total("latency", {})
    wider = nn.Sequential(nn.Conv2d(3, 99, 3, padding=1))
    with pytest.raises(MeasurementError, match=r"0: 3→99 channels of Conv2d 3×3 on 32×32, which was measured up to"):
        Ledger(wider, example, (), table).total("latency", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "t.json: cannot be read: Expecting property name"),
        ("{}", "schema: no latency table; give a file of schema strop.latency-table/1"),
        (json.dumps({"schema": SCHEMA, "layers": [{"kind": "Linear"}]}), "layers: a damaged latency table: 'widest'"),
        (json.dumps({"schema": SCHEMA, "layers": []}), "layers: a damaged latency table: 'rest_ms'"),
    ],
)  # fmt: skip
def test_damaged_table_is_refused(tmp_path, text, message):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(MeasurementError, match=message):
        LatencyTable.load(tmp_path / "t.json")


def test_bad_stopwatch_and_network_without_layers_are_refused():
    with pytest.raises(MeasurementError, match=r"the stopwatch returned 0\.0 ms"):
        build(nn.Linear(2, 2), torch.zeros(1, 2), lambda *_: 0.0)
    with pytest.raises(ModelError, match="no convolution and no linear layer"):
        build(nn.Sequential(nn.ReLU()), torch.zeros(1, 2), stopwatch)


def test_latency_target_without_a_table_says_how_to_get_one():
    net, example = residual()
    with pytest.raises(MeasurementError, match="a latency target without a latency table; build one"):
        Ledger(net, example, ()).total("latency", {})


def test_impossible_latency_says_what_came_closest():
    net, example = residual()
    table = build(net, example, stopwatch)
    data = Tensors(torch.rand(4, 3, 32, 32), torch.arange(4))
    step = Prune(method="magnitude", target={"latency": 0.02}, table="t.json")
    with pytest.raises(BudgetError, match=r"2% of the latency asked for, \d+% came closest"):
        cut(step, net, data, table=table)


def test_recipe_asks_for_latency_with_its_table():
    words = {"target": {"latency": 0.5, "macs": 0.6}, "table": "rpi4.json"}
    step = read_prune(Table(words, "r.toml [step 1]"))
    assert step.target == {"macs": 0.6, "latency": 0.5} and step.table == "rpi4.json"
    with pytest.raises(RecipeError, match=r"r\.toml \[step 1\]: key 'table': a latency target without a table"):
        read_prune(Table({"target": {"latency": 0.5}}, "r.toml [step 1]"))
    with pytest.raises(RecipeError, match="a table without a latency target"):
        read_prune(Table({"target": {"macs": 0.5}, "table": "t.json"}, "r.toml [step 1]"))
    with pytest.raises(RecipeError, match="key 'target': no cost"):
        read_prune(Table({"target": {}}, "r.toml [step 1]"))


def test_recipe_weighs_savings_only_against_scores_that_are_losses():
    words = {"target": {"macs": 0.5}}
    assert read_prune(Table(words, "r.toml")).scope == "saving"
    assert read_prune(Table({**words, "method": "taylor"}, "r.toml")).scope == "global"
    assert read_prune(Table({**words, "method": "taylor", "scope": "saving"}, "r.toml")).scope == "saving"


def test_sites_are_told_apart_by_words():
    assert str(Site("Linear", (), (), (), (), is_depthwise=False, size=())) == "Linear"
