# SPDX-License-Identifier: Apache-2.0
"""The log of a disk's writes, and which disks a power cut may leave by it."""

import random
import struct
from pathlib import Path

import pytest

from tests.edge_agent.power.blocklog import FLUSH, FUA, MAGIC, SECTOR, Write, apply, last_flush, read_log, reordered

A, B, C = (letter * SECTOR for letter in (b"a", b"b", b"c"))
DISCARD = 4


def entry(sector: int, data: bytes = b"", flags: int = 0, count: int | None = None) -> bytes:
    sectors = len(data) // SECTOR if count is None else count
    return struct.pack("<QQQQ", sector, sectors, flags, 0).ljust(SECTOR, b"\0") + data


def log_of(path: Path, *entries: bytes) -> Path:
    head = struct.pack("<QQQI", MAGIC, 1, len(entries), SECTOR).ljust(SECTOR, b"\0")
    path.write_bytes(head + b"".join(entries) + bytes(20 * SECTOR))  # the file was made longer beforehand
    return path


def test_writes_flushes_and_discards_are_read_up_to_the_end_of_the_log(tmp_path: Path) -> None:
    found = read_log(
        log_of(
            tmp_path / "log",
            entry(2, A + B),
            entry(0, flags=FLUSH),
            entry(1, C, FLUSH | FUA),
            entry(7, flags=DISCARD, count=3),
        )
    )
    flush = Write(0, b"", is_flush=True)
    assert found == [
        Write(2 * SECTOR, A + B),
        flush,
        flush,
        Write(SECTOR, C),
        flush,
        Write(7 * SECTOR, bytes(3 * SECTOR)),
    ]


def test_another_file_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(SECTOR))
    with pytest.raises(ValueError, match="is no log of writes"):
        read_log(tmp_path / "x")


def test_what_was_told_behind_the_file_system_is_left_out_of_the_disk() -> None:
    disk = bytearray(3 * SECTOR)
    apply(disk, [Write(SECTOR, A + B), Write(3 * SECTOR, C), Write(2 * SECTOR, C + C)])
    assert bytes(disk) == bytes(SECTOR) + A + C


def test_safe_is_what_came_before_the_last_flush() -> None:
    writes = [Write(0, A), Write(0, b"", is_flush=True), Write(0, B), Write(0, b"", is_flush=True), Write(0, C)]
    assert [last_flush(writes, end) for end in range(6)] == [0, 0, 2, 2, 4, 4]


def test_drawn_states_are_subsets_in_order_of_which_only_the_last_write_is_cut_short() -> None:
    writes, rng, torn, sizes = [Write(i * 8 * SECTOR, A * 8) for i in range(6)], random.Random(1), 0, set()
    for _ in range(500):
        kept = reordered(writes, rng)
        sizes.add(len(kept))
        assert [write.offset for write in kept] == sorted(write.offset for write in kept)
        assert all(write in writes for write in kept[:-1])
        if kept and kept[-1] not in writes:
            torn += 1
            assert 0 < len(kept[-1].data) < 8 * SECTOR
            assert len(kept[-1].data) % SECTOR == 0
    assert sizes == set(range(7))
    assert 50 < torn < 200
