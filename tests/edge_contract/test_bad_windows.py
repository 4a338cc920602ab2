# SPDX-License-Identifier: Apache-2.0
"""Windows that no healthy device sends: nothing raises, nothing alarms by itself, and what is wrong is said."""

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.runner.observe import Observer
from edge_contract.counts import Counters
from edge_contract.findings import DriftState, Level, Verdict
from edge_contract.summary import decode
from edge_contract.verdict import judge
from tests.support.digits import answers, digits, profile, summary_of, window

KINDS = ("empty", "single", "constant", "nan", "one class", "healthy", "tiny")


@cache
def counted(kind, size=150):
    """Return the counters of a window of a kind."""
    random, labels = np.random.default_rng(len(kind)), digits(0).test_labels
    rows = {
        "empty": [],
        "single": [4],
        "constant": [7] * size,
        "one class": random.permutation(np.flatnonzero(labels == 6))[:size],
        "healthy": random.permutation(1000)[:size],
        "tiny": random.permutation(1000)[:20],
    }
    return failing(size) if kind == "nan" else window(0, "test", rows[kind]).counters


def failing(size, share=1.0):
    """Return the counters of a window whose answers are NaN, this share of them."""
    observer = Observer(profile())
    for row in range(size):
        answer = answers(0, "test")[row]
        logits = np.full_like(answer.logits, np.nan) if row < share * size else answer.logits
        observer.observe(logits, answer.embedding, digits(0).test[row], 900.0)
    return observer.counters()


def judged(kinds):
    """Judge windows of these kinds one after the other, over the wire; return verdicts and the last memory."""
    state, verdicts = DriftState(), []
    for number, kind in enumerate(kinds, start=1):
        summary = decode(summary_of(profile(), counted(kind), number).encode())
        verdict, state = judge(profile(), summary, state)
        verdicts.append(verdict)
    return verdicts, state


@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_any_order_of_bad_windows_gives_verdicts_that_can_be_kept(kinds):
    verdicts, state = judged(kinds)
    assert all(math.isfinite(value) for value in state.cusum)
    assert DriftState.from_json(state.to_json()) == state
    for verdict in verdicts:
        assert Verdict.from_json(verdict.to_json()) == verdict
        assert 0 <= verdict.p_family <= 1
        assert verdict.n_eff >= 0
        if verdict.estimated_accuracy is not None:
            assert 0 <= verdict.low <= verdict.estimated_accuracy <= verdict.high <= 1


@pytest.mark.parametrize("kind", ["empty", "single", "nan", "tiny"])
def test_too_little_is_never_an_alarm(kind):
    verdicts, state = judged([kind] * 3)
    assert {v.level for v in verdicts} == {Level.INSUFFICIENT}
    assert not state.is_alarmed
    assert state.windows == 0
    assert "effective samples of the 64 needed" in verdicts[-1].reason


def test_empty_windows_between_do_not_hide_or_make_drift():
    plain, _ = judged(["healthy", "healthy"])
    mixed, _ = judged(["healthy", "empty", "nan", "healthy"])
    assert [v.level for v in mixed if v.n_eff >= 64] == [v.level for v in plain]
    assert mixed[-1].p_family == plain[-1].p_family


def test_single_samples_add_up_to_a_window():
    verdicts, state = judged(["single"] * 30)
    assert verdicts[-1].level is Level.INSUFFICIENT
    assert state.carried.n_sampled == 30


def test_a_constant_stream_warns_by_its_name_and_never_blames_the_model():
    verdicts, _ = judged(["constant"] * 4)
    assert {v.level for v in verdicts} == {Level.WARN}
    assert all("is the source frozen?" in v.reason for v in verdicts)
    assert not any(v.valid for v in verdicts)


def test_one_class_only_is_told_from_other_images():
    verdicts, _ = judged(["one class"] * 4)
    told = [v for v in verdicts if v.prior is not None]
    assert told
    assert all(v.prior.shares[6] > 0.8 for v in told)
    assert all(v.prior.kind == "label shift" for v in told)


def test_failed_answers_are_counted_and_do_not_touch_the_rest():
    some = failing(200, share=0.25)
    assert (some.n_infer, some.n_err, some.n_sampled) == (200, 50, 150)
    verdict, _ = judge(profile(), summary_of(profile(), some), DriftState())
    assert verdict.level is Level.OK
    assert failing(10).n_sampled == 0


@given(st.lists(st.sampled_from(KINDS), min_size=2, max_size=6), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_bad_windows_merge_exactly_in_any_order(kinds, turn):
    total, turned = Counters.zero(10), Counters.zero(10)
    for kind in kinds:
        total = total.merge(counted(kind))
    for kind in kinds[turn:] + kinds[:turn]:
        turned = counted(kind).merge(turned)
    assert total == turned
    total.check()
    assert total.minus(counted(kinds[0])).merge(counted(kinds[0])) == total
