# SPDX-License-Identifier: Apache-2.0
"""Windows close when they are full, old, or their epoch ended; nothing is counted twice or lost."""

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.effects import Note
from edge_agent.core.events import Instant, Sample
from edge_agent.core.telemetry import Meter, Totals, Windows, close, median_us, observe
from edge_agent.core.twin import Settings
from edge_contract import latency
from edge_contract.counts import Counters, latency_bucket
from edge_contract.summary import Flag, decode, short_hash

A, B = "a" * 64, "b" * 64
SETTINGS = Settings(window_inferences=100, window_s=60.0)


def counted(n: int, latency_us: float = 1000.0) -> Counters:
    """Counters after n ordinary inferences of a ten-class model."""
    zero, latency = Counters.zero(10), [0] * 32
    latency[latency_bucket(latency_us)] = n
    cells, bins = (n, *zero.cells[1:]), (n, *zero.confidence[1:])
    return replace(zero, n_infer=n, n_sampled=n, cells=cells, confidence=bins, energy=bins, latency=tuple(latency))


def sample(n: int, *, epoch: int = 1, bundle: str = A, **health) -> Sample:
    return Sample((epoch, bundle, counted(n)), health)


def at(second: float) -> Instant:
    return Instant(1000.0 + second, second)


def feed(windows: Windows, *readings: tuple[float, Sample]) -> tuple[Windows, list[Note]]:
    notes: list[Note] = []
    for second, one in readings:
        windows, effects = observe(windows, one, SETTINGS, at(second))
        notes += [e for e in effects if isinstance(e, Note)]
    return windows, notes


def summaries(notes: list[Note]):
    return [decode(base64.b64decode(note.body["summary"])) for note in notes if note.cls == "drift"]


START = Windows("pi", "boot", number=7)


def test_a_full_window_becomes_a_drift_row_with_its_place_and_time() -> None:
    _, notes = feed(START, (0, sample(0)), (5, sample(60)), (9, sample(110)))
    (summary,) = summaries(notes)
    assert summary.counters.n_infer == 110
    assert (summary.window, summary.start_ms, summary.duration_ms) == (7, 1_000_000, 9000)
    assert (summary.device, summary.bundle, summary.boot) == (short_hash("pi", 8), A[:32], short_hash("boot", 4))
    assert "verdict" not in notes[0].body, "without a profile nothing is judged"


def test_an_old_window_closes_once_it_has_64_samples() -> None:
    _, notes = feed(START, (0, sample(0)), (61, sample(0)), (70, sample(63)), (99, sample(64)))
    (summary,) = summaries(notes)
    assert (summary.counters.n_infer, summary.duration_ms, summary.flags) == (64, 99_000, Flag.NONE)


def test_after_a_day_of_waiting_a_window_tells_how_much_was_inferred_and_nothing_of_what_was_seen() -> None:
    _, notes = feed(START, (0, sample(0)), (1439, sample(5)), (1440, sample(5)))
    (summary,) = summaries(notes)
    assert summary.flags & Flag.PARTIAL
    assert summary.counters == Counters.zero(10).emptied(n_infer=5)


def test_a_small_setting_does_not_make_small_windows() -> None:
    windows, notes = START, []
    for second, n in enumerate((0, 20, 63, 64, 70)):
        windows, effects = observe(windows, sample(n), Settings(window_inferences=10), at(second))
        notes += effects
    assert [s.counters.n_infer for s in summaries(notes)] == [64]


def test_a_new_epoch_closes_the_window_of_the_old_one() -> None:
    readings = [(0, sample(0)), (5, sample(40)), (6, sample(3, epoch=2)), (7, sample(9, epoch=3, bundle=B))]
    windows, notes = feed(START, *readings)
    assert [s.counters.n_infer for s in summaries(notes)] == [40, 3]
    assert windows.bundle == B
    windows, more = close(windows, {}, at(8))
    assert [s.counters.n_infer for s in summaries(more)] == [9]
    assert [s.bundle for s in summaries([*notes, *more])] == [A[:32], A[:32], B[:32]]


