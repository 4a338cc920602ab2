# SPDX-License-Identifier: Apache-2.0
"""Our FAT writer against mtools and fsck.vfat: whatever is written by one is read equal by the other."""

import datetime as dt
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from fleet.flash.fat32 import FatVolume
from fleet.flash.fat_names import fold
from fleet.flash.region import Region
from tests.fleet.flash.fake_image import run, tool

WHEN = dt.datetime(2026, 11, 21, 12, 30, 8, tzinfo=dt.UTC)
NAMES = [
    "user-data", "CONFIG.TXT", "cmdline.txt", "meta-data", "a long name with ümläut.whl", "ends.with.many.dots.x",
    "numpy-2.1.3-cp311-cp311-manylinux_2_17_aarch64.whl", ".hidden", "+,;=[].txt", "日本語.bin", "no extension",
]  # fmt: skip
FOLDERS = ["", "", "strop/", "strop/wheels/", "overlays/", "strop/factory/a b/"]


def names(rng):
    if rng.random() < 0.3:
        return "b" * rng.randrange(1, 120) + f"{rng.randrange(40)}.toml"
    return rng.choice(NAMES)


def draw(rng, room):
    """Return files to write: few or many, empty, of odd sizes, never more than a share of the room."""
    files = {}
    for _ in range(rng.randrange(1, 14)):
        size = rng.choice([0, 1, 511, 512, 513, 4096, rng.randrange(1, max(2, min(room // 30, 200_000)))])
        files[rng.choice(FOLDERS) + names(rng)] = rng.randbytes(size)
    seen = {}
    return {path: data for path, data in files.items() if seen.setdefault(fold(path), path) == path}


def make(path, rng):
    """Format a volume of random kind, cluster size and length, with mkfs.vfat."""
    bits, per = rng.choice([(16, 1), (16, 4), (16, 32), (16, 128), (32, 1), (32, 2), (32, 8), (32, 64), (32, 128)])
    clusters = rng.randrange(4400, 9000) if bits == 16 else rng.randrange(67_200, 71_000)
    with path.open("wb") as file:
        file.truncate(clusters * per * 512)
    fats = rng.choice([1, 2, 2, 2])
    run("mkfs.vfat", "-F", bits, "-s", per, "-f", fats, "-R", 32, "-n", "bootfs", path)


def scatter(path, rng, folder):
    """Fill and punch holes by mtools, so that free clusters lie apart."""
    (folder / "seed").mkdir()
    for number in range(rng.randrange(4, 16)):
        (folder / "seed" / f"s{number}.bin").write_bytes(rng.randbytes(rng.randrange(1, 40_000)))
    seeds = sorted((folder / "seed").iterdir())
    run("mcopy", "-i", path, *seeds, "::")
    gone = [seed.name for seed in seeds if rng.random() < 0.5]
    if gone:
        run("mdel", "-i", path, *[f"::{name}" for name in gone])
    kept = {seed.name: seed.read_bytes() for seed in seeds if seed.name not in gone}
    shutil.rmtree(folder / "seed")
    return kept


def opened(path):
    return path.open("r+b")


def volume_of(file):
    return FatVolume(Region(file, 0, file.seek(0, 2), "boot"))


def by_mtools(path, folder):
    """Return every file as mtools reads it, by its folded path."""
    target = folder / "read"
    target.mkdir()
    run(
        "mcopy", "-s", "-Q", "-i", path, "::*", target, env=os.environ | {"LC_ALL": "C.UTF-8", "MTOOLS_SKIP_CHECK": "1"}
    )
    found = {fold(str(p.relative_to(target))): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    shutil.rmtree(target)
    return found


def check_one(seed, folder):
    rng = random.Random(seed)
    path = folder / "fat.img"
    make(path, rng)
    expected = {fold(name): data for name, data in scatter(path, rng, folder).items()}
    with opened(path) as file:
        volume = volume_of(file)
        assert volume.check() == ()
        room = volume.free_bytes()
        for _ in range(rng.randrange(1, 4)):
            files = draw(rng, room)
            volume.write(files, WHEN)
            expected |= {fold(name): data for name, data in files.items()}
        victim = rng.choice(sorted(expected))
        volume.remove(victim, WHEN)
        del expected[victim]
        assert volume.check() == ()
        ours = {fold(name): volume.read(name) for name, entry in volume.walk() if not entry.is_directory}
    assert ours == expected
    done = subprocess.run([tool("fsck.vfat"), "-n", "-v", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"seed {seed}: {done.stdout}"
    assert by_mtools(path, folder) == expected, f"seed {seed}"
    path.unlink()


@pytest.mark.parametrize("part", range(4))
def test_random_volumes_are_read_equal_by_mtools_and_clean_to_fsck(part, tmp_path):
    for seed in range(part * 13, part * 13 + 13):
        check_one(seed, tmp_path)


@pytest.mark.crash_long
def test_a_thousand_random_volumes(tmp_path):
    count = int(os.environ.get("STROP_FAT_IMAGES", "1000"))
    for seed in range(10_000, 10_000 + count):
        check_one(seed, tmp_path)
    print(f"\n{count} volumes: every file read back equal by mtools, fsck.vfat clean")


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.img"
    with path.open("wb") as file:
        file.truncate(4400 * 512)
    run("mkfs.vfat", "-F", 16, "-s", 1, "-r", 64, path)
    return path


def test_what_does_not_fit_is_refused_before_the_first_byte(small):
    from edge_contract.errors import ImageError

    with opened(small) as file:
        volume = volume_of(file)
        free = volume.free_bytes()
        volume.write({"a": bytes(free - 5 * 512)}, WHEN)
        before = small.read_bytes()
        with pytest.raises(ImageError, match=r"the boot partition is full: 1024 more bytes are needed, 2560 are free"):
            volume.write({"b": bytes(7 * 512)}, WHEN)
        with pytest.raises(ImageError, match="512 more bytes are needed"):
            volume.write({"new/folder/b": bytes(4 * 512)}, WHEN)
        assert small.read_bytes() == before
        volume.write({"b": bytes(5 * 512)}, WHEN)
        assert volume.free_bytes() == 0
    assert subprocess.run([tool("fsck.vfat"), "-n", str(small)], capture_output=True, check=False).returncode == 0


def test_a_full_volume_still_takes_a_replacement(small):
    with opened(small) as file:
        volume = volume_of(file)
        volume.write({"cmdline.txt": b"old\n"}, WHEN)
        volume.write({"rest": bytes(volume.free_bytes())}, WHEN)
        volume.write({"cmdline.txt": b"new\n"}, WHEN)
        assert volume.read("CMDLINE.TXT") == b"new\n"
        assert volume.check() == ()
    assert subprocess.run([tool("fsck.vfat"), "-n", str(small)], capture_output=True, check=False).returncode == 0


def test_the_root_directory_of_fat16_does_not_grow(small):
    from edge_contract.errors import ImageError

    with opened(small) as file:
        volume = volume_of(file)
        volume.write({f"F{n}": b"" for n in range(60)}, WHEN)
        before = small.read_bytes()
        with pytest.raises(ImageError, match="the root directory is full"):
            volume.write({f"a long name of its own {n}": b"x" for n in range(4)}, WHEN)
        assert small.read_bytes() == before


def test_directories_grow_and_keep_their_names(tmp_path):
    path = tmp_path / "fat.img"
    with path.open("wb") as file:
        file.truncate(66_600 * 512)
    run("mkfs.vfat", "-F", 32, "-s", 1, path)
    files = {f"strop/wheels/a wheel with a long name, number {n}.whl": bytes([n % 256]) * n for n in range(300)}
    files |= {f"file {n} of the root.txt": b"r" for n in range(120)}
    with opened(path) as file:
        volume_of(file).write(files, WHEN)
        assert volume_of(file).check() == ()
    assert by_mtools(path, tmp_path) == {fold(name): data for name, data in files.items()}
    assert subprocess.run([tool("fsck.vfat"), "-n", str(path)], capture_output=True, check=False).returncode == 0


def test_replacing_keeps_the_name_and_the_case_that_were_there(small, tmp_path):
    (tmp_path / "Config.Txt").write_bytes(b"old")
    run("mcopy", "-i", small, tmp_path / "Config.Txt", "::")
    with opened(small) as file:
        volume = volume_of(file)
        volume.write({"CONFIG.TXT": b"newer"}, WHEN)
        assert [entry.name for entry in volume.entries()] == ["Config.Txt"]
    assert by_mtools(small, tmp_path) == {"CONFIG.TXT": b"newer"}


def test_lower_case_names_of_others_are_found(small, tmp_path):
    """Linux and mtools write cmdline.txt as a short name with two bits for its case."""
    (tmp_path / "cmdline.txt").write_bytes(b"root=x")
    run("mcopy", "-i", small, tmp_path / "cmdline.txt", "::")
    with opened(small) as file:
        assert volume_of(file).read("cmdline.txt") == b"root=x"
        assert volume_of(file).find("CmdLine.txt").size == 6


def test_times_are_those_that_were_given_and_the_same_input_gives_the_same_bytes(small, tmp_path):
    other = tmp_path / "other.img"
    shutil.copy(small, other)
    for path in (small, other):
        with opened(path) as file:
            volume_of(file).write({"strop/a long name.txt": b"x" * 700}, WHEN)
    assert small.read_bytes() == other.read_bytes()
    listing = run("mdir", "-i", small, "::strop", env=os.environ | {"TZ": "UTC"})
    assert "2026-11-21" in listing
    assert "12:30" in listing


def test_entries_behind_the_end_of_a_directory_stay_invisible(small, tmp_path):
    """DOS cleared no directory it made: behind the mark of its end there may be anything."""
    with opened(small) as file:
        volume = volume_of(file)
        volume.write({"A": b"", "B": b"", "C": b"", "GARBAGE": b""}, WHEN)
        volume.remove("B", WHEN)
        volume.remove("C", WHEN)
        at = volume.layout.root_at
        raw = volume.region.read(at, 32 * 4)
        volume.region.write(at + 32 * 3, bytes(32))  # the end stands behind two deleted entries …
        volume.region.write(at + 32 * 4, raw[96:] * 3)  # … and old ones behind it
        volume.forget()
        volume.write({"a new long name": b"x"}, WHEN)
        names = [entry.name for entry in volume_of(file).entries()]
    assert names == ["A", "a new long name"]


def test_large_files_come_from_the_disk_and_go_out_in_pieces(tmp_path):
    path, source = tmp_path / "fat.img", tmp_path / "model.bin"
    source.write_bytes(random.Random(3).randbytes(3_500_001))
    with path.open("wb") as file:
        file.truncate(66_600 * 512)
    run("mkfs.vfat", "-F", 32, "-s", 1, path)
    with opened(path) as file:
        volume = volume_of(file)
        volume.write({"strop/factory/model.bin": source}, WHEN)
        pieces = list(volume.pieces("strop/factory/model.bin"))
    assert max(map(len, pieces)) <= 1 << 20
    assert b"".join(pieces) == source.read_bytes()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a:b", "leave out ':'"),
        ("x" * 256, "256 letters"),
        ("dir/nul.txt", "device of DOS"),
        ("a.", "end it"),
        ("", "none"),
    ],
)
def test_names_that_no_volume_holds_are_wrong_words(small, path, words):
    from edge_contract.errors import UsageError

    before = small.read_bytes()
    with opened(small) as file, pytest.raises(UsageError, match=words):
        volume_of(file).write({path: b""}, WHEN)
    assert small.read_bytes() == before


def test_a_directory_and_a_file_do_not_take_each_others_place(small):
    from edge_contract.errors import ImageError

    with opened(small) as file:
        volume = volume_of(file)
        volume.write({"strop/a": b"1", "plain": b"2"}, WHEN)
        before = small.read_bytes()
        with pytest.raises(ImageError, match="is a directory"):
            volume.write({"STROP": b""}, WHEN)
        with pytest.raises(ImageError, match="is a file"):
            volume.write({"plain/b": b""}, WHEN)
        assert small.read_bytes() == before
        assert Path(small).stat().st_size == len(before)
