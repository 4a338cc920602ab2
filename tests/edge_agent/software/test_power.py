# SPDX-License-Identifier: Apache-2.0
"""Power cuts around the launcher, on a model of the disk: real pointers, real record, real choice.

The operations of a whole update (pointers, starts, the commit, the sweep) are recorded behind libc, in the order in
which the agent and the launcher make them. After each the power fails in every way that the model allows, and the
launcher chooses on what is left.
"""

import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.launcher import choose
from edge_agent.software import launch
from edge_agent.software.store import ReleaseStore
from edge_contract.messages import SOFTWARE
from tests.edge_agent.crash import shim
from tests.edge_agent.crash.disk import Disk, Tree, write
from tests.edge_agent.crash.shim import Op, read_log

OLD, NEW = "a" * 64, "b" * 64
HOME = Path(__file__).resolve().parents[3]
DRAWS = 8

GOOD, BAD = "good", "bad"
PROGRAM = """
import sys
from pathlib import Path
from edge_agent.launcher import choose
from edge_agent.software import launch
from edge_agent.software.store import ReleaseStore
from edge_contract import durable
from edge_contract.messages import SOFTWARE
from tests.edge_agent.crash.shim import Shim

data, log, story, OLD, NEW = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], "a" * 64, "b" * 64
shim = Shim()
shim.log(log)
shim.arm(data)
store = ReleaseStore(data)
launch.write(data, launch.read(data).forgiven(NEW))
durable.write(launch.venv_of(data, NEW) / launch.MARK, b"{}")
shim.mark("pointer may move")
store.flip(SOFTWARE, NEW, OLD)
for start in range(1, 4):
    assert choose(data).release == NEW
    shim.mark(f"started {start}")
if story == "good":
    launch.write(data, launch.read(data).committed(NEW))
    shim.mark("proven")
    store.forget(SOFTWARE, ())
    assert choose(data).release == NEW
else:
    assert choose(data).release == OLD
    shim.mark("given up")
    store.flip(SOFTWARE, OLD, "")
    shim.mark("back")
    assert choose(data).release == OLD
    store.forget(SOFTWARE, ())
    assert not launch.venv_of(data, NEW).exists()
"""


def begin(data: Path) -> None:
    """A device that runs OLD; NEW lies beside it, and its environment lacks the mark."""
    for name in (OLD, NEW):
        slot = data / "software" / SOFTWARE / "slots" / name
        slot.mkdir(parents=True)
        (slot / "manifest.json").write_text('{"version":"1"}')
        binary = launch.venv_of(data, name) / "bin"
        binary.mkdir(parents=True)
        (binary / "python").symlink_to("/bin/sh")
    (launch.venv_of(data, OLD) / launch.MARK).write_text("{}")
    launch.write(data, launch.Launch(proven=(OLD,)))
    ReleaseStore(data).flip(SOFTWARE, OLD, "")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shim.GCC is None:
        pytest.skip("apt-get install gcc")
    return shim.build(tmp_path_factory.mktemp("shim"))


def record(library: Path, folder: Path, story: str) -> tuple[Disk, list[Op]]:
    """Return the disk before a story, and its operations."""
    data, log = folder / "data", folder / "log"
    data.mkdir()
    begin(data)
    disk = Disk(data)
    words = [sys.executable, "-c", PROGRAM, str(data), str(log), story]
    subprocess.run(words, env=shim.environment(library), cwd=HOME, check=True, timeout=60)
    return disk, read_log(log, data)


def states(disk: Disk, operations: list[Op], rng: random.Random) -> Iterator[tuple[Tree, list[str]]]:
    """Yield each state after a power cut, with what had been reached."""
    reached: list[str] = []
    for op in operations:
        if op.kind == "mark":
            reached.append(op.path)
        else:
            disk.do(op)
        for tree in disk.crashes(rng, DRAWS):
            yield tree, list(reached)


class Judge:
    """Lets the launcher choose on states; what it has seen before it does not look at again."""

    def __init__(self) -> None:
        self.seen: dict[object, list[str]] = {}

    def lives(self, tree: Tree) -> list[str]:
        """Return what the launcher starts on a state, five times in a row."""
        key = frozenset(tree.items())
        if key not in self.seen:
            where = "/dev/shm" if Path("/dev/shm").is_dir() else None
            with tempfile.TemporaryDirectory(dir=where) as folder:
                data = Path(folder)
                write(tree, data)
                self.seen[key] = [choose(data).release for _ in range(5)]
        return self.seen[key]


@pytest.mark.parametrize("story", [GOOD, BAD])
def test_after_any_power_cut_something_whole_starts_and_a_bad_release_ends(
    library: Path, tmp_path: Path, story: str
) -> None:
    disk, operations = record(library, tmp_path, story)
    judge = Judge()
    for tree, reached in states(disk, operations, random.Random(3)):
        chosen = judge.lives(tree)
        assert set(chosen) <= {OLD, NEW, ""}
        if "proven" in reached:
            assert chosen[0] == NEW, reached
        if "pointer may move" not in reached:
            assert chosen[0] == OLD
        tries = sum(mark.startswith("started") for mark in reached)
        if "proven" not in reached and story == BAD:
            # What was counted stays counted: never more starts on trial than there are, over all power cuts.
            assert chosen.count(NEW) <= launch.TRIAL_STARTS - tries, reached
        if "given up" in reached:
            assert NEW not in chosen
        assert OLD in chosen or chosen[0] == NEW, "what was good before is still there"
    assert len(judge.seen) >= 25
    print(f"{story}: {len(judge.seen)} states of the disk after {len(operations)} operations, 0 bad")


def test_an_uncounted_start_is_found_out(library: Path, tmp_path: Path) -> None:
    """Without the fsync of the record's folder a power cut forgets a start."""
    disk, operations = record(library, tmp_path, BAD)
    careless = [op for op in operations if not (op.kind == "fsync" and op.path == "software")]
    forgotten, judge = 0, Judge()
    for tree, reached in states(disk, careless, random.Random(4)):
        tries = sum(mark.startswith("started") for mark in reached)
        forgotten += judge.lives(tree).count(NEW) > launch.TRIAL_STARTS - tries
    assert forgotten
