# SPDX-License-Identifier: Apache-2.0
"""Retention: hours add up to the rows, rows go once they were rolled up, and every deletion stands in the audit."""

import itertools
import random
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_contract.batches import TelemetryBatch, TelemetryRow
from edge_contract.errors import UsageError
from edge_contract.messages import DesiredState
from fleet.adapters import retention, tables, telemetry
from fleet.adapters.desk import Addresses, Desk, Trust
from fleet.core.audit import first_broken
from fleet.core.inventory import DeviceRecord
from fleet.core.rollup import Rollup, hour_of, read_row

DAY = 86_400.0
NOW = 1_800_000_000.0


class Place:
    """A store with two devices and the retention verbs over it."""

    def __init__(self, store):
        self.store, self.now, self.seq = store, NOW, itertools.count(1)
        trust, addresses = Trust(None, None, None), Addresses("default", "localhost", 1, "")
        more = {"addresses": addresses, "random_bytes": secrets.token_bytes, "publish": lambda _: None}
        desk = Desk(store, None, trust, clock=lambda: self.now, **more)
        self.verbs = retention.RetentionVerbs(desk)
        for name in ("pi", "other"):
            record = DeviceRecord(name, 1.0, desired=DesiredState(0, {}, {}))
            store.write(lambda db, r=record: tables.put_device(db, r))

    def add(self, bodies, cls="metric", device="pi", received=NOW, measured=None):
        seqs = [next(self.seq) for _ in bodies]
        at = received if measured is None else measured
        rows = tuple(TelemetryRow(seq, at, body) for seq, body in zip(seqs, bodies, strict=True))
        batch = TelemetryBatch(device, "b1", cls, seqs[0] - 1, rows)
        judge = lambda *_: ("ok", {})  # noqa: E731
        self.store.write(lambda db: telemetry.keep_batch(db, batch, received, judge))

    def raw(self, device="pi"):
        return sum(self.store.read(lambda db: telemetry.count_rows(db, device)).values())

    def step(self, days=1.0, rollup_days=730.0):
        return self.verbs.step(self.now, days, rollup_days)


@pytest.fixture
def place(open_store, tmp_path):
    return Place(open_store(tmp_path))


def test_hours_are_the_sums_of_their_rows(place):
    start = NOW - 7200.0 - NOW % 3600.0
    place.add([{"n": 5, "errors": 1, "p95_us": 900}, {"n": 7, "errors": 0, "p95_us": 1200}], received=start)
    place.add([{"n": 2, "errors": 2}], received=start + 3600.0)
    place.add([{"n": 9}], device="other", received=start)
    place.step()
    first, second = place.verbs.hours("pi", "metric", 0.0, 10)
    assert (first["start"], first["rows"], first["inferences"], first["errors"]) == (start, 2, 12, 1)
    assert first["p95_us"] == 1200.0
    assert (second["start"], second["rows"], second["inferences"]) == (start + 3600, 1, 2)


def test_rows_that_come_late_are_added_to_their_hour_once(place):
    for _ in range(3):
        place.add([{"n": 1}], received=NOW - 4000.0, measured=NOW - 8000.0)
        place.step()
        place.step()
    (hour,) = place.verbs.hours("pi", "metric", 0.0, 10)
    assert (hour["rows"], hour["inferences"]) == (3, 3)


def test_only_old_rows_that_are_rolled_up_go_and_the_audit_says_how_many(place):
    place.add([{"n": 1}] * 5, received=NOW - 3 * DAY)
    place.add([{"n": 1}] * 3, received=NOW - 0.5 * DAY)
    place.add([{"n": 1}] * 2, received=NOW - 1.0)
    assert place.step()["telemetry"] == 5
    assert place.raw() == 5
    assert sum(hour["rows"] for hour in place.verbs.hours("pi", "metric", 0.0, 10)) == 8  # the newest wait
    (entry,) = place.store.read(tables.all_audit)
    assert (entry.action, entry.detail["rows"]) == ("telemetry.delete", {"telemetry": 5})
    assert first_broken(reversed(place.store.read(tables.all_audit))) is None
    assert place.step() == {"telemetry": 0, "results": 0, "windows": 0, "marks": 0, "drift_hours": 0, "rollups": 0}
    assert len(place.store.read(tables.all_audit)) == 1  # nothing deleted, nothing said


