# SPDX-License-Identifier: Apache-2.0
"""Rollouts over a real database: what an operator asks for, what devices are sent, and what stands at the end."""

import asyncio
import shutil
import sqlite3
import threading

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI

from edge_contract.errors import RolloutError
from edge_contract.jobs import JobDocument, JobStatus, Signed
from edge_contract.messages import SHADOW_TRIAL, DesiredState, ModelState, ReportedState
from edge_contract.states import Phase, RolloutState, Status
from fleet.adapters import channels, device_states, rollout_tables, tables
from fleet.core.device_states import QUARANTINED, Standing
from fleet.core.inventory import DeviceRecord
from fleet.web.access import Access
from fleet.web.faults import HANDLERS
from fleet.web.rollout_routes import rollout_routes
from tests.fleet.test_operations import ROOT, Office


@pytest.fixture(scope="module")
def template(tmp_path_factory, bundles):
    made = Office(tmp_path_factory.mktemp("template") / "office", bundles)
    made.store.close()
    return made


class Desk(Office):
    """An office with devices that run something, and short words for what they say."""

    def runs(self, *names, version="1.0.0", features=(SHADOW_TRIAL,)):
        """Enrol devices that run a version."""
        for name in names:
            slots = ModelState(self.ids[version], "", "", "", version)
            said = ReportedState(name, "b", 0, {"digits": slots}, {}, {}, {}, self.now, features=features)
            record = DeviceRecord(
                name, self.now, boot="b", session=1, last_seen=self.now, reported=said, desired=DesiredState(0, {}, {})
            )
            self.store.write(lambda db, r=record: tables.put_device(db, r))

    def jobs(self, kind="install"):
        found = [Signed.from_bytes(m.payload).payload for m in self.sent if m.topic.endswith("job/next") and m.payload]
        return [job for job in map(JobDocument.from_bytes, found) if job.kind == kind]

    def says(self, job, status, phase, seq=9, reason="", **details):
        report = JobStatus(job.job_id, job.device, status, phase, seq, reason, details, self.now)
        self.hear(job.device, f"job/{job.job_id}/status", report)

    def fails(self, job, reason="agreement 0.2 < 0.8"):
        self.says(job, Status.FAILED, Phase.ROLLED_BACK, reason=reason)

    def tick(self, seconds=0.0, times=1):
        for _ in range(times):
            self.now += seconds
            self.operations.rollouts.tick()

    def rollout(self, name):
        return self.store.read(lambda db: tables.rollout(db, name))

    def executions(self, name):
        return self.store.read(lambda db: tables.executions(db, int(name[1:])))

    def change(self, name, verb, actor="op", reason=""):
        return self.operations.rollouts.change(name, verb, actor, reason)


class Branch(Desk):
    """A copy of an office that is ready: making keys and registering bundles is the slow part."""

    def __init__(self, folder, template):
        shutil.copytree(template.folder, folder)
        self.now, self.sent, self.folder, self.opened = template.now, [], folder, template.opened
        self.ids = template.ids
        self.open()


@pytest.fixture
def office(tmp_path, template):
    made = Branch(tmp_path / "office", template)
    yield made
    made.store.close()


def order_of(office, device, kind="install"):
    return next(job for job in reversed(office.jobs(kind)) if job.device == device)


def test_a_failure_in_a_later_wave_brings_every_device_back_by_itself(office):
    office.runs("a", "b", "c", "d")
    name = office.start("1.1.0", [{"count": 2}, {"rest": True}], on_failure="roll-back")
    for device in ("a", "b"):
        office.succeed(order_of(office, device))
    office.tick(1, times=2)
    office.fails(order_of(office, "c"))
    office.tick()
    assert office.rollout(name).state is RolloutState.ROLLING_BACK
    (child,) = office.rollout(name).rollbacks
    back = office.rollout(child)
    assert (back.bundle, back.parent, back.is_rollback) == (office.ids["1.0.0"], name, True)
    # d had its order and has said nothing: it may have begun meanwhile, so it goes along.
    assert sorted(office.executions(child)) == ["a", "b", "d"]
    assert office.executions(name)["d"].status is Status.SUPERSEDED
    for device in ("a", "b", "d"):
        office.succeed(order_of(office, device))
    office.tick(1, times=2)
    assert (office.state(name), office.state(child)) == ("ROLLED_BACK", "COMPLETED")
    assert office.rollout(name).reason == "c rolled back: agreement 0.2 < 0.8"


