# SPDX-License-Identifier: Apache-2.0
"""Verbs and engine over a real database, without a network: what is published, in which order, how often."""

import secrets
import threading
import time

import pytest

from edge_contract.errors import RolloutError, SignatureError, UsageError
from edge_contract.jobs import JobDocument, JobStatus, Signed
from edge_contract.messages import DesiredState, ModelState, ReportedState
from edge_contract.states import Phase, Status
from export.keys import signing
from fleet.adapters import credentials, tables
from fleet.adapters.blobs import BlobStore
from fleet.adapters.desk import Addresses
from fleet.adapters.ingest import Ingest
from fleet.adapters.judging import WindowJudge
from fleet.adapters.operations import Operations
from fleet.adapters.stores import open_store as open_any
from fleet.core.inventory import DeviceRecord

ROOT = "strop/v1/default"


class Office:
    """Operations with everything real but the broker and the clock."""

    def __init__(self, folder, bundles, opened=open_any):
        self.now, self.sent, self.folder, self.opened = time.time(), [], folder, opened
        credentials.init(folder, now=self.now)
        self.open()
        signing.create_keys(folder / "keys", (folder / "tuf" / "online.pub").read_bytes())
        self.operations.models.install_root((folder / "keys" / "root.json").read_bytes(), "op")
        self.ids = {}
        for version, (bundle, bundle_id) in bundles.items():
            targets = signing.sign_bundle(folder / "keys", bundle)
            import hashlib

            for path in bundle.iterdir():
                data = path.read_bytes()
                self.operations.models.put_blob(hashlib.sha256(data).hexdigest(), [data], "op")
            self.operations.models.register(bundle_id, targets, "op")
            self.ids[version] = bundle_id

    def open(self):
        self.store = self.opened(self.folder)
        blobs = BlobStore(self.folder / "blobs")
        self.operations = Operations(
            self.store,
            blobs,
            credentials.open_trust(self.folder),
            addresses=Addresses("default", "localhost", 8883, "https://localhost:8443"),
            clock=lambda: self.now,
            random_bytes=secrets.token_bytes,
            publish=self.sent.append,
        )
        judge = WindowJudge(blobs)
        self.ingest = Ingest(self.store, judge, clock=lambda: self.now, publish=lambda *_: None, wake=lambda: None)

    def enrolled(self, *names):
        for name in names:
            record = DeviceRecord(name, self.now, desired=DesiredState(0, {}, {}))
            self.store.write(lambda db, r=record: tables.put_device(db, r))

    def start(self, version, waves, **more):
        document = {"model": "digits", "bundle": self.ids[version], "waves": waves, **more}
        return self.operations.rollouts.start(document, "op").id

    def orders(self, kind="install"):
        found = [m for m in self.sent if m.topic.endswith("job/next") and m.payload]
        jobs = [JobDocument.from_bytes(Signed.from_bytes(m.payload).payload) for m in found]
        return [job for job in jobs if job.kind == kind]

    def hear(self, device, channel, message):
        self.ingest.handle(f"{ROOT}/{device}/{channel}", message.to_bytes()).result()

    def succeed(self, job):
        slots = ModelState(job.bundle, job.bundle, "", "", job.version)
        state = ReportedState(job.device, "b", 0, {"digits": slots}, {}, {}, {}, self.now)
        self.hear(job.device, "twin/reported", state)
        report = JobStatus(job.job_id, job.device, Status.SUCCEEDED, Phase.DONE, 9, "", {}, self.now)
        self.hear(job.device, f"job/{job.job_id}/status", report)

    def state(self, rollout):
        return self.store.read(lambda db: tables.rollout(db, rollout)).state.value


@pytest.fixture
def office(tmp_path, bundles):
    made = Office(tmp_path, bundles)
    yield made
    made.store.close()


@pytest.fixture
def office_on_each(tmp_path, bundles, open_store):
    """On SQLite, then on PostgreSQL: for what writers and callers at once might break."""
    made = Office(tmp_path, bundles, open_store)
    yield made
    made.store.close()


