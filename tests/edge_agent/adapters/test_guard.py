# SPDX-License-Identifier: Apache-2.0
"""The storage guard on real files, with a disk that says how full it is; and what the core makes of it."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.adapters.guard import MARK, GuardedJournal, StorageGuard, written
from edge_agent.adapters.log import LogFile
from edge_agent.app import App
from edge_agent.capture import ring
from edge_agent.capture.keeper import Keeper
from edge_agent.config import load
from edge_agent.core import events as ev
from edge_agent.core.policy import gate, pace
from edge_agent.core.settings import Settings
from edge_agent.storage_config import Limits
from edge_contract import durable
from edge_contract.capture import CaptureOrder, CapturePolicy
from edge_contract.errors import StoreError, UsageError
from edge_contract.states import Phase

MB = 1_000_000
LIMITS = Limits(least_free_mb=64, least_free_inodes=500, most_own_mb=5, reserve_mb=2, write_budget_mb_per_day=3)


class Disk:
    """A file system that says what it is told to say."""

    def __init__(self, free_mb: float = 1000.0, inodes: int = 100_000) -> None:
        self.free_mb, self.inodes = free_mb, inodes

    def __call__(self, _folder: Path) -> os.statvfs_result:
        blocks = int(self.free_mb * MB / 1000)
        return os.statvfs_result((1000, 1000, 10**9, blocks, blocks, 10**6, self.inodes, self.inodes, 0, 255))


def test_three_limits_are_told_and_have_to_recover_by_a_tenth(tmp_path: Path) -> None:
    disk = Disk()
    guard = StorageGuard(tmp_path, LIMITS, disk)
    told = []
    for n, (free, inodes) in enumerate([(100, 9000), (63, 9000), (66, 9000), (71, 9000), (100, 400), (100, 600)]):
        disk.free_mb, disk.inodes = free, inodes
        guard.look(10.0 * n)
        assert (tmp_path / MARK).exists() == bool(guard.low) == ("storage_low" in guard.facts)
        told.append(guard.low)
    low, few = "less than 64 MB of the disk are free", "fewer than 500 inodes are free"
    assert told == ["", low, low, "", few, ""]
    (tmp_path / "models").mkdir()
    (tmp_path / "models/big").write_bytes(os.urandom(6 * MB))
    guard.look(100.0)
    assert guard.low == "", "own files are counted every ten minutes"
    guard.look(700.0)
    assert guard.low == "the data folder takes more than 5 MB"
    assert 6 <= guard.facts["own_mb"] <= 8
    disk.inodes = 0
    StorageGuard(tmp_path, replace(LIMITS, most_own_mb=0), disk).look(0.0)


def test_the_reserve_holds_blocks_goes_when_the_disk_is_full_and_comes_again(tmp_path: Path) -> None:
    disk, reserve = Disk(), tmp_path / "reserve"
    guard = StorageGuard(tmp_path, LIMITS, disk)
    guard.look(0.0)
    assert reserve.stat().st_size == 2 * MB
    assert reserve.stat().st_blocks * 512 >= 2 * MB, "blocks, not a hole"
    disk.free_mb = 30
    guard.look(10.0)
    assert reserve.exists(), "short is not full"
    disk.free_mb = 0.5
    guard.look(20.0)
    assert not reserve.exists()
    disk.free_mb = 65
    guard.look(30.0)
    assert not reserve.exists(), "making it would break the limit"
    disk.free_mb = 80
    guard.look(40.0)
    assert reserve.exists()


def test_a_journal_that_is_refused_gets_the_room_of_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = StorageGuard(tmp_path, LIMITS, Disk())
    guard.look(0.0)
    write = durable.write

    def full_while_reserved(path: Path, data: bytes, **more: int) -> None:
        if (tmp_path / "reserve").exists() or len(data) > 50:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data, **more)

    monkeypatch.setattr(durable, "write", full_while_reserved)
    journal = GuardedJournal(tmp_path / "journal.json", guard.give_up)
    journal.write({"n": 1})
    assert journal.read() == {"n": 1}
    with pytest.raises(StoreError, match="No space left"):
        journal.write({"n": "x" * 100})
    assert journal.read() == {"n": 1}, "the old journal stands"


_WRITER = "import os, sys; f = open(sys.argv[1], 'wb'); f.write(os.urandom(4_000_000)); f.flush(); os.fsync(f.fileno())"


def test_bytes_written_are_the_kernel_s_count_and_the_budget_is_by_day(tmp_path: Path) -> None:
    guard = StorageGuard(tmp_path, replace(LIMITS, most_own_mb=0), Disk())
    guard.look(0.0)
    assert guard.over == ""
    before = written("self")
    subprocess.run([sys.executable, "-c", _WRITER, str(tmp_path / "x")], check=True)
    assert written("self") - before >= 4 * MB, "an ended child's writes are ours"
    guard.look(10.0)
    assert guard.over == "more than 3 MB written in a day"
    assert guard.facts["written_mb"] >= 4
    guard.look(86_500.0)
    assert guard.over == "", "a new day"
    assert written("999999999") == 0


def test_downloads_wait_and_nothing_else() -> None:
    short = ev.Sample(conditions=ev.Conditions(storage="less than 64 MB of the disk are free"))
    at, rules = ev.Instant(1.8e9, 1.0), Settings(bandwidth_kbps=10)
    for phase in (Phase.ACCEPTED, Phase.DOWNLOADING):
        wait = gate(phase, rules, short, at)
        assert wait is not None
        assert wait.kind == "storage"
    assert gate(Phase.STAGED, rules, short, at) is None
    assert pace(rules, short.conditions).held == short.conditions.storage
    assert not pace(rules, ev.Conditions()).held


@pytest.fixture
def app(tmp_path: Path) -> App:
    """An agent whose loop does not run."""
    (tmp_path / "agent.toml").write_text('device = "pi"\n[storage]\nreserve_mb = 1\n')
    return App(tmp_path, load(tmp_path), LogFile(tmp_path / "log", is_quiet=True))


def test_a_short_disk_is_one_alarm_and_costs_metric_rows_only(app: App) -> None:
    disk = Disk()
    app.guard = StorageGuard(app.data, LIMITS, disk)
    for mono, free in ((10.0, 1000), (80.0, 20), (150.0, 20), (220.0, 1000)):  # without a link a row covers a minute
        disk.free_mb = free
        app._tick(ev.Instant(1.8e9 + mono, mono))
        assert app.throttle.held == app.guard.low
        assert app.state.first.sample.health.get("storage_low", 0) == (free < 64)
    app.outbox.commit(230.0)
    told = {cls: app.outbox.batch(app.boot, cls, 0, max_bytes=90_000) for cls in ("alarm", "event", "metric")}
    (alarm,) = (row.body for row in told["alarm"])
    assert alarm == {"kind": "storage_low", "reason": "less than 64 MB of the disk are free"}
    assert [row.body for row in told["event"]] == [{"kind": "storage_ok"}]
    assert len(told["metric"]) == 2
    assert app.outbox.dropped() == {"metric": 2}
    app.outbox.close(230.0)


def test_a_runner_keeps_no_input_while_the_disk_is_short(tmp_path: Path) -> None:
    wall, mono, image = 1.8e9, iter(range(0, 100, 2)), np.zeros((3, 4), np.uint8)
    bounds = {"max_samples": 5, "max_bytes": 100_000, "issued_at": wall - 10, "expires_at": wall + 3600}
    order = CaptureOrder("c1", "pi", "", CapturePolicy(random=1.0), public_key="00" * 32, **bounds)
    ring.write_order(tmp_path, order)
    keeper = Keeper(tmp_path, "m", share=lambda: 0.5, wall=lambda: wall, mono=lambda: float(next(mono)))
    disk = Disk()
    guard, found = StorageGuard(tmp_path, LIMITS, disk), list[str]()
    for n, free in enumerate((1000, 20, 1000)):
        disk.free_mb = free
        guard.look(10.0 * n)
        found.append(keeper.offer(image))
    assert found == ["random", "", "random"]


def test_words_of_agent_toml(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('device = "pi"\n[storage]\nleast_free_mb = 10\nmost_own_mb = 0\n')
    assert load(tmp_path).storage == Limits(least_free_mb=10, most_own_mb=0)
    (tmp_path / "agent.toml").write_text('device = "pi"\n[storage]\nfree = 10\n')
    with pytest.raises(UsageError, match="unknown key 'free'; use one of least_free_mb"):
        load(tmp_path)