def test_a_completed_rollout_is_taken_back_by_one_command_to_what_each_device_ran_before(office):
    office.runs("a", version="1.0.0")
    office.runs("b", version="1.1.0")
    office.runs("c", version="1.2.0")
    (office.folder / "rules.toml").write_text("")  # no rule binds the channel
    name = office.start("1.2.0", [{"rest": True}], channel="production")
    for device in ("a", "b"):
        office.succeed(order_of(office, device))
    office.tick()
    assert office.state(name) == "COMPLETED"
    assert office.store.read(lambda db: channels.bundle_of(db, "digits", "production")) == office.ids["1.2.0"]
    office.change(name, "rollback", "ann", "complaints from site b")
    children = office.rollout(name).rollbacks
    targets = {d: office.rollout(child).version for child in children for d in office.executions(child)}
    assert targets == {"a": "1.0.0", "b": "1.1.0"}  # c ran it before, and keeps it
    for device in ("a", "b"):
        office.succeed(order_of(office, device))
    office.tick(times=2)
    assert office.state(name) == "ROLLED_BACK"
    assert office.rollout(name).reason == "rolled back by ann: complaints from site b"
    assert office.store.read(lambda db: channels.bundle_of(db, "digits", "production")) is None
    with pytest.raises(RolloutError, match="it is a roll back itself"):
        office.change(children[0], "rollback")


def test_a_roll_back_judges_nothing_by_the_model_that_it_takes_away(office):
    office.runs("a")
    name = office.start("1.1.0", [{"rest": True}], probation={"min_agreement": 0.99, "inferences": 33})
    office.succeed(order_of(office, "a"))
    office.tick()
    office.change(name, "rollback")
    job = order_of(office, "a")
    assert (job.version, job.probation.min_agreement, job.probation.max_latency_ratio) == ("1.0.0", 0.0, 0.0)
    assert job.probation.inferences == 33


def test_a_newer_rollout_of_what_the_device_runs_still_recalls_an_order_at_work(office):
    """Otherwise the newer rollout would report success, and the device would switch a moment later."""
    office.runs("a", version="1.0.0")
    office.start("1.1.0", [{"rest": True}])
    office.says(order_of(office, "a"), Status.IN_PROGRESS, Phase.DOWNLOADING, seq=1)
    newer = office.start("1.0.0", [{"rest": True}])
    assert order_of(office, "a").rollout == newer
    assert office.executions(newer)["a"].status is Status.QUEUED
    assert office.executions("r1")["a"].status is Status.SUPERSEDED


def test_four_eyes_by_rule_and_by_wish(office):
    office.runs("a", "b")
    (office.folder / "rollouts.toml").write_text("above_devices = 1\n")
    small = office.start("1.1.0", [{"count": 1}])
    assert office.state(small) == "RUNNING"
    name = office.start("1.1.0", [{"rest": True}])
    assert (office.state(name), office.rollout(name).created_by) == ("PENDING_APPROVAL", "op")
    office.tick(1, times=3)
    with pytest.raises(RolloutError, match="'op' wrote it"):
        office.change(name, "approve", "op")
    office.change(name, "approve", "bob")
    assert office.state(name) == "RUNNING"
    wished = office.start("1.2.0", [{"count": 1}], needs_approval=True)
    assert office.change(wished, "deny", "bob", "not on a Friday").reason == "denied by bob: not on a Friday"
    (office.folder / "rollouts.toml").write_text("above_devices = 'many'\n")
    with pytest.raises(RolloutError, match=r"rollouts.toml.above_devices: expected an integer"):
        office.start("1.1.0", [])


def test_a_draft_does_nothing_until_it_is_released_and_a_plan_never(office):
    office.runs("a", "b")
    plan = office.operations.rollouts.plan(
        {"model": "digits", "bundle": office.ids["1.1.0"], "waves": [{"count": 1}, {"rest": True}]}, "op"
    )
    assert [wave["devices"] for wave in plan["waves"]] == [["a"], ["b"]]
    assert office.store.read(tables.rollouts) == []
    name = office.start("1.1.0", [{"rest": True}], draft=True)
    office.tick(5, times=3)
    assert (office.state(name), office.jobs()) == ("DRAFT", [])
    office.change(name, "release")
    assert len(office.jobs()) == 2


def test_waves_by_query_and_devices_that_begin_to_match_join_the_rest(office):
    office.runs("a1", "a2", "b1")
    waves = [{"query": "device:a*", "count": 1}, {"query": "device:a*"}]
    name = office.start("1.1.0", waves, dynamic=True)
    assert [wave.devices for wave in office.rollout(name).waves] == [("a1",), ("a2",)]
    office.runs("a3", "b2")
    office.tick(11)
    assert office.rollout(name).waves[1].devices == ("a2", "a3")
    office.succeed(order_of(office, "a1"))
    office.tick(1, times=2)
    assert sorted(job.device for job in office.jobs()) == ["a1", "a2", "a3"]


