# SPDX-License-Identifier: Apache-2.0
"""What leaves: nothing of a few inferences, noise where it was asked for, and no more of it than a day allows."""

import base64
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from edge_agent.config import check
from edge_agent.core import hearing
from edge_agent.core.effects import Note, Save
from edge_agent.core.events import Instant, RunnerSaid, Sample
from edge_agent.core.lane import Identity, Lane, Plan
from edge_agent.core.privacy import Spent, draws, released
from edge_agent.core.settings import Settings
from edge_agent.core.subwindows import PARTS, Ring, onset_ms
from edge_agent.core.telemetry import Windows, close, observe
from edge_agent.core.twin import merge
from edge_contract.errors import UsageError
from edge_contract.noise import noised
from edge_contract.profile import ReferenceProfile
from edge_contract.summary import Flag, decode
from tests.edge_agent.core.test_telemetry import A, at, counted, sample
from tests.support.windows import build

SEED = bytes(range(32))
NOISY = Settings(window_inferences=100, noise_epsilon=2.0, noise_daily=5.0)


def decoded(effects):
    rows = [e for e in effects if isinstance(e, Note) and e.cls == "drift"]
    return [decode(base64.b64decode(row.body["summary"])) for row in rows]


def at_noon(n, second, *, seed=SEED):
    return replace(sample(n), seed=seed), at(second)


def run(settings, *steps):
    """Return the summaries and effects of (inferences, second) steps."""
    windows, effects = Windows("pi", "boot"), []
    for n, second in steps:
        one, when = at_noon(n, second)
        windows, more = observe(windows, one, settings, when)
        effects += more
    return windows, effects


@pytest.mark.parametrize("n", [0, 1, 63])
def test_of_a_few_inferences_only_their_number_leaves(n):
    counters = build(3, n, Random(n).randrange, failed=2)
    found = released(counters, Settings(), Spent(), 0.0, draws(SEED, 1))
    assert found.flags is Flag.PARTIAL
    told = {name for name in vars(found.counters) if getattr(found.counters, name) != getattr(counters.emptied(), name)}
    assert told <= {"n_infer", "n_err", "n_drop"}
    assert found.counters.n_infer == n + 2


def test_without_noise_a_window_leaves_as_it_was_counted():
    counters = counted(64)
    assert released(counters, Settings(), Spent(), 0.0, draws(b"", 1)) == (counters, Flag.NONE, Spent())


def test_a_noised_window_says_so_and_is_kept_in_the_journal():
    windows, effects = run(NOISY, (0, 0), (110, 5))
    (summary,) = decoded(effects)
    assert summary.flags & Flag.NOISED
    assert summary.counters.noise[0] == 1
    assert summary.counters.n_sampled == 110
    assert summary.counters.energy != counted(110).energy
    assert not any(summary.counters.confidence) and not any(summary.counters.embedding_squares)
    assert Save() in effects
    assert windows.spent.epsilon == 2.0


def test_the_same_seed_gives_the_same_noise_and_another_window_other_noise():
    first, second = (noised(counted(300), 2.0, draws(SEED, window)) for window in (1, 2))
    assert noised(counted(300), 2.0, draws(SEED, 1)) == first
    assert first.cells != second.cells


def test_without_a_seed_nothing_leaves():
    windows, effects = observe(*_two(b"")), []
    told = [e.body["kind"] for e in windows[1] if isinstance(e, Note)]
    assert (told, decoded(windows[1]), effects) == (["window_lost"], [], [])


def _two(seed):
    one, when = at_noon(0, 0, seed=seed)
    windows, _ = observe(Windows("pi", "boot"), one, NOISY, when)
    later, then = at_noon(110, 1, seed=seed)
    return windows, later, NOISY, then


def test_a_day_has_a_budget_that_no_clock_can_renew():
    steps = [(0, 0), (110, 10), (220, 20), (330, 30), (440, 40)]
    _, effects = run(NOISY, *steps)
    flags = [bool(s.flags & Flag.NOISED) for s in decoded(effects)]
    assert flags == [True, True, False, False], "two windows of 2 in a budget of 5"
    held = decoded(effects)[-1]
    assert (held.flags, held.counters.n_sampled, held.counters.n_infer) == (Flag.PARTIAL, 0, 110)
    spent = Spent(4.0, 100.0, 50.0)
    assert spent.at(50.0 + 86_000).epsilon == 4.0
    assert spent.at(50.0 + 86_300).epsilon == 0.0
    assert spent.at(0.0).elapsed_s == 100.0, "a clock that went back gives nothing"


