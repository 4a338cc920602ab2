# SPDX-License-Identifier: Apache-2.0
"""Writing cards: the order and the proof on a card of memory that fails when we say so, and on real loop devices."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from edge_contract.errors import ImageError, UsageError
from fleet.flash import bmap, card
from fleet.flash.card import CHUNK, HEAD, write
from fleet.flash.card_cmd import card as verb
from fleet.flash.medium import BlockDevice

ROOT = Path(__file__).resolve().parents[3]
APP = typer.Typer()
APP.command()(verb)


class Memory:
    """A card of bytes. What was written lies on it after ``sync``; it can fail, lie, or be pulled out."""

    def __init__(self, size, fails_at=-1, forged=None):
        self.bytes, self.log = bytearray(os.urandom(size)), []
        self.fails_at, self.forged, self.written = fails_at, forged, 0

    def read(self, at, count):
        self.log.append(("read", at, count))
        return bytes(self.bytes[at : at + count])

    def write(self, at, data):
        if 0 <= self.fails_at < self.written + len(data):
            raise ImageError("the card could not be written", where="card")
        self.log.append(("write", at, len(data)))
        self.written += len(data)
        if self.forged is None or at < self.forged:  # a forged card forgets what lies behind its real size
            self.bytes[at : at + len(data)] = data

    def sync(self):
        self.log.append(("sync", 0, 0))

    def forget(self):
        self.log.append(("forget", 0, 0))


def image_of(folder, size, seed=0):
    path = folder / "base.img"
    path.write_bytes(b"MBR!" + os.urandom(0) + hashlib.sha256(bytes([seed])).digest() * (size // 32 + 1))
    os.truncate(path, size)
    return path


def test_the_partition_table_goes_first_and_comes_last(tmp_path):
    image, memory = image_of(tmp_path, 3 * CHUNK + 512), Memory(4 * CHUNK)
    proof = write(image, memory, bmap.whole(3 * CHUNK + 512))
    data = image.read_bytes()
    assert bytes(memory.bytes[: len(data)]) == data
    assert proof.sha256 == hashlib.sha256(data).hexdigest()
    writes = [entry for entry in memory.log if entry[0] == "write"]
    assert writes[0] == writes[-1] == ("write", 0, HEAD)
    assert [entry[1] for entry in writes[1:-1]] == sorted(entry[1] for entry in writes[1:-1])
    last = memory.log.index(writes[-1], 1)
    proven = {entry[1] for entry in memory.log[:last] if entry[0] == "read"}
    assert proven == {entry[1] for entry in writes[1:-1]}, "all of the body was read back before the table was written"
    for place, entry in enumerate(memory.log):
        if entry[0] == "read":
            assert ("forget", 0, 0) in memory.log[:place], "what is read comes from the card"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3 * 8192 + 2 * 2048), st.booleans())
def test_a_card_that_is_pulled_out_at_any_byte_does_not_boot_and_goes_on_later(tmp_path_factory, at, is_resumed):
    folder, size, head = tmp_path_factory.mktemp("pulled"), 3 * 8192, 2048
    image, memory = image_of(folder, size, seed=1), Memory(size, fails_at=at)
    with pytest.MonkeyPatch.context() as small:
        small.setattr(card, "CHUNK", 8192)
        small.setattr(card, "HEAD", head)
        try:
            write(image, memory, bmap.whole(size))
        except ImageError:
            if memory.written:
                assert bytes(memory.bytes[:head]) == bytes(head), "no partition table"
        memory.fails_at, before = -1, memory.written
        proof = write(image, memory, bmap.whole(size), is_resumed=is_resumed)
    assert bytes(memory.bytes) == image.read_bytes()
    assert proof.written <= size
    if is_resumed:  # whole chunks that lie on the card are not written again
        assert memory.written - before <= size + head - max(0, before - head - 8192)


def test_a_forged_card_is_found_before_it_can_boot(tmp_path):
    size = 4 * CHUNK
    memory = Memory(size, forged=2 * CHUNK)
    with pytest.raises(ImageError, match=r"holds other bytes than were written, at 9,437,184.*forged in size"):
        write(image_of(tmp_path, size), memory, bmap.whole(size))
    assert bytes(memory.bytes[:HEAD]) == bytes(HEAD)


def test_an_image_that_shrinks_meanwhile_is_said(tmp_path):
    image, size = image_of(tmp_path, 3 * CHUNK), 3 * CHUNK

    def shrink(stage, done, total):
        os.truncate(image, CHUNK)

    with pytest.raises(ImageError, match="became shorter while it was read"):
        write(image, Memory(size), bmap.whole(size), progress=shrink)


# Block maps


def a_map(ranges, size, block=4096, version="2.0"):
    """Write a block map as bmap-tools' documentation says."""
    lines = "".join(f'<Range chksum="{digest}"> {text} </Range>' for text, digest in ranges)
    text = (
        f'<?xml version="1.0" ?><bmap version="{version}"><ImageSize> {size} </ImageSize>'
        f"<BlockSize> {block} </BlockSize>"
        f"<BlocksCount> {-(-size // block)} </BlocksCount><ChecksumType> sha256 </ChecksumType>"
        f"<BmapFileChecksum> {'0' * 64} </BmapFileChecksum><BlockMap>{lines}</BlockMap></bmap>"
    )
    return text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest(), 1)


