# SPDX-License-Identifier: Apache-2.0
"""The pieces of the pictures of real pairs: who sees what when, counted and packed; and what such pairs had shown."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.drift.coded import Seen, code, count
from benchmarks.fleet.drift_pairs import device_name, lines, shots, summary_at
from benchmarks.fleet.pair_windows import DEVICES, SAMPLES, SCENES, Source, counted, hours_of, rows_of
from edge_agent.runner.features import input_statistics
from edge_contract.counts import EMBEDDING_UNIT, Counters
from edge_contract.findings import DriftState, Level
from edge_contract.movement import describe
from edge_contract.summary import decode, short_hash
from edge_contract.verdict import judge
from fleet.core.cohort import Counted, odd_ones
from fleet.core.drift_board import Board
from fleet.core.drift_groups import Seen as SeenWindow
from fleet.core.drift_story import hour_point, story
from tests.support.fleet_bundle import Matcher, profile_of

NOW = 1_795_000_000.0


@pytest.fixture(scope="module")
def matcher():
    return Matcher()


@pytest.fixture(scope="module")
def profile(matcher):
    return profile_of(matcher)


def source(matcher, size, seed, shift=0.0):
    images, truth = matcher.draw(size, seed=seed, shift=shift)
    answers = [matcher.infer(image) for image in images]
    logits, embedding = (np.stack([getattr(one, name) for one in answers]) for name in ("logits", "embedding"))
    looks = input_statistics(images)
    seen = Seen(logits, embedding, truth, looks.values, np.stack([looks.dark, looks.bright]), np.arange(len(images)))
    return Source(seen, images)


@pytest.fixture(scope="module")
def both(matcher):
    return source(matcher, 2000, 21), source(matcher, 400, 22, shift=0.33)


def test_the_plan_shifts_the_first_devices_after_the_healthy_hours():
    plan = hours_of(2, (3, 2))
    assert len(plan) == 5 * DEVICES
    assert plan == sorted(plan, key=lambda one: one[0])
    assert {(hour, device) for hour, device, is_shifted in plan if is_shifted} == {(3, 0), (3, 1), (4, 0), (4, 1)}
    assert not any(is_shifted for _, _, is_shifted in hours_of(0))


def test_rows_in_order_go_on_where_the_hour_before_ended(both):
    random = np.random.default_rng(0)
    first, second = (rows_of(both[0], 2, hour, random, in_order=True) for hour in (0, 1))
    assert second[0] == (first[-1] + 1) % 2000
    assert set(np.diff(np.concatenate([first, second]))) <= {1, -1999}
    drawn = rows_of(both[0], 0, 0, random, in_order=False)
    assert len(set(drawn.tolist())) == SAMPLES


def test_a_window_counts_what_the_grid_counts_and_has_its_latency(profile, both):
    rows = np.arange(50, 150)
    counters = counted(profile, both[0], rows, lambda image: 450.0 if image is not None else 0.0)
    same = count(code(profile, both[0].seen), rows)
    assert replace(counters, latency=same.latency, latency_sum_us=0) == same
    assert sum(counters.latency) == 100
    summary = decode(summary_at("wrist-one-1", "ab" * 32, profile.crc, counters, NOW))
    assert (summary.device, summary.duration_ms) == (short_hash("wrist-one-1", 8), 3_600_000)
    assert summary.start_ms == 1000 * (int(NOW) - 3600)
    assert judge(profile, summary, DriftState())[0].level is Level.OK


def view_of(profile, both, shifted):
    """Return the story of six devices that tell their hours to the board, as the server has it."""
    board, states = Board(), {}
    random = np.random.default_rng(3)
    coded = [code(profile, one.seen) for one in both]
    plan = hours_of(shifted, (3, 2))
    for hour, device, is_shifted in plan:
        rows = rows_of(both[is_shifted], device, hour, random, in_order=False)
        counters, end_s = count(coded[is_shifted], rows), NOW - 3600 * (4 - hour)
        summary = decode(summary_at(f"d{device}", "ab" * 32, profile.crc, counters, end_s))
        told, states[device] = judge(profile, summary, states.get(device, DriftState()))
        about = (told.level.value, told.since_ms, told.moved, told.reason, told.estimated_accuracy, told.valid)
        seen = SeenWindow(f"d{device}", "m", "ab" * 32, profile.crc, end_s - 3600, counters, None, *about)
        board.add(seen, {}, profile)
    board.judge()
    group = next(one for key, one in board.groups.items() if key[2] == "bundle")
    points = [hour_point(profile, hour, total, frozenset()) for hour, total in sorted(group.hours.items())]
    return story(group, "m", "1.0.0", points), points


def test_a_whole_fleet_is_told_by_its_newest_hour_and_names_nobody(profile, both):
    view, points = view_of(profile, both, DEVICES)
    assert (view.kind, view.odd) == ("moved", ())
    assert view.channels == points[-1].cohort.channels
    assert view.n == DEVICES * SAMPLES
    assert view.estimated == points[-1].estimated
    assert view.since_ms == 1000 * (int(NOW) - 2 * 3600)


def test_a_single_device_is_told_by_its_own_newest_window(profile, both):
    view, _ = view_of(profile, both, 1)
    assert (view.kind, [one.device for one in view.odd]) == ("differ", ["d0"])
    assert view.odd[0].moved
    assert view.to_json()["odd"][0]["moved"] == list(view.odd[0].moved)
    assert view.moved == ()


def moved_to(plain, z):
    """Return a device's counters whose features are z [n, k]."""
    sums = [np.rint(part.sum(axis=0) * EMBEDDING_UNIT).astype(int).tolist() for part in (z, z * z)]
    k, size = z.shape[1], len(plain.embedding_sum)
    padded = [tuple(one + [0] * (size - k)) for one in sums]
    return replace(plain, embedding_sum=padded[0], embedding_squares=padded[1])


