# SPDX-License-Identifier: Apache-2.0
"""The loops under a clock of our own, so that every figure is known before."""

import pytest

from benchmarks.harness import loops
from benchmarks.harness.loops import closed, paced, room_for, warm_up
from benchmarks.harness.marks import Marks, Seam, bare_step, path_step, timer_cost

MS = 1_000_000


class World:
    """A clock that moves when somebody works, sleeps or looks; a stand-in for the module ``time``."""

    def __init__(self, look_ns=100):
        self.now, self.look_ns, self.slept = 0, look_ns, []

    def perf_counter_ns(self):
        self.now += self.look_ns
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += round(seconds * 1e9)


@pytest.fixture
def world(monkeypatch):
    made = World()
    monkeypatch.setattr(loops, "time", made)
    return made


def step_of(world, marks, spans_ns):
    """A step whose k-th run takes the k-th span, the last one for ever; notes which input it was given."""
    seen = []

    def step(which, row):
        marks.columns[0][row] = world.now
        world.now += spans_ns[min(len(seen), len(spans_ns) - 1)]
        marks.columns[-1][row] = world.now
        seen.append(which)

    return step, seen


def one_stage(room):
    return Marks(("invoke",), room)


def test_a_closed_loop_stops_when_both_limits_are_reached(world):
    marks = one_stage(1000)
    step, seen = step_of(world, marks, [10 * MS])
    assert closed(step, marks, 3, runs=5, seconds=0.2) == 20
    assert seen[:7] == [0, 1, 2, 0, 1, 2, 0]
    assert closed(step, marks, 3, runs=50, seconds=0.2) == 50
    assert marks.stages_ns(50)["invoke"] == (10 * MS,) * 50


def test_it_stops_when_there_is_no_row_left(world):
    marks = one_stage(7)
    step, _ = step_of(world, marks, [MS])
    assert closed(step, marks, 1, runs=5, seconds=60.0) == 7


def test_of_a_fast_model_one_run_of_every_so_many_is_kept(world):
    marks = one_stage(10)
    step, seen = step_of(world, marks, [MS])
    assert closed(step, marks, 64, runs=10, seconds=0.0, every=3) == 10
    assert len(seen) == 30
    assert marks.starts(10) == tuple((3 * k + 2) * MS for k in range(10))


@pytest.mark.parametrize(
    ("spans", "wanted"),
    [
        ([10 * MS], (200, True)),  # steady at once: the two seconds decide
        ([100 * MS] * 5 + [300 * MS], (14, True)),  # the last five are those before from the 15th on
        ([(k + 1) * 40 * MS for k in range(60)], (38, False)),  # slower and slower: the cap decides
    ],
)
def test_the_warm_up_lasts_until_the_times_stand_still(world, spans, wanted):
    marks = one_stage(64)
    step, _ = step_of(world, marks, spans)
    found = warm_up(step, marks, 4, least=10, seconds=2.0, cap_s=30.0, clock=world.perf_counter_ns)
    assert abs(found.runs - wanted[0]) <= 1
    assert found.is_steady is wanted[1]


def test_ten_runs_are_made_of_a_slow_model(world):
    marks = one_stage(64)
    step, _ = step_of(world, marks, [900 * MS])
    found = warm_up(step, marks, 4, least=10, seconds=2.0, cap_s=30.0, clock=world.perf_counter_ns)
    assert (found.runs, found.is_steady, found.run_ns) == (10, True, 900 * MS)


def test_room_is_bounded_and_large_enough():
    assert room_for(80 * MS, 100, 10.0) == (287, 1)
    room, every = room_for(20_000, 100, 900.0)
    assert room <= loops.MOST_KEPT
    assert room * every * 20_000 >= 900e9