def test_only_mapped_blocks_are_written_and_each_has_the_digest_of_the_map(tmp_path):
    size = 3 * CHUNK
    image, path, memory = image_of(tmp_path, size), tmp_path / "m.bmap", Memory(size)
    data = image.read_bytes()
    old = bytes(memory.bytes)
    parts = [(0, 2 * HEAD), (CHUNK, CHUNK + 4096)]
    named = [(f"{a // 4096}-{b // 4096 - 1}", hashlib.sha256(data[a:b]).hexdigest()) for a, b in parts]
    path.write_text(a_map(named, size))
    proof = write(image, memory, bmap.parse(path))
    assert proof.mapped == 2 * HEAD + 4096
    for a, b in parts:
        assert memory.bytes[a:b] == data[a:b]
    assert bytes(memory.bytes[CHUNK + 4096 :]) == old[CHUNK + 4096 :], "free blocks keep what was there"
    path.write_text(a_map([named[0], (named[1][0], "0" * 63 + "1")], size))
    with pytest.raises(ImageError, match=r"bytes 4,194,304 to 4,198,400 are not those of the block map"):
        write(image, memory, bmap.parse(path))


@pytest.mark.skipif(not shutil.which("bmaptool"), reason="no bmaptool: apt-get install bmap-tools")
def test_maps_of_bmaptool_are_read(tmp_path):
    image = tmp_path / "sparse.img"
    with image.open("wb") as file:
        for at in (0, 1 << 20, 5 << 20):
            file.seek(at)
            file.write(os.urandom(8192))
        file.truncate(8 << 20)
    subprocess.run(["bmaptool", "create", "-o", tmp_path / "m.bmap", image], check=True, capture_output=True)
    found = bmap.parse(tmp_path / "m.bmap")
    assert (found.size, found.mapped) == (8 << 20, 3 * 8192)
    assert [one.start for one in found.ranges] == [0, 1 << 20, 5 << 20]
    memory = Memory(8 << 20)
    assert write(image, memory, found).mapped == 3 * 8192
    assert memory.bytes[5 << 20 : (5 << 20) + 8192] == image.read_bytes()[5 << 20 : (5 << 20) + 8192]


BOMB = (  # a billion laughs
    "<!DOCTYPE l [<!ENTITY a 'aaaa'>"
    + "".join(f"<!ENTITY {chr(98 + i)} '{('&' + chr(97 + i) + ';') * 50}'>" for i in range(9))
    + "]><bmap>&j;</bmap>"
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing", "is no block map"),
        ("<a/>", "is no block map of version 2"),
        (a_map([("0", "a" * 64)], 4096, version="1.4"), "version='1.4'"),
        (a_map([("0", "a" * 64)], 4096).replace("4096", "4097", 1), "its own digest differs"),
        (a_map([("0-1", "a" * 64), ("1-2", "a" * 64)], 1 << 20), "range  1-2  overlaps another"),
        (a_map([("9", "a" * 64)], 4096), "lies outside the image"),
        (a_map([("0", "zz")], 4096), "is malformed"),
        (a_map([("0", "a" * 64)], 4096, block=3), "no plausible size"),
        (BOMB, "is no block map"),
    ],
)
def test_a_bad_map_is_refused(tmp_path, text, words):
    path = tmp_path / "m.bmap"
    path.write_text(text)
    with pytest.raises(ImageError, match=words):
        bmap.parse(path)


