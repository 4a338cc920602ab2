# SPDX-License-Identifier: Apache-2.0
"""Verdicts on real digits: quiet where nothing changed, an alarm where the source did."""

from dataclasses import replace

import numpy as np
import pytest

from edge_contract.counts import Counters
from edge_contract.errors import MessageError, ProfileError, SummaryError
from edge_contract.profile import ReferenceProfile
from edge_contract.summary import decode
from edge_contract.verdict import DriftState, Level, Verdict, judge
from tests.support.digits import answers, digits, other_digits, profile, summary_of, window


def windows(seed, source, how_many, size=200):
    """Return windows of random rows of a source."""
    random = np.random.default_rng(100 + seed)
    rows = len(answers(seed, source))
    return [window(seed, source, random.permutation(rows)[:size], number) for number in range(1, how_many + 1)]


def judged(seed, summaries, state=None):
    """Return the verdicts on a series of windows."""
    verdicts, state = [], state or DriftState()
    for summary in summaries:
        verdict, state = judge(profile(seed), summary, state)
        verdicts.append(verdict)
    return verdicts, state


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_held_out_digits_do_not_alarm_in_seventy_windows(seed):
    verdicts, state = judged(seed, windows(seed, "test", 70))
    assert {v.level for v in verdicts} <= {Level.OK, Level.WARN}
    assert sum(v.level is Level.WARN for v in verdicts) <= 2
    assert max(state.cusum) < 5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_of_another_source_alarm_within_three_windows(seed):
    _, state = judged(seed, windows(seed, "test", 5))
    verdicts, state = judged(seed, windows(seed, "other", 3), state)
    alarm = next(v for v in verdicts if v.level is Level.ALARM)
    assert alarm.estimated_accuracy < alarm.reference_accuracy - 0.03
    assert not alarm.valid
    assert alarm.moved
    assert state.is_alarmed
    assert alarm.since_ms >= windows(seed, "other", 1)[0].start_ms


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_interval_holds_the_true_accuracy(seed):
    own, (_, labels) = digits(seed), other_digits()
    for source, truth in (("test", own.test_labels), ("other", labels)):
        predicted = np.array([a.logits.argmax() for a in answers(seed, source)])
        verdict, _ = judge(profile(seed), windows(seed, source, 1)[0], DriftState())
        assert verdict.low <= (predicted == truth).mean() <= verdict.high
        assert verdict.valid == (source == "test")


def test_a_summary_over_the_wire_is_judged_alike():
    summaries = windows(0, "test", 3) + windows(0, "other", 2)
    received = [decode(summary.encode()) for summary in summaries]
    assert judged(0, received)[0] == judged(0, summaries)[0]
    assert max(len(summary.encode()) for summary in summaries) <= 512


def test_the_summary_carries_the_cusum_after_its_window():
    summary = windows(0, "other", 1)[0]
    _, state = judge(profile(), summary, DriftState())
    sent = decode(state.stamp(summary).encode())
    assert sent.cusum == pytest.approx(state.cusum, rel=1e-3)
    assert max(sent.cusum) > 0
    assert sent.cusum_windows == 1


def test_one_bad_window_warns_and_does_not_alarm():
    series = [*windows(0, "test", 2), *windows(0, "other", 1), *windows(0, "test", 3)]
    levels = [v.level for v in judged(0, series)[0]]
    assert levels[2] is Level.WARN
    assert Level.ALARM not in levels


def test_an_alarm_ends_when_the_device_is_well_again_and_not_before():
    _, state = judged(0, windows(0, "other", 6))
    assert state.is_alarmed
    healed, state = judged(0, windows(0, "test", 20), state)
    levels = [v.level for v in healed]
    assert levels[0] is Level.ALARM
    assert healed[0].reason.startswith("evidence added up over windows in ")
    assert any(v.reason == "still falling from an alarm" for v in healed)
    assert levels[-1] is Level.OK
    assert levels == sorted(levels)  # ALARM, then OK: no flapping
    assert not state.is_alarmed
    assert state.since_ms == 0