def test_quarantined_devices_get_no_order_and_hold_nobody_up(office):
    office.runs("a", "b")
    blocked = Standing(QUARANTINED, office.now, "clone suspected", "op")
    office.store.write(lambda db: device_states.put(db, "a", blocked))
    name = office.start("1.1.0", [{"rest": True}])
    assert [job.device for job in office.jobs()] == ["b"]
    office.succeed(order_of(office, "b"))
    office.tick()
    assert office.state(name) == "COMPLETED"
    assert office.executions(name)["a"].reason == "the device is quarantined"


def test_a_device_that_comes_into_quarantine_leaves_its_order_and_is_no_failure(office):
    office.runs("a", "b")
    name = office.start("1.1.0", [{"rest": True}])
    office.says(order_of(office, "a"), Status.IN_PROGRESS, Phase.DOWNLOADING, seq=1)
    office.operations.standings.quarantine("a", "looks odd", "op")
    office.tick(1)
    assert order_of(office, "a", "cancel").rollout == name
    office.succeed(order_of(office, "b"))
    office.tick(1)
    assert office.state(name) == "COMPLETED"
    assert office.executions(name)["a"].status is Status.REMOVED


def test_a_device_that_leaves_before_its_wave_is_never_ordered(office):
    """hawkBit 3110: a deleted device must not make a threshold unreachable."""
    office.runs("a", "b")
    name = office.start("1.1.0", [{"count": 1}, {"rest": True}])
    office.operations.devices.remove("b", "op")
    office.succeed(order_of(office, "a"))
    office.tick(1, times=2)
    assert office.state(name) == "COMPLETED"
    assert office.executions(name)["b"].status is Status.REMOVED


def test_a_cancel_asks_each_device_and_ends_with_the_last_word(office):
    office.runs("a", "b")
    name = office.start("1.1.0", [{"rest": True}], cancel_s=30)
    office.says(order_of(office, "a"), Status.IN_PROGRESS, Phase.DOWNLOADING, seq=1)
    office.change(name, "cancel", "ann")
    assert sorted(job.device for job in office.jobs("cancel")) == ["a", "b"]
    assert office.state(name) == "ABORTING"
    office.says(order_of(office, "a"), Status.CANCELED, Phase.CANCELED, seq=2)
    office.tick(31)
    assert office.state(name) == "ABORTED"
    assert office.rollout(name).reason == "cancelled by ann: 0 updated, 0 failed, 2 cancelled"


def test_an_attempt_is_a_new_order_and_a_late_word_on_the_old_one_changes_nothing(office):
    office.runs("a")
    name = office.start("1.1.0", [{"rest": True}], retries=1, retry_wait_s=10)
    first = order_of(office, "a")
    office.says(first, Status.FAILED, Phase.FAILED, reason="no space")
    office.tick()
    office.tick(11)
    second = order_of(office, "a")
    assert second.job_id > first.job_id
    office.says(first, Status.FAILED, Phase.FAILED, seq=99, reason="late")
    office.succeed(second)
    office.tick()
    assert office.state(name) == "COMPLETED"
    past = office.store.read(lambda db: rollout_tables.history(db, 1))
    assert [(e.job_id, e.reason) for e in past] == [(first.job_id, "no space")]


def test_failed_devices_are_tried_again_by_hand_in_a_live_rollout_and_by_a_new_one_later(office):
    office.runs("a", "b")
    name = office.start("1.1.0", [{"rest": True}], max_failures=1)
    office.fails(order_of(office, "a"))
    office.change(name, "retry")
    office.tick(1)
    assert office.executions(name)["a"].attempt == 2
    office.fails(order_of(office, "a"))
    office.succeed(order_of(office, "b"))
    office.tick()
    assert office.state(name) == "COMPLETED"
    again = office.change(name, "retry")
    assert (again.id, again.parent, sorted(office.executions(again.id))) == ("r2", name, ["a"])
    office.succeed(order_of(office, "a"))
    office.tick()
    assert office.state("r2") == "COMPLETED"
    with pytest.raises(RolloutError, match="rollout r2: no device failed"):
        office.change("r2", "retry")


