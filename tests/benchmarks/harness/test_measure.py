# SPDX-License-Identifier: Apache-2.0
"""Several launches: kept on disk, gone on with, interrupted, cooled down, and what failed in between."""

import json

import pytest

from benchmarks.harness import measure, measuring
from benchmarks.harness.board import Board
from benchmarks.harness.store import write_launch
from edge_contract.errors import MeasurementError, UsageError
from tests.benchmarks.harness.boards import pi4
from tests.benchmarks.harness.test_plan import launch as made


@pytest.fixture
def quiet(monkeypatch):
    """Neither probe nor look at the neighbours; launches are made by what the test gives."""
    monkeypatch.setattr(measuring, "probe", lambda plan: {"memory": {"rss_peak_kb": 7}, "shares": {"CPU": 1.0}})
    monkeypatch.setattr(measuring.preflight, "_WATCH_S", 0.0)

    def put(make):
        monkeypatch.setattr(measuring, "launch", lambda plan, number, **words: make(number))

    return put


def test_a_whole_measurement(short):
    steps = []
    found = measure(short(launches=2), progress=steps.append)
    assert [one.number for one in found.launches] == [0, 1]
    assert found.failed == 0
    assert found.launches[0].memory["rss_peak_kb"] > 10_000
    assert found.preflight.ram_kb > 0
    assert "only 12 different inputs were cycled; 64 are wanted: give --data" in found.notes
    assert steps[-2:] == ["launch 1 of 2", "launch 2 of 2"]


def test_a_launch_that_fails_costs_that_launch_only(short, quiet):
    def make(number):
        if number == 1:
            raise MeasurementError("crashed with SIGSEGV", where="m.tflite in litert")
        return made(number=number)

    quiet(make)
    found = measure(short(launches=4))
    assert [one.number for one in found.launches] == [0, 2, 3]
    assert found.failed == 1
    assert "launch 2 failed: m.tflite in litert: crashed with SIGSEGV" in found.notes


def test_when_nothing_works_it_gives_up_with_the_reason(short, quiet):
    tried = []

    def make(number):
        tried.append(number)
        raise MeasurementError("litert 2.3.0 refuses the file")

    quiet(make)
    with pytest.raises(MeasurementError, match=r"no launch came to its end: launch 1 failed: litert 2.3.0 refuses"):
        measure(short(launches=10))
    assert tried == [0, 1, 2]


def test_an_interruption_keeps_what_is_finished_and_the_next_call_goes_on(short, quiet, tmp_path):
    numbers, strokes = [], [KeyboardInterrupt()]

    def make(number):
        if number == 2 and strokes:
            raise strokes.pop()
        numbers.append(number)
        return made(number=number)

    quiet(make)
    plan = short(launches=4)
    first = measure(plan, out=tmp_path)
    assert "interrupted: 2 of 4 launches; they are kept, and the same call goes on" in first.notes
    assert len(first.launches) == 2
    second = measure(plan, out=tmp_path)
    assert numbers == [0, 1, 2, 3]
    assert [one.number for one in second.launches] == [0, 1, 2, 3]
    assert second.launches[0].stages_ns == made().stages_ns
    with pytest.raises(UsageError, match="launches of another plan; give another folder"):
        measure(short(launches=4, runs=31), out=tmp_path)


def test_an_interruption_before_the_first_launch_is_one(short, quiet):
    def make(number):
        raise KeyboardInterrupt

    quiet(make)
    with pytest.raises(KeyboardInterrupt):
        measure(short(launches=3))


