# SPDX-License-Identifier: Apache-2.0
"""Ingest: each row once, acknowledged only after the commit and never over a gap; bad messages end as dead letters."""

import base64
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_contract.batches import TelemetryAck, TelemetryBatch, TelemetryRow, encode_batch
from edge_contract.jobs import JobStatus
from edge_contract.manifest import Manifest
from edge_contract.messages import Birth, Death, DesiredState, ReportedState
from edge_contract.states import Phase, Status
from edge_contract.verdict import DriftState, judge
from fleet.adapters import tables, telemetry
from fleet.adapters.blobs import BlobStore
from fleet.adapters.ingest import Ingest
from fleet.adapters.judging import WindowJudge
from fleet.adapters.stores import open_store as open_any
from fleet.core.execution import Execution
from fleet.core.inventory import DeviceRecord
from fleet.core.registry import ModelVersion
from tests.support.fleet_bundle import Matcher, profile_of, window, write_bundle

ROOT = "strop/v1/default"


class Server:
    """Ingest over a real store; what it would send is kept."""

    def __init__(self, folder, opened=open_any):
        self.store, self.blobs = opened(folder), BlobStore(folder / "blobs")
        self.sent, self.woken, self.now = [], 0, 1000.0
        self.ingest = Ingest(
            self.store,
            WindowJudge(self.blobs),
            clock=lambda: self.now,
            publish=lambda topic, payload: self.sent.append((topic, payload)),
            wake=self._wake,
        )
        for name in ("pi", "other"):
            record = DeviceRecord(name, 1.0, desired=DesiredState(0, {}, {}))
            self.store.write(lambda db, r=record: tables.put_device(db, r))

    def _wake(self):
        self.woken += 1

    def hear(self, channel, payload, device="pi", *, retained=False):
        future = self.ingest.handle(f"{ROOT}/{device}/{channel}", payload, retained=retained)
        if future is not None:
            future.exception()
        self.store.write(lambda _: None)  # what callbacks wrote is committed, too

    def acks(self):
        return [TelemetryAck.from_bytes(payload).up_to_seq for topic, payload in self.sent if topic.endswith("tm/ack")]

    def rows(self, cls="metric", device="pi"):
        return [row["seq"] for row in self.store.read(lambda db: telemetry.rows(db, device, cls, 0, 10_000))]

    def letters(self):
        return self.store.read(lambda db: [row["reason"] for row in db.execute("SELECT reason FROM dead_letters")])


@pytest.fixture
def server(tmp_path, open_store):
    made = Server(tmp_path, open_store)
    yield made
    made.store.close()


def batch(first, last, *, after=None, cls="metric", boot="b1", device="pi", body=None):
    rows = tuple(TelemetryRow(i, float(i), body or {"n": i}) for i in range(first, last + 1))
    return TelemetryBatch(device, boot, cls, first - 1 if after is None else after, rows)


def test_a_batch_is_stored_and_acknowledged(server):
    server.hear("tm/metric", encode_batch(batch(1, 50)))
    assert server.rows() == list(range(1, 51))
    topic, payload = server.sent[0]
    assert topic == f"{ROOT}/pi/tm/ack"
    assert TelemetryAck.from_bytes(payload) == TelemetryAck("b1", "metric", 50)


def test_a_batch_that_comes_twice_is_stored_once_and_acknowledged_twice(server):
    for _ in range(2):
        server.hear("tm/metric", encode_batch(batch(1, 50)))
    assert server.rows() == list(range(1, 51))
    assert server.acks() == [50, 50]


def test_a_lost_batch_is_never_acknowledged_by_a_later_one(server):
    server.hear("tm/metric", encode_batch(batch(1, 10, after=0)))
    server.hear("tm/metric", encode_batch(batch(21, 30, after=10)))  # 11 to 20 went missing
    assert server.acks() == [10, 10]
    server.hear("tm/metric", encode_batch(batch(11, 20, after=10)))
    assert server.acks() == [10, 10, 30]


def test_rows_that_the_device_dropped_by_policy_do_not_hold_the_mark_up(server):
    server.hear("tm/metric", encode_batch(batch(1, 10, after=0)))
    server.hear("tm/metric", encode_batch(batch(41, 50, after=40)))
    assert server.acks() == [10, 50]


def test_boots_classes_and_devices_count_for_themselves(server):
    server.hear("tm/metric", encode_batch(batch(1, 3)))
    server.hear("tm/event", encode_batch(batch(1, 5, cls="event")))
    server.hear("tm/metric", encode_batch(batch(1, 7, boot="b2")))
    server.hear("tm/metric", encode_batch(batch(1, 9, device="other")), device="other")
    assert server.acks() == [3, 5, 7, 9]
    assert len(server.rows()) == 10


