# SPDX-License-Identifier: Apache-2.0
"""Which devices may be overwritten, on the made ``/sys`` and ``/proc`` of a laptop; and this machine's disk never."""

from dataclasses import replace
from pathlib import Path

import pytest

from edge_contract.errors import UsageError
from fleet.flash.targets import Target, all_targets, check, find

GB = 10**9


def put(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


def disk(root, name, number, *, gb=32, removable=0, ro=0, model="", kind="", parts=()):
    base = f"sys/block/{name}"
    for key, value in (("size", gb * GB // 512), ("removable", removable), ("ro", ro), ("dev", number)):
        put(root, f"{base}/{key}", value)
    put(root, f"{base}/device/model", model)
    if kind:
        put(root, f"{base}/device/type", kind)
    for part, part_number in parts:
        put(root, f"{base}/{part}/partition", part[-1])
        put(root, f"{base}/{part}/dev", part_number)


@pytest.fixture
def laptop(tmp_path):
    """A laptop: its disk with root and swap, a stick, a card in the built-in reader, an empty reader, a locked card."""
    disk(tmp_path, "nvme0n1", "259:0", gb=512, model="FAST 512", parts=[("nvme0n1p1", "259:1"), ("nvme0n1p2", "259:2")])
    disk(tmp_path, "sdb", "8:16", removable=1, model="Ultra", parts=[("sdb1", "8:17")])
    disk(tmp_path, "mmcblk0", "179:0", kind="SD", parts=[("mmcblk0p1", "179:1")])
    disk(tmp_path, "mmcblk1", "179:8", kind="MMC")
    disk(tmp_path, "sdc", "8:32", gb=0, removable=1)
    disk(tmp_path, "sdd", "8:48", removable=1, ro=1)
    disk(tmp_path, "sde", "8:64", gb=4000, removable=1, model="Backup")
    disk(tmp_path, "loop0", "7:0", gb=0)
    put(tmp_path, "proc/self/mountinfo", "22 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw")
    put(tmp_path, "proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1p2 partition 1 0 -2")
    return tmp_path


def device(root, name):
    return find(Path("/dev") / name, root)


@pytest.mark.parametrize("name", ["sdb", "mmcblk0"])
def test_a_stick_and_a_card_may_be_written(laptop, name):
    check(device(laptop, name), 8 * GB)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nvme0n1", r"is in use: mounted on /, swap space"),
        ("mmcblk1", "is not removable: it may be this machine's own disk"),  # soldered memory, in the same kind of slot
        ("sdc", "there is no card in the reader"),
        ("sdd", "is read-only; slide the lock"),
        ("sde", "has 4000 GB, more than the 512 GB"),
    ],
)
def test_everything_else_is_refused(laptop, name, words):
    with pytest.raises(UsageError, match=words):
        check(device(laptop, name), 8 * GB)


def test_a_mounted_partition_anywhere_keeps_the_whole_card(laptop):
    put(laptop, "proc/self/mountinfo", r"40 1 8:17 / /media/my\040card rw - vfat /dev/sdb1 rw")
    with pytest.raises(UsageError, match="is in use: mounted on /media/my card; unmount it"):
        check(device(laptop, "sdb"), GB)


def test_what_is_built_upon_a_device_keeps_it(laptop):
    (laptop / "sys/block/sdb/sdb1/holders/dm-0").mkdir(parents=True)
    with pytest.raises(UsageError, match="part of /dev/dm-0"):
        check(device(laptop, "sdb"), GB)


def test_a_card_that_is_too_small_says_by_how_much(laptop):
    with pytest.raises(UsageError, match=r"has 32,000,000,000 bytes, the image 40,000,000,000"):
        check(device(laptop, "sdb"), 40 * GB)


def test_a_partition_and_nothing_are_named(laptop):
    with pytest.raises(UsageError, match="is a partition of /dev/sdb; name the whole card: /dev/sdb"):
        device(laptop, "sdb1")
    with pytest.raises(UsageError, match=r"is no block device; removable ones here: /dev/mmcblk0, /dev/sdb"):
        device(laptop, "sdz")


def test_loop_devices_count_only_when_asked_for(laptop):
    loop = Target(Path("/dev/loop3"), GB, "", "", is_removable=False, is_read_only=False, bus="loop")
    with pytest.raises(UsageError, match="not removable"):
        check(loop, 1)
    check(loop, 1, is_loop_allowed=True)
    with pytest.raises(UsageError, match="not removable"):
        check(replace(loop, bus="disk"), 1, is_loop_allowed=True)
    assert "loop0" not in {one.path.name for one in all_targets(laptop)}


def test_this_machine_s_own_root_is_never_offered():
    for one in all_targets():
        if any("mounted on /" in use for use in one.used):
            with pytest.raises(UsageError, match="in use"):
                check(one, 1, is_loop_allowed=True)