def test_between_two_launches_a_warm_board_cools_down(short, quiet, tmp_path, monkeypatch):
    """45.3 °C before; 52 after the first launch, one degree less each second: below 50.3 after two waits."""
    root, heat, waits = pi4(tmp_path), [52000, 51000, 50000], []
    file = root / "sys/class/thermal/thermal_zone0/temp"

    def make(number):
        file.write_text(str(heat[0]))
        return made(number=number)

    def sleep(seconds):
        waits.extend([seconds] if seconds else [])
        file.write_text(str(heat[min(len(waits), 2)]))

    quiet(make)
    monkeypatch.setattr(measuring.time, "sleep", sleep)
    steps = []
    found = measure(short(launches=2, cooldown_s=120.0), root=root, progress=steps.append)
    assert len(found.launches) == 2
    assert [step for step in steps if "cooling" in step] == [
        "cooling down: 52 °C, wanted below 50",
        "cooling down: 51 °C, wanted below 50",
    ]


def test_a_board_that_stays_warm_is_waited_for_up_to_the_cap(tmp_path):
    board = Board(pi4(tmp_path, milli=80000))
    from benchmarks.plan import BenchPlan

    plan = BenchPlan("m.tflite", "0" * 64, "tflite", cooldown_s=0.05)
    steps = []
    measuring.cool_down(plan, board, 45.0, steps.append)
    assert steps and len(steps) <= 2
    measuring.cool_down(plan, Board(tmp_path / "nowhere"), 45.0, pytest.fail)
    measuring.cool_down(plan, board, None, pytest.fail)


def test_the_governor_is_set_unless_the_users_device_is_measured(short, quiet, tmp_path):
    root, seen = pi4(tmp_path), []
    file = root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"

    def make(number):
        seen.append(file.read_text().strip())
        return made(number=number)

    quiet(make)
    found = measure(short(), root=root)
    assert found.preflight.governor == "performance"
    measure(short(mode="realistic"), root=root)
    assert seen == ["performance", "ondemand"]
    assert file.read_text().strip() == "ondemand"


def test_dropped_frames_and_other_golden_answers_are_notes(short, quiet):
    quiet(lambda number: made(number=number, dropped=6, golden="differs"))
    notes = measure(short(scenario="paced", fps=30.0)).notes
    assert any("30 fps is more than this machine does here: 75.0% of the frames were dropped" in one for one in notes)
    assert any("golden inputs did not give" in one for one in notes)


FAR = 1 << 60


def kept(folder, plan):
    """Where an earlier call of this plan has left its first launch."""
    (folder / "launches").mkdir()
    (folder / "launches/plan.json").write_text(json.dumps(plan.to_json()))
    return folder / "launches/000.json"


def test_random_inputs_are_said(bundle, short, quiet):
    quiet(lambda number: made(number=number))
    assert any("the inputs were random" in note for note in measure(short(bundle / "model.onnx")).notes)


def test_a_power_sensor_sees_the_measured_windows_of_this_call_only(short, quiet, tmp_path):
    class Meter:
        told = ()

        def idle(self, seconds):
            self.told += (("idle", seconds),)

        def start(self):
            self.told += ("start",)

        def latest_mw(self):
            return 5.0

        def stop(self, windows, runs):
            self.told += (tuple(windows), runs)
            return self

        def to_json(self):
            return {"method": "made"}

    meter = Meter()
    write_launch(made(number=0), kept(tmp_path, short(launches=3)))  # of an earlier call: no sensor saw it
    quiet(lambda number: made(number=number, starts_ns=(FAR, FAR + 100)))
    found = measure(short(launches=3), energy=meter, out=tmp_path)
    assert len(found.launches) == 3
    window = (FAR, FAR + 109)
    assert meter.told == (("idle", 10.0), "start", (window, window), 24)  # 2 launches × 2 kept × every 3 × batch 2
    assert found.energy == {"method": "made"}


def test_memory_that_cannot_be_measured_is_a_note(short, quiet, monkeypatch):
    quiet(lambda number: made(number=number))

    def fail(plan):
        raise MeasurementError("hung")

    monkeypatch.setattr(measuring, "probe", fail)
    found = measure(short())
    assert "memory was not measured: hung" in found.notes
    assert found.launches[0].memory == {}
