# SPDX-License-Identifier: Apache-2.0
"""A device with several models takes one order for each at once; one of the version before takes one at a time."""

import sqlite3

import pytest

from edge_contract.jobs import JobDocument, Signed
from edge_contract.messages import JOB_PER_MODEL, ModelState, ReportedState
from edge_contract.topics import topic
from fleet.adapters.migrations import migrations
from fleet.adapters.sqlite import SqliteStore
from tests.fleet.test_operations import ROOT, Office
from tests.support.fleet_bundle import write_bundle

OLD = "a" * 64


@pytest.fixture
def office(tmp_path, bundles, profile):
    """An office with versions of two models."""
    faces = tmp_path / "faces"
    more = {**bundles, "faces": (faces, write_bundle(faces, "7.0.0", profile, model="faces"))}
    made = Office(tmp_path / "office", more)
    yield made
    made.store.close()


def says(office, device, *models, features=(JOB_PER_MODEL,)):
    states = {name: ModelState(OLD, OLD, "", "", "0.9") for name in models}
    office.hear(
        device, "twin/reported", ReportedState(device, "b", 0, states, {}, {}, {}, office.now, features=features)
    )


def roll_out(office, version, model):
    document = {"model": model, "bundle": office.ids[version], "waves": [{"rest": True}]}
    return office.operations.rollouts.start(document, "op").id


def standing(office, device):
    """Channel → model of the order that stands there last."""
    last = {
        m.topic.removeprefix(f"{ROOT}/{device}/"): m.payload for m in office.sent if f"/{device}/job/next" in m.topic
    }
    return {c: JobDocument.from_bytes(Signed.from_bytes(p).payload).model if p else "" for c, p in last.items()}


def test_two_models_are_rolled_out_to_one_device_at_once(office):
    office.enrolled("pi")
    says(office, "pi", "digits", "faces")
    roll_out(office, "1.0.0", "digits")
    roll_out(office, "faces", "faces")
    assert standing(office, "pi") == {"job/next/digits": "digits", "job/next/faces": "faces"}


def test_a_device_with_one_model_finds_its_order_on_both_channels(office):
    office.enrolled("pi")
    says(office, "pi", "digits")
    roll_out(office, "1.0.0", "digits")
    assert standing(office, "pi") == {"job/next": "digits", "job/next/digits": "digits"}
    envelopes = {m.payload for m in office.sent if "/job/next" in m.topic}
    assert len(envelopes) == 1


def test_a_device_of_the_version_before_takes_one_order_after_the_other_on_the_old_channel(office):
    office.enrolled("pi")
    says(office, "pi", "digits", features=())
    roll_out(office, "1.0.0", "digits")
    roll_out(office, "faces", "faces")
    assert standing(office, "pi") == {"job/next": "digits"}
    (job,) = office.orders()
    office.succeed(job)
    office.operations.rollouts.tick()  # the first order is taken back,
    office.operations.rollouts.tick()  # and then the device is free
    assert standing(office, "pi") == {"job/next": "faces"}


def test_a_device_that_gains_a_second_model_finds_no_old_order_on_the_old_channel(office):
    office.enrolled("pi")
    says(office, "pi", "digits")
    roll_out(office, "1.0.0", "digits")
    says(office, "pi", "digits", "faces")
    roll_out(office, "faces", "faces")
    assert standing(office, "pi") == {"job/next": "", "job/next/digits": "digits", "job/next/faces": "faces"}
    office.sent.clear()
    office.operations.rollouts.republish()
    office.store.write(lambda _db: None)
    assert standing(office, "pi") == {"job/next/digits": "digits", "job/next/faces": "faces"}


def test_a_removed_device_leaves_nothing_on_any_channel(office):
    office.enrolled("pi")
    says(office, "pi", "digits", "faces")
    roll_out(office, "1.0.0", "digits")
    office.operations.devices.remove("pi", "op")
    assert standing(office, "pi") == {"job/next": "", "job/next/digits": ""}


def test_the_servers_own_words_to_a_model_named_status_are_not_a_report(office):
    office.enrolled("pi")
    assert office.ingest.handle(f"{ROOT}/pi/job/next/status", b"{}") is None
    assert topic("default", "pi", "job/next/status") == f"{ROOT}/pi/job/next/status"


def test_orders_of_a_database_from_before_stand_where_they_stood(tmp_path):
    path = tmp_path / "fleet.db"
    db = sqlite3.connect(path)
    before = [one for one in migrations() if one.number < 4]
    db.execute("CREATE TABLE migrations (version INTEGER PRIMARY KEY)")
    for one in before:
        db.executescript(one.script)
        db.execute("INSERT INTO migrations VALUES (?)", (one.number,))
    db.execute("INSERT INTO orders VALUES ('pi', 'j1', X'7b7d')")
    db.commit()
    db.close()
    store = SqliteStore(path)
    from fleet.adapters import tables

    assert store.read(lambda db: tables.orders(db)) == {("pi", ""): b"{}"}
    store.close()
