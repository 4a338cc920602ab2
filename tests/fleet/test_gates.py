# SPDX-License-Identifier: Apache-2.0
"""The gate's statistics: against closed forms, numpy, scipy and simulated fleets; and its words."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fleet.gates import SCENARIOS, run
from edge_contract.errors import RolloutError
from fleet.core.evidence import DeviceEvidence, Moments, Row, Span
from fleet.core.gate_limits import GateLimits
from fleet.core.gates import judge_wave
from fleet.core.sequential import looks_threshold, rare_events_e_value, student_threshold

LIMITS = GateLimits()


def span(rows=30, p95=1000.0, errors=0, n=100, spread=0.02, seed=0, crashed=False):
    """A span of rows whose latency scatters about ``p95`` µs."""
    rng, found = np.random.default_rng(seed), Span(crashed=crashed)
    for _ in range(rows):
        us = p95 * math.exp(spread * rng.standard_normal())
        found = found.plus(Row(60.0, n, errors, us / 2, us))
    return found


def fleet(treated=5, controls=20, slower=0.0, errors=0, rows=30, crashed=()):
    made = []
    for i in range(treated + controls):
        is_treated, base = i < treated, 1000.0 * (1 + 0.1 * (i % 7))
        after = span(
            rows,
            base * (1 + slower * is_treated),
            errors * is_treated,
            seed=2 * i + 1,
            crashed=i in crashed,
        )
        made.append(DeviceEvidence(f"d{i}", is_treated, span(60, base, seed=2 * i), after))
    return made


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=60))
def test_moments_are_those_of_numpy(values):
    found, series = Moments.of(values), np.array(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(series.mean(), abs=1e-9)
    if len(values) > 1:
        assert found.variance == pytest.approx(series.var(ddof=1), abs=1e-7)
    if len(values) > 3 and series.var() > 1e-6:
        off = series - series.mean()
        assert found.correlation == pytest.approx((off[1:] @ off[:-1]) / (off @ off), abs=1e-5)


def test_a_boundary_holds_at_all_times_together():
    rng, paths, alpha = np.random.default_rng(0), 4000, 0.05
    sums, crossed = np.zeros(paths), np.zeros(paths, bool)
    for t in range(1, 600):
        sums += rng.standard_normal(paths)
        crossed |= sums > looks_threshold(t, alpha) * math.sqrt(t)
    fixed = 1.645 * math.sqrt(599)
    assert crossed.mean() <= alpha
    assert crossed.mean() > alpha / 5  # and is no wall
    assert (sums > fixed).mean() == pytest.approx(alpha, abs=0.015)


def test_student_threshold_is_as_unlikely_as_its_z_score():
    scipy = pytest.importorskip("scipy.stats")
    for z in (1.0, 4.0):
        for df in (2, 30):
            assert scipy.t.sf(student_threshold(z, df), df) == pytest.approx(scipy.norm.sf(z), rel=1e-6)


@given(st.integers(0, 5), st.integers(0, 5), st.floats(0.05, 0.6))
def test_an_e_value_is_a_martingale(treated, control, share):
    now = rare_events_e_value(treated, control, share)
    next_mean = share * rare_events_e_value(treated + 1, control, share)
    next_mean += (1 - share) * rare_events_e_value(treated, control + 1, share)
    assert next_mean == pytest.approx(now, rel=1e-9)


def test_a_harmless_bundle_passes_and_the_words_say_against_whom():
    verdict = judge_wave(fleet(), LIMITS)
    assert verdict.decision == "pass"
    assert verdict.words.startswith("5 updated devices are not worse than 20 control devices")
    assert {one.measure for one in verdict.evidence} == {"crashes", "errors", "p50", "p95"}


@pytest.mark.parametrize(
    ("harm", "measure", "words"),
    [
        ({"slower": 0.1}, "p95", "p95 latency +"),
        ({"errors": 3}, "errors", "failed inferences +2.9 points"),
        ({"crashed": (0, 1, 2, 3)}, "crashes", "crashed on 4 of 5 updated devices, and on 0 of 20 control devices"),
    ],
)
def test_each_harm_is_found_and_named(harm, measure, words):
    verdict = judge_wave(fleet(**harm), LIMITS)
    assert verdict.decision == "fail"
    assert words in verdict.words
    assert [one.decision for one in verdict.evidence if one.measure == measure] == ["fail"]


def test_what_happens_to_all_devices_is_nobodys_fault():
    made = [
        dataclasses.replace(one, after=span(30, 1300 * (1 + 0.1 * (i % 7)), seed=2 * i + 1))
        for i, one in enumerate(fleet())
    ]
    assert judge_wave(made, LIMITS).decision == "pass"


def test_one_slow_canary_among_many_is_found_even_alone():
    assert judge_wave(fleet(treated=1, slower=0.2), LIMITS).decision == "fail"


def test_without_controls_only_what_is_gross_counts_and_it_is_said():
    slow, gross = (judge_wave(fleet(controls=0, slower=by), LIMITS) for by in (0.15, 0.6))
    assert (slow.decision, gross.decision) == ("pass", "fail")
    assert "a change of the world would show, too" in gross.words


def test_a_wave_waits_for_rows_and_names_the_device_that_is_behind():
    made = [*fleet(treated=4), DeviceEvidence("slow", True, span(), span(rows=3))]
    verdict = judge_wave(made, LIMITS)
    assert verdict.decision == "wait"
    assert verdict.words == "1 of 5 updated devices have sent too little; slow 3 of 10 rows"
    assert judge_wave(made, LIMITS, waited_s=LIMITS.timeout_s).decision == "pass"


def test_a_proof_says_what_it_needs_and_fails_when_its_time_is_over():
    strict = dataclasses.replace(LIMITS, proof=True, latency_margin=0.005)
    verdict = judge_wave(fleet(rows=12), strict)
    assert verdict.decision == "wait"
    assert "not proved yet; about" in verdict.words
    assert "more rows of each device" in verdict.words
    late = judge_wave(fleet(rows=12), strict, waited_s=strict.timeout_s)
    assert late.decision == "fail"
    assert late.words.startswith("not proved within 24 h")
    assert judge_wave(fleet(rows=60), dataclasses.replace(strict, latency_margin=0.05)).decision == "pass"


def test_disagreement_with_the_shadow_is_judged():
    made = [dataclasses.replace(one, compared=200, agreed=200 - 60 * one.treated) for one in fleet()]
    verdict = judge_wave(made, LIMITS)
    assert verdict.decision == "fail"
    assert "old and new model differ on 30.0 %" in verdict.words
    calm = [dataclasses.replace(one, compared=200, agreed=196) for one in fleet()]
    assert judge_wave(calm, LIMITS).decision == "pass"


def test_devices_that_never_inferred_are_no_reason_to_stop():
    empty = [DeviceEvidence(f"d{i}", i < 2, Span(), Span()) for i in range(8)]
    assert judge_wave(empty, LIMITS).decision == "wait"
    assert judge_wave(empty, LIMITS, waited_s=LIMITS.timeout_s).words == "no metric rows to judge by"
    assert judge_wave([], LIMITS).decision == "pass"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 5), st.floats(1, 1e6), st.booleans()), max_size=12
    )
)
def test_any_evidence_gives_a_verdict_that_can_be_written_down(seeds):
    import json

    made = [
        DeviceEvidence(f"d{i}", t, span(n + 1, us), span(n, us, errors=e, n=0, crashed=c))
        for i, (t, n, e, us, c) in enumerate(seeds)
    ]
    verdict = judge_wave(made, LIMITS, waited_s=1.0)
    assert verdict.decision in ("pass", "fail", "wait")
    json.dumps(verdict.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"latencey": 1}, "unknown field 'latencey'"),
        ({"latency": "x"}, "latency"),
        ({"alpha": 0.0}, "alpha = 0 is not above 0"),
        ({"errors": -1.0}, "errors = -1 is negative"),
        ({"min_rows": 1}, "min_rows"),
        ([], "gates"),
    ],
)
def test_bad_limits_are_named(document, words):
    with pytest.raises(RolloutError, match=words):
        GateLimits.from_json(document)


def test_limits_come_back_as_they_were():
    limits = dataclasses.replace(LIMITS, latency=0.07, proof=True, min_rows=4)
    assert GateLimits.from_json(limits.to_json()) == limits


@pytest.mark.parametrize(
    "scenario",
    [
        s
        for s in SCENARIOS
        if s.name.startswith(("harmless, canary of 5", "p95 + 10 %, canary of 5", "errors + 2 points, canary of 5"))
    ],
    ids=lambda s: s.name,
)
def test_simulated_fleets(scenario):
    """A share of what ``python -m benchmarks.fleet.gates`` draws: no false stop here, every harm found."""
    told = run(dataclasses.replace(scenario, rows=60, controls=20), 12, seed=7, every=10)
    assert told.stopped == (0 if scenario.name.startswith("harmless") else told.runs)
