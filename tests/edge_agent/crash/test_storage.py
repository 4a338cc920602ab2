# SPDX-License-Identifier: Apache-2.0
"""Whole stories, recorded behind libc; then the power fails after each operation in every way that ``disk`` allows.

Each state is given to the real recovery (``judge``). A sample is lived on to the end of its orders.
"""

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch

import pytest

from tests.edge_agent.crash.conftest import Ground
from tests.edge_agent.crash.disk import Bytes, Disk, Names, Tree, write
from tests.edge_agent.crash.judge import Judge
from tests.edge_agent.crash.lives import STORIES, Claims, Story, check_disk
from tests.edge_agent.crash.shim import Op, read_log

DRAWS, SAMPLE, LEAST = 8, 40, 5000
NOW: Names = lambda folder: folder.now  # noqa: E731
WHOLE: Bytes = lambda file: file.now  # noqa: E731
LONG_DRAWS = int(os.environ.get("STROP_CRASH_DRAWS", "200"))


def record(ground: Ground, story: Story) -> list[Op]:
    """Live a story from its beginning to its end; return every operation, with what was told between them."""
    data, log, claims = ground.begin(story), ground.folder / "log", Claims()
    code, _ = ground.lives.live(data, story, claims, log=log)
    assert code == 0, claims.error
    return read_log(log, data)


def crashes(
    ground: Ground, story: Story, operations: list[Op], rng: random.Random, draws: int
) -> Iterator[tuple[Judge, Tree, int]]:
    """Yield (judge, state, operations before it): the power fails once after each operation."""
    disk = Disk(ground.starts[story.installed])
    judge = Judge(ground.folder / "state", ground.manifests, story)
    for number, op in enumerate(operations):
        if op.kind == "mark":
            judge.claims.hear(json.loads(op.path))
        else:
            disk.do(op)
        for tree in disk.crashes(rng, draws):
            yield judge, tree, number


def live_on(ground: Ground, judge: Judge, tree: Tree) -> None:
    """Start a device on a state, and let it come to the end of its orders."""
    data, claims = ground.folder / "data", Claims(dict(judge.claims.ended), dict(judge.claims.rows))
    claims.acked.update(judge.claims.acked)
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    write(tree, data)
    code, _ = ground.lives.live(data, judge.story, claims, boot=2)
    assert code == 0, claims.error
    check_disk(data, ground.manifests, judge.story, claims)


def run(ground: Ground, draws: int, sample: int) -> Counter[str]:
    """Judge every state of every story; live on from ``sample`` of them. Return how many states each story had."""
    rng, seen = random.Random(1), Counter[str]()
    for name, story in STORIES.items():
        for judge, tree, number in crashes(ground, story, record(ground, story), rng, draws):
            try:
                seen[name] += judge.judge(tree)
            except Exception as error:
                raise AssertionError(f"{name}, after operation {number}: {error}") from error
            if rng.random() < sample / (draws * 1500):
                live_on(ground, judge, tree)
                seen["lived on"] += 1
    return seen


def test_no_power_cut_leaves_a_state_that_a_start_cannot_use(ground: Ground) -> None:
    seen = run(ground, DRAWS, SAMPLE)
    lived = seen.pop("lived on")
    print(f"{seen.total()} states of the disk, {lived} lived on to the end: 0 bad; {dict(seen)}")
    assert seen.total() >= LEAST
    assert lived >= SAMPLE // 4


def test_the_model_of_the_disk_ends_where_the_real_one_does(ground: Ground) -> None:
    story = STORIES["three updates"]
    disk = Disk(ground.starts[story.installed])
    for op in record(ground, story):
        if op.kind != "mark":
            disk.do(op)
    real = Disk(ground.folder / "data")
    assert disk.tree(NOW, WHOLE) == real.tree(NOW, WHOLE)


def test_what_the_journal_calls_downloaded_is_still_there_after_a_power_cut(ground: Ground) -> None:
    """The worst cut: only what was fsynced. The order goes on; it does not fail for files that are gone."""
    story = STORIES["an update"]
    disk, judge = Disk(ground.starts[story.installed]), Judge(ground.folder / "state", ground.manifests, story)
    verifying = 0
    for op in record(ground, story):
        if op.kind == "mark":
            judge.claims.hear(json.loads(op.path))
            continue
        disk.do(op)
        tree = disk.tree(lambda folder: folder.synced, lambda file: file.synced)
        if op == Op("fsync", ".") and b'"phase":"verifying"' in bytes(tree["journal.json"][1]):  # type: ignore[arg-type]
            verifying += 1
            live_on(ground, judge, tree)
    assert verifying


FORGOTTEN = {
    "the journal's bytes": ".journal.json*",
    "the data folder's names": ".",
    "the pointers' names": "models/digits",
    "the slots' bytes": "models/*/slots/*/*",
    "the outbox's bytes": "outbox.db*",
}
"""What an agent would forget to fsync → the paths."""


@pytest.mark.parametrize("what", FORGOTTEN)
def test_an_agent_that_forgets_an_fsync_is_found_out(ground: Ground, what: str) -> None:
    story = STORIES["three updates"]
    operations = [op for op in record(ground, story) if op.kind != "fsync" or not fnmatch(op.path, FORGOTTEN[what])]

    def judge_all() -> None:
        for judge, tree, _ in crashes(ground, story, operations, random.Random(2), 2):
            judge.judge(tree)

    with pytest.raises((AssertionError, KeyError)):
        judge_all()


@pytest.mark.crash_long
def test_no_power_cut_of_very_many_leaves_such_a_state(ground: Ground) -> None:
    seen = run(ground, LONG_DRAWS, 20 * SAMPLE)
    lived = seen.pop("lived on")
    print(f"{seen.total()} states of the disk, {lived} lived on to the end: 0 bad; {dict(seen)}")