def test_the_mark_outlives_the_rows_and_goes_with_a_boot_that_fell_silent(place):
    place.add([{"n": 1}] * 3, received=NOW - 3 * DAY)
    place.step()
    assert place.raw() == 0
    assert place.store.read(lambda db: db.execute("SELECT COUNT(*) FROM marks").fetchone()[0]) == 0
    place.add([{"n": 1}], received=NOW)
    assert place.store.read(lambda db: db.execute("SELECT up_to FROM marks").fetchone()[0]) == 4


def test_results_windows_and_hours_go_in_their_time(place):
    body = {"bundle": "b" * 64, "rows": [["s:0", 3, 0.9], ["s:1", 4, 0.5]]}
    place.add([body], cls="result", received=NOW - 3 * DAY)
    gone = place.step()
    assert (gone["telemetry"], gone["results"]) == (1, 2)
    assert place.verbs.hours("pi", "result", 0.0, 10)[0]["inferences"] == 2
    assert place.step(rollup_days=1.0)["rollups"] == 1
    assert place.verbs.hours("pi", "result", 0.0, 10) == []


def test_more_rows_than_one_step_takes(place, monkeypatch):
    monkeypatch.setattr(retention, "_STEP", 7)
    place.add([{"n": 1}] * 40, received=NOW - 3 * DAY)
    assert place.step()["telemetry"] == 40
    assert sum(hour["rows"] for hour in place.verbs.hours("pi", "metric", 0.0, 10)) == 40


def test_forgetting_a_device_leaves_the_proof_and_the_others(place):
    for device in ("pi", "other"):
        place.add([{"n": 1}] * 4, device=device, received=NOW - 1000.0)
    place.step()
    assert place.verbs.forget("pi", "alice")["telemetry"] == 4
    assert (place.raw(), place.raw("other")) == (0, 4)
    assert place.verbs.hours("pi", "metric", 0.0, 10) == []
    (entry,) = place.store.read(tables.all_audit)
    assert (entry.actor, entry.action, entry.subject) == ("alice", "telemetry.forget", "pi")
    assert place.verbs.kept()["deletions"][0]["rows"]["telemetry"] == 4
    with pytest.raises(UsageError, match="not enrolled"):
        place.verbs.forget("nobody", "alice")


# --- the arithmetic alone


rolled = st.builds(
    Rollup,
    st.integers(0, 9),
    st.integers(0, 99),
    st.integers(0, 9),
    st.lists(st.integers(0, 9), max_size=4).map(tuple),
    st.floats(0, 1e6),
)


@given(st.lists(rolled, max_size=6), st.integers(0, 2**32))
def test_the_order_of_adding_is_all_the_same(found, seed):
    other = list(found)
    random.Random(seed).shuffle(other)
    a, b = sum(found, Rollup()), sum(other, Rollup())
    assert a == b
    assert a.received == sum(one.received for one in found)


@settings(max_examples=60)
@given(
    st.sampled_from(["metric", "result", "drift", "event"]),
    st.dictionaries(
        st.sampled_from(["n", "errors", "p95_us", "rows", "summary"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none(), max_size=3),
    ),
)
def test_any_body_counts_as_one_row_and_nothing_negative(cls, body):
    found = read_row(cls, body)
    assert found.received == 1
    assert min(found.inferences, found.errors, found.p95_us) >= 0


def test_a_row_with_a_wild_clock_counts_when_it_came():
    assert hour_of(5.0, NOW) == hour_of(NOW * 2, NOW) == int(NOW // 3600)
    assert hour_of(NOW - 30 * DAY, NOW) == int((NOW - 30 * DAY) // 3600)