def test_shadow_then_canary_then_production_as_one_plan(office):
    office.runs("a", "b")
    office.runs("old", features=())
    waves = [
        {"devices": ["b", "old"], "kind": "shadow", "name": "shadow"},
        {"count": 1, "name": "canary"},
        {"rest": True, "name": "production"},
    ]
    (office.folder / "rules.toml").write_text("")  # no rule binds the channel
    name = office.start("1.1.0", waves, channel="production", shadow={"inferences": 20, "min_s": 5, "timeout_s": 60})
    (trial,) = office.jobs("shadow")
    assert (trial.device, trial.probation.inferences, trial.probation.min_s) == ("b", 20, 5)
    assert not any("twin/desired" in m.topic for m in office.sent)  # nothing is to be switched
    assert office.executions(name)["old"].reason == "its agent cannot run a shadow"
    office.says(trial, Status.SUCCEEDED, Phase.DONE, compared=20, agreement=0.95, latency_ratio=1.1)
    office.tick()
    assert [wave.state.value for wave in office.rollout(name).waves] == ["PASSED", "RUNNING", "PENDING"]
    office.succeed(order_of(office, "a"))
    office.tick(1, times=2)
    for device in ("b", "old"):
        office.succeed(order_of(office, device))
    office.tick()
    assert office.state(name) == "COMPLETED"
    assert office.rollout(name).reason == "3 devices updated"
    assert office.store.read(lambda db: channels.bundle_of(db, "digits", "production")) == office.ids["1.1.0"]


