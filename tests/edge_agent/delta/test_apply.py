# SPDX-License-Identifier: Apache-2.0
"""Patches give the file that they promise, or one error of ours: never a wrong file, never more memory than allowed."""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.delta import container
from edge_agent.delta.container import MAX_FRAME_MEMORY, Code, Header, operations
from edge_contract.errors import BundleError, DeltaError
from export.delta import coding, maker
from export.delta import container as writing
from export.delta.coding import Step
from export.delta.container import Frame, Plan, packed_frame, write
from tests.edge_agent.delta.conftest import Disk, digest, nudged, weights

ROOT = Path(__file__).parents[3]
WAYS = {
    "tensors": lambda base, target: maker.with_tensors(base, target)[0],
    "zstd-prefix": maker.with_prefix,
    "zstd": lambda _base, target: maker.without_base(target),
}
_EDITS = st.lists(
    st.tuples(st.sampled_from("=+-~*"), st.integers(0, 1000), st.integers(1, 400), st.randoms(use_true_random=False)),
    max_size=6,
)


def edited(base: bytes, edits) -> bytes:
    """Insert, cut, overwrite, move and nudge parts of a file."""
    data = bytearray(base)
    for kind, place, size, random in edits:
        at = place * len(data) // 1001
        if kind == "+":
            data[at:at] = random.randbytes(size)
        elif kind == "-":
            del data[at : at + size]
        elif kind == "~":
            data[at : at + size] = random.randbytes(min(size, len(data) - at))
        elif kind == "*":
            for i in range(at, min(at + size, len(data))):
                data[i] = (data[i] + random.choice((0, 0, 1, 255))) % 256
        else:
            data = data[at:] + data[:at]
    return bytes(data)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(WAYS)), st.integers(0, 3000), _EDITS)
def test_any_edit_of_any_file_round_trips(way, size, edits):
    base = weights(size)
    target = edited(base, edits)
    with tempfile.TemporaryDirectory() as folder:
        patch = WAYS[way](base, target)
        held = b"" if way == "zstd" else base
        assert Disk(Path(folder)).apply(held, patch, target) == target


def sample() -> tuple[bytes, bytes]:
    base = weights(6000)
    return base, base[:900] + b"new words" * 9 + nudged(base[900:3000], 0.2) + base[3500:]


@pytest.mark.parametrize("way", ["tensors", "zstd-prefix"])
def test_a_damaged_patch_is_one_error_and_no_file(way, disk):
    base, target = sample()
    patch = WAYS[way](base, target)

    @settings(max_examples=80, deadline=None)
    @given(st.data())
    def damaged(data):
        broken = bytearray(patch)
        kind = data.draw(st.sampled_from(["flip", "cut", "grow", "set"]))
        at = data.draw(st.integers(0, len(patch) - 1))
        if kind == "flip":
            broken[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut":
            del broken[at:]
        elif kind == "grow":
            broken[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        else:
            broken[at : at + 8] = data.draw(st.sampled_from([b"\xff" * 8, b"\x00" * 8, b"\x80" * 8]))
        try:
            found = disk.apply(base, bytes(broken), target)
        except (DeltaError, BundleError):
            assert not disk.has_result
        else:
            assert found == target  # a bit that nobody reads, such as a frame's unused one

    damaged()


_NUMBERS = st.one_of(st.integers(0, 300), st.sampled_from([2**16, 2**20, 2**31, 2**35 - 1]))


BASE, OTHER = weights(300), weights(400, seed=9)
STREAM = zstandard.compress(weights(200))


def _leb(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


@settings(max_examples=90, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.lists(_NUMBERS, min_size=1, max_size=5)), max_size=6), st.binary())
def test_hostile_operations_are_refused_before_they_are_done(steps, streams):
    """A patch whose container is sound, with any operations and any streams."""
    control = b"".join(_leb(code) + b"".join(map(_leb, numbers)) for code, numbers in steps)
    base, target = BASE, OTHER
    packed = [zstandard.compress(control), streams, *[STREAM] * 4]
    raw = [len(control), 1 << 40, *[200] * 4]
    entries = tuple(zip(map(len, packed), raw, strict=True))
    header = Header("tensors", digest(base), digest(target), len(base), len(target), entries)
    with tempfile.TemporaryDirectory() as folder:
        disk = Disk(Path(folder))
        with pytest.raises(DeltaError):
            disk.apply(base, header.to_bytes() + b"".join(packed), target)
        assert not disk.has_result


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 500), st.integers(0, 500))
def test_any_bytes_are_operations_in_bounds_or_an_error(control, base_size, result_size):
    made = 0
    try:
        for step in operations(control, base_size, result_size):
            assert 0 <= step.offset <= base_size
            assert all(at >= 0 and at + size <= base_size for at, size in step.ranges)
            if step.code != Code.INSERT:
                assert step.offset + step.length <= base_size or step.code == Code.FRAME
            made += 0 if step.code == Code.FRAME else step.length
            assert made <= result_size
        assert made == result_size
    except DeltaError as error:
        assert str(error).startswith("patch: not a whole patch")


