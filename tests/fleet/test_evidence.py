# SPDX-License-Identifier: Apache-2.0
"""Evidence from telemetry: which rows count for whom, each once, also after a restart; and a slow bundle is found."""

import random
import subprocess
import sys
from dataclasses import replace

import pytest

from edge_contract.batches import TelemetryBatch, TelemetryRow
from edge_contract.messages import DesiredState
from edge_contract.states import Phase, RolloutState, Status, WaveState
from fleet.adapters import tables, telemetry
from fleet.adapters.evidence import LOOK_S, AtWork, WaveJudge, history
from fleet.core.execution import Execution
from fleet.core.gate_limits import GateLimits
from fleet.core.inventory import DeviceRecord
from fleet.core.rollout import Limits, Rollout, Wave
from tests.fleet.test_ingest import Server
from tests.support.fleet_server import until

OLD, NEW, FOREIGN = "a" * 64, "b" * 64, "f" * 64
BEGUN = 100_000.0
LIMITS = GateLimits(min_rows=5, settle_s=60.0, lookback_s=3600.0)
NAMES = [f"d{i:02}" for i in range(16)]
TREATED = NAMES[:4]


class Fleet:
    """A server with telemetry of sixteen devices, of which four were updated at ``BEGUN``."""

    def __init__(self, server):
        self.server, self.seq, self.random, self.told = server, 0, random.Random(3), []
        for name in NAMES:
            record = DeviceRecord(name, 1.0, desired=DesiredState(0, {}, {}))
            server.store.write(lambda db, r=record: tables.put_device(db, r))
        for bundle, version in ((OLD, "1"), (NEW, "2")):
            statement = "INSERT INTO models (bundle, model, version, registered_at, manifest) VALUES (?,?,?,?,?)"
            server.store.write(lambda db, v=(bundle, "digits", version, 1.0, b"{}"): db.execute(statement, v) and None)
        waves = (Wave(tuple(TREATED), WaveState.SOAKING, BEGUN), Wave(tuple(NAMES[4:])))
        self.rollout = Rollout("r1", 1, "digits", "2", NEW, Limits(), waves, BEGUN - 10, state=RolloutState.RUNNING)
        self.executions = {name: self.execution(name) for name in TREATED}
        self.judge = WaveJudge()

    def execution(self, name, **details):
        done = Execution("j" + name, "r1", 1, 0, name, "digits", NEW, Status.SUCCEEDED, Phase.DONE, BEGUN + 999)
        return replace(done, issued_at=BEGUN - 5, updated_at=BEGUN, closed=True, details=details)

    def tell(self, device, at, bundle, p95, cls="metric", **more):
        self.seq += 1
        us = p95 * (1 + 0.02 * self.random.random()) if isinstance(p95, float) else p95
        body = {"seconds": 60.0, "bundle": bundle, "n": 100, "errors": 0, "p50_us": us, "p95_us": us, **more}
        rows = (TelemetryRow(self.seq, at, body if cls == "metric" else more),)
        self.told.append((at, TelemetryBatch(device, "b1", cls, self.seq - 1, rows)))

    def hours(self, *, slower=1.0, rows=12):
        """Ten minutes before and ``rows`` after."""
        for minute in range(-10, rows + 1):
            at = BEGUN + 60.0 * minute
            for name in NAMES:
                is_new = name in TREATED and minute >= 0
                self.tell(name, at, NEW if is_new else OLD, 1000.0 * (slower if is_new else 1.0))

    def look(self, now, judge=None):
        told = sorted(self.told, key=lambda one: one[0])
        self.told.clear()
        self.server.store.write(lambda db: [telemetry.keep_batch(db, batch, at, None) for at, batch in told] and None)
        running = {name: NEW if name in TREATED else OLD for name in NAMES}
        work = AtWork(self.rollout, LIMITS, self.executions, running)
        return self.server.store.write(lambda db: (judge or self.judge)(db, work, now))

    def finding(self, now, measure, judge=None):
        return next(one for one in self.look(now, judge).evidence if one.measure == measure)


@pytest.fixture
def fleet(tmp_path, open_store):
    made = Server(tmp_path, open_store)
    yield Fleet(made)
    made.store.close()


