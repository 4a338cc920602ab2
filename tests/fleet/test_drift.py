# SPDX-License-Identifier: Apache-2.0
"""Drift over a fleet: exact merges, the odd device named, and a page row that tells the story."""

import json
from dataclasses import replace

import numpy as np
import pytest

from edge_contract.errors import ProfileError
from edge_contract.findings import DriftState, Level
from edge_contract.verdict import judge
from fleet.core.cohort import judge_cohort
from fleet.core.drift import DeviceDrift, Window, by_profile, merge, view
from tests.support.digits import answers, profile, window


def device(name, sources, seed=0, size=200, **fields):
    """Return a device that saw these sources, a window each."""
    random = np.random.default_rng(sum(name.encode()))
    state, windows = DriftState(), []
    for number, source in enumerate(sources, start=1):
        rows = random.permutation(len(answers(seed, source)))[:size]
        summary = window(seed, source, rows, number, device=name)
        verdict, state = judge(profile(seed), summary, state)
        windows.append(Window(state.stamp(summary), verdict))
    return DeviceDrift(name, tuple(windows), **fields)


HEALTHY = [device(name, ["test", "test"]) for name in ("pi-1", "pi-2", "pi-3", "pi-4")]
STRAY = device("pi-9", ["test", "other", "other"])


def test_merging_windows_of_devices_adds_their_counts_in_any_order():
    summaries = [w.summary for d in HEALTHY for w in d.windows]
    merged = merge(summaries)
    assert merged == merge(reversed(summaries))
    assert merged.n_sampled == 8 * 200


def test_windows_of_unlike_profiles_are_not_merged():
    foreign = device("pi-7", ["test"], seed=1)
    with pytest.raises(ProfileError, match="cannot be merged; group by profile"):
        merge([HEALTHY[0].windows[0].summary, foreign.windows[0].summary])
    with pytest.raises(ProfileError, match="windows of profiles none"):
        merge([])
    groups = by_profile([*HEALTHY, foreign, DeviceDrift("new", ())])
    assert {crc: len(found) for crc, found in groups.items()} == {profile(0).crc: 4, profile(1).crc: 1}


def test_a_healthy_cohort_is_as_on_the_reference():
    cohort = judge_cohort(profile(), HEALTHY, last=2)
    assert (cohort.level, cohort.n, cohort.outliers) == (Level.OK, 1600, {})
    assert cohort.headline == "the cohort is as on the reference"
    assert cohort.severity.is_valid


def test_one_stray_device_is_named_and_the_healthy_ones_are_not():
    cohort = judge_cohort(profile(), [*HEALTHY, STRAY])
    assert set(cohort.outliers) == {"pi-9"}
    assert cohort.headline == "pi-9 differs from the cohort; the others agree"
    assert cohort.outliers["pi-9"]


def test_of_two_devices_the_one_that_left_the_reference_is_the_stray():
    assert set(judge_cohort(profile(), [HEALTHY[0], STRAY]).outliers) == {"pi-9"}


def test_when_all_moved_alike_the_cohort_moved_and_nobody_is_odd():
    moved = [device(name, ["other"]) for name in ("pi-1", "pi-2", "pi-3")]
    cohort = judge_cohort(profile(), moved)
    assert cohort.level is Level.WARN
    assert cohort.outliers == {}
    assert cohort.headline == "the whole cohort moved"
    assert cohort.moved
    assert not cohort.severity.is_valid


def test_a_cohort_sees_what_no_device_alone_can():
    """Small windows of a mild mixture: each device is quiet, together they are not."""
    random, devices = np.random.default_rng(4), []
    for i in range(12):
        own = window(0, "test", random.permutation(1000)[:85], device=f"pi-{i}")
        strange = window(0, "other", random.permutation(1000)[:15], device=f"pi-{i}")
        both = replace(own, counters=own.counters.merge(strange.counters))
        devices.append(DeviceDrift(f"pi-{i}", (Window(both, judge(profile(), both, DriftState())[0]),)))
    alone = [d.windows[0].verdict.level for d in devices]
    assert alone.count(Level.OK) >= 6
    together = judge_cohort(profile(), devices)
    assert together.level is Level.WARN
    assert together.p_family < 1e-6


def test_too_few_samples_are_no_cohort():
    small = [device(name, ["test"], size=20) for name in ("pi-1", "pi-2")]
    cohort = judge_cohort(profile(), small)
    assert cohort.level is Level.INSUFFICIENT
    assert cohort.headline.endswith("effective samples are too few to judge the cohort")
    assert judge_cohort(profile(), []).devices == ()


def test_the_page_tells_what_moved_since_when_and_what_it_costs():
    row = view(STRAY)
    assert row.level is Level.ALARM
    assert row.since_ms == STRAY.windows[1].summary.start_ms
    assert row.windows == 3
    assert any("images" in text for text in row.moved)
    assert row.channels["input"] == 1.0
    assert row.estimated_loss > 0.03
    assert not row.valid
    assert row.latency_p50_us == pytest.approx(900, rel=0.25)
    assert len(row.trend) == 3


def test_the_page_keeps_the_alarm_while_a_window_is_too_small():
    waiting = device("pi-9", ["other", "other", "other"])
    small = window(0, "other", range(20), 4, device="pi-9")
    verdict, _ = judge(profile(), small, DriftState())
    waiting = DeviceDrift("pi-9", (*waiting.windows, Window(small, verdict)), true_accuracy=0.4)
    assert verdict.level is Level.INSUFFICIENT
    row = view(waiting)
    assert row.level is Level.ALARM
    assert row.true_accuracy == 0.4


def test_a_device_without_windows_has_an_empty_row():
    row = view(DeviceDrift("new", ()))
    assert (row.level, row.reason, row.estimated_loss) == (Level.INSUFFICIENT, "no window yet", None)
    assert set(row.channels.values()) == {0.0}


def test_the_row_becomes_plain_json():
    document = json.loads(json.dumps(view(STRAY).to_json()))
    assert document["level"] == "ALARM"
    assert document["estimated_loss"] == pytest.approx(view(STRAY).estimated_loss)
