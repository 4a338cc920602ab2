# SPDX-License-Identifier: Apache-2.0
"""Backup and restore on PostgreSQL by its own tools: into an empty database, whole or not at all."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import time

import pytest
import zstandard

from benchmarks.fleet import postgres as pg
from edge_contract.errors import MissingDependencyError, StoreError, UsageError
from fleet.adapters import credentials, pg_dump, tables
from fleet.adapters.backup import create, restore
from fleet.adapters.stores import note_database, open_store, used_database
from tests.support.fleet_server import FleetProcess

ENTRY = {"time": 1.0, "actor": "op", "action": "x", "subject": "y", "detail": {}}


@pytest.fixture(scope="module")
def home(tmp_path_factory, request):
    """A data folder on a PostgreSQL database with something in it, and its backup."""
    postgres = request.getfixturevalue("postgres")
    folder, url = tmp_path_factory.mktemp("pg-backup"), postgres.url(own=True)
    credentials.init(folder / "data", now=time.time())
    (folder / "data" / "fleet.toml").write_text(f'database = "{url}"\n')
    store = open_store(folder / "data", url, leader=True)
    store.write(lambda db: [tables.add_audit(db, **ENTRY) for _ in range(50)])
    store.close()
    create(folder / "data", folder / "one.strop", now=5.0)
    return folder, url


def count(folder, url):
    store = open_store(folder, url)
    try:
        return store.read(lambda db: len(tables.all_audit(db)))
    finally:
        store.close()


def held(url):
    """How many tables a database holds."""
    return pg_dump._count(url)


def test_it_comes_back_in_an_empty_database_and_the_server_goes_on(home, postgres, tmp_path):
    folder, _ = home
    fresh = postgres.url(own=True)
    found = restore(folder / "one.strop", tmp_path / "data", database=fresh)
    assert found.files["fleet.pgdump"][0] > 0
    assert not (tmp_path / "data" / "fleet.pgdump").exists()
    assert used_database(tmp_path / "data") == fresh
    assert count(tmp_path / "data", fresh) == 50
    server = FleetProcess(tmp_path / "data").start("--database", fresh)  # fleet.toml names the old one
    try:
        audit = server.call("GET", "/audit")
        assert audit["broken_at"] is None
        assert server.call("POST", "/tokens")["token"]
    finally:
        server.close()
    store = open_store(tmp_path, fresh)
    store.write(lambda db: tables.add_audit(db, **ENTRY))  # counters go on where they stood
    store.close()


def test_a_database_that_holds_something_is_left_alone(home, postgres, tmp_path):
    folder, url = home
    with pytest.raises(UsageError, match=r"the database is not empty: it holds \d+ tables; make an empty one"):
        restore(folder / "one.strop", tmp_path / "data", database=url)
    assert count(folder / "data", url) == 50
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="the backup is of PostgreSQL; make an empty database"):
        restore(folder / "one.strop", tmp_path / "data")
    with pytest.raises(StoreError, match="the database cannot be opened"):
        restore(folder / "one.strop", tmp_path / "data", database="postgresql://nobody@/none?host=/nowhere")
    assert list(tmp_path.iterdir()) == []


def repacked(folder, out, change):
    """Write the backup again with other bytes for some members."""
    with zstandard.ZstdDecompressor().stream_reader((folder / "one.strop").read_bytes()) as packed:
        data = packed.read()
    raw = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=raw, mode="w") as new:
        members = change({member.name: old.extractfile(member).read() for member in old})
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    out.write_bytes(zstandard.compress(raw.getvalue()))
    return out


def test_a_dump_that_was_changed_never_reaches_the_database(home, postgres, tmp_path):
    folder, _ = home
    fresh = postgres.url(own=True)
    short = repacked(folder, tmp_path / "short", lambda files: {**files, "fleet.pgdump": files["fleet.pgdump"][:-100]})
    with pytest.raises(StoreError, match=r"'fleet.pgdump' is damaged or missing"):
        restore(short, tmp_path / "data", database=fresh)

    def forged(files):
        """Cut short, and the index changed with it: only PostgreSQL's own tool can tell."""
        dump = files["fleet.pgdump"][: len(files["fleet.pgdump"]) // 2]
        index = json.loads(files["backup.json"])
        index["files"]["fleet.pgdump"] = [len(dump), hashlib.sha256(dump).hexdigest()]
        return {**files, "fleet.pgdump": dump, "backup.json": json.dumps(index).encode()}

    with pytest.raises(StoreError, match="pg_restore: "):
        restore(repacked(folder, tmp_path / "forged", forged), tmp_path / "data", database=fresh)
    assert held(fresh) == 0  # whole or not at all
    assert not (tmp_path / "data").exists()


def test_a_disk_that_fills_up_leaves_no_half_backup(home, tmp_path):
    folder, _ = home
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from fleet.adapters.backup import create; from edge_contract.errors import StropError\n"
        "most = int(sys.argv[3]); resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))\n"
        "try: create(Path(sys.argv[1]), Path(sys.argv[2]), now=5.0)\n"
        "except StropError as error: print(error); sys.exit(error.exit_code)\n"
    )
    whole = (folder / "one.strop").stat().st_size
    for most in (2000, whole // 2):
        words = [sys.executable, "-c", code, str(folder / "data"), str(tmp_path / "out.strop"), str(most)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1, done.stderr
        assert len(done.stdout.splitlines()) == 1
        assert "pg_dump: " in done.stdout or "the backup failed: " in done.stdout
        assert list(tmp_path.iterdir()) == []


def test_the_database_that_the_server_uses_is_the_one_that_is_kept(home, tmp_path):
    url, data = home[1], tmp_path / "data"
    credentials.init(data, now=time.time())
    note_database(data, url)  # as a server does that got it on its command line
    with pytest.raises(UsageError, match=r"the server's database is postgresql://.*, and none is given"):
        create(data, tmp_path / "x", now=5.0)
    assert "fleet.pgdump" in create(data, tmp_path / "x", now=5.0, database=url).files
    note_database(data, "")
    assert used_database(data) == ""
    note_database(data, "postgresql://u:secret@h/d")
    assert "secret" not in (data / "database").read_text()


def test_a_password_is_not_among_the_words_of_a_process(tmp_path, monkeypatch):
    said = tmp_path / "said"
    tool = tmp_path / "pg_dump"
    tool.write_text(f'#!/bin/sh\necho "$@ / $PGPASSWORD" > {said}\nexit 3\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(StoreError, match="pg_dump: exit code 3"):
        pg_dump.dump("postgresql://ann:hidden@h:5/d", tmp_path / "x")
    words, password = said.read_text().strip().split(" / ")
    assert "hidden" not in words
    assert "user=ann" in words
    assert password == "hidden"
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingDependencyError, match="pg_dump is not installed; install it"):
        pg_dump.dump("postgresql://h/d", tmp_path / "x")


def test_postgres_tools_are_there():
    assert pg.find("pg_restore")