def test_frames_that_are_answered_in_time_wait_for_nothing(world):
    marks = one_stage(100)
    step, seen = step_of(world, marks, [5 * MS])
    found = paced(step, marks, 64, fps=50.0, runs=20, seconds=0.0)
    assert (found.count, found.dropped) == (20, 0)
    assert seen == list(range(20))
    late = [start - due for start, due in zip(marks.starts(20), found.due_ns, strict=False)]
    assert max(late) <= 2 * world.look_ns  # a look at the clock, and never the sleep
    assert [b - a for a, b in zip(found.due_ns[:19], found.due_ns[1:20], strict=True)] == [20 * MS] * 19
    assert len(world.slept) == 20


def test_one_stall_is_seen_in_every_frame_that_waited(world):
    """No coordinated omission: one run of 95 ms at 50 fps delays frames that a closed loop would not have sent."""
    marks = one_stage(100)
    step, seen = step_of(world, marks, [5 * MS] * 3 + [95 * MS] + [5 * MS] * 40)
    found = paced(step, marks, 64, fps=50.0, runs=12, seconds=0.0)
    ends = marks.columns[-1]
    waits = [(ends[k] - found.due_ns[k]) / MS for k in range(found.count)]
    # Frame 3 takes 95 ms. Meanwhile 4 to 7 come; the newest, 7, is begun 15 ms late and the three before it are lost.
    assert seen[:6] == [0, 1, 2, 3, 7, 8]
    assert found.dropped == 3
    assert waits[3] == pytest.approx(95, abs=0.01)
    assert waits[4] == pytest.approx(20, abs=0.01)
    assert waits[5] == pytest.approx(5, abs=0.01)


def test_more_frames_than_the_machine_does(world):
    """Runs of 30 ms at 100 fps: a third is begun, none of the waits grows without bound, nobody sleeps."""
    marks = one_stage(100)
    step, _ = step_of(world, marks, [30 * MS])
    found = paced(step, marks, 64, fps=100.0, runs=50, seconds=0.0)
    assert (found.count, found.dropped) == (50, 98)
    assert len(world.slept) == 1  # before the first frame
    assert all(30 * MS <= marks.columns[-1][k] - found.due_ns[k] <= 40 * MS for k in range(50))


def test_a_bare_step_marks_what_lies_between():
    world, marks = World(look_ns=0), Marks(("preprocess", "invoke", "postprocess"), 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.harness.marks.time", world)
        step = bare_step(marks, *(spend(world, span) for span in (2, 50, 7)))
        for row in range(3):
            step(row, row)
    assert marks.stages_ns(3) == {
        "preprocess": (2,) * 3,
        "invoke": (50,) * 3,
        "postprocess": (7,) * 3,
        "total": (59,) * 3,
    }
    assert marks.starts(2) == (0, 59)


def spend(world, span):
    def action(*words):
        world.now += span
        return words

    return action


def test_a_path_is_cut_at_its_call_of_the_runtime():
    world, marks = World(look_ns=0), Marks(("capture", "preprocess", "invoke", "postprocess"), 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.harness.marks.time", world)
        seam = Seam(spend(world, 100))

        def answer(raw):
            world.now += 10
            seam(raw)
            world.now += 30

        step = path_step(marks, spend(world, 4), answer, seam)
        step(0, 0)
        step(1, 1)
    stages = marks.stages_ns(2)
    assert {stage: times[1] for stage, times in stages.items()} == {
        "capture": 4, "preprocess": 10, "invoke": 100, "postprocess": 30, "total": 144,
    }  # fmt: skip


def test_the_stages_add_up_to_the_total_on_a_real_clock():
    marks = Marks(("preprocess", "invoke", "postprocess"), 50)
    step = bare_step(marks, lambda which: None, lambda: sum(range(100)), lambda: None)
    for row in range(50):
        step(0, row)
    found = marks.stages_ns(50)
    assert [sum(times) for times in zip(*(found[stage] for stage in marks.stages), strict=True)] == list(found["total"])
    assert min(found["invoke"]) > 0


def test_the_clock_costs_something():
    assert timer_cost() > 0