@given(st.lists(st.tuples(st.integers(0, 80), st.sampled_from(["go on", "restart", "other"])), max_size=25))
def test_every_inference_is_in_exactly_one_window(steps) -> None:
    windows, total, n, epoch, bundle, notes = START, 0, 0, 1, A, []
    for second, (more, what) in enumerate(steps):
        if what != "go on":
            epoch, n = epoch + 1, 0
            bundle = {A: B, B: A}[bundle] if what == "other" else bundle
        n, total = n + more, total + more
        windows, found = feed(windows, (second, sample(n, epoch=epoch, bundle=bundle)))
        notes += found
    notes += [e for e in close(windows, {}, at(99))[1] if isinstance(e, Note)]
    assert sum(s.counters.n_infer for s in summaries(notes)) == total
    numbers = [s.window for s in summaries(notes)]
    assert numbers == list(range(7, 7 + len(numbers)))


def test_temperature_and_memory_of_the_window_are_told() -> None:
    warm = [sample(0, temperature_c=40.0), sample(60, temperature_c=60.0), sample(110, temperature_c=50.0, rss_kb=9)]
    _, notes = feed(START, *enumerate(warm))
    (summary,) = summaries(notes)
    assert summary.health.temperature_c == (40.0, 50.0, 60.0)
    assert summary.health.rss_max_kb == 9


def test_counters_that_go_back_lose_the_window_and_say_so() -> None:
    windows, notes = feed(START, (0, sample(0)), (1, sample(50)))
    assert notes == []
    broken = Sample((1, A, replace(counted(80), n_err=-3)), {})
    windows, effects = observe(windows, broken, SETTINGS, at(2))
    assert [(e.cls, e.body["kind"]) for e in effects if isinstance(e, Note)] == [("event", "window_lost")]
    assert "'n_err' went back" in effects[0].body["reason"]
    _, notes = feed(windows, (3, Sample((1, A, replace(counted(230), n_err=-3)), {})))
    assert [s.counters.n_infer for s in summaries(notes)] == [150], "counting goes on from there"


def test_the_heartbeat_counts_since_the_last_one() -> None:
    meter, body = Meter().beat(sample(50, rss_kb=7), at(10))
    assert (body["n"], body["rss_kb"], body["bundle"]) == (50, 7, A)
    meter, body = meter.beat(sample(80), at(20))
    assert (body["n"], body["seconds"]) == (30, 10.0)
    assert 700 <= body["p50_us"] <= 1300
    meter, body = meter.beat(sample(5, epoch=2), at(30))
    assert body["n"] == 5
    assert "n" not in meter.beat(Sample(), at(40))[1]


def test_the_heartbeats_quantiles_are_those_of_the_fine_histogram_since_the_last_beat() -> None:
    slow, fast = [0] * latency.BUCKETS, [0] * latency.BUCKETS
    slow[latency.bucket_of(9000.0)] = 100
    fast[latency.bucket_of(500.0)] = 40
    both = tuple(map(sum, zip(slow, fast, strict=True)))
    meter, body = Meter().beat(replace(sample(100), times=tuple(slow)), at(10))
    assert body["p95_us"] == pytest.approx(9000, rel=0.05)
    meter, body = meter.beat(replace(sample(140), times=both), at(20))
    assert (body["p50_us"], body["p95_us"]) == (pytest.approx(500, rel=0.05), pytest.approx(500, rel=0.05))
    _, body = meter.beat(sample(160), at(30))
    assert 700 <= body["p50_us"] <= 1300, "an older runner has the coarse histogram alone"


def test_a_median_needs_enough_answers_of_that_bundle() -> None:
    assert median_us(sample(63), A) == 0.0
    assert 700 <= median_us(sample(64), A) <= 1300
    assert median_us(sample(64), B) == 0.0
    assert median_us(Sample(), A) == 0.0


def test_totals_outlive_a_restart_of_the_runner_and_a_change_of_model():
    def sample(epoch, bundle, inferences, errors):
        return Sample(counters=(epoch, bundle, replace(Counters.zero(3), n_infer=inferences, n_err=errors)))

    totals = Totals()
    for reading in (sample(1, "a", 4, 0), sample(1, "a", 9, 1), Sample(), sample(2, "b", 0, 0), sample(2, "b", 5, 2)):
        totals = totals.after(reading)
    assert (totals.inferences, totals.errors) == (14, 3)