def test_eight_callers_at_once_ask_and_tick_and_nothing_happens_twice(office):
    """hawkBit 1853: starting the next wave is atomic under several callers."""
    office.runs("a", "b", "c")
    name = office.start("1.1.0", [{"count": 1}, {"rest": True}])
    office.succeed(order_of(office, "a"))
    gate, refused = threading.Barrier(8), []

    def caller(i):
        gate.wait()
        for _ in range(4):
            try:
                office.change(name, ("pause", "resume", "advance", "retry")[i % 4], f"op{i}")
            except RolloutError as error:
                refused.append(str(error))
            office.operations.rollouts.tick()

    threads = [threading.Thread(target=caller, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if office.state(name) == "PAUSED":
        office.change(name, "resume")
    office.tick(1, times=2)
    assert sorted(job.device for job in office.jobs()) == ["a", "b", "c"]
    assert len({job.job_id for job in office.jobs()}) == 3


def test_a_server_that_restarts_between_any_two_steps_of_a_roll_back_ends_where_it_would_have(office):
    office.runs("a", "b")
    name = office.start("1.1.0", [{"count": 1}, {"rest": True}], on_failure="roll-back", retries=1, retry_wait_s=5)

    def restart():
        office.store.close()
        office.open()
        office.tick(1)

    restart()
    office.succeed(order_of(office, "a"))
    restart()
    restart()
    office.fails(order_of(office, "b"))
    restart()
    restart()
    office.succeed(order_of(office, "a"))
    restart()
    restart()
    assert office.state(name) == "ROLLED_BACK"
    versions = [(job.device, job.version) for job in office.jobs()]
    assert versions == [("a", "1.1.0"), ("b", "1.1.0"), ("a", "1.0.0")]


def test_a_database_of_the_version_before_is_taken_over_in_the_middle_of_a_rollout(office):
    office.runs("a", "b")
    name = office.start("1.1.0", [{"count": 1}, {"rest": True}])
    office.succeed(order_of(office, "a"))
    office.tick()
    office.store.close()
    db = sqlite3.connect(office.folder / "fleet.db")  # as migration 20 leaves what it finds
    db.execute("UPDATE executions SET past = 0, wave = 0, bucket = '', issued = 1, due = 0, moved = 1")
    db.execute("DELETE FROM running")
    new = ("is_rest", "kind", "gates", "retries", "schedule", "rollbacks", "dynamic", "created_by")
    import json

    ((document,),) = db.execute("SELECT document FROM rollouts").fetchall()
    old = json.loads(document)
    for part in (old, old["limits"], *old["waves"]):
        for key in new:
            part.pop(key, None)
    db.execute("UPDATE rollouts SET document = ?", (json.dumps(old).encode(),))
    db.commit()
    db.close()
    office.open()
    office.tick(1)
    office.succeed(order_of(office, "b"))
    office.tick(1)
    assert office.state(name) == "COMPLETED"
    assert sorted(job.device for job in office.jobs()) == ["a", "b"]


def test_a_step_writes_only_what_moved(office):
    office.runs(*(f"d{i:02}" for i in range(30)))
    office.start("1.1.0", [{"rest": True}])
    office.tick(1)
    statements = []

    def step(db):
        db.set_trace_callback(statements.append)
        office.operations.desk.book.tick(db, office.now)
        db.set_trace_callback(None)

    office.store.write(step)
    assert not [one for one in statements if one.startswith(("INSERT", "UPDATE", "DELETE"))]
    office.says(order_of(office, "d07"), Status.IN_PROGRESS, Phase.DOWNLOADING, seq=1)
    statements.clear()
    office.store.write(step)
    written = [one for one in statements if one.startswith(("INSERT", "UPDATE", "DELETE"))]
    assert len(written) == 1
    assert "d07" in written[0]


def test_orders_to_a_device_go_to_its_own_topic(office):
    office.runs("a")
    office.start("1.1.0", [{"rest": True}])
    assert {m.topic for m in office.sent} == {f"{ROOT}/a/twin/desired", f"{ROOT}/a/job/next"}


def test_over_http_a_plan_shows_and_a_large_rollout_is_listed_by_counts_and_pages(office):
    office.runs(*(f"d{i}" for i in range(7)))
    access = Access(*(Depends(lambda: "ann") for _ in range(3)))
    router = APIRouter()
    rollout_routes(router, office.operations, access)
    app = FastAPI(exception_handlers=HANDLERS)
    app.include_router(router)
    transport = httpx.ASGITransport(app)

    def ask(method, path, document=None):
        async def asked():
            async with httpx.AsyncClient(transport=transport, base_url="http://fleet") as client:
                return await client.request(method, path, json=document)

        return asyncio.run(asked())

    document = {"model": "digits", "bundle": office.ids["1.1.0"], "waves": [{"count": 2}, {"rest": True}]}
    plan = ask("POST", "/rollouts/plan", document).json()
    assert ([len(w["devices"]) for w in plan["waves"]], plan["devices"], plan["needs_approval"]) == ([2, 5], 7, False)
    made = ask("POST", "/rollouts", {**document, "max_failures": 9}).json()
    assert made["created_by"] == "ann"
    office.fails(order_of(office, "d0"))
    office.succeed(order_of(office, "d1"))
    office.tick(1)
    (listed,) = ask("GET", "/rollouts").json()
    assert "executions" not in listed
    assert [(w["size"], w["counts"]["failed"], w["counts"]["open"]) for w in listed["waves"]] == [(2, 1, 0), (5, 0, 5)]
    page = ask("GET", "/rollouts/r1?bucket=open&limit=2&offset=1").json()
    assert [e["device"] for e in page["executions"]] == ["d3", "d4"]
    assert ask("POST", "/rollouts/r1/pause", {"reason": "lunch"}).json()["state"] == "PAUSED"
    assert ask("GET", "/rollouts/rules").json()["above_devices"] == -1
    for method, path, status in (("GET", "/rollouts/r9", 404), ("POST", "/rollouts/r1/jump", 400)):
        assert ask(method, path).status_code == status


def test_a_whole_life_on_each_database(tmp_path, bundles, open_store):
    office = Desk(tmp_path / "office", bundles, open_store)
    office.runs("a", "b", "c")
    waves = [{"devices": ["a"], "kind": "shadow"}, {"count": 1}, {"query": "device:*"}]
    limits = {"retries": 1, "retry_wait_s": 5, "rate": {"per_minute": 600}, "on_failure": "roll-back", "cancel_s": 9}
    (office.folder / "rules.toml").write_text("")  # no rule binds the channel
    name = office.start("1.1.0", waves, dynamic=True, channel="production", **limits)
    office.says(order_of(office, "a", "shadow"), Status.SUCCEEDED, Phase.DONE, compared=9, agreement=1.0)
    office.tick(1, times=2)
    office.says(order_of(office, "a"), Status.FAILED, Phase.FAILED, reason="no space")
    office.tick(1)
    office.tick(6)
    office.succeed(order_of(office, "a"))
    office.tick(1, times=3)
    assert [wave.state.value for wave in office.rollout(name).waves] == ["PASSED", "PASSED", "RUNNING"]
    office.fails(order_of(office, "b"))
    office.tick(1)
    (child,) = office.rollout(name).rollbacks
    for device in sorted(office.executions(child)):
        office.succeed(order_of(office, device))
    office.tick(1, times=2)
    assert (office.state(child), office.state(name)) == ("COMPLETED", "ROLLED_BACK")
    assert sorted(office.executions(child)) == ["a", "c"]
    last = office.start("1.2.0", [{"rest": True}], cancel_s=9)
    office.change(last, "cancel")
    office.tick(10)
    assert office.state(last) == "ABORTED"
    assert len(office.store.read(lambda db: rollout_tables.history(db, 1))) == 2
