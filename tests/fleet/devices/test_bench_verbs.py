# SPDX-License-Identifier: Apache-2.0
"""Benchmarks on the server without a network: turns, words in any order, receipts, ends, bounds; on both databases."""

import hashlib
import json

import pytest

from edge_contract import canonical
from edge_contract.bench_job import BenchJob, BenchOutcome
from edge_contract.errors import MessageError, RegistryError, UsageError
from edge_contract.jobs import Signed
from fleet.adapters import bench_rows, release_verbs
from fleet.core import bench
from fleet.core.bench import BenchPart, has_ended, heard, read_request
from fleet.core.bench_summary import summary
from fleet.core.capture import Refusal

CONTENT = b"a model that nobody signed"
SHA = hashlib.sha256(CONTENT).hexdigest()
FILE = {"name": "m.tflite", "sha256": SHA, "size": len(CONTENT)}
RESULT = {"schema": "edgebench/1", "status": "valid", "latency_us": {"total": {"p50": 1000.0, "p50_ci95": [900, 1100]}}}


def start(bureau, query="all", **more):
    bureau.operations.models.put_blob(SHA, [CONTENT], "op")
    return bureau.operations.benchmarks.start({"model": {"files": [FILE]}, "query": query, **more}, "op")


def say(bureau, job, device="pi", kind="bench", **body):
    bureau.hear(device, f"cmd/{kind}/{job}/result", canonical.dumps({"v": 1, "ok": True, **body}))


def stands(bureau, run, device="pi"):
    jobs = bureau.operations.benchmarks.show(run["id"])["jobs"]
    return next((job["state"], job["why"]) for job in jobs if job["device"] == device)


def orders(bureau, device="pi"):
    """The orders that a device was told, as it reads them."""
    found = [json.loads(m.payload) for m in bureau.sent if f"/{device}/cmd/bench/" in m.topic]
    return [BenchJob.from_bytes(Signed.from_bytes(canonical.dumps(one["order"])).payload) for one in found]


def finish(bureau, job, device="pi", *, ok=True, result=RESULT):
    verbs, files = bureau.operations.benchmarks, {}
    if ok:
        files["result.json"] = verbs.take(job, device, "result.json", json.dumps(result).encode())
    return verbs.end(job, device, BenchOutcome(job, ok, "" if ok else "it failed", files).to_bytes())


def test_each_device_gets_a_signed_order_of_its_own_and_is_not_told_twice_at_once(bureau):
    bureau.enrolled("pi", "pi-2")
    run = start(bureau, plan={"runs": 50, "seconds": 0.5})
    assert [job["device"] for job in run["jobs"]] == ["pi", "pi-2"]
    assert [one.device for one in (*orders(bureau), *orders(bureau, "pi-2"))] == ["pi", "pi-2"]
    assert not any(m.retain for m in bureau.sent)
    second = start(bureau, "device:pi")
    assert stands(bureau, second) == ("queued", "")
    assert len(orders(bureau)) == 1
    say(bureau, run["jobs"][0]["id"], state="accepted")
    say(bureau, run["jobs"][0]["id"], state="waiting", why="an update is under way")
    assert stands(bureau, run) == ("waiting", "an update is under way")
    say(bureau, run["jobs"][0]["id"], state="accepted")  # a second copy of the order, answered late
    assert stands(bureau, run)[0] == "waiting"
    receipt = finish(bureau, run["jobs"][0]["id"])
    assert len(receipt) == 64
    assert stands(bureau, run) == ("done", "")
    assert [one.run for one in orders(bureau)] == [run["id"], second["id"]]
    assert bureau.audited("bench.start")[0][1]["devices"] == 2