def test_devices_that_moved_together_and_scatter_more_do_not_differ(profile, both):
    plain: Counters = count(code(profile, both[0].seen), np.arange(400))
    k, random = profile.projection.components, np.random.default_rng(5)
    named = 0
    for _ in range(20):
        fleet = {f"d{i}": moved_to(plain, random.normal(3, 2, (400, k))) for i in range(6)}
        named += bool(odd_ones(profile, {name: Counted(one, 400.0) for name, one in fleet.items()}))
    assert named <= 2
    fleet["d3"] = moved_to(plain, random.normal(6, 2, (400, k)))
    assert list(odd_ones(profile, {name: Counted(one, 400.0) for name, one in fleet.items()})) == ["d3"]


def test_features_that_only_spread_are_not_said_to_have_moved(profile, both):
    plain: Counters = count(code(profile, both[0].seen), np.arange(400))
    k = profile.projection.components
    z = np.random.default_rng(6).normal(0, 3, (400, k))
    middle = np.array(profile.counters.embedding_sum[:k]) / profile.size / EMBEDDING_UNIT
    assert describe("embedding", profile, moved_to(plain, z - z.mean(axis=0) + middle)).startswith(
        "features spread up to 3."
    )
    both_ways = describe("embedding", profile, moved_to(plain, z + 2))
    assert "features moved by" in both_ways
    assert "times as wide" in both_ways


def test_the_pictures_have_names_and_the_lines_say_what_they_show():
    wrist, quiet = SCENES[0], SCENES[-1]
    names = shots(wrist, {"1.0.0": "ab" * 32, "1.1.0": "cd" * 32})
    assert names["wrist-one-device"] == "/devices/wrist-one-1"
    assert names["wrist-all-cohort"].endswith("bundle=" + "ab" * 8)
    assert device_name(quiet, "1.0.0", 5) == "digit-halves-all-6"
    odd = {"device": "wrist-one-1", "level": "ALARM", "words": "features moved"}
    told = {"kind": "differ", "headline": "one differs", "estimated": 0.5, "valid": False, "moved": ["a"], "mix": "b"}
    assert lines("wrist", {"1.1.0": {**told, "odd": [odd]}}) == [
        "wrist 1.1.0: differ; one differs; estimated 50.0%, not valid",
        "    a",
        "    b",
        "    wrist-one-1 ALARM: features moved",
    ]