def test_a_harmless_wave_passes_and_a_slow_one_fails_in_words(fleet):
    fleet.hours()
    assert fleet.look(BEGUN + 800).decision == "pass"
    slow = Fleet.__new__(Fleet)
    slow.__dict__.update(fleet.__dict__, judge=WaveJudge(), rollout=replace(fleet.rollout, number=2))
    for minute in range(13, 40):
        for name in TREATED:
            slow.tell(name, BEGUN + 60.0 * minute, NEW, 1500.0)
    verdict = slow.look(BEGUN + 3000)
    assert verdict.decision == "fail"
    assert "p95 latency" in verdict.words
    assert [one["decision"] for one in fleet.server.store.read(lambda db: history(db, 2))] == ["fail"]


def test_rows_are_read_once_and_a_restart_reads_the_same(fleet):
    fleet.hours(rows=6)
    fleet.look(BEGUN + 500)
    fleet.hours(rows=0)  # what a device sends late
    for name in NAMES:
        fleet.tell(name, BEGUN + 600, NEW if name in TREATED else OLD, 1100.0)
    kept, fresh = (fleet.finding(BEGUN + 700, "p95", judge) for judge in (None, WaveJudge()))
    assert kept == fresh
    assert (kept.treated, kept.controls) == (4, 12)


def test_between_looks_the_last_answer_stands(fleet):
    fleet.hours()
    first = fleet.look(BEGUN + 800)
    assert fleet.look(BEGUN + 800 + LOOK_S / 2) is first
    assert fleet.look(BEGUN + 801 + LOOK_S) is not first
    assert len(fleet.server.store.read(lambda db: history(db, 1, 0))) == 2
    fleet.judge.forget(1)
    assert fleet.judge._seen == {}


def test_only_rows_of_the_model_after_the_settling_time_and_within_the_look_back_count(fleet):
    for name in NAMES:
        fleet.tell(name, BEGUN - 5000, OLD, 9e6)  # long before
    fleet.hours()
    before = fleet.finding(BEGUN + 800, "p95")
    for name in TREATED:
        fleet.tell(name, BEGUN + 810, FOREIGN, 9e6)  # another model of the same device
        fleet.tell(name, BEGUN + 820, OLD, 9e6)  # went back meanwhile
        fleet.tell(name, BEGUN + 830, NEW, "???")  # not a number
    assert fleet.finding(BEGUN + 900, "p95") == before


def test_crashes_and_disagreement_come_from_events_and_reports(fleet):
    fleet.hours()
    for name in TREATED[:3]:
        fleet.tell(name, BEGUN + 700, NEW, 1.0, cls="event", kind="runner_exit", code=-9)
    fleet.tell(NAMES[9], BEGUN - 300, OLD, 1.0, cls="event", kind="runner_exit", code=-9)
    fleet.executions = {name: fleet.execution(name, compared=50, agreement=0.9) for name in TREATED}
    words = fleet.finding(BEGUN + 800, "crashes").words
    assert words == "the runner crashed on 3 of 4 updated devices, and on 0 of 12 control devices"
    assert fleet.finding(BEGUN + 900, "disagreement").estimate == pytest.approx(0.1)


def test_before_the_first_success_there_is_nothing_to_say(fleet):
    fleet.hours()
    fleet.executions = {}
    assert fleet.look(BEGUN + 800) is None


def test_looks_are_told_over_http_and_by_the_command(server, devices, bundles):
    (device,) = devices("judged")
    document = {"model": "digits", "bundle": bundles["1.0.0"][1], "waves": [{"devices": ["judged"]}], "soak_s": 2.0}
    name = server.call("POST", "/rollouts", {**document, "gates": {"min_rows": 2}, "gate_timeout_s": 2.0})["id"]
    assert server.call("GET", f"/rollouts/{name}/evidence") == []
    device.install(device.order())
    (look, *_) = until(lambda: server.call("GET", f"/rollouts/{name}/evidence?wave=1"), "a look")
    assert (look["wave"], look["decision"]) == (1, "wait")
    assert look["words"] == "1 of 1 updated devices have sent too little; judged 0 of 2 rows"
    assert server.call("GET", f"/rollouts/{name}/evidence?wave=2") == []
    assert server.send("GET", "/api/v1/rollouts/r999/evidence").status_code == 404
    command = ["fleet", "rollout", "evidence", name, "--data", str(server.data)]
    done = subprocess.run([sys.executable, "-m", "strop", *command], capture_output=True, text=True, check=True)
    assert "wave 1: wait: 1 of 1 updated devices have sent too little" in done.stdout
    server.send("POST", f"/api/v1/rollouts/{name}/abort")