def test_a_last_word_whose_receipt_got_lost_is_taken_again_and_another_one_is_not(bureau):
    bureau.enrolled("pi")
    job = start(bureau)["jobs"][0]["id"]
    first = finish(bureau, job)
    word = BenchOutcome(job, True, "", {"result.json": hashlib.sha256(json.dumps(RESULT).encode()).hexdigest()})
    assert bureau.operations.benchmarks.end(job, "pi", word.to_bytes()) == first
    other = bureau.operations.benchmarks.end(job, "pi", BenchOutcome(job, False, "no", {}).to_bytes())
    assert other == Refusal(409, "the benchmark has ended: done")
    assert bureau.operations.benchmarks.take(job, "pi", "late.bin", b"1").status == 409


def test_an_agent_that_does_not_know_benchmarks_is_named_as_older(bureau):
    bureau.enrolled("pi")
    run = start(bureau)
    say(bureau, run["jobs"][0]["id"], ok=False, error="unknown command 'bench'; this agent knows logs, ping")
    state, why = stands(bureau, run)
    assert state == "refused"
    assert why.endswith("this agent knows logs, ping; its agent is of an older version")


def test_a_word_of_a_device_that_nobody_asked_is_a_dead_letter(bureau):
    bureau.enrolled("pi", "pi-2")
    run = start(bureau, "device:pi")
    say(bureau, run["jobs"][0]["id"], "pi-2", state="accepted")
    assert "nobody asked" in bureau.dead_letters()[0]
    verbs, job = bureau.operations.benchmarks, run["jobs"][0]["id"]
    assert verbs.take(job, "pi-2", "result.json", b"{}").status == 404
    assert verbs.end(job, "pi-2", BenchOutcome(job, True, "", {}).to_bytes()).status == 404
    assert (verbs.wants(job, "pi", SHA), verbs.wants(job, "pi-2", SHA), verbs.wants(job, "pi", "0" * 64)) == (
        True, False, False,
    )  # fmt: skip


def test_a_result_is_bounded_and_must_have_come_before_its_last_word(bureau):
    bureau.enrolled("pi")
    run, verbs = start(bureau), bureau.operations.benchmarks
    job = run["jobs"][0]["id"]
    assert verbs.take(job, "pi", "result.json", bytes(1_000_001)).status == 413
    assert verbs.take(job, "pi", "../x", b"1").status == 404
    early = verbs.end(job, "pi", BenchOutcome(job, True, "", {"result.json": SHA}).to_bytes())
    assert early == Refusal(409, "'result.json' has not come yet")
    for n in range(16):
        assert isinstance(verbs.take(job, "pi", f"f{n}", b"1"), str)
    assert verbs.take(job, "pi", "f16", b"1").why == "more than 16 files"
    with pytest.raises(MessageError, match="another order"):
        verbs.end(job, "pi", BenchOutcome("other", True, "", {}).to_bytes())


def test_a_result_that_cannot_be_read_is_a_failure_with_its_reason(bureau):
    bureau.enrolled("pi")
    run = start(bureau)
    finish(bureau, run["jobs"][0]["id"], result={"schema": "other/1"})
    state, why = stands(bureau, run)
    assert state == "failed"
    assert "its result cannot be read" in why


def test_a_device_that_connects_hears_its_order_or_its_withdrawal_again(bureau):
    bureau.enrolled("pi")
    run = start(bureau)
    bureau.birth("pi")
    assert len(orders(bureau)) == 2
    say(bureau, run["jobs"][0]["id"], state="measuring")
    bureau.birth("pi", boot="b2")
    assert len(orders(bureau)) == 2
    bureau.operations.benchmarks.cancel(run["id"], "ann")
    assert stands(bureau, run) == ("cancelling", "by ann")
    bureau.birth("pi", boot="b3")
    assert len(bureau.messages(f"cmd/bench-cancel/{run['jobs'][0]['id']}")) == 2
    say(bureau, run["jobs"][0]["id"], kind="bench-cancel", ok=False, error="is not in hand here")
    assert stands(bureau, run)[0] == "cancelling"
    finish(bureau, run["jobs"][0]["id"], ok=False)
    assert stands(bureau, run) == ("cancelled", "it failed")


