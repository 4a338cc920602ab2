# SPDX-License-Identifier: Apache-2.0
"""Slots on a real file system: power cut before each step, real kills, and the order of fsyncs."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.adapters.slots import Disk, SlotStore
from edge_contract.errors import SlotError

OLD, NEW = "a" * 64, "b" * 64


class PowerCut(BaseException):
    """No power."""


class CuttingDisk(Disk):
    """Counts steps, remembers them, and fails before the k-th one: by an exception, or by SIGKILL."""

    def __init__(self, cut_before: int | None = None, *, kill: bool = False) -> None:
        self.cut_before, self.kill, self.steps = cut_before, kill, list[tuple[str, str]]()

    def _step(self, what: str, path: Path) -> None:
        if self.cut_before is not None and len(self.steps) >= self.cut_before:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise PowerCut
        self.steps.append((what, path.name))

    def make_folder(self, path: Path) -> None:
        self._step("make", path)
        super().make_folder(path)

    def sync_file(self, path: Path) -> None:
        self._step("sync file", path)
        super().sync_file(path)

    def sync_folder(self, path: Path) -> None:
        self._step("sync folder", path)
        super().sync_folder(path)

    def rename(self, old: Path, new: Path) -> None:
        self._step(f"rename {old.name} to", new)
        super().rename(old, new)

    def link(self, path: Path, target: str) -> None:
        self._step(f"link to {target}", path)
        super().link(path, target)

    def unlink(self, path: Path) -> None:
        self._step("unlink", path)
        super().unlink(path)

    def remove_tree(self, path: Path) -> None:
        self._step("remove", path)
        super().remove_tree(path)


def fill(store: SlotStore, bundle: str) -> None:
    """Put a whole download beside the slots."""
    folder = store.partial("digits", bundle)
    (folder / "golden").mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(f'{{"version":"{bundle[:1]}"}}')
    (folder / "golden" / "inputs.npy").write_bytes(b"x" * 100)


def begin(root: Path) -> SlotStore:
    store = SlotStore(root)
    fill(store, OLD)
    store.publish("digits", OLD)
    store.flip("digits", OLD, "")
    store.pin_factory("digits")
    fill(store, NEW)
    return store


def update(store: SlotStore) -> None:
    """What a good update does to the disk."""
    store.publish("digits", NEW)
    store.flip("digits", NEW, OLD)
    store.pin_factory("digits")
    store.forget("digits")


def check(root: Path) -> str:
    """Exactly one model is bootable, and every pointer leads to a whole slot; return the active one."""
    store = SlotStore(root)
    slots = store.read("digits")
    assert slots.active in (OLD, NEW)
    assert slots.factory == OLD
    for name in ("active", "standby", "factory"):
        link = root / "digits" / name
        if link.is_symlink():
            assert (link / "golden" / "inputs.npy").read_bytes() == b"x" * 100, name
    return slots.active


def test_an_update_goes_through_and_keeps_the_way_back(tmp_path: Path) -> None:
    store = begin(tmp_path)
    update(store)
    slots = store.read("digits")
    assert (slots.active, slots.standby, slots.factory) == (NEW, OLD, OLD)
    assert slots.versions == {NEW: "b", OLD: "a"}
    assert store.models() == ["digits"]


def test_power_cut_before_each_step_leaves_one_bootable_model_and_the_update_can_be_redone(tmp_path: Path) -> None:
    begin(tmp_path / "count")
    counting = CuttingDisk()
    update(SlotStore(tmp_path / "count", counting))
    assert len(counting.steps) > 12
    for cut in range(len(counting.steps)):
        root = tmp_path / f"cut{cut}"
        begin(root)
        with pytest.raises(PowerCut):
            update(SlotStore(root, CuttingDisk(cut)))
        check(root)
        update(SlotStore(root))
        assert check(root) == NEW
        assert sorted(p.name for p in (root / "digits" / "slots").iterdir()) == [OLD, NEW]


def test_a_roll_back_cut_before_each_step_can_be_redone(tmp_path: Path) -> None:
    def back(store: SlotStore) -> None:
        store.flip("digits", OLD, "")
        store.forget("digits")

    begin(tmp_path / "count")
    update(SlotStore(tmp_path / "count"))
    counting = CuttingDisk()
    back(SlotStore(tmp_path / "count", counting))
    for cut in range(len(counting.steps)):
        root = tmp_path / f"cut{cut}"
        update(begin(root))
        with pytest.raises(PowerCut):
            back(SlotStore(root, CuttingDisk(cut)))
        check(root)
        back(SlotStore(root))
        assert check(root) == OLD
        assert [p.name for p in (root / "digits" / "slots").iterdir()] == [OLD]


_KILLED = """
import sys
from pathlib import Path
from edge_agent.adapters.slots import SlotStore
from tests.edge_agent.adapters.test_slots import CuttingDisk, update
update(SlotStore(Path(sys.argv[1]), CuttingDisk(int(sys.argv[2]), kill=True)))
"""


def test_a_process_killed_at_some_steps_leaves_the_same(tmp_path: Path) -> None:
    """The same with a real SIGKILL; every third step, because each costs a process."""
    home = Path(__file__).resolve().parents[3]
    for cut in range(0, 15, 3):
        root = tmp_path / f"kill{cut}"
        begin(root)
        words = [sys.executable, "-c", _KILLED, str(root), str(cut)]
        ended = subprocess.run(words, cwd=home, env={**os.environ, "PYTHONPATH": str(home)}, check=False)
        assert ended.returncode == -signal.SIGKILL
        check(root)
        update(SlotStore(root))
        assert check(root) == NEW


def test_bytes_are_synced_before_names_and_names_before_anything_else(tmp_path: Path) -> None:
    begin(tmp_path)
    disk = CuttingDisk()
    update(SlotStore(tmp_path, disk))
    steps = [what for what, _ in disk.steps]
    names = [f"{what} {name}" for what, name in disk.steps]
    published = names.index(f"rename {NEW}.partial to {NEW}")
    assert {"sync file manifest.json", "sync file inputs.npy", "sync folder golden"} <= set(names[:published])
    assert names[published + 1] == "sync folder slots"
    flipped = names.index("rename .active.new to active")
    assert published < flipped
    assert steps[flipped + 1] == "sync folder"
    assert names.index("rename .standby.new to standby") < flipped, "the way back is written first"


def test_a_pointer_to_a_missing_slot_counts_as_empty(tmp_path: Path) -> None:
    store = begin(tmp_path)
    shutil.rmtree(tmp_path / "digits" / "slots" / OLD)
    assert store.read("digits").active == ""


def test_an_incomplete_slot_is_never_pointed_at(tmp_path: Path) -> None:
    store = begin(tmp_path)
    with pytest.raises(SlotError, match=r"slot bbbbbbbbbbbbbbbb of model digits: is not complete; install it again"):
        store.flip("digits", NEW, OLD)
    assert store.read("digits").active == OLD


@pytest.mark.parametrize(("model", "bundle"), [("../x", NEW), ("digits", "../../etc"), ("", NEW), ("digits", "B" * 64)])
def test_names_that_would_leave_the_folder_are_refused(tmp_path: Path, model: str, bundle: str) -> None:
    with pytest.raises(SlotError, match="is no slot"):
        SlotStore(tmp_path).folder(model, bundle)


def test_forget_keeps_what_is_asked_and_every_pointer(tmp_path: Path) -> None:
    store = begin(tmp_path)
    store.forget("digits", keep=(NEW,))
    assert store.partial("digits", NEW).is_dir()
    store.forget("digits")
    assert not (tmp_path / "digits" / "slots" / f"{NEW}.partial").exists()
    assert store.read("digits").active == OLD


def test_publish_without_a_download_says_so(tmp_path: Path) -> None:
    with pytest.raises(SlotError, match="there is no download"):
        SlotStore(tmp_path).publish("digits", NEW)
