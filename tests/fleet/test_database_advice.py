# SPDX-License-Identifier: Apache-2.0
"""What a database's error tells a person to do: SQLite speaks of our disk, PostgreSQL of its own."""

import sqlite3

import pytest

from edge_contract.errors import StoreError
from fleet.adapters.database_advice import of_postgres, of_sqlite
from fleet.adapters.stores import open_store


def refusal(store, job):
    with pytest.raises(StoreError) as caught:
        store.write(job)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_full_disk_of_sqlite(tmp_path):
    store = open_store(tmp_path)

    def fills(db):
        db.execute("PRAGMA max_page_count = 1")
        db.executemany("INSERT INTO counts VALUES (?,?)", [(f"{i:0500}", i) for i in range(5000)])

    assert "free space on the disk of the data folder" in refusal(store, fills)
    store.close()


def test_a_file_that_is_no_database(tmp_path):
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"this is no database" * 100)
    with sqlite3.connect(broken) as connection, pytest.raises(sqlite3.DatabaseError) as caught:
        connection.execute("SELECT * FROM sqlite_master")
    connection.close()
    assert of_sqlite(caught.value) == "the file is damaged: stop the server and restore a backup"
    assert of_sqlite(ValueError("of ours")) == ""


def test_a_reader_of_postgres_and_a_statement_that_does_not_fit(postgres, tmp_path):
    url = postgres.url()
    open_store(tmp_path, url).close()
    store = open_store(tmp_path, url)
    words = refusal(store, lambda db: db.execute("INSERT INTO no_such_table VALUES (1)"))
    assert "start the server of this version once" in words
    assert "disk" not in words
    words = refusal(store, lambda db: (db.execute("SET TRANSACTION READ ONLY"), db.execute("DELETE FROM counts")))
    assert words.endswith("this PostgreSQL only reads: name the primary in --database")
    with pytest.raises(StoreError, match=r"the database refused a read: .*; see PostgreSQL's log"):
        store.read(lambda db: db.execute("SELECT 1 / 0"))
    store.close()


def test_a_disk_of_postgres_that_is_full_is_said_to_be_its_own():
    pg_errors = pytest.importorskip("psycopg.errors", reason="pip install 'strop[postgres]'")
    assert of_postgres(pg_errors.DiskFull.sqlstate) == "free space on the disk of PostgreSQL's server"
    for error in (pg_errors.TooManyConnections, pg_errors.AdminShutdown, pg_errors.IoError, pg_errors.InvalidPassword):
        assert of_postgres(error.sqlstate) not in ("", "see PostgreSQL's log")
    assert of_postgres(None) == of_postgres("08006")
    assert of_postgres("22012") == "see PostgreSQL's log"