def test_what_was_not_begun_is_withdrawn_at_once_and_the_next_one_is_told(bureau):
    bureau.enrolled("pi")
    first, second = start(bureau), start(bureau)
    shown = bureau.operations.benchmarks.cancel(first["id"], "ann")
    assert (shown["is_open"], stands(bureau, first)) == (False, ("cancelled", "by ann"))
    assert [one.run for one in orders(bureau)] == [first["id"], second["id"]]
    assert bureau.operations.benchmarks.cancel(first["id"], "ann")["jobs"][0]["why"] == "by ann"
    assert len(bureau.audited("bench.cancel")) == 1


def test_an_order_without_an_answer_is_said_again_and_ends_with_its_time(bureau):
    bureau.enrolled("pi", "pi-2")
    run = start(bureau, "device:pi", hours=1.0)
    other = start(bureau, "device:pi-2", hours=1.0)
    say(bureau, other["jobs"][0]["id"], "pi-2", state="measuring")
    assert bureau.operations.benchmarks.step() == 0
    assert len(orders(bureau)) == 1
    bureau.now += 61
    bureau.operations.benchmarks.step()
    assert len(orders(bureau)) == 2
    bureau.now += 3600
    assert bureau.operations.benchmarks.step() == 1
    assert stands(bureau, run) == ("expired", "the device never answered")
    assert stands(bureau, other, "pi-2")[0] == "measuring"  # its result may be on the way
    bureau.now += 3600
    bureau.operations.look_after(0.0)
    assert stands(bureau, other, "pi-2") == ("expired", "nothing came after 'measuring'")


def test_a_device_in_quarantine_measures_nothing(bureau):
    bureau.enrolled("pi")
    bureau.operations.standings.quarantine("pi", "two machines", "op")
    run = start(bureau)
    assert stands(bureau, run) == ("refused", "the device is in quarantine")
    assert not orders(bureau)


def test_files_of_a_live_benchmark_outlive_a_sweep_and_others_do_not(desk):
    desk.enrolled("pi")
    run = start(desk)
    assert SHA in desk.read(release_verbs.needed_files)
    desk.now += 90_000
    assert desk.operations.releases.sweep_files("op", grace_s=0.0)["files"] == 0
    desk.operations.benchmarks.cancel(run["id"], "op")
    assert desk.operations.releases.sweep_files("op", grace_s=0.0) == {"files": 1, "bytes": len(CONTENT)}


def test_old_benchmarks_make_room_and_live_ones_stay(desk, monkeypatch):
    desk.enrolled("pi", "pi-2")
    monkeypatch.setattr(bench_rows, "KEPT_RUNS", 3)
    monkeypatch.setattr(bench_rows, "KEPT_BYTES", 10_000)
    live = start(desk, "device:pi-2")
    old = []
    for _ in range(5):
        desk.now += 1
        old.append(start(desk, "device:pi"))
        finish(desk, old[-1]["jobs"][0]["id"])
    monkeypatch.setattr(bench_rows, "KEPT_RUNS", 30)
    start(desk, "device:pi")
    listed = [one["id"] for one in desk.operations.benchmarks.listed()]
    assert live["id"] in listed
    monkeypatch.setattr(bench_rows, "KEPT_BYTES", 10)
    desk.now += 1
    start(desk, "device:pi")
    listed = [one["id"] for one in desk.operations.benchmarks.listed()]
    assert live["id"] in listed
    assert old[0]["id"] not in listed


def test_what_a_device_measured_is_erased_with_it(bureau):
    bureau.enrolled("pi")
    run = start(bureau)
    finish(bureau, run["jobs"][0]["id"])
    bureau.operations.standings.decommission("pi", "op", delete=True)
    assert bureau.operations.benchmarks.show(run["id"])["jobs"] == []


