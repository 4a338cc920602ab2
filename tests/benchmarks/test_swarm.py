# SPDX-License-Identifier: Apache-2.0
"""The swarm: a simulated device keeps what is not acknowledged and plays its part; a small swarm balances its books."""

import shutil

import pytest

from benchmarks.fleet.swarm import run
from benchmarks.fleet.swarm.device import TEMPERS, SimDevice
from edge_agent.adapters.mqtt import SPREAD_S, reconnect_pause
from edge_contract.batches import TelemetryAck, decode_batch
from edge_contract.jobs import JobDocument, JobStatus, Probation, Signed
from edge_contract.messages import ReportedState
from edge_contract.states import Status

NEW = "b" * 64
ROOT = "strop/v1/default/d"


def device(temper="good"):
    made = SimDevice("d", TEMPERS[temper], every_s=10.0, running="a" * 64)
    made.connected(1000.0)
    made.next_batch = 1005.0
    return made


def batches(sayings):
    return [decode_batch(said.payload) for said in sayings if said.topic.endswith("tm/metric")]


def order(kind="install", job="j000000000000001"):
    document = JobDocument(job, "d", "r1", kind, "digits", "2.0.0", NEW, 1.0, 9e9, 60.0, Probation())
    return Signed(document.to_bytes(), "key", "00" * 64).to_bytes()


def play(temper, until=1100.0):
    """Give an order and let time pass; return what was said about it."""
    made = device(temper)
    said = made.hear(f"{ROOT}/job/next", order(), 1000.0)
    for second in range(1001, int(until)):
        said += made.tick(float(second), is_online=True)
    statuses = [JobStatus.from_bytes(s.payload).status for s in said if s.topic.endswith("/status")]
    reports = [ReportedState.from_bytes(s.payload) for s in said if s.topic.endswith("twin/reported")]
    return made, statuses, reports


def test_rows_are_made_offline_too_and_kept_until_they_are_acknowledged():
    made = device()
    assert made.tick(1006.0, is_online=False) == []
    (batch,) = batches(made.tick(1016.0, is_online=True))
    assert [row.seq for row in batch.rows] == list(range(1, 11))
    assert batches(made.tick(1017.0, is_online=True)) == [], "said once, and again only after a while"
    made.hear(f"{ROOT}/tm/ack", TelemetryAck("boot1", "metric", 4).to_bytes(), 1018.0)
    assert sorted(made.unsent) == list(range(5, 11))
    made.lost()
    made.connected(1019.0)
    (again,) = batches(made.tick(1019.5, is_online=True))
    assert (again.rows[0].seq, again.after_seq) == (5, 4)


def test_an_ack_of_another_boot_frees_nothing():
    made = device()
    made.tick(1006.0, is_online=True)
    made.hear(f"{ROOT}/tm/ack", TelemetryAck("other", "metric", 99).to_bytes(), 1007.0)
    assert len(made.unsent) == 5


@pytest.mark.parametrize(
    ("temper", "last", "runs"),
    [
        ("good", Status.SUCCEEDED, NEW),
        ("failing", Status.FAILED, "a" * 64),
        ("lying", Status.SUCCEEDED, "a" * 64),
    ],
)
def test_each_temper_plays_its_part(temper, last, runs):
    made, statuses, reports = play(temper)
    assert statuses[0] is Status.IN_PROGRESS
    assert statuses[-1] is last
    assert reports[-1].models["digits"].running == runs == made.running


def test_the_same_order_again_is_answered_and_not_carried_out_twice():
    made, _, _ = play("good")
    (told,) = made.hear(f"{ROOT}/job/next", order(), 1200.0)
    assert JobStatus.from_bytes(told.payload).status is Status.SUCCEEDED
    assert made.hear(f"{ROOT}/job/next", b"not an order", 1200.0) == []


def test_a_fleet_that_stood_for_long_comes_back_spread_out():
    pauses = [reconnect_pause(0, 3600.0, share / 100)[1] for share in range(100)]
    assert max(pauses) > 0.9 * SPREAD_S
    assert sum(pause < 1.0 for pause in pauses) <= 100 / SPREAD_S


def test_every_wave_has_some_of_each_temper():
    plan = run.Plan(devices=2000)
    found = [run._temper(i, plan) for i in range(2000)]
    assert {name: found.count(name) for name in TEMPERS} == {
        "good": pytest.approx(1476, abs=6),
        "slow": pytest.approx(100, abs=4),
        "failing": pytest.approx(20, abs=3),
        "lying": pytest.approx(4, abs=2),
        "coming and going": pytest.approx(400, abs=4),
    }


def test_a_small_swarm_balances_its_books():
    if shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None:
        pytest.skip("no mosquitto: apt-get install mosquitto")
    quick = {"warm_s": 0.5, "with_restart": False, "look_s": 0.3, "soak_s": 0.1, "pages": 2}
    plan = run.Plan(4, 1, moving=0.0, every_s=2.0, **quick)
    result = run.swarm(plan)
    assert result.rollout == "COMPLETED"
    assert sum(result.ends.values()) == 5
    assert (result.books.lost, result.books.doubled, result.open_executions) == (0, 0, 0)
    assert result.books.stored == result.books.made > 20
    assert "held" in run.to_text(result)
    assert result.is_good
