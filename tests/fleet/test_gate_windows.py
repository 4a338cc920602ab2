# SPDX-License-Identifier: Apache-2.0
"""Drift windows in the gates: what is harmless is not stopped, a loss of five points is; each row is read once."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.fleet.gate_windows import Kind, looked
from edge_contract.states import Phase, Status
from fleet.adapters import rollout_tables
from fleet.adapters.evidence import AtWork, WaveJudge
from fleet.adapters.sqlite import SqliteStore
from fleet.adapters.updated import Updated
from fleet.core.evidence import DeviceEvidence, Judged, Span
from fleet.core.execution import Execution
from fleet.core.gate_limits import GateLimits
from fleet.core.gate_windows import judge_windows
from tests.fleet.test_evidence import BEGUN, FOREIGN, NAMES, NEW, OLD, TREATED, Fleet
from tests.fleet.test_ingest import Server

LIMITS = GateLimits()


@pytest.mark.parametrize(("treated", "controls"), [(5, 50), (1, 50), (5, 3), (5, 0)])
def test_a_harmless_bundle_is_not_stopped_however_often_one_looks(treated, controls):
    kind = Kind("harmless", treated, controls)
    assert [looked(kind, seed) for seed in range(6)] == [{}] * 6


def test_five_points_of_estimated_accuracy_are_found_with_words():
    found = [looked(Kind("worse", 10, lost=0.05), seed).get("accuracy") for seed in range(8)]
    assert None not in found
    assert np.median([hour for hour, _ in found]) <= 6
    _, finding = found[0]
    assert finding.words.startswith("estimated accuracy lost +")
    assert finding.words.endswith("more than +2.0 points")
    assert (finding.treated, finding.controls) == (10, 50)


def test_windows_that_are_far_from_their_reference_are_found():
    found = [looked(Kind("further", drifted=4.0), seed).get("drift") for seed in range(5)]
    assert None not in found
    assert "of windows unusual" in found[0][1].words


def spans(values, z=0.0):
    made = Span()
    for value in values:
        made = made.judged(Judged(z, z > 3, value))
    return made


def test_too_few_windows_and_invalid_estimates_say_nothing():
    one = DeviceEvidence("d", True, spans([0.9, 0.9]), spans([0.5]))
    assert judge_windows([one], LIMITS) == [None, None]
    blind = [DeviceEvidence(f"d{i}", i < 3, spans([None] * 3), spans([None] * 3)) for i in range(8)]
    drift, accuracy = judge_windows(blind, LIMITS)
    assert accuracy is None
    assert drift.decision == "pass"


def test_without_controls_only_what_is_gross_counts_and_the_words_say_so():
    before, near, far = spans([0.9, 0.91, 0.89] * 5), spans([0.85, 0.86, 0.84] * 5), spans([0.7, 0.71, 0.69] * 5)
    mild = [DeviceEvidence(f"d{i}", True, before, near) for i in range(6)]
    (_, accuracy) = judge_windows(mild, LIMITS)
    assert accuracy.decision == "pass"
    assert "no controls" in accuracy.words
    assert judge_windows([replace(one, after=far) for one in mild], LIMITS)[1].decision == "fail"


@pytest.fixture
def fleet(tmp_path):
    made = Server(tmp_path, lambda folder: SqliteStore(folder / "fleet.db"))
    yield Fleet(made)
    made.store.close()


def tell_windows(fleet, device, bundle, minutes, accuracy=0.9, p=0.5, level="OK", **more):
    rows = []
    for minute in minutes:
        verdict = {"p_family": p, "valid": True, "estimated_accuracy": accuracy, **more}
        rows.append((device, bundle, BEGUN + 60.0 * minute, level, b"", json.dumps(verdict).encode()))
    statement = "INSERT INTO windows (device, bundle, time, level, summary, verdict) VALUES (?,?,?,?,?,?)"
    fleet.server.store.write(lambda db: db.executemany(statement, rows) and None)


def test_the_judge_reads_windows_of_the_right_bundle_and_time_once(fleet):
    fleet.hours()
    for i, name in enumerate(NAMES):
        off = 0.002 * (i % 3)
        tell_windows(fleet, name, OLD, (-50, -40, -30, -20, -10), 0.9 + off)
        tell_windows(fleet, name, OLD, (-500,), 0.1)  # before the look-back
        tell_windows(fleet, name, FOREIGN, (5,), 0.1)  # another model
        tell_windows(fleet, name, NEW if name in TREATED else OLD, (0.2,), 0.1)  # within the settling time
        tell_windows(
            fleet, name, NEW if name in TREATED else OLD, (2, 4, 6, 8), (0.8 if name in TREATED else 0.9) + off
        )
    fleet_words = fleet.look(BEGUN + 800)
    accuracy = next(one for one in fleet_words.evidence if one.measure == "accuracy")
    assert accuracy.estimate == pytest.approx(0.1, abs=0.005)
    assert (accuracy.decision, fleet_words.decision) == ("fail", "fail")
    tell_windows(fleet, TREATED[0], NEW, (20,), "???")
    tell_windows(fleet, TREATED[0], NEW, (21,), level="INSUFFICIENT")
    again = {one.measure: one for one in fleet.look(BEGUN + 1400).evidence}
    fresh = {one.measure: one for one in fleet.look(BEGUN + 1400, WaveJudge()).evidence}
    assert again["accuracy"] == fresh["accuracy"] == accuracy
    assert again["drift"] == fresh["drift"]


def test_executions_that_ended_are_opened_once(fleet, monkeypatch):
    fleet.hours()
    store, opened = fleet.server.store, []
    store.write(lambda db: rollout_tables.put(db, fleet.executions.values(), is_seen=True))
    read = Execution.from_json
    monkeypatch.setattr(Execution, "from_json", lambda document: opened.append(1) or read(document))
    work = AtWork(fleet.rollout, LIMITS, None, {name: NEW if name in TREATED else OLD for name in NAMES})
    judge = WaveJudge()
    fleet.look(BEGUN + 1)
    first = store.write(lambda db: judge(db, work, BEGUN + 800))
    assert len(opened) == len(TREATED)
    late = replace(fleet.execution(NAMES[9]), updated_at=BEGUN + 300)
    failed = replace(fleet.execution(NAMES[10]), status=Status.FAILED, phase=Phase.ROLLED_BACK)
    store.write(lambda db: rollout_tables.put(db, [late, failed], is_seen=True))
    second = store.write(lambda db: judge(db, work, BEGUN + 900))
    assert len(opened) == len(TREATED) + 1
    counted = [(one.treated, one.controls) for told in (first, second) for one in told.evidence if one.measure == "p95"]
    assert counted == [(4, 12), (4, 10)]
    updated = Updated(1)
    assert {one.device for one in store.read(updated.read)} == {*TREATED, NAMES[9]}
    assert updated.ended == {*TREATED, NAMES[9], NAMES[10]}
