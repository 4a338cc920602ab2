# SPDX-License-Identifier: Apache-2.0
"""The look at a disk after a cut finds what is wrong: the file system, a model, a row."""

import os
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.adapters.store import OutboxStore
from tests.edge_agent.crash.lives import Story
from tests.edge_agent.crash.outside import MODEL, write_bundle
from tests.edge_agent.power import inspection
from tests.edge_agent.power.guest import MARK, mark
from tests.edge_agent.power.inspection import TOOLS, PowerJudge, contents
from tests.edge_agent.power.machine import DISK_MB, format_disk

ROW = ("0" * 16, "result", 1)


def agent(folder: Path) -> Path:
    """Write what an agent leaves that has taken nothing yet but one result."""
    slot = folder / "models" / MODEL / "slots"
    manifest = write_bundle(folder / "bundle", "1")
    slot.mkdir(parents=True)
    (folder / "bundle").rename(slot / manifest.bundle_id)
    outbox = OutboxStore(folder / "outbox.db")
    outbox.keep(ROW[0], ROW[1], (ROW[2], 1.0, b"seven"), 0.0)
    outbox.close(0.0)
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        image = tmp_path / "disk.img"
        (tmp_path / "root").mkdir()
        shutil.move(folder, tmp_path / "root/agent")
        words = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", str(tmp_path / "root"), str(image), "16M"]
        subprocess.run(words, check=True, env=TOOLS)
        return image

    return make


def judge(tmp_path: Path) -> PowerJudge:
    folder = tmp_path / "bundles/1"
    found = PowerJudge(tmp_path / "state", {"1": write_bundle(folder, "1")}, Story("", ("1",)))
    found.claims.rows = {ROW: zlib.crc32(b"seven")}
    return found


def test_both_ways_to_read_a_disk_find_the_same_files(tmp_path, disk, monkeypatch) -> None:
    image = disk(agent(tmp_path / "agent"))
    trees = []
    for has_loop in (False, True) if os.geteuid() == 0 and inspection._has_loop() else (False,):
        monkeypatch.setattr(inspection, "_has_loop", lambda has_loop=has_loop: has_loop)
        trees.append(contents(image, tmp_path / "mounted"))
    assert all(tree == trees[0] for tree in trees)
    assert "outbox.db" in trees[0]
    judge(tmp_path).judge(trees[0])


def test_a_row_that_was_committed_and_is_gone_is_said_to_be_lost(tmp_path, disk) -> None:
    folder = agent(tmp_path / "agent")
    outbox = OutboxStore(folder / "outbox.db")
    outbox.remove(*ROW, 0.0)
    outbox.close(0.0)
    with pytest.raises(AssertionError, match="is lost"):
        judge(tmp_path).judge(contents(disk(folder), tmp_path / "mounted"))


def test_a_pointer_to_a_model_that_is_not_whole_is_found(tmp_path, disk) -> None:
    folder = agent(tmp_path / "agent")
    (slot,) = (folder / "models" / MODEL / "slots").iterdir()
    (folder / "models" / MODEL / "active").symlink_to(f"slots/{slot.name}")
    with (slot / "model.tflite").open("r+b") as file:
        file.write(b"\0\0\0\0")
    with pytest.raises(AssertionError, match=r"active: model\.tflite"):
        judge(tmp_path).judge(contents(disk(folder), tmp_path / "mounted"))


def test_a_file_system_that_is_not_whole_is_found(tmp_path, disk) -> None:
    image = disk(agent(tmp_path / "agent"))
    with image.open("r+b") as file:
        file.seek(4096)  # the group descriptors
        file.write(b"\xff" * 4096)
    with pytest.raises(AssertionError, match=r"^(mount|e2fsck)"):
        contents(image, tmp_path / "mounted")


def test_a_fresh_disk_is_whole_and_has_room_behind_it_for_what_is_told(tmp_path) -> None:
    image = format_disk(tmp_path / "fresh.img")
    assert contents(image, tmp_path / "mounted") == {}
    assert image.stat().st_size > DISK_MB * 2**20
    assert mark('{"end": 1}') == (MARK + b'{"end": 1}\n').ljust(4096, b"\0")