REQUESTS = {
    "no model": ({"model": {}}, UsageError, "name one model"),
    "two models": ({"model": {"name": "a", "bundle": "ab" * 32}}, UsageError, "name one model"),
    "an unknown model": ({"model": {"name": "ghost"}}, RegistryError, "'ghost' is not registered"),
    "no devices": ({"query": " "}, UsageError, "names no devices"),
    "nobody fits": ({"query": "device:ghost"}, UsageError, "no device fits"),
    "a plan with a path": ({"plan": {"artefact": "/etc/passwd"}}, UsageError, "may not say 'artefact'"),
    "for ever": ({"hours": 1e9}, UsageError, "hours = 1e"),
    "too long": ({"max_seconds": 1e9}, UsageError, "max_seconds"),
    "nothing at all": ({"max_bytes": 0}, UsageError, "max_bytes = 0"),
    "larger than its limit": ({"max_bytes": 5}, UsageError, "larger than max_bytes"),
    "a file that is not here": (
        {"model": {"files": [{**FILE, "sha256": "0" * 64}]}}, UsageError, "is not on the server",
    ),
    "a path as a file": ({"model": {"files": [{**FILE, "name": "../m"}]}}, MessageError, "is not a name"),
}  # fmt: skip


@pytest.mark.parametrize("case", REQUESTS)
def test_a_request_that_cannot_be_kept_is_refused_and_leaves_nothing(desk, case):
    desk.enrolled("pi")
    more, kind, words = REQUESTS[case]
    with pytest.raises(kind, match=words):
        start(desk, **{"query": "all", **more}) if "model" not in more else desk.operations.benchmarks.start(
            {"query": "all", **more}, "op"
        )
    assert desk.operations.benchmarks.listed() == []
    assert not desk.sent


def test_two_hundred_devices_are_enough(desk):
    desk.enrolled(*(f"pi-{n}" for n in range(201)))
    with pytest.raises(UsageError, match="201 devices fit, at most 200"):
        start(desk)


def part(state, **more):
    return BenchPart("b1-0", "b1", "pi", state, "", 0.0, 1.0, 1.0, 100.0, {}, **more)


@pytest.mark.parametrize("state", bench.ENDED)
@pytest.mark.parametrize("answer", [{"ok": True, "state": "measuring"}, {"ok": False, "error": "x"}])
def test_a_word_on_what_has_ended_changes_nothing(state, answer):
    assert heard(part(state), answer, 5.0) == part(state)
    assert has_ended(part(state), 1e12) == part(state)


@pytest.mark.parametrize("state", bench.ON_DEVICE)
def test_a_refused_second_copy_does_not_end_what_is_in_hand(state):
    after = heard(part(state), {"ok": False, "error": "was carried out already"}, 5.0)
    assert after.state == ("refused" if state == "cancelling" else state)


@pytest.mark.parametrize("document", [[], {"schema": "edgebench/2"}, {"schema": "edgebench/1", "latency_us": 3}])
def test_what_is_no_result_has_no_summary(document):
    with pytest.raises(MessageError):
        summary(document)


def test_a_summary_takes_foreign_numbers_for_what_they_are():
    times = {"p50": float("nan"), "p50_ci95": [1, "2"], "p90_ub99": True}
    document = {"schema": "edgebench/1", "latency_us": {"total": times}, "device": {"board": 3}, "reasons": "x"}
    found = summary(document)
    assert not {"p50_ms", "p50_ci95_ms", "p90_ub99_ms"} & set(found)
    assert (found["board"], found["reasons"]) == (3, [])
    bare = {"invoke": {"p50": 1000.0}, "total": {"p50": 3000.0}}
    assert summary({"schema": "edgebench/1", "latency_us": bare, "scenario": {"mode": "bare"}})["p50_ms"] == 1.0
    assert read_request({"model": {"name": "m"}, "query": "all"}, "b1", "op", 5.0).expires_at == 5.0 + 7200
