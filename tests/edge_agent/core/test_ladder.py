# SPDX-License-Identifier: Apache-2.0
"""The reset ladder: each rung before the next, back down after a quiet time, and never two alarms for one trouble."""

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.ladder import Action, Ladder, Rungs

RUNGS = Rungs(restarts=2, re_enumerations=2, stable_s=600, retry_s=3600, retry_max_s=4 * 3600)


def fail(ladder, *moments, rungs=RUNGS):
    """Return the ladder after failures, and what was done; an alarm has an exclamation mark."""
    done = []
    for mono in moments:
        ladder, action, alarm = ladder.failed(mono, rungs)
        done.append(f"{action}{'!' if alarm else ''}")
    return ladder, done


def test_twenty_restarts_do_not_happen():
    """Frigate's #9663: the stick was dead, and the process was started again for eleven minutes."""
    ladder, done = fail(Ladder(), *range(5))
    assert done == ["restart", "restart", "re_enumerate", "re_enumerate", "use_cpu!"]
    assert ladder.is_on_cpu


def test_a_crash_of_the_cpu_model_is_a_plain_restart():
    on_cpu, _ = fail(Ladder(), *range(5))
    assert fail(on_cpu, 10.0) == (on_cpu, ["restart"])


def test_a_quiet_time_forgives():
    ladder, _ = fail(Ladder(), 0.0, 1.0, 2.0)
    assert ladder.passed(601.9, RUNGS) == (ladder, None)
    assert ladder.passed(602.0, RUNGS) == (Ladder(), None)


def test_the_accelerator_is_tried_again_and_each_failed_try_doubles_the_pause():
    ladder, _ = fail(Ladder(), *range(5))
    at, pauses = 4.0, []
    for _ in range(4):
        pauses.append(ladder.retry_at - at)
        assert ladder.passed(ladder.retry_at - 1, RUNGS)[1] is None
        ladder, action = ladder.passed(ladder.retry_at, RUNGS)
        assert action is Action.USE_ACCELERATOR
        at = ladder.last + 5
        ladder, done = fail(ladder, at)
        assert done == ["use_cpu"], "no second alarm"
    assert pauses == [3600, 7200, 14_400, 14_400]


def test_a_try_that_lasts_ends_the_trouble_and_the_next_one_is_an_alarm_again():
    ladder, _ = fail(Ladder(), *range(5))
    ladder, _ = ladder.passed(ladder.retry_at, RUNGS)
    ladder, _ = ladder.passed(ladder.last + 600, RUNGS)
    assert ladder == Ladder()
    assert fail(ladder, *range(10_000, 10_005))[1][-1] == "use_cpu!"


def test_where_nothing_can_re_enumerate_the_cpu_comes_sooner():
    assert fail(Ladder(), 0, 1, rungs=Rungs(restarts=1, re_enumerations=0))[1] == ["restart", "use_cpu!"]


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5000)), max_size=60))
def test_whatever_happens_the_ladder_ends_on_the_cpu_or_quiet(steps):
    """The number of actions against an accelerator between two quiet times is bounded."""
    ladder, mono, actions, alarms = Ladder(), 0.0, 0, 0
    for is_failure, pause in steps:
        mono += pause
        ladder, _ = ladder.passed(mono, RUNGS)
        if ladder == Ladder():
            actions = 0
        if is_failure:
            was_on_cpu = ladder.is_on_cpu
            ladder, action, alarm = ladder.failed(mono, RUNGS)
            actions += action is not Action.RESTART or not was_on_cpu
            alarms += alarm
        assert ladder.failures <= RUNGS.restarts + RUNGS.re_enumerations + 1 + 60
        assert ladder.is_on_cpu or ladder.retry_at <= mono
    assert alarms <= 1 + len(steps) // 5
