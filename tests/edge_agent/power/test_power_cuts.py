# SPDX-License-Identifier: Apache-2.0
"""The power of a virtual machine fails while the agent works: at random instants, and after every logged write.

Its kernel, ext4, SQLite and Python are a device's; the agent's update machine, slots, journal and outbox are the real
ones. After each cut the host looks at the disk, and the same disk is started again.
"""

import json
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge_contract.manifest import Manifest
from tests.edge_agent.crash.lives import Claims, Story
from tests.edge_agent.crash.outside import order_id, write_bundle
from tests.edge_agent.power.blocklog import Write, apply, last_flush, read_log, reordered
from tests.edge_agent.power.guest import MARK, VERSIONS
from tests.edge_agent.power.inspection import PowerJudge, contents, phase
from tests.edge_agent.power.machine import DISK_MB, SavedMachine, format_disk
from tests.machines import vm

pytestmark = [
    pytest.mark.crash_long,
    pytest.mark.skipif(bool(vm.missing()), reason=vm.missing() or "a virtual machine is here"),
    pytest.mark.timeout(3600),
]
CUTS = int(os.environ.get("STROP_POWER_CUTS", "100"))
POINTS = int(os.environ.get("STROP_POWER_POINTS", "300"))
LIVES, LINES, LIFE_S = 10, 16, 10
"""Cuts that one device lives through, and the longest of its lives: in things told to the world, in seconds."""
ORDERS, REPEAT = ("2", "3", "bad", "4", "1"), 100
AFTER = 2
"""Orders that a device must bring to their end after its last cut."""


@dataclass
class Ground:
    """What the tests share: a machine that was started once, and the bundles that it has too."""

    folder: Path
    saved: SavedMachine
    manifests: dict[str, Manifest]

    def judge(self) -> PowerJudge:
        return PowerJudge(self.folder / "state", self.manifests, Story("", ORDERS * REPEAT))

    def look(self, judge: PowerJudge, disk: Path) -> str:
        """Judge a copy of a disk; return in which phase it was cut. What is wrong raises."""
        copy = self.folder / "copy.img"
        shutil.copy(disk, copy)
        tree = contents(copy, self.folder / "mounted")
        judge.judge(tree)
        models = {path: node for path, node in tree.items() if not path.startswith("outbox")}
        return phase(judge._found(models))


@dataclass
class Tally:
    """What is printed at the end, and what was wrong."""

    phases: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    rows: int = 0
    results: int = 0
    acknowledged: int = 0
    orders: Counter[str] = field(default_factory=Counter)

    def add(self, claims: Claims) -> None:
        self.rows += len(claims.rows)
        self.results += sum(cls == "result" for _, cls, _ in claims.rows)
        self.acknowledged += sum(seq <= claims.acked.get((boot, cls), 0) for boot, cls, seq in claims.rows)
        self.orders.update(claims.ended.values())

    @property
    def lost(self) -> int:
        return sum(" is lost" in text for text in self.bad)

    def table(self, **figures: object) -> str:
        rows = {**figures, "bad states": len(self.bad), "lost rows": self.lost}
        rows |= {"rows that were committed": self.rows, "of them results": self.results}
        rows["of them acknowledged"] = self.acknowledged
        rows |= {f"orders {status}": count for status, count in sorted(self.orders.items())}
        rows |= {f"cut in {name}": count for name, count in self.phases.most_common()}
        return "\n".join(f"{name:<32} {value}" for name, value in rows.items())


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30 else None
    with tempfile.TemporaryDirectory(prefix="strop-power-", dir=where) as name:
        folder = Path(name).resolve()
        manifests = {version: write_bundle(folder / "bundles" / version, version) for version in VERSIONS}
        yield Ground(folder, SavedMachine(folder), manifests)


def keep(disk: Path, text: str) -> None:
    """Keep the disk of a bad state for a person to look at."""
    folder = Path("build/power-cuts")
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("*.img")))
    shutil.copy(disk, folder / f"{number}.img")
    (folder / f"{number}.txt").write_text(text)


def life(boot: int, **changes: Any) -> dict[str, Any]:
    return {"boot": boot, "orders": ORDERS, "repeat": REPEAT, "acks": True, "marks": 0, "careless": False, **changes}


def cut_in_life(ground: Ground, disk: Path, judge: PowerJudge, words: dict[str, Any], rng: random.Random) -> str:
    """Live for a while, cut the power, look at the disk.

    A while is so many words and a moment: a busy computer makes it longer, and each phase is met all the same.
    """
    with ground.saved.start(disk, words) as machine:
        said = machine.listen(rng.randrange(LINES), LIFE_S)
        time.sleep(rng.uniform(0, 0.4))
        said += machine.cut()
    for one in said:
        judge.claims.hear(one)
    assert not judge.claims.error, judge.claims.error
    return ground.look(judge, disk)


def live_on(ground: Ground, disk: Path, judge: PowerJudge, words: dict[str, Any]) -> None:
    """Live until two more orders have come to their end."""
    aim = order_id(len(judge.claims.ended) + AFTER)
    with ground.saved.start(disk, words) as machine:
        said = machine.until(lambda one: one.get("ended") == aim or "error" in one, 60)
        said += machine.cut()
    for one in said:
        judge.claims.hear(one)
    assert not judge.claims.error, judge.claims.error
    ground.look(judge, disk)


