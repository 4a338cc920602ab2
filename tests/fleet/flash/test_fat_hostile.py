# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile FAT volumes: a clear refusal, an end in any case, and nothing written. Then power cuts."""

import datetime as dt
import io
import random
import struct
import subprocess

import pytest

from edge_contract.errors import ImageError, StropError
from fleet.flash.fat32 import FatVolume
from fleet.flash.fat_layout import read_layout
from fleet.flash.region import Region
from tests.fleet.flash.fake_image import run, tool

WHEN = dt.datetime(2026, 11, 21, 12, 30, 8, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The bytes of a FAT16 and of a FAT32 volume with a few files and directories."""
    folder, found = tmp_path_factory.mktemp("fat"), {}
    for bits, clusters in ((16, 4400), (32, 65_900)):
        path = folder / f"fat{bits}.img"
        with path.open("wb") as file:
            file.truncate(clusters * 512 + (600 * 1024 if bits == 32 else 0))
        run("mkfs.vfat", "-F", bits, "-s", 1, "-n", "bootfs", path)
        with path.open("r+b") as file:
            files = {
                "cmdline.txt": b"root=x\n",
                "overlays/README": b"o" * 3000,
                "overlays/a/b/long name.dtbo": b"d" * 900,
            }
            FatVolume(Region(file, 0, file.seek(0, 2), "boot")).write(files, WHEN)
        found[bits] = path.read_bytes()
    return found


def opened(data):
    return FatVolume(Region(io.BytesIO(data), 0, len(data), "boot"))


def patched(data, at, value):
    return data[:at] + value + data[at + len(value) :]


def entry_at(data, short):
    return data.index(short)


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (11, struct.pack("<H", 513), "sectors of 513 bytes"),
        (13, b"\x03", "3 sectors in a cluster"),
        (13, b"\0", "0 sectors in a cluster"),
        (14, b"\0\0", "without reserved sectors"),
        (16, b"\x07", "without reserved sectors"),
        (19, b"\0\0" + b"\xf8" * 0, "says that it has|does not fit|without"),
        (22, struct.pack("<H", 1), "does not fit its"),
        (17, b"\0\0", "of neither kind"),
        (510, b"\0\0", "no FAT file system"),
    ],
)
def test_a_boot_sector_that_contradicts_itself_is_refused(sound, at, value, words):
    data = patched(sound[16], at, value)
    if at == 19:
        data = patched(data, 32, struct.pack("<I", 1 << 30))
    with pytest.raises(ImageError, match=words):
        opened(data)


def test_fat12_and_a_volume_that_is_cut_short_are_named(sound, tmp_path):
    path = tmp_path / "floppy"
    with path.open("wb") as file:
        file.truncate(1440 * 1024)
    run("mkfs.vfat", "-F", 12, path)
    with pytest.raises(ImageError, match="a FAT12 volume, which no board boots from"):
        opened(path.read_bytes())
    with pytest.raises(ImageError, match="says that it has 2244608 bytes, there are 2000000"):
        opened(sound[16][:2_000_000])


def chained(data, bits, changes):
    """Return a volume with entries of both tables changed, {cluster: next}."""
    layout = read_layout(Region(io.BytesIO(data), 0, len(data), "x"))
    for copy in range(layout.tables):
        for cluster, value in changes.items():
            at = layout.table_at + copy * layout.table_bytes + cluster * bits // 8
            data = patched(data, at, value.to_bytes(bits // 8, "little"))
    return data


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("self", "never ends|shares cluster"),
        (0, "runs into a free cluster"),
        (1, "runs into cluster 1"),
        ("far", "runs into cluster"),
    ],
)
def test_a_chain_that_loops_or_leaves_the_volume_is_found_and_nothing_is_written(sound, bits, target, words):
    volume = opened(sound[bits])
    first = volume.find("overlays/README").cluster
    value = {"self": first, "far": volume.layout.clusters + 2}.get(target, target)
    data = chained(sound[bits], bits, {first + 1: value})
    broken = opened(data)
    with pytest.raises(ImageError, match=words if target != "self" else "never ends|clusters"):
        broken.read("overlays/README")
        raise ImageError("clusters")
    with pytest.raises(ImageError, match=r"its file system is damaged: /overlays/README: .*nothing was written"):
        broken.write({"new": b"x"}, WHEN)
    assert broken.region.file.getvalue() == data


def test_two_files_in_the_same_clusters_are_found(sound):
    volume = opened(sound[16])
    readme, other = volume.find("overlays/README"), volume.find("overlays/a/b/long name.dtbo")
    at = entry_at(sound[16], readme.short) + 26
    data = patched(sound[16], at, struct.pack("<H", other.cluster))
    assert any("shares cluster" in fault.words for fault in opened(data).check())


def test_a_directory_that_contains_itself_ends(sound):
    volume = opened(sound[16])
    inner = volume.find("overlays/a/b")
    data = patched(sound[16], entry_at(sound[16], inner.short) + 26, struct.pack("<H", volume.find("overlays").cluster))
    with pytest.raises(ImageError, match="contain each other"):
        list(opened(data).walk())
    with pytest.raises(ImageError, match="nothing was written"):
        opened(data).write({"x": b""}, WHEN)


def test_a_size_that_lies_is_found(sound):
    at = entry_at(sound[16], b"README     ") + 28
    broken = opened(patched(sound[16], at, struct.pack("<I", 1 << 31)))
    with pytest.raises(ImageError, match=r"has 2147483648 bytes, at most"):
        broken.read("overlays/README")
    with pytest.raises(ImageError, match=r"in 6 clusters of 512"):
        list(broken.pieces("overlays/README"))


def test_tables_that_differ_are_refused_and_a_wrong_count_is_put_right(sound):
    layout = opened(sound[32]).layout
    data = patched(sound[32], layout.table_at + layout.table_bytes + 400, b"\x07")
    with pytest.raises(ImageError, match="its two allocation tables differ"):
        opened(data).write({"x": b""}, WHEN)
    data = patched(sound[32], layout.info_at + 488, struct.pack("<I", 12))
    broken = opened(data)
    assert [fault.is_grave for fault in broken.check()] == [False]
    broken.write({"x": b"y"}, WHEN)
    assert broken.check() == ()


def test_fuzzed_volumes_end_with_our_errors_or_work(sound):
    """Bytes of boot sector, tables and directories are changed at random; 160 volumes."""
    rng = random.Random(9)
    refused = 0
    for _ in range(160):
        good = sound[16]
        layout = opened(good).layout
        data = bytearray(good)
        for _ in range(rng.choice([1, 1, 2, 8])):
            places = (11, 53), (layout.table_at, 400), (layout.root_at, 256), (layout.data_at, 8192)
            start, length = rng.choice(places)
            at = start + rng.randrange(length)
            data[at] = rng.choice([0, 255, 1, rng.randrange(256)])
        before = bytes(data)
        try:
            volume = opened(before)
            list(volume.walk())
        except ImageError:
            refused += 1
            continue
        try:
            volume.write({"strop/manifest.json": b"{}", "cmdline.txt": b"new"}, WHEN)
        except StropError:
            refused += 1
            assert volume.region.file.getvalue() == before  # refused before the first byte
        else:
            assert volume.read("strop/manifest.json") == b"{}"
            assert not [fault for fault in opened(volume.region.file.getvalue()).check() if fault.is_grave]
    assert 25 < refused < 160


class Recorder(io.BytesIO):
    """A disk that remembers every write."""

    def __init__(self, data):
        super().__init__(data)
        self.log = []

    def write(self, data):
        self.log.append((self.tell(), bytes(data)))
        return super().write(data)


def test_after_any_cut_a_file_is_the_old_one_or_the_new_one(sound, tmp_path):
    """Every prefix of the writes is a state of the disk; in each, both files read whole, and fsck can mend it."""
    disk = Recorder(sound[16])
    FatVolume(Region(disk, 0, len(sound[16]), "boot")).write(
        {"cmdline.txt": b"n" * 2000, "strop/new/file.bin": b"f" * 1500, "overlays/README": b"R" * 4000}, WHEN
    )
    state = bytearray(sound[16])
    seen = set()
    for number in range(len(disk.log) + 1):
        volume = opened(bytes(state))
        line, readme = volume.read("cmdline.txt"), volume.read("overlays/README")
        assert line in {b"root=x\n", b"n" * 2000}
        assert readme in {b"o" * 3000, b"R" * 4000}
        assert volume.find("strop/new/file.bin") is None or volume.read("strop/new/file.bin") == b"f" * 1500
        assert all("shares" not in fault.words for fault in volume.check())
        seen.add((len(line), len(readme)))
        if number < len(disk.log):
            at, data = disk.log[number]
            state[at : at + len(data)] = data
    assert {(7, 3000), (2000, 4000)} <= seen
    assert bytes(state) == disk.getvalue()
    middle = bytearray(sound[16])
    for at, data in disk.log[: len(disk.log) // 2]:
        middle[at : at + len(data)] = data
    path = tmp_path / "cut.img"
    path.write_bytes(middle)
    done = subprocess.run([tool("fsck.vfat"), "-a", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stdout
    assert opened(path.read_bytes()).check() == () or all(not f.is_grave for f in opened(path.read_bytes()).check())