@settings(max_examples=30)
@given(data=st.data())
def test_any_order_any_repetition_any_loss_ends_complete_and_once(tmp_path_factory, data):
    """The device sends what is not acknowledged until it is; the way between loses, doubles and reorders."""
    server = Server(tmp_path_factory.mktemp("ingest"))
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    total, acked, marks = data.draw(st.integers(1, 60)), 0, []
    for _ in range(300):
        if acked == total:
            break
        cuts = sorted({acked, total, *(chance.randint(acked, total) for _ in range(3))})
        batches = [batch(a + 1, b, after=acked) for a, b in itertools.pairwise(cuts)]
        sent = [b for b in batches for _ in range(chance.choice([0, 1, 1, 2]))]
        chance.shuffle(sent)
        for one in sent:
            server.hear("tm/metric", encode_batch(one))
            mark = server.acks()[-1]
            stored = set(server.rows())
            assert set(range(1, mark + 1)) <= stored  # an acknowledgement never covers a row that is not stored
            marks.append(mark)
            if chance.random() < 0.7:  # acknowledgements are lost as well
                acked = max(acked, mark)
    assert sorted(server.rows()) == list(range(1, total + 1))
    server.store.close()


def test_results_are_unfolded_once(server):
    body = {"bundle": "b" * 64, "first": 1, "rows": [["s:0", 3, 0.9], ["s:1", 4, 0.5]]}
    for _ in range(2):
        server.hear("tm/result", encode_batch(batch(1, 3, cls="result", body=body)))
    found = server.store.read(lambda db: telemetry.results(db, "pi", limit=100))
    assert found == [("s:1", 4), ("s:0", 3)] * 3
    assert server.store.read(lambda db: telemetry.result_count(db, "pi")) == 6


@pytest.mark.parametrize(
    ("cls", "body", "words"),
    [
        ("result", {"rows": 3}, "expected bundle and rows"),
        ("result", {"bundle": "b", "rows": [["r", "x", 0.5]]}, "expected [reference, class, confidence]"),
        ("drift", {"bundle": "b"}, "expected bundle and summary"),
        ("drift", {"bundle": "b", "summary": "%%%"}, "not base 64"),
        ("drift", {"bundle": "b", "summary": "AAAA"}, "cannot be a summary"),
    ],
)
def test_a_row_that_cannot_be_read_is_kept_acknowledged_and_explained(server, cls, body, words):
    server.hear(f"tm/{cls}", encode_batch(batch(1, 1, cls=cls, body=body)))
    assert server.acks() == [1]
    assert server.rows(cls) == [1]
    assert words in server.letters()[0]


def test_drift_windows_are_judged_with_the_profile_of_their_bundle(server, tmp_path):
    matcher = Matcher()
    profile = profile_of(matcher)
    bundle = write_bundle(tmp_path / "bundle", "1", profile)
    manifest = Manifest.from_bytes((tmp_path / "bundle" / "manifest.json").read_bytes())
    for entry in manifest.files:
        server.blobs.put(entry.sha256, [(tmp_path / "bundle" / entry.path).read_bytes()])
    server.store.write(lambda db: tables.put_model(db, ModelVersion("digits", "1", bundle, manifest, 1.0)))
    state, expected = DriftState(), []
    for number in range(1, 7):
        shift = 0.33 if number > 3 else 0.0
        summary, _, _ = window(matcher, profile, "pi", bundle, number, seed=number, shift=shift)
        verdict, state = judge(profile, summary, state)
        expected.append(verdict.level.value)
        body = {"bundle": bundle, "summary": base64.b64encode(summary.encode()).decode()}
        server.hear("tm/drift", encode_batch(batch(number, number, cls="drift", body=body)))
    levels = [w.level for w in server.store.read(lambda db: telemetry.windows(db, "pi", 10))]
    assert levels == expected
    assert levels[0] != "ALARM"
    assert levels[-1] == "ALARM"
    assert server.letters() == []


def test_a_window_of_another_device_is_refused(server):
    matcher = Matcher()
    profile = profile_of(matcher)
    summary, _, _ = window(matcher, profile, "other", "b" * 64, 1, seed=1)
    body = {"bundle": "b" * 64, "summary": base64.b64encode(summary.encode()).decode()}
    server.hear("tm/drift", encode_batch(batch(1, 1, cls="drift", body=body)))
    assert "counted by another device" in server.letters()[0]


