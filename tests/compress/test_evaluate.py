# SPDX-License-Identifier: Apache-2.0
"""Scores and intervals, against scipy and by simulation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import nn

from compress import evaluate
from compress.compare import unpaired_difference
from edge_contract.errors import DataError, ModelError


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_is_scipys(case):
    correct, samples = case
    expected = binomtest(correct, samples).proportion_ci(0.95, method="wilson")
    # Both evaluate the same closed form in double precision; only the order of operations differs.
    assert evaluate.wilson(correct, samples) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_interval_of_nothing_is_refused():
    with pytest.raises(DataError, match="no samples to measure on"):
        evaluate.wilson(0, 0)


def test_paired_interval_covers_the_truth_as_often_as_it_says(generator):
    lost, won, n, runs = 0.04, 0.02, 300, 2000
    kinds = generator.choice(3, size=(runs, n), p=[lost, won, 1 - lost - won])
    inside = 0
    for row in kinds:
        found = evaluate.paired_difference(row != 1, row != 0)
        inside += found.low <= 100 * (won - lost) <= found.high
    # 95 % nominal; four standard errors of 2 000 runs are 1.9 points, and the adjustment errs on the safe side.
    assert 0.93 <= inside / runs <= 0.985


def test_paired_interval_is_narrower_than_the_unpaired_one(generator):
    first = generator.random(1000) < 0.95
    second = np.where(generator.random(1000) < 0.01, ~first, first)
    paired = evaluate.paired_difference(first, second)
    scores = [evaluate.score(int(right.sum()), 1000) for right in (first, second)]
    unpaired = unpaired_difference(*scores)
    assert paired.points == pytest.approx(unpaired.points)
    assert paired.high - paired.low < (unpaired.high - unpaired.low) / 1.5


def test_equal_models_differ_by_nothing():
    right = np.ones(50, bool)
    found = evaluate.paired_difference(right, right)
    assert found.points == 0
    assert found.low < 0 < found.high


def test_answers_to_different_questions_are_refused():
    with pytest.raises(DataError, match=r"answers \[3\] and \[4\] cannot be paired"):
        evaluate.paired_difference(np.ones(3, bool), np.ones(4, bool))


def test_hits_do_not_depend_on_the_batch_and_leave_dropout_off():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 3)).train()
    x, y = torch.randn(501, 1, 2, 2, generator=torch.Generator().manual_seed(1)), torch.arange(501) % 3
    whole = evaluate.predict(net, x, batch=501)
    parts = evaluate.predict(net, x, batch=7)
    # Matrix products of other shapes may add up in another order.
    assert torch.allclose(whole, parts, atol=1e-6)
    assert (evaluate.hits(net, x, y) == (whole.argmax(1) == y).numpy()).all()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: x, r"the model returned \[2, 1, 2, 2\]; return the logits alone"),
        (lambda x: (x, x), "the model returned tuple"),
        (lambda x: torch.full((len(x), 3), float("nan")), "the logits hold NaN or Inf"),
        (lambda x: torch.zeros(len(x), 2), "2 outputs for class 2"),
    ],
)
def test_model_that_gives_no_logits_is_refused(model, message):
    with pytest.raises(ModelError, match=message):
        evaluate.hits(model, torch.zeros(2, 1, 2, 2), torch.tensor([0, 2]))
