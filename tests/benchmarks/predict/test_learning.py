# SPDX-License-Identifier: Apache-2.0
"""Learning on a board whose law is known: rates come back, errors are honest, and strangers are refused."""

import json
import math
from dataclasses import replace

import pytest

from benchmarks.predict.ideas import IDEAS, Design, Fit
from benchmarks.predict.learning import FEWEST, learn, learned, left_out
from benchmarks.predict.predictor import Measured, Predictor
from edge_contract.errors import MeasurementError
from edge_contract.operator_work import OperatorWork
from tests.benchmarks.predict.boards import measured, operator, true_ms


def test_law_of_the_board_comes_back():
    models = measured(16)
    found = Design("sum", [one.operators for one in models]).fit(range(len(models)), [one.ms for one in models])
    errors = sorted(abs(found.ms(one.operators) / one.ms - 1) for one in models)
    assert errors[-1] < 0.02
    assert found.rates["int8 conv"][0] == pytest.approx(0.05, rel=0.15)
    assert found.rates["int8 dense"][4] + 0.0 >= 0


@pytest.mark.parametrize("idea", IDEAS)
def test_one_and_all_say_the_same(idea):
    models = measured(6, sd=0.05)
    design = Design(idea, [one.operators for one in models])
    found = design.fit(range(len(models)), [one.ms for one in models])
    assert design.ms(found) == pytest.approx([found.ms(one.operators) for one in models])
    again = Fit.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found


def test_roofline_finds_the_larger_side():
    """A board on which computing and moving overlap: the larger of both counts."""

    def law(op):
        return 0.005 + max(1.0 * op.products / 1e6, 2.5 * (op.inputs + op.outputs) / 1e5)

    sizes = [(i, o, s) for i in (16, 32, 64, 128) for o in (16, 64, 256) for s in (4, 8, 16)]
    layers = [operator("pointwise", inputs=i, outputs=o, size=s) for i, o, s in sizes]
    models = [(layer, other) for layer in layers for other in layers[::5]]
    ms = [sum(map(law, one)) for one in models]
    errors = {}
    for idea in ("sum", "roofline"):
        found = Design(idea, models).fit(range(len(models)), ms)
        errors[idea] = max(abs(found.ms(one) / t - 1) for one, t in zip(models, ms, strict=True))
    assert errors["roofline"] < 0.001 < 0.1 < errors["sum"]


def test_error_and_coverage_are_those_of_families_left_out():
    models = measured(14, family_sd=0.08, sd=0.03)
    found = learn(models, ideas=("sum",))
    assert found.judged.median < 0.15 and found.judged.coverage is not None
    assert found.judged.coverage >= 0.85 and 1.0 < found.judged.width < 3.0
    assert found.measurements == 70 and len(found.families) == 14
    # A family that errs by a factor of three shows in the error of left-out families, for no other family teaches it.
    strange = [replace(one, ms=3 * one.ms) if one.family == "f3" else one for one in models]
    pairs = [(one, said) for one, said in left_out(strange, ideas=("sum",)) if one.family == "f3" and said]
    assert pairs and all(said.ms < 0.6 * one.ms for one, said in pairs)


def test_coverage_holds_for_new_families():
    """The whole way, simulated: learn on 12 families, ask about models of 30 others on the same board."""
    inside = asked = 0
    for seed in range(3):
        found = learned(measured(12, family_sd=0.1, sd=0.03, seed=seed), ("sum",))
        for one in measured(30, widths=(1.0,), family_sd=0.1, sd=0.03, seed=100 + seed, first=50):
            try:
                said = found.ask(one.operators)
            except MeasurementError:
                continue
            asked += 1
            inside += said.low <= one.ms <= said.high
    assert asked >= 60 and inside / asked >= 0.85


def test_known_family_has_the_narrower_interval():
    models = measured(12, family_sd=0.1, sd=0.02)
    found = learned(models, ("sum",))
    one = models[7]
    wide, narrow = found.ask(one.operators), found.ask(one.operators, family=one.family)
    assert wide.ms == narrow.ms and narrow.high / narrow.low < wide.high / wide.low
    assert "[" in str(wide) and "90%" in str(wide)


def test_few_families_have_no_interval_and_say_so():
    found = learned(measured(4), ("sum",))
    said = found.ask(measured(1)[0].operators)
    assert math.isinf(said.high) and said.low == 0.0
    assert "without an interval: too few families" in str(said)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ops: (*ops, OperatorWork("lstm", "int8")), "no model with 'int8 lstm' was measured"),
        (lambda ops: tuple(replace(op, type="float32") for op in ops), "no model with 'float32"),
        (lambda ops: tuple(replace(op, products=500 * op.products) for op in ops), "products of 'int8"),
        (lambda ops: tuple(replace(op, outputs=op.outputs + 10**8) for op in ops), "bytes of 'int8"),
        (lambda ops: (), "a model without operators"),
    ],
)
def test_strangers_are_refused_with_what_is_strange(change, words):
    models = measured(6)
    found = learned(models, ("sum",))
    with pytest.raises(MeasurementError, match=words) as caught:
        found.ask(change(models[0].operators))
    assert "learn again" in str(caught.value) and "\n" not in str(caught.value)


def test_times_beyond_all_measured_ones_are_refused():
    models = [replace(one, ms=1.0 + 0.01 * i) for i, one in enumerate(measured(6))]
    found = learned(models, ("sum",))
    narrow = replace(found, limits=replace(found.limits, ms=(100.0, 200.0)))
    with pytest.raises(MeasurementError, match="were measured"):
        narrow.ask(models[0].operators)


@pytest.mark.parametrize(
    ("models", "words"),
    [
        (measured(2)[: FEWEST - 2], "10 measurements of 2 families"),
        ([replace(one, family="a") for one in measured(4)], "of 1 families"),
        ([*measured(4), Measured("bad", "f0", measured(1)[0].operators, 0.0)], "bad: 0.0 ms"),
        ([*measured(4), Measured("bad", "f0", measured(1)[0].operators, math.nan)], "bad: nan ms"),
        ([*measured(4), Measured("bad", "f0", (), 1.0)], "0 operators"),
    ],
)
def test_measurements_that_teach_nothing_are_refused(models, words):
    with pytest.raises(MeasurementError, match=words):
        learn(models, ideas=("sum",))


def test_file_gives_the_same_answers_and_a_damaged_one_is_named():
    found = learn(measured(5, sd=0.02), ideas=("tiles",))
    document = json.loads(json.dumps(found.to_json()))
    again, one = Predictor.from_json(document), measured(1)[2].operators
    assert again == found and again.ask(one) == found.ask(one)
    assert document["measurements"] == 25 and document["cross_validated"]["median"] == found.judged.median
    for broken in ({**document, "fit": {}}, {**document, "errors": [["f0"]]}, [], {**document, "limits": None}):
        with pytest.raises(MeasurementError, match=r"a damaged predictor.*learn it again"):
            Predictor.from_json(broken)


def test_truth_of_these_tests():
    layer = operator("dense", inputs=100, outputs=10, size=8)
    assert layer.products == 1000 and true_ms([layer]) == pytest.approx(0.01 + 0.0001 + 0.08 * 110 / 1e5 + 0.002)