def patch_of(base: bytes, target: bytes, steps, frames=(), streams=None) -> bytes:
    return write("tensors", base, target, Plan(steps, frames, streams or {}))


def test_a_frame_that_asks_for_a_larger_window_than_allowed_is_refused(disk):
    base, target = b"", bytes(1000)
    wide = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    bomb = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    data = bomb.compress(target) + bomb.flush()
    frame = Frame(0, data, len(target))
    assert zstandard.get_frame_parameters(data).window_size > MAX_FRAME_MEMORY
    with pytest.raises(DeltaError, match="too much memory"):
        disk.apply(base, patch_of(base, target, [Step(Code.INSERT, len(target))], [frame]), target)


def test_a_bomb_is_read_no_further_than_the_result_needs(disk):
    """8 MB of zeros in some hundred bytes: whoever asks for 10 of them is given 10."""
    base, target = b"ab", bytes(10)
    frame = Frame(0, packed_frame(bytes(8_000_000)), 8_000_000)
    assert len(frame.data) < 5000
    assert disk.apply(base, patch_of(base, target, [Step(Code.INSERT, 10)], [frame]), target) == target


def test_a_dictionary_larger_than_its_share_is_refused():
    base_size = MAX_FRAME_MEMORY
    control = writing.written_operations([Step(Code.INSERT, 5)], [Frame(0, b"x", 5, ((0, MAX_FRAME_MEMORY // 2 + 1),))])
    with pytest.raises(DeltaError, match="larger than the memory"):
        list(operations(control, base_size, 5))


def test_a_patch_that_keeps_its_form_and_lies_about_the_result_leaves_nothing(disk):
    base = weights(500)
    honest = patch_of(base, base, [Step(Code.COPY, 500, 0)])
    other = nudged(base, 0.5)
    lie = honest.replace(bytes.fromhex(digest(base)), bytes.fromhex(digest(other)))
    lie = lie.replace(bytes.fromhex(digest(other)), bytes.fromhex(digest(base)), 1)  # the base's digest stands first
    with pytest.raises(DeltaError, match="other bytes than it promises"):
        disk.apply(base, lie, other)
    assert not disk.has_result


def test_another_base_is_found_out_first_and_is_not_the_patch_s_fault(disk, monkeypatch):
    base, target = sample()
    patch = WAYS["tensors"](base, target)
    disk.put(nudged(base, 0.01), patch)
    monkeypatch.setattr("edge_agent.delta.apply._write", None)  # nothing may be written before the base is known
    from edge_agent.delta.apply import Wanted, apply

    with pytest.raises(BundleError, match="base has other bytes") as caught:
        wanted = Wanted(digest(base), digest(target), len(target))
        apply(disk.folder / "base", disk.folder / "patch", disk.folder / "out", wanted)
    assert not isinstance(caught.value, DeltaError)


def test_a_patch_for_another_pair_is_refused(disk):
    base, target = sample()
    with pytest.raises(DeltaError, match="other files than it was offered for"):
        disk.apply(base, WAYS["tensors"](base, target), target[:-1])


def test_the_header_is_what_the_page_says():
    """Byte for byte, so that another program can be written from the docstring."""
    patch = patch_of(b"abc", b"abc", [Step(Code.COPY, 3, 0)])
    assert (patch[:8], patch[8], patch[9], patch[10:12]) == (b"STROPDLT", 1, 1, b"\x06\x00")
    assert patch[12:44] == patch[44:76] == hashlib.sha256(b"abc").digest()
    assert int.from_bytes(patch[76:84], "little") == int.from_bytes(patch[84:92], "little") == 3
    assert int.from_bytes(patch[92:100], "little") == len(patch) - 188
    assert zstandard.ZstdDecompressor().decompressobj().decompress(patch[188:]) == b"\x00\x00\x03"
    assert set(container.CODECS.values()) == {"tensors", "zstd-prefix", "zstd"}


LAUNCH = """
import json, resource, subprocess, sys
command, words = [sys.executable, "-P", "-m", "edge_agent.delta"], sys.stdin.buffer.read()
done = subprocess.run(command, input=words, capture_output=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({"reply": json.loads(done.stdout), "peak_kb": peak}))
"""


def helper(request) -> dict:
    """Run the helper below a small process: a child's peak would else begin with the memory of this one."""
    command, environment = [sys.executable, "-c", LAUNCH], {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    words = json.dumps(request).encode()
    done = subprocess.run(command, input=words, capture_output=True, check=True, env=environment)
    return json.loads(done.stdout)


def request_for(disk: Disk, base: bytes, target: bytes) -> dict:
    paths = {name: str(disk.folder / name) for name in ("base", "patch", "out")}
    return {**paths, "base_sha256": digest(base), "sha256": digest(target), "size": len(target)}


@pytest.mark.parametrize("way", ["tensors", "zstd-prefix"])
def test_twenty_megabytes_are_patched_in_sixty_four(way, disk, monkeypatch):
    """Peak resident memory of the whole helper process, by getrusage; fast levels make the same kinds of frames."""
    monkeypatch.setattr(writing, "_LEVELS", (1,))
    monkeypatch.setattr(writing, "_FRAME_LEVEL", 1)
    monkeypatch.setattr(coding, "_ESTIMATE_LEVEL", 1)
    base = weights(20_000_000)
    target = nudged(base[:10_000_000], 0.05) + base[10_000_000:-4_000_000] + weights(4_000_000, seed=5)
    disk.put(base, WAYS[way](base, target))
    found = helper(request_for(disk, base, target))
    assert found["reply"]["ok"], found
    assert digest((disk.folder / "out").read_bytes()) == digest(target)
    print(f"{way}: {found['peak_kb']} KB at most")
    assert found["peak_kb"] * 1024 <= 64_000_000
    assert found["reply"]["peak_rss_kb"] <= 1.02 * found["peak_kb"], "by its own counter"


def test_the_helper_says_whose_fault_it_was(disk):
    base, target = sample()
    patch = WAYS["tensors"](base, target)
    cases = [(base, patch[:-1], "patch"), (base[:-1], patch, "base"), (base, patch, "here")]
    for held, given_patch, blame in cases:
        disk.put(held, given_patch)
        if blame == "here":
            (disk.folder / "out").write_bytes(b"in the way")
        reply = helper(request_for(disk, base, target))["reply"]
        assert (reply["ok"], reply["blame"]) == (False, blame)
        assert disk.has_result == (blame == "here"), "what lay there before is not ours"
        assert reply["what"]