def test_a_hundred_callers_at_once_start_a_wave_once(office_on_each):
    office = office_on_each
    office.enrolled("a", "b", "c")
    rollout = office.start("1.0.0", [{"count": 1}, {"rest": True}])
    (canary,) = office.orders()
    office.succeed(canary)
    gate = threading.Barrier(8)

    def caller():
        gate.wait()
        for _ in range(12):
            office.operations.rollouts.tick()

    threads = [threading.Thread(target=caller) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(job.device for job in office.orders()) == ["a", "b", "c"]
    assert len(office.orders("none")) == 1
    assert office.state(rollout) == "RUNNING"


def test_a_server_that_stops_between_any_two_steps_ends_where_it_would_have(office_on_each):
    office = office_on_each
    office.enrolled("a", "b")
    rollout = office.start("1.0.0", [{"count": 1}, {"rest": True}], soak_s=30)

    def restart():
        office.store.close()
        office.open()

    for device in ("a", "b"):
        restart()
        office.operations.rollouts.tick()
        job = office.orders()[-1]
        assert job.device == device
        restart()
        office.succeed(job)
        restart()
        office.operations.rollouts.tick()
        office.now += 31
        restart()
        office.operations.rollouts.tick()
    assert office.state(rollout) == "COMPLETED"
    assert [job.device for job in office.orders()] == ["a", "b"]


def test_an_order_is_signed_bound_to_its_device_and_ends(office):
    office.enrolled("a")
    rollout = office.start("1.0.0", [{"rest": True}], timeout_s=100, grace_s=5, probation={"inferences": 7})
    (job,) = office.orders()
    assert (job.device, job.rollout, job.bundle) == ("a", rollout, office.ids["1.0.0"])
    assert (job.issued_at, job.expires_at, job.timeout_s) == (office.now, office.now + 105, 100)
    assert job.probation.inferences == 7


def test_desired_state_is_published_before_the_order(office):
    office.enrolled("a")
    office.start("1.0.0", [{"rest": True}])
    assert [m.topic.removeprefix(f"{ROOT}/a/") for m in office.sent] == ["twin/desired", "job/next"]
    assert all(message.retain for message in office.sent)


def test_a_failed_device_is_wanted_where_it_stands(office_on_each):
    office = office_on_each
    office.enrolled("a")
    office.start("1.0.0", [{"rest": True}])
    office.succeed(office.orders()[-1])
    office.operations.rollouts.tick()
    bad = office.start("1.1.0", [{"rest": True}])
    job = office.orders()[-1]
    report = JobStatus(job.job_id, "a", Status.FAILED, Phase.ROLLED_BACK, 9, "too slow", {}, office.now)
    office.hear("a", f"job/{job.job_id}/status", report)
    office.operations.rollouts.tick()
    record = office.store.read(lambda db: tables.device(db, "a"))
    assert office.state(bad) == "ABORTED"
    assert record.desired.models == {"digits": office.ids["1.0.0"]}
    assert record.desired.version == 3


def test_republishing_says_everything_again(office_on_each):
    office = office_on_each
    office.enrolled("a", "b")
    office.start("1.0.0", [{"rest": True}])
    said = {m.topic: m.payload for m in office.sent}
    office.sent.clear()
    office.operations.rollouts.republish()
    office.store.write(lambda _: None)
    assert {m.topic: m.payload for m in office.sent} == said


def test_removing_a_device_clears_what_stands_for_it(office):
    office.enrolled("a")
    office.start("1.0.0", [{"rest": True}])
    office.sent.clear()
    office.operations.devices.remove("a", "op")
    assert {(m.topic.removeprefix(f"{ROOT}/a/"), m.payload) for m in office.sent} == {
        ("twin/desired", b""),
        ("job/next", b""),
        ("twin/reported", b""),
        ("state/birth", b""),
        ("state/death", b""),
    }
    with pytest.raises(UsageError, match="not enrolled"):
        office.operations.devices.remove("a", "op")


def test_an_unknown_verb_or_rollout_is_refused(office):
    with pytest.raises(RolloutError, match="rollout 'r9' is not known"):
        office.operations.rollouts.change("r9", "pause", "op")
    rollout = office.start("1.0.0", [])
    with pytest.raises(UsageError, match="unknown verb 'jump'"):
        office.operations.rollouts.change(rollout, "jump", "op")


def test_a_rollout_to_nobody_completes_at_once(office):
    assert office.state(office.start("1.0.0", [{"rest": True}])) == "COMPLETED"


def test_before_a_root_is_installed_nobody_enrols(tmp_path):
    from edge_contract.enrolment import EnrolmentRequest

    data = tmp_path / "fresh"
    credentials.init(data, now=time.time())
    store = open_any(data)
    operations = Operations(
        store,
        BlobStore(data / "blobs"),
        credentials.open_trust(data),
        addresses=Addresses("default", "localhost", 1, "https://localhost:1"),
        clock=time.time,
        random_bytes=secrets.token_bytes,
        publish=lambda _: None,
    )
    token = operations.devices.new_token(60.0, "op")
    with pytest.raises(SignatureError, match=r"no root.json is installed.*strop fleet trust"):
        operations.devices.enrol(EnrolmentRequest(token, "pi", "no request"))
    store.close()


def test_init_twice_keeps_every_key(tmp_path):
    assert credentials.init(tmp_path / "d", now=1e9)
    before = {p: p.read_bytes() for p in (tmp_path / "d").rglob("*") if p.is_file()}
    assert not credentials.init(tmp_path / "d", now=2e9)
    assert {p: p.read_bytes() for p in (tmp_path / "d").rglob("*") if p.is_file()} == before


def test_an_interrupted_init_is_finished_by_the_next_one(tmp_path):
    data = tmp_path / "d"
    credentials.init(data, now=1e9)
    for name in ("operator.token", "tuf/online.pub", "job/job.key"):
        (data / name).unlink()
    assert credentials.init(data, now=1e9)
    credentials.open_trust(data)
    assert len(credentials.operator_token(data)) == 64
