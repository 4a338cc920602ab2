# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL behind the store: it goes away and comes back, nothing is done twice, and only one server leads."""

import threading
import time

import pytest

from benchmarks.fleet import postgres as pg
from edge_contract.errors import StoreError, UsageError
from fleet.adapters import tables
from fleet.adapters.migrations import migrations
from fleet.adapters.postgres import PostgresStore, ddl, placeholders, shown
from fleet.adapters.stores import open_store as open_any


@pytest.fixture(scope="module")
def killable():
    """A server of its own, because it is killed."""
    if pg.find("initdb") is None:
        pytest.skip(f"no PostgreSQL: {pg.INSTALL}")
    made = pg.Postgres()
    yield made
    made.close()


def test_writes_wait_for_a_database_that_was_killed_and_each_is_done_once(killable):
    store = PostgresStore(killable.url())
    done, stop = [], threading.Event()

    def writer():
        while not stop.is_set():
            store.write(lambda db: tables.bump(db, "n"))
            done.append(1)

    threads = [threading.Thread(target=writer, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for pause in (0.05, 0.2):
        time.sleep(pause)
        killable.kill()
        killable.start()
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    # What was told to be done is there, and what failed on the way was not done twice.
    assert store.read(tables.counts) == {"n": len(done)}
    store.close()


def test_a_transaction_that_the_database_never_heard_of_did_not_take_place(killable):
    """Its number was given out, and the crash came before a word of it reached the disk."""
    store = PostgresStore(killable.url())
    assert store._session.status("999999999") == "aborted"
    store.write(lambda db: tables.bump(db, "n"))
    assert store.read(tables.counts) == {"n": 1}
    store.close()


def test_a_commit_whose_answer_was_lost_is_not_made_again(killable):
    store = PostgresStore(killable.url())
    session, lost = store._session, []
    commit = session.commit

    def commit_and_lose():
        commit()
        if not lost:
            lost.append(1)
            session._connection.pgconn.finish()  # the answer is on its way, the line is cut
            session._connection.execute("SELECT 1")

    session.commit = commit_and_lose
    store.write(lambda db: tables.bump(db, "n"))
    assert lost
    assert store.read(tables.counts) == {"n": 1}
    store.close()


def test_a_store_that_is_closed_while_the_database_is_away_says_so(killable):
    store = PostgresStore(killable.url())
    killable.kill()
    try:
        future = store.submit(lambda db: tables.bump(db, "n"))
        time.sleep(0.3)
        assert not future.done()
        store.close()
        with pytest.raises(StoreError, match="refused a write"):
            future.result(10)
        with pytest.raises(StoreError, match="cannot be opened"):
            PostgresStore(killable._address("postgres"))
    finally:
        killable.start()


def test_there_is_one_leader_and_any_number_of_workers(killable, monkeypatch):
    monkeypatch.setattr("fleet.adapters.postgres._LEADER_S", 1)
    url = killable.url(own=True)
    leader, worker = PostgresStore(url, leader=True), PostgresStore(url)
    with pytest.raises(StoreError, match="another fleet server runs on this database"):
        PostgresStore(url, leader=True)
    leader.close()
    PostgresStore(url, leader=True).close()
    worker.close()


def test_ten_that_start_at_once_make_the_schema_once(killable):
    url, made = killable.url(), []
    threads = [threading.Thread(target=lambda: made.append(PostgresStore(url))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    versions = made[0].read(
        lambda db: [row[0] for row in db.execute("SELECT version FROM migrations ORDER BY version")]
    )
    assert versions == [one.number for one in migrations()]
    for store in made:
        store.close()


def test_values_come_back_as_from_sqlite(tmp_path, killable):
    def job(db, script=lambda sql: sql):
        db.execute(script("CREATE TABLE odd (id INTEGER PRIMARY KEY, a TEXT, b REAL, c BLOB)"))
        db.execute("INSERT INTO odd (id, a, b, c) VALUES (?,?,?,?)", (2**62, "a?'%\0", 0.1, b"\0\xff"))
        db.executemany("INSERT INTO odd (a, b) VALUES (?,?)", [("x", 1.5), ("y\0", None)])
        row = db.execute("SELECT *, '?' AS mark, 5 % 3 AS rest FROM odd WHERE id = ?", (2**62,)).fetchone()
        total = db.execute("SELECT COUNT(*), SUM(5), SUM(b), SUM(5) - SUM(5) FROM odd").fetchone()
        return dict(row), [type(value) for value in total], list(row.keys()), len(row)

    sqlite, postgres = open_any(tmp_path), PostgresStore(killable.url())
    mine, its = sqlite.write(job), postgres.write(lambda db: job(db, ddl))
    assert its[0].pop("a") == "a?'%\N{REPLACEMENT CHARACTER}"  # no text of PostgreSQL holds a NUL
    assert mine[0].pop("a") == "a?'%\0"
    assert its == mine
    sqlite.close()
    postgres.close()


def test_the_words_of_a_url_and_of_a_statement(tmp_path):
    assert shown("postgresql://u:p@h/d?password=x&host=y") == "postgresql://u@h/d?host=y"
    assert placeholders("a = ? AND b = 'it''s ?'") == "a = %s AND b = 'it''s ?'"
    with pytest.raises(UsageError, match="no database is known by 'mysql'"):
        open_any(tmp_path, "mysql://x")