def test_small_windows_wait_for_each_other():
    small = windows(0, "other", 12, size=30)
    verdicts, state = judged(0, small)
    assert [v.level for v in verdicts[:2]] == [Level.INSUFFICIENT, Level.INSUFFICIENT]
    assert verdicts[0].reason == "30 effective samples of the 64 needed" or verdicts[0].n_eff < 30
    assert verdicts[0].channels[0].p is None
    assert max(v.n for v in verdicts) >= 64
    assert state.is_alarmed


def test_an_empty_window_is_insufficient_and_changes_nothing_but_the_wait():
    empty = summary_of(profile(), Counters.zero(10))
    verdict, state = judge(profile(), empty, DriftState())
    assert verdict.level is Level.INSUFFICIENT
    assert verdict.estimated_accuracy is None
    assert state.windows == 0


def test_a_frozen_source_is_called_by_its_name():
    verdict, _ = judge(profile(), window(0, "test", [7] * 200), DriftState())
    assert verdict.level is Level.WARN
    assert verdict.reason == "200 times the same answer: is the source frozen?"


def test_a_stream_of_one_class_alarms():
    rows = np.flatnonzero(digits(0).test_labels == 3)
    random = np.random.default_rng(5)
    series = [window(0, "test", random.permutation(rows)[:90], number) for number in range(1, 9)]
    verdicts, state = judged(0, series)
    assert state.is_alarmed
    assert any("class '3'" in text and text.endswith("each class looking as ever") for text in verdicts[-1].moved)
    # Nothing but the mix changed, so the estimate does not fall with it.
    assert verdicts[-1].estimated_accuracy > profile().accuracy - 0.06


def test_a_profile_without_a_reference_is_never_judged():
    blank = ReferenceProfile.blank(profile().labels)
    verdict, state = judge(blank, summary_of(blank, window(0, "other", range(300)).counters), DriftState())
    assert verdict.level is Level.INSUFFICIENT
    assert verdict.reason == "the profile has 0 reference samples, 64 are needed"
    assert state.carried is None


def test_a_window_of_another_profile_is_refused():
    with pytest.raises(ProfileError, match="judge it with the profile of its own bundle"):
        judge(profile(1), window(0, "test", range(100)), DriftState())


def test_counters_that_contradict_themselves_are_refused():
    summary = window(0, "test", range(100))
    with pytest.raises(SummaryError):
        judge(profile(), replace(summary, counters=replace(summary.counters, n_sampled=99)), DriftState())


def test_a_new_bundle_starts_with_a_clean_memory():
    _, state = judged(0, windows(0, "other", 4))
    verdict, fresh = judge(profile(1), windows(1, "test", 1)[0], state)
    assert verdict.level is Level.OK
    assert fresh.windows == 1
    assert not fresh.is_alarmed


def test_the_memory_and_the_verdict_survive_a_restart():
    verdicts, state = judged(0, windows(0, "other", 3) + windows(0, "other", 1, size=20))
    assert state.carried is not None
    assert DriftState.from_json(state.to_json()) == state
    for verdict in verdicts:
        assert Verdict.from_json(verdict.to_json()) == verdict


@pytest.mark.parametrize(
    "change", [{"cusum": [1.0]}, {"carried": [10, 1, 2]}, {"windows": -1}, {"is_alarmed": 3}, {"rising_ms": []}]
)
def test_a_malformed_memory_is_refused(change):
    with pytest.raises((MessageError, SummaryError)):
        DriftState.from_json({**DriftState().to_json(), **change})


@pytest.mark.parametrize("change", [{"level": "FINE"}, {"channels": [["energy", 1.0]]}, {"n": -1}])
def test_a_malformed_verdict_is_refused(change):
    verdict, _ = judge(profile(), window(0, "test", range(100)), DriftState())
    with pytest.raises(MessageError):
        Verdict.from_json({**verdict.to_json(), **change})


def test_a_clock_that_jumps_back_does_not_disturb_the_evidence():
    series = windows(0, "other", 3)
    back = [replace(s, start_ms=max(0, s.start_ms - 10**12 * i)) for i, s in enumerate(series)]
    assert [v.level for v in judged(0, back)[0]] == [v.level for v in judged(0, series)[0]]