def test_without_the_profile_the_devices_own_verdict_stands(server):
    matcher = Matcher()
    profile = profile_of(matcher)
    summary, _, _ = window(matcher, profile, "pi", "b" * 64, 1, seed=1, shift=0.9)
    verdict, _ = judge(profile, summary, DriftState())
    summary_text = base64.b64encode(summary.encode()).decode()
    bodies = [
        {"bundle": "b" * 64, "summary": summary_text},
        {"bundle": "b" * 64, "summary": summary_text, "verdict": verdict.to_json()},
    ]
    for i, body in enumerate(bodies, 1):
        server.hear("tm/drift", encode_batch(batch(i, i, cls="drift", body=body)))
    silent, told = server.store.read(lambda db: telemetry.windows(db, "pi", 10))
    assert silent.verdict["reason"] == "the bundle's profile is not known here"
    assert told.level == verdict.level.value


def test_births_deaths_and_reports_make_the_record(server):
    server.hear("state/birth", Birth("pi", "b1", 1, "0.1", "litert", "2.3", {}, 5.0).to_bytes())
    server.hear("twin/reported", ReportedState("pi", "b1", 0, {}, {}, {}, {"inferences": 7}, 6.0).to_bytes())
    record = server.store.read(lambda db: tables.device(db, "pi"))
    assert (record.runtime, record.session, record.last_seen) == ("litert", 1, 1000.0)
    assert record.reported.health == {"inferences": 7}
    server.hear("state/death", Death("pi", "b1", 1).to_bytes(), retained=True)
    assert server.store.read(lambda db: tables.device(db, "pi")).dead == ("b1", 1)
    assert server.woken == 3


def test_a_job_status_reaches_its_execution(server):
    order = Execution("j1", "r1", 1, 0, "pi", "digits", "b" * 64, Status.QUEUED, Phase.QUEUED, 9e9, issued_at=1.0)
    server.store.write(lambda db: tables.put_executions(db, [order]))
    report = JobStatus("j1", "pi", Status.IN_PROGRESS, Phase.VERIFYING, 3, "", {"done": 5}, 1.0)
    server.hear("job/j1/status", report.to_bytes())
    found = server.store.read(lambda db: tables.execution(db, "j1"))
    assert (found.status, found.phase, found.seq) == (Status.IN_PROGRESS, Phase.VERIFYING, 3)


@pytest.mark.parametrize(
    ("channel", "payload", "words"),
    [
        ("tm/metric", b"", "no bytes"),
        ("tm/metric", b"\x09zzz", "codec 9 is unknown"),
        ("tm/metric", b"\x01zzz", "damaged"),
        ("tm/metric", b"\x00{}", "field 'v' is missing"),
        ("tm/metric", encode_batch(batch(1, 2, device="other")), "the payload names device 'other'"),
        ("tm/event", encode_batch(batch(1, 2)), "holds class 'metric'"),
        ("state/birth", b"\xff\xfe", "not JSON"),
        ("state/birth", b"[1", "not JSON"),
        ("twin/reported", b'{"v":99}', "protocol version 99"),
        ("twin/reported", b"[]", "expected an object"),
        (
            "job/j1/status",
            JobStatus("j2", "pi", Status.FAILED, Phase.FAILED, 1, "", {}, 1.0).to_bytes(),
            "names job 'j2'",
        ),
        (
            "job/j9/status",
            JobStatus("j9", "pi", Status.FAILED, Phase.FAILED, 1, "", {}, 1.0).to_bytes(),
            "j9 is not known",
        ),
        ("log/l1", b"text", "nobody listens to this yet"),
    ],
)
def test_a_message_that_cannot_be_taken_is_a_dead_letter_and_never_acknowledged(server, channel, payload, words):
    server.hear(channel, payload)
    assert words in server.letters()[0]
    assert server.sent == []
    assert server.store.read(tables.counts) == {"dead_letters": 1}


def test_a_device_that_is_not_enrolled_is_not_believed(server):
    server.hear("tm/metric", encode_batch(batch(1, 2, device="ghost")), device="ghost")
    assert "not enrolled here" in server.letters()[0]
    server.ingest.handle("other/v1/default/pi/tm/metric", b"").result()
    assert "is not below strop/v1" in server.letters()[1]


def test_our_own_acknowledgements_come_back_and_are_ignored(server):
    assert server.ingest.handle(f"{ROOT}/pi/tm/ack", TelemetryAck("b", "metric", 1).to_bytes()) is None
