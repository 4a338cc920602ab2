# SPDX-License-Identifier: Apache-2.0
"""Partition tables as sfdisk writes them, damaged ones, and a look into ext4 beside debugfs."""

import io
import struct
import subprocess

import pytest

from edge_contract.errors import ImageError
from fleet.flash.ext4 import Ext4
from fleet.flash.partitions import boot_of, read_table, root_of
from fleet.flash.region import Region
from fleet.flash.system import look_inside
from tests.fleet.flash.fake_image import ROOT_BYTES, build, run, tool


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    (folder / "gpt").mkdir()
    return {"mbr": build(folder, "firstrun"), "gpt": build(folder / "gpt", "cloudinit-rpi", gpt=True)}


@pytest.mark.parametrize("scheme", ["mbr", "gpt"])
def test_boot_and_root_are_found(images, scheme):
    with images[scheme].open("rb") as file:
        table = read_table(file)
        assert (table.scheme, table.remarks) == (scheme, ())
        boot, region = boot_of(table, file)
        root = root_of(table)
    dump = run("sfdisk", "--dump", images[scheme])
    assert f"start= {boot.start // 512:>11}," in dump
    assert (boot.number, boot.content, region.length) == (1, "fat", boot.length)
    assert (root.number, root.content, root.length) == (2, "ext", ROOT_BYTES)
    if scheme == "mbr":
        assert table.identity == "1badcafe"
        assert f"label-id: 0x{table.identity}" in dump
    else:
        assert f"label-id: {table.identity.upper()}" in dump


def test_gpt_checksums_and_the_backup(images):
    data = bytearray(images["gpt"].read_bytes())
    data[1024 + 40] ^= 1
    with pytest.raises(ImageError, match="entries"):
        read_table(io.BytesIO(bytes(data[:-512]) + bytes(512)))
    table = read_table(io.BytesIO(data))
    assert "its backup at the end is whole and was read" in table.remarks[0]
    assert [p.content for p in table.partitions] == ["fat", "ext"]
    whole = images["gpt"].read_bytes()
    grown = read_table(io.BytesIO(whole + bytes(1 << 20)))
    assert "backup of its GPT is not at the end" in grown.remarks[0]


def test_logical_drives_are_counted_from_five(tmp_path):
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    script = "label: dos\nsize=1M,type=c\ntype=5,start=4096\nstart=6144,size=1M,type=83\nstart=10240,size=1M,type=c\n"
    run("sfdisk", "--quiet", path, input=script)
    with path.open("rb") as file:
        assert [(p.number, p.start // 512) for p in read_table(file).partitions] == [(1, 2048), (5, 6144), (6, 10240)]
    data = bytearray(path.read_bytes())
    second = data.index(b"\x55\xaa", 4096 * 512 + 512) - 510
    struct.pack_into("<BxxxII", data, second + 446 + 16 + 4, 5, second // 512 - 4096, 2048)
    with pytest.raises(ImageError, match="chain of logical drives is broken"):
        read_table(io.BytesIO(data))


def test_what_is_no_image_of_a_card_is_refused_with_words(tmp_path, images):
    bare = tmp_path / "fat.img"
    with bare.open("wb") as file:
        file.truncate(4400 * 512)
    run("mkfs.vfat", "-F", 16, "-s", 1, bare)
    ext = tmp_path / "ext.img"
    run("mke2fs", "-q", "-F", "-t", "ext4", ext, "2048k")
    cases = [
        (bare.read_bytes(), "one FAT file system and no partition table: no board boots from that"),
        (ext.read_bytes(), "one ext4 file system and no partition table"),
        (bytes(4096), "there is no partition table"),
        (bytes(100), "ends before sector 0"),
        (bytes(510) + b"\x55\xaa" + bytes(512), "a partition table without partitions"),
        (images["mbr"].read_bytes()[: 10 << 20], "partition 1 ends at byte 14680064, the image has 10485760"),
    ]
    for data, words in cases:
        with pytest.raises(ImageError, match=words):
            read_table(io.BytesIO(data))


def test_an_image_without_fat_names_what_it_has(tmp_path, images):
    data = bytearray(images["mbr"].read_bytes())
    data[8192 * 512 : 8192 * 512 + 4096] = bytes(4096)
    file = io.BytesIO(data)
    with pytest.raises(ImageError, match=r"no FAT partition to boot from; there are 1 \(0x0c\), 2 \(0x83\)"):
        boot_of(read_table(file), file)


def test_a_root_tells_its_system(images):
    with images["gpt"].open("rb") as file:
        root = root_of(read_table(file))
        system = look_inside(Ext4(Region(file, root.start, root.length, "root")))
    assert (system.python, system.machine, system.mount) == ("3.13", "aarch64", "/boot/firmware")
    assert (system.has_cloud_init, system.has_preseed, system.has_sys_mods) == (True, False, True)


@pytest.mark.parametrize("options", [("-t", "ext4"), ("-t", "ext4", "-b", "1024"), ("-t", "ext2")])
def test_ext4_is_read_as_debugfs_reads_it(tmp_path, options):
    folder, image = tmp_path / "root", tmp_path / "root.img"
    (folder / "many").mkdir(parents=True)
    for number in range(400):
        (folder / "many" / f"a file with a rather long name {number}").write_bytes(b"%d" % number)
    (folder / "large").write_bytes(bytes(range(256)) * 900)
    (folder / "usr").mkdir()
    (folder / "usr" / "tool").write_text("tool")
    (folder / "bin").symlink_to("usr")
    (folder / "abs").symlink_to("/usr/../bin/tool")
    (folder / "loop").symlink_to("loop")
    (folder / "far").symlink_to("x" * 100)
    run("mke2fs", "-q", "-F", *options, "-d", folder, image, "6000k")
    with image.open("rb") as file:
        root = Ext4(Region(file, 0, image.stat().st_size, "root"))
        assert len(root.names("/many")) == 402
        assert root.read("/many/a file with a rather long name 377") == b"377"
        assert root.read("/large", most=1 << 20) == bytes(range(256)) * 900
        assert root.read("/abs") == b"tool"
        assert root.read("bin/tool") == b"tool"
        assert (root.link("/bin"), root.link("/far"), root.link("/usr")) == ("usr", "x" * 100, "")
        assert not root.exists("/loop")
        assert not root.exists("/usr/none")
        assert root.free_bytes > 0
    done = subprocess.run([tool("debugfs"), "-R", "cat /large", str(image)], capture_output=True, check=False)
    assert done.stdout == bytes(range(256)) * 900


def test_a_layout_that_is_not_known_is_refused(tmp_path):
    image = tmp_path / "root.img"
    run("mke2fs", "-q", "-F", "-t", "ext4", "-O", "inline_data", image, "2000k")
    with image.open("rb") as file, pytest.raises(ImageError, match="not known here"):
        Ext4(Region(file, 0, image.stat().st_size, "root"))


def test_a_damaged_ext4_is_no_system_and_no_fault(images):
    import random

    with images["mbr"].open("rb") as file:
        root = root_of(read_table(file))
        file.seek(root.start)
        data = file.read(root.length)
    rng = random.Random(4)
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(6):
            broken[rng.randrange(1024, 200_000)] = rng.randrange(256)
        try:
            look_inside(Ext4(Region(io.BytesIO(broken), 0, len(broken), "root")))
        except ImageError as error:
            assert "ext4" in str(error) or "lie outside" in str(error)
