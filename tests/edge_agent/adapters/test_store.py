# SPDX-License-Identifier: Apache-2.0
"""Journal and outbox on a real disk: damage, batched commits, a disk that refuses, two processes' boots."""

import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.adapters import store as module
from edge_agent.adapters.store import COMMIT_METRIC_S, COMMIT_ROWS, PENDING_BYTES, Journal
from edge_agent.core.outbox import ROW_COST
from edge_contract.errors import StoreError


class OutboxStore(module.OutboxStore):
    """The store, which a test need not close: Python 3.13 warns of databases left open."""

    def __del__(self) -> None:
        if hasattr(self, "_db"):
            self._db.close()


def test_the_journal_is_empty_then_what_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.json")
    assert journal.read() == {}
    journal.write({"a": 1, "b": {"c": None}})
    assert Journal(tmp_path / "journal.json").read() == {"a": 1, "b": {"c": None}}


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"\xff\xfe", b'{"a":1}{'])
def test_a_damaged_journal_is_put_aside(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "journal.json"
    path.write_bytes(data)
    assert Journal(path).read() == {"damaged": True}
    assert path.with_suffix(".damaged").read_bytes() == data
    Journal(path).write({"a": 1})
    assert Journal(path).read() == {"a": 1}


def test_a_journal_that_cannot_be_written_says_where_and_keeps_the_old_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.json")
    journal.write({"a": 1})
    blocked = Journal(tmp_path / "missing" / "journal.json")
    with pytest.raises(StoreError, match=r"missing/journal.json: cannot write the journal: .*; free some space"):
        blocked.write({"a": 2})
    assert journal.read() == {"a": 1}


def keep(store: OutboxStore, count: int, *, cls: str = "result", boot: str = "b1", mono: float = 0.0, first: int = 1):
    for seq in range(first, first + count):
        store.keep(boot, cls, (seq, 5.0, b'{"n":%d}' % seq), mono)


def seqs(store: OutboxStore, cls: str = "result", boot: str = "b1", after: int = 0) -> list[int]:
    return [row.seq for row in store.batch(boot, cls, after, max_bytes=100_000)]


def on_disk(path: Path) -> list[tuple[str, int]]:
    db = sqlite3.connect(path)
    try:
        return db.execute("SELECT cls, seq FROM rows ORDER BY boot, cls, seq").fetchall()
    finally:
        db.close()


def test_rows_wait_a_second_then_are_committed_together_and_metrics_wait_longer(tmp_path: Path) -> None:
    store = OutboxStore(tmp_path / "o.db")
    keep(store, 3)
    keep(store, 1, cls="metric")
    store.commit_if_due(0.9)
    assert on_disk(tmp_path / "o.db") == []
    assert seqs(store) == [1, 2, 3], "they can be sent meanwhile"
    store.commit_if_due(1.0)
    assert len(on_disk(tmp_path / "o.db")) == 4
    keep(store, 1, cls="metric", mono=2.0, first=2)
    assert store.due == 2.0 + COMMIT_METRIC_S


def test_a_row_that_is_acknowledged_in_time_never_touches_the_disk(tmp_path: Path) -> None:
    store = OutboxStore(tmp_path / "o.db")
    keep(store, 2)
    assert store.remove("b1", "result", 2, 0.5) == ("b1", "result", 2, 2 * (7 + ROW_COST), 2)
    assert store.due == float("inf")
    keep(store, 1, mono=0.9, first=3)
    assert store.due == 1.9, "the clock of the next row starts with that row"


def test_many_rows_are_committed_at_once(tmp_path: Path) -> None:
    store = OutboxStore(tmp_path / "o.db")
    keep(store, COMMIT_ROWS)
    store.commit_if_due(0.0)
    assert len(on_disk(tmp_path / "o.db")) == COMMIT_ROWS


def test_after_a_restart_the_rows_of_the_old_boot_are_there_in_order(tmp_path: Path) -> None:
    store = OutboxStore(tmp_path / "o.db")
    keep(store, 3)
    store.drop_oldest("b1", "result", 10, 0.0)
    store.count_lost("alarm", 0.0)
    store.close(0.0)
    store = OutboxStore(tmp_path / "o.db")
    (held,) = store.held()
    assert (held.boot, held.rows, held.first_seq, held.last_seq) == ("b1", 2, 2, 3)
    assert held.size == 2 * (7 + ROW_COST)
    assert store.dropped() == {"result": 1, "alarm": 1}
    keep(store, 1, boot="b2")
    store.commit(0.0)
    assert [h.boot for h in store.held()] == ["b1", "b2"]


def test_a_crash_loses_at_most_the_uncommitted_rows(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    pid = os.fork()
    if pid == 0:  # the child dies without closing anything
        store = OutboxStore(path)
        keep(store, 4)
        store.commit(0.0)
        keep(store, 3, first=5)
        os._exit(9)
    os.waitpid(pid, 0)
    store = OutboxStore(path)
    assert [(h.first_seq, h.last_seq) for h in store.held()] == [(1, 4)]


def test_batches_are_cut_by_bytes_and_span_disk_and_memory(tmp_path: Path) -> None:
    store = OutboxStore(tmp_path / "o.db")
    keep(store, 3)
    store.commit(0.0)
    keep(store, 3, first=4)
    assert seqs(store) == [1, 2, 3, 4, 5, 6]
    assert seqs(store, after=4) == [5, 6]
    assert len(store.batch("b1", "result", 0, max_bytes=130)) == 2
    assert len(store.batch("b1", "result", 0, max_bytes=1)) == 1, "one row always fits"
    assert len(store.batch("b1", "result", 0, max_bytes=10**6, max_rows=4)) == 4


def test_a_disk_that_refuses_keeps_the_most_important_rows_in_memory(tmp_path: Path) -> None:
    store = OutboxStore(tmp_path / "o.db")
    body = b'{"x":"' + b"y" * 10_000 + b'"}'
    for seq in range(1, 81):
        store.keep("b1", "metric", (seq, 1.0, body), 0.0)
        store.keep("b1", "alarm", (seq, 1.0, body), 0.0)
    store._db.execute("PRAGMA query_only=ON")
    (gone,) = store.commit(1.0)
    assert gone[:2] == ("b1", "metric")
    assert store._pending_bytes <= PENDING_BYTES
    assert seqs(store, "alarm")[:2] == [1, 2]
    assert store.due == 11.0, "not tried again at once"
    store._db.execute("PRAGMA query_only=OFF")
    store.commit(11.0)
    assert store.dropped() == {"metric": gone[2]}
    assert len(on_disk(tmp_path / "o.db")) == 160 - gone[2]


def test_a_damaged_database_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    path.write_bytes(b"this is no database" * 100)
    store = OutboxStore(path)
    assert store.held() == ()
    assert path.with_suffix(".damaged").exists()
    keep(store, 1)
    store.commit(0.0)
    assert on_disk(path) == [("result", 1)]


STEPS = st.lists(
    st.tuples(st.sampled_from(["keep", "commit", "remove", "drop", "reopen"]), st.integers(1, 6)), max_size=25
)


@given(STEPS)
def test_it_holds_what_a_plain_list_would_hold(tmp_path_factory, steps) -> None:
    path = tmp_path_factory.mktemp("outbox") / "o.db"
    store, model, last = OutboxStore(path), list[int](), 0
    for what, n in steps:
        if what == "keep":
            keep(store, n, first=last + 1)
            model += range(last + 1, last + n + 1)
            last += n
        elif what == "commit":
            store.commit(0.0)
        elif what == "remove" and model:
            up_to = model[0] + n - 1
            _, _, rows, size, _ = store.remove("b1", "result", up_to, 0.0)
            gone, model = [s for s in model if s <= up_to], [s for s in model if s > up_to]
            assert (rows, size) == (len(gone), sum(len(b'{"n":%d}' % s) + ROW_COST for s in gone))
        elif what == "drop" and model:
            _, _, rows, size, up_to = store.drop_oldest("b1", "result", n * 60, 0.0)
            assert size >= min(n * 60, sum(len(b'{"n":%d}' % s) + ROW_COST for s in model))
            assert (rows, up_to) == (len([s for s in model if s <= up_to]), up_to)
            model = [s for s in model if s > up_to]
        elif what == "reopen":
            store.close(0.0)
            store = OutboxStore(path)
        assert seqs(store) == model
    store.close(0.0)
