# SPDX-License-Identifier: Apache-2.0
"""The database and the blobs: commits in groups, faults that hurt nobody else, and records that come back."""

import hashlib
import sqlite3
import threading

import pytest

from edge_contract.errors import RolloutError, StoreError
from edge_contract.messages import DesiredState
from fleet.adapters import tables, telemetry
from fleet.adapters.blobs import BlobStore
from fleet.adapters.migrations import Migration, migrations
from fleet.adapters.sqlite import SqliteStore
from fleet.core.audit import first_broken
from fleet.core.inventory import DeviceRecord


@pytest.fixture
def store(open_store, tmp_path):
    return open_store(tmp_path)


def add(db, name, value=1):
    tables.bump(db, name, value)


def test_a_write_is_seen_by_readers_of_every_thread_after_it_returned(store):
    store.write(lambda db: add(db, "n", 3))
    seen = []
    thread = threading.Thread(target=lambda: seen.append(store.read(tables.counts)))
    thread.start()
    thread.join()
    assert seen == [{"n": 3}]


def test_a_failing_write_undoes_itself_and_nobody_elses(store):
    gate = threading.Event()

    def fails(db):
        add(db, "bad")
        raise RolloutError("no")

    store.submit(lambda _: gate.wait(10))  # holds the writer, so that the next three share one commit
    futures = [store.submit(job) for job in (lambda db: add(db, "one"), fails, lambda db: add(db, "two"))]
    gate.set()
    with pytest.raises(RolloutError):
        futures[1].result()
    futures[2].result()
    assert store.read(tables.counts) == {"one": 1, "two": 1}


def test_callbacks_run_in_the_order_of_the_commits(store):
    seen = []
    futures = [store.submit(lambda _, i=i: i, then=lambda done: seen.append(done.result())) for i in range(500)]
    futures[-1].result()
    store.write(lambda _: None)
    assert seen == list(range(500))


def test_a_callback_may_write_again(store):
    done = threading.Event()
    store.submit(
        lambda db: add(db, "first"),
        then=lambda _: store.submit(lambda db: add(db, "second"), then=lambda _: done.set()),
    )
    assert done.wait(10)
    assert store.read(tables.counts) == {"first": 1, "second": 1}


def test_readers_cannot_write(store):
    with pytest.raises(StoreError, match=r"read-?only"):
        store.read(lambda db: add(db, "n"))


def test_what_was_committed_survives_and_the_schema_is_not_made_twice(tmp_path, open_store):
    for i in (1, 2):
        store = open_store(tmp_path)
        store.write(lambda db: add(db, "n"))
        assert store.read(tables.counts) == {"n": i}
        store.close()


def test_a_closed_store_refuses(store):
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.write(lambda db: add(db, "n"))


def test_a_database_of_a_newer_server_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "fleet.db"
    SqliteStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO migrations VALUES (9999)")
    db.close()
    with pytest.raises(StoreError, match="schema 9999 is of a newer Strop"):
        SqliteStore(path)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "fleet.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreError, match=r"fleet.db: the database cannot be opened"):
        SqliteStore(tmp_path / "fleet.db")


def test_each_migration_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "fleet.db"
    SqliteStore(path).close()
    broken = (*migrations(), Migration(9999, "broken", "CREATE TABLE more (x); CREATE TABLE more (x);"))
    monkeypatch.setattr("fleet.adapters.migrations.migrations", lambda: broken)
    with pytest.raises(StoreError, match="more already exists"):
        SqliteStore(path)
    monkeypatch.undo()
    store = SqliteStore(path)
    names = store.read(lambda db: [row[0] for row in db.execute("SELECT name FROM sqlite_master")])
    assert "more" not in names
    store.close()


def test_device_records_come_back_as_they_were(store):
    record = DeviceRecord(
        "pi", 5.0, boot="b", session=3, dead=("b", 2), board={"m": 1}, desired=DesiredState(4, {}, {"a": 1})
    )
    store.write(lambda db: tables.put_device(db, record))
    assert store.read(lambda db: tables.device(db, "pi")) == record
    assert store.read(lambda db: tables.device(db, "x")) is None


def test_the_audit_chain_holds_over_the_database_and_shows_a_change(store):
    for i in range(5):
        detail = {"ttl_s": 0.1 * i, "waves": [["a"], []], "none": None}
        store.write(lambda db, d=detail: tables.add_audit(db, time=0.1, actor="op", action="x", subject="y", detail=d))
    assert first_broken(reversed(store.read(tables.all_audit))) is None
    store.write(lambda db: db.execute("UPDATE audit SET actor = 'somebody' WHERE number = 3"))
    assert first_broken(reversed(store.read(tables.all_audit))) == 3


def test_dead_letters_are_bounded(store, monkeypatch):
    monkeypatch.setattr("fleet.adapters.telemetry.KEPT_DEAD_LETTERS", 10)
    for i in range(25):
        store.write(lambda db, i=i: telemetry.dead_letter(db, "t", b"x", str(i), 0.0))
    reasons = store.read(lambda db: [r["reason"] for r in db.execute("SELECT reason FROM dead_letters ORDER BY id")])
    assert reasons == [str(i) for i in range(15, 25)]


# --- blobs


def sha(data):
    return hashlib.sha256(data).hexdigest()


def test_a_blob_is_there_after_its_upload(tmp_path):
    blobs = BlobStore(tmp_path)
    assert blobs.put(sha(b"abc"), [b"a", b"bc"]) == 3
    assert (blobs.size(sha(b"abc")), blobs.read(sha(b"abc"))) == (3, b"abc")
    assert blobs.put(sha(b"abc"), [b"abc"]) == 3


def test_a_wrong_upload_leaves_nothing(tmp_path):
    blobs = BlobStore(tmp_path)
    with pytest.raises(StoreError, match="the bytes have digest"):
        blobs.put(sha(b"abc"), [b"abd"])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    def interrupted():
        yield b"ab"
        raise ConnectionResetError

    with pytest.raises(StoreError, match="refused"):
        blobs.put(sha(b"abc"), interrupted())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_uploads_that_a_crash_cut_short_are_swept(tmp_path):
    (tmp_path / "1234.part").write_bytes(b"half")
    BlobStore(tmp_path)
    assert not (tmp_path / "1234.part").exists()


@pytest.mark.parametrize("name", ["../operator.token", "A" * 64, "a" * 63, "", "a" * 62 + "/x"])
def test_a_name_that_is_no_digest_never_reaches_the_disk(tmp_path, name):
    with pytest.raises(StoreError, match="is not a SHA-256"):
        BlobStore(tmp_path).path(name)


def test_too_many_bytes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("fleet.adapters.blobs.MAX_BLOB_BYTES", 10)
    with pytest.raises(StoreError, match="more than 10 bytes"):
        BlobStore(tmp_path).put(sha(b"x" * 11), [b"x" * 11])
    with pytest.raises(StoreError, match="not held"):
        BlobStore(tmp_path).read("a" * 64)