def test_the_budget_outlives_a_restart_and_the_pause_does_not_count():
    lane = Lane.planned(Identity("pi", "b", "litert", "1"), Plan("", "digits", "litert"))
    worn = replace(lane, windows=replace(lane.windows, spent=Spent(6.0, 500.0, 77.0)))
    again = lane.remember(worn.to_json())
    assert again.windows.spent == Spent(6.0, 500.0, None)
    assert again.windows.spent.at(9e9).epsilon == 6.0
    assert "privacy" not in lane.to_json(), "journals of devices without noise are as ever"


def test_with_noise_single_answers_stay_on_the_device():
    lane = Lane.planned(Identity("pi", "b", "litert", "1"), Plan("", "digits", "litert", NOISY))
    said = RunnerSaid(at(1), {"event": "results", "bundle": A, "first": 0, "rows": [["x:1", 3, 0.9]]})
    assert hearing.said(lane, said)[1] == []
    assert hearing.said(replace(lane, settings=Settings()), said)[1] != []


def test_a_server_cannot_take_the_noise_back():
    settings, ignored = merge(NOISY, {"noise_epsilon": 0, "noise_daily": 1e9, "window_s": 5}, frozenset())
    assert (settings.noise_epsilon, settings.noise_daily) == (2.0, 5.0)
    assert set(ignored) == {"noise_epsilon", "noise_daily"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("noise_epsilon = 0.001", "noise_epsilon = 0.001; give 0.01 to 100"),
        ("noise_epsilon = 2\nnoise_daily = 1", "less than one window's 2"),
        ("noise_epsilon = -1", "not a number from 0"),
        ("epsilon = 1", "unknown"),
    ],
)
def test_a_table_that_cannot_be_is_refused(words, message):
    with pytest.raises(UsageError, match=message):
        check(f'device = "pi"\n[privacy]\n{words}\n', str(Path("agent.toml")))


def test_parts_of_ten_minutes_add_up_to_the_window():
    counts = [(40 * i, 600.0 * i) for i in range(9)]
    windows, effects = run(Settings(window_s=1e5), *counts)
    assert decoded(effects) == []
    assert len(windows.ring.parts) == 8
    windows, effects = close(windows, {}, at(5000))
    assert windows.ring.merged(0) == decoded(effects)[0].counters == counted(320)
    assert windows.ring.merged(1_000_000 + 4_200_000) == counted(40), "the last of them"


def test_a_ring_holds_a_day_in_little_room_and_begins_anew_with_another_bundle():
    ring = Ring()
    for i in range(300):
        ring = ring.add(600_000 * i, 600_000 * (i + 1), counted(50))
    assert len(ring.parts) == PARTS
    assert ring.parts[0].start_ms == 600_000 * (300 - PARTS)
    assert sum(len(part.packed) for part in ring.parts) < 64_000
    windows, _ = run(Settings(), (0, 0), (40, 700))
    assert len(windows.ring.parts) == 1
    windows, _ = observe(windows, Sample((9, "b" * 64, counted(1))), Settings(), Instant(3000.0, 2000.0))
    assert windows.ring == Ring()


def looking(bins, n, seed):
    """Counters of n inferences whose brightness lies in some of the bins."""
    found, base = Random(seed), build(3, n, Random(seed).randrange)
    counts = [0] * 16
    for _ in range(n):
        counts[found.choice(bins)] += 1
    alike = {"lag": 0, "energy_sum": 0, "energy_squares": n, "repeats": n // 3}
    blocks = {"block_sum": 0, "block_squares": 16 * base.blocks}
    return replace(base, brightness=tuple(counts), **alike, **blocks)


def test_the_onset_is_the_part_in_which_the_inputs_changed():
    reference = looking(range(16), 3000, 0)
    known = replace(ReferenceProfile.blank(("a", "b", "c")), counters=reference, confusion=(3000,) + (0,) * 8)
    ring = Ring()
    for i in range(9):
        ring = ring.add(600_000 * i, 600_000 * (i + 1), looking(range(16) if i < 6 else range(6), 100, i))
    assert onset_ms(ring, known) == 600_000 * 6
    assert onset_ms(Ring(ring.parts[:6]), known) is None
    assert onset_ms(Ring(), known) is None
