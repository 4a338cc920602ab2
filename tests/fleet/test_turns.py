# SPDX-License-Identifier: Apache-2.0
"""The files of bundles among processes: many look, one sweeps; who is killed gives his turn back."""

import contextlib
import subprocess
import sys
import threading
import time

import pytest

from edge_contract.errors import StoreError
from fleet.adapters import credentials
from fleet.adapters.backup import create
from fleet.adapters.blob_sweep import FileTurns
from fleet.adapters.stores import files_turn
from tests.support.fleet_server import until

HOLD = (
    "import sys; from pathlib import Path; from fleet.adapters.stores import files_turn\n"
    "with files_turn(Path(sys.argv[1]), sys.argv[2], shared=sys.argv[3] == 'shared'):\n"
    "    print('held', flush=True); sys.stdin.read(1)\n"
)


@contextlib.contextmanager
def elsewhere(folder, url, how):
    """Hold a turn in another process; yields the process."""
    words = [sys.executable, "-c", HOLD, str(folder), url, how]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def impatient(monkeypatch):
    """Give up after a moment."""
    for place in ("turns", "postgres"):
        monkeypatch.setattr(f"fleet.adapters.{place}.WAIT_S", 0.2)


def test_two_processes_take_turns(tmp_path, database, open_store, impatient):
    open_store(tmp_path)
    url = database(tmp_path)
    with elsewhere(tmp_path, url, "shared"):
        with files_turn(tmp_path, url, shared=True):
            pass  # many may look
        with pytest.raises(StoreError, match=r"in use by another process; try again when the upload, sweep or backup"):
            files_turn(tmp_path, url, shared=False).__enter__()
    with elsewhere(tmp_path, url, "alone") as process:
        with pytest.raises(StoreError, match="in use by another process"):
            files_turn(tmp_path, url, shared=True).__enter__()
        process.kill()
        process.wait()
        until(lambda: _is_free(tmp_path, url), "the turn of a process that was killed")


def _is_free(folder, url):
    with contextlib.suppress(StoreError), files_turn(folder, url, shared=False):
        return True
    return False


def test_a_sweep_waits_for_an_upload_in_another_process(tmp_path, database, open_store):
    turns, done = FileTurns(open_store(tmp_path)), []
    with elsewhere(tmp_path, database(tmp_path), "shared") as process:
        with turns.using():
            pass

        def sweep():
            with turns.alone():
                done.append(time.monotonic())

        thread = threading.Thread(target=sweep)
        thread.start()
        time.sleep(0.1)
        assert done == []
        process.stdin.write(b".")
        process.stdin.close()
        released = time.monotonic()
        thread.join(20)
    assert done
    assert done[0] >= released - 0.05


def test_threads_of_one_server_take_turns(tmp_path, open_store):
    turns, inside, most = FileTurns(open_store(tmp_path)), [], []

    def work(way):
        for _ in range(5):
            with way():
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work, args=[way]) for way in (turns.using, turns.alone, turns.using)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}


def test_no_backup_is_taken_in_the_middle_of_a_sweep(tmp_path, impatient):
    credentials.init(tmp_path / "data", now=time.time())
    with elsewhere(tmp_path / "data", "", "alone"), pytest.raises(StoreError, match="in use by another process"):
        create(tmp_path / "data", tmp_path / "x", now=5.0)
    assert not (tmp_path / "x").exists()


def test_a_folder_that_cannot_be_locked_is_one_line(tmp_path):
    with pytest.raises(StoreError, match=r"fleet.files: cannot be locked: "):
        files_turn(tmp_path / "none", shared=True).__enter__()


def test_a_database_that_is_away_is_one_line(tmp_path):
    pytest.importorskip("psycopg", reason="pip install 'strop[postgres]'")
    with pytest.raises(StoreError, match="see whether PostgreSQL runs and is reached"):
        files_turn(tmp_path, "postgresql://nobody@/none?host=/nowhere", shared=True).__enter__()