def test_a_map_of_another_image_is_refused_before_the_first_byte(tmp_path):
    memory = Memory(CHUNK)
    with pytest.raises(ImageError, match=r"has 4,194,304 bytes, its block map is of 8,388,608"):
        write(image_of(tmp_path, CHUNK), memory, bmap.whole(2 * CHUNK))
    assert not memory.log


# Real block devices


@pytest.fixture
def loop(tmp_path):
    """A loop device over a file of 16 MiB, as a card."""
    if os.geteuid() != 0 or not shutil.which("losetup"):
        pytest.skip("loop devices need root and losetup: sudo apt-get install mount")
    backing = tmp_path / "card"
    backing.write_bytes(os.urandom(16 << 20))
    done = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop device to be had: {done.stderr.strip()}")
    device = Path(done.stdout.strip())
    yield device, backing
    subprocess.run(["losetup", "--detach", device], check=True)


def test_the_command_writes_a_real_device_and_proves_it(loop, tmp_path):
    device, backing = loop
    image = image_of(tmp_path, 9 << 20)
    words, before = [str(image), str(device), "--allow-loop"], backing.read_bytes()
    refused = CliRunner().invoke(APP, words)
    assert isinstance(refused.exception, UsageError)
    assert f"add --erase {device.name}" in str(refused.exception)
    assert backing.read_bytes() == before, "nothing was written without the word"
    told = CliRunner().invoke(APP, [*words, "--erase", device.name, "--proof", str(tmp_path / "proof.json")])
    assert told.exit_code == 0, told.output
    assert "9.4 MB read back and equal" in told.stdout
    assert backing.read_bytes() == image.read_bytes() + before[9 << 20 :]
    proof = json.loads((tmp_path / "proof.json").read_text())
    assert proof["sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
    again = CliRunner().invoke(APP, [*words, "--erase", device.name, "--resume", "--json"])
    assert json.loads(again.stdout)["written"] == HEAD, "all but the head was there already"


def test_killed_in_the_middle_a_card_has_no_partition_table_and_is_taken_up_again(loop, tmp_path):
    device, backing = loop
    image = image_of(tmp_path, 12 << 20)
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom fleet.flash import bmap\nfrom fleet.flash.card import write\n"
        "from fleet.flash.medium import BlockDevice\nimage = Path(sys.argv[1])\n"
        "def told(stage, done, total):\n    if done > 6 << 20: os.kill(os.getpid(), 9)\n"
        "with BlockDevice(Path(sys.argv[2])) as medium:\n"
        "    write(image, medium, bmap.whole(image.stat().st_size), progress=told)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, image, device], cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    with BlockDevice(device) as medium:
        medium.forget()
        assert medium.read(0, HEAD) == bytes(HEAD)
        write(image, medium, bmap.whole(12 << 20), is_resumed=True)
    assert backing.read_bytes()[: 12 << 20] == image.read_bytes()


def test_a_device_in_use_is_refused_by_the_kernel_too(loop):
    device, _ = loop
    with BlockDevice(device), pytest.raises(UsageError, match="close what uses it"):
        BlockDevice(device)
    with pytest.raises(UsageError, match="is no block device"):
        BlockDevice(Path("/dev/null"))
    with pytest.raises(UsageError, match="No such file"):
        BlockDevice(Path("/dev/none"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xfd7zXZ\x00" + bytes(506), "is compressed: a board could not boot from it; strop flash image unpacks it"),
        (bytes(513), "has 513 bytes: no image of whole sectors"),
        (b"", "has 0 bytes"),
    ],
)
def test_what_is_no_raw_image_is_refused(loop, tmp_path, content, words):
    path = tmp_path / "x.img"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        verb(path, loop[0], allow_loop=True, erase=loop[0].name)


def test_devices_are_listed_with_what_speaks_against_them():
    told = CliRunner().invoke(APP, ["--list", "--json"])
    rows = json.loads(told.stdout)
    assert all(set(row) == {"device", "gb", "model", "bus", "verdict"} for row in rows)