def device(ground: Ground, rng: random.Random, cuts: int, tally: Tally, *, acks: bool) -> None:
    """One device from its first start through its cuts to a quiet end."""
    disk, judge = format_disk(ground.folder / "device.img"), ground.judge()
    try:
        for boot in range(1, cuts + 1):
            tally.phases[cut_in_life(ground, disk, judge, life(boot, acks=acks), rng)] += 1
        live_on(ground, disk, judge, life(cuts + 1, acks=acks))
    except Exception as error:
        keep(disk, f"{type(error).__name__}: {error}\n{judge.claims}")
        tally.bad.append(f"{type(error).__name__}: {error}")
    tally.add(judge.claims)


def test_random_power_cuts_of_a_virtual_machine(ground: Ground) -> None:
    rng, tally, start = random.Random(CUTS), Tally(), time.monotonic()
    for number in range(-(-CUTS // LIVES)):
        device(ground, rng, min(LIVES, CUTS - number * LIVES), tally, acks=number % 2 == 0)
    print(f"\nrandom power cuts, {time.monotonic() - start:.0f} s")
    print(tally.table(cuts=tally.phases.total(), devices=-(-CUTS // LIVES)))
    assert not tally.bad, tally.bad
    assert tally.phases.total() >= CUTS


LOGGED = 10
"""Orders of the life whose writes are logged."""


def logged_life(ground: Ground, **changes: Any) -> tuple[bytes, list[Write]]:
    """Live undisturbed through some orders; return the disk as it was before, and every write to it."""
    disk, log = format_disk(ground.folder / "logged.img"), ground.folder / "log"
    before = disk.read_bytes()
    with log.open("wb") as file:
        file.truncate(2**30)
    words = life(1, repeat=LOGGED // len(ORDERS), marks=DISK_MB * 2**20, **changes)
    with ground.saved.start(disk, words, log) as machine:
        said = machine.until(lambda one: "end" in one or "error" in one, 120)
        time.sleep(6)  # the kernel writes back what nobody has asked it to
    assert "end" in said[-1], said[-1]
    writes = read_log(log)
    log.unlink()
    return before, writes


def points(writes: list[Write], count: int) -> list[int]:
    """Return after how many writes to look: at all of them, or at so many, evenly chosen."""
    real = [i for i, write in enumerate(writes, 1) if write.data and write.offset < DISK_MB * 2**20]
    return real if len(real) <= count else [real[i * len(real) // count] for i in range(count)]


class Replay:
    """The logged disk while time goes by: what is safe, what is not yet, and what had been told."""

    def __init__(self, ground: Ground, before: bytes, writes: list[Write]) -> None:
        self._ground, self._writes, self._told = ground, writes, 0
        self._safe, self._safe_until = bytearray(before[: DISK_MB * 2**20]), 0
        self.judge, self.image = ground.judge(), ground.folder / "replayed.img"

    def tell(self, end: int) -> None:
        """Take in what was told before the ``end``-th write."""
        for write in self._writes[self._told : end]:
            if write.data.startswith(MARK):
                self.judge.claims.hear(json.loads(write.data[len(MARK) :].rstrip(b"\0")))
        self._told = end

    def at(self, end: int, rng: random.Random | None) -> str:
        """Cut the power after so many writes, with all of them on the disk or some; return the phase."""
        self.tell(end)
        flushed = last_flush(self._writes, end)
        apply(self._safe, self._writes[self._safe_until : flushed])
        self._safe_until = max(self._safe_until, flushed)
        unsafe = self._writes[flushed:end]
        disk = bytearray(self._safe)
        apply(disk, unsafe if rng is None else reordered(unsafe, rng))
        self.image.write_bytes(disk)
        return self._ground.look(self.judge, self.image)


def replay(
    ground: Ground, before: bytes, writes: list[Write], rng: random.Random | None, count: int, *, is_kept: bool = True
) -> Tally:
    """Cut the power after each chosen write; look at every disk that this may leave."""
    tally, run = Tally(), Replay(ground, before, writes)
    for end in points(writes, count):
        try:
            tally.phases[run.at(end, rng)] += 1
        except Exception as error:
            if is_kept and not tally.bad:
                keep(run.image, f"after {end} of {len(writes)} writes, {rng}: {error}\n{run.judge.claims}")
            tally.bad.append(f"after {end} writes: {type(error).__name__}: {error}")
    run.tell(len(writes))
    tally.add(run.judge.claims)
    return tally


def test_the_power_fails_after_every_write_of_a_logged_run(ground: Ground) -> None:
    """In the order in which the writes came, then with those since the last flush dropped, torn and reordered."""
    start, (before, writes) = time.monotonic(), logged_life(ground)
    flushes = sum(write.is_flush for write in writes)
    print(f"\nlogged run: {len(writes) - flushes} writes, {flushes} flushes, {time.monotonic() - start:.0f} s")
    for name, rng in (("every prefix", None), ("writes since a flush dropped", random.Random(POINTS))):
        start, tally = time.monotonic(), replay(ground, before, writes, rng, POINTS)
        took = time.monotonic() - start
        found = tally.phases.total() + len(tally.bad)
        print(f"\n{name}, {took:.0f} s\n{tally.table(points=found)}")
        assert not tally.bad, tally.bad
        assert found >= min(POINTS, 90)


def test_an_agent_that_does_not_fsync_is_found_out(ground: Ground) -> None:
    """The same run by an agent whose every ``os.fsync`` does nothing: the replay must see that."""
    tally = replay(ground, *logged_life(ground, careless=True), random.Random(1), POINTS // 5, is_kept=False)
    print(f"\nwithout fsync: {len(tally.bad)} bad states of {len(tally.bad) + tally.phases.total()} points")
    assert tally.bad
