# SPDX-License-Identifier: Apache-2.0
"""The counter file: whoever reads it sees a whole set, whatever happens to the writer."""

import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.counters import CounterFile, Tallies
from edge_contract.counts import Counters
from edge_contract.errors import StoreError
from edge_contract.latency import BUCKETS
from tests.support.windows import counters

BUNDLE = "0f" * 32

# Every counter of update i is i, so a mixture of two updates shows.
WRITER = """
import sys
from pathlib import Path
from edge_agent.counters import CounterFile
from edge_contract.counts import Counters
with CounterFile.create(Path(sys.argv[1]), 10, "0f" * 32) as file:
    print("ready", flush=True)
    i = 0
    while True:
        i += 1
        file.write(Counters.from_vector(10, [i] * Counters.length(10)))
"""


@given(counters(10))
def test_what_is_written_is_read(tmp_path_factory, given_counters):
    path = tmp_path_factory.mktemp("counters") / "counters.bin"
    with CounterFile.create(path, 10, BUNDLE) as file:
        file.write(given_counters)
        reading = CounterFile(path).read()
    assert reading.counters == given_counters
    assert reading.bundle == BUNDLE


@pytest.mark.parametrize(("magic", "behind"), [(b"StropCn1", 0), (b"StropCn2", 10)])
def test_files_of_older_runners_are_read(tmp_path, magic, behind):
    """The control process is updated before its runner: it finds a file without what came later."""
    numbers, generation = range(1, Counters.length(10) + behind + 1), 1
    content = struct.pack(f"<{len(numbers)}q", *numbers)
    crc = zlib.crc32(content, zlib.crc32(generation.to_bytes(8, "little")))
    copy = struct.pack("<QI4x", generation, crc) + content
    head = struct.pack("<8sQ32sI4x", magic, 77, bytes.fromhex(BUNDLE), 10)
    (tmp_path / "c").write_bytes(head + copy + bytes(len(copy)))
    reading = CounterFile(tmp_path / "c").read()
    assert (reading.epoch, reading.bundle, reading.times) == (77, BUNDLE, ())
    assert reading.counters.to_vector() == list(numbers)[: Counters.length(10)]
    assert sum(reading.tallies) == sum(list(numbers)[Counters.length(10) :])


def test_times_and_tallies_are_read_as_written(tmp_path):
    with CounterFile.create(tmp_path / "c", 10, BUNDLE) as file:
        file.write(Counters.zero(10), Tallies(nan=3), tuple(range(BUCKETS)))
        reading = file.read()
    assert (reading.tallies.nan, reading.times) == (3, tuple(range(BUCKETS)))


def test_a_new_file_has_counted_nothing(tmp_path):
    with CounterFile.create(tmp_path / "c", 1000, "") as file:
        assert file.read().counters == Counters.zero(1000)
        assert file.read().bundle == ""


def test_every_start_is_a_new_epoch_and_replaces_the_file_whole(tmp_path):
    path = tmp_path / "c"
    epochs = set()
    for classes in (10, 3, 10):
        with CounterFile.create(path, classes, BUNDLE):
            reading = CounterFile(path).read()
            epochs.add(reading.epoch)
            assert reading.counters.slots == classes
    assert len(epochs) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_reader_never_sees_half_of_an_update_and_a_killed_writer_leaves_a_whole_one(tmp_path):
    path = tmp_path / "counters.bin"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout.readline() == b"ready\n"
        deadline, seen = time.monotonic() + 30, []
        while time.monotonic() < deadline and len(set(seen)) <= 1000:
            reading = CounterFile(path).read()
            if reading is not None:  # None: the writer was twice as fast as every attempt
                assert len(set(reading.counters.to_vector())) == 1
                seen.append(reading.counters.n_infer)
        assert len(set(seen)) > 10
        assert seen == sorted(seen)
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    last = CounterFile(path).read()
    assert len(set(last.counters.to_vector())) == 1
    assert last.counters.n_infer >= seen[-1]


def test_an_update_that_stopped_half_way_leaves_the_one_before(tmp_path):
    path = tmp_path / "c"
    zero = Counters.zero(10)
    with CounterFile.create(path, 10, BUNDLE) as file:
        for n in (1, 2, 3):
            file.write(Counters.from_vector(10, [n] * len(zero.to_vector())))
    data = bytearray(path.read_bytes())
    newest = data.find((3).to_bytes(8, "little") * 50)
    data[newest] ^= 0xFF
    path.write_bytes(data)
    assert CounterFile(path).read().counters.n_infer == 2


@given(st.binary(max_size=4000))
def test_a_foreign_file_reads_as_nothing(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("foreign") / "c"
    path.write_bytes(data)
    assert CounterFile(path).read() is None


def test_no_file_reads_as_nothing(tmp_path):
    assert CounterFile(tmp_path / "none").read() is None


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StoreError, match="no-such-folder/c: cannot make the counter file"):
        CounterFile.create(tmp_path / "no-such-folder" / "c", 10, BUNDLE)


def test_a_bundle_id_that_is_none_is_refused_and_nothing_stays(tmp_path):
    with pytest.raises(StoreError, match="cannot make the counter file"):
        CounterFile.create(tmp_path / "c", 10, "not hexadecimal")
    assert list(tmp_path.iterdir()) == []


def test_counters_of_another_model_are_refused(tmp_path):
    with (
        CounterFile.create(tmp_path / "c", 10, BUNDLE) as file,
        pytest.raises(StoreError, match="the file takes 10 class slots; create it for 3"),
    ):
        file.write(Counters.zero(3))
    with pytest.raises(StoreError):  # closed
        file.write(Counters.zero(10))


def test_contract_and_counters_need_the_standard_library_only():
    modules = "autocorrelation channels counts findings health movement packing profile severity statistics summary"
    code = "import sys, edge_agent.counters, " + ", ".join(f"edge_contract.{m}" for m in [*modules.split(), "verdict"])
    code += "; foreign = {m.split('.')[0] for m in sys.modules} - sys.stdlib_module_names"
    code += "; print(*sorted(n for n in foreign if not n.startswith('_')))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert set(done.stdout.split()) - {"sitecustomize", "usercustomize"} <= {"edge_agent", "edge_contract"}
