# SPDX-License-Identifier: Apache-2.0
"""SIGKILL before and after every durable operation of whole stories, once and twice in a row, then a real restart.

The operations are counted behind libc, so SQLite's and those of the C library count as ours do. A kill after an
operation leaves the disk as one before the next does, but less may have been told to the world.
"""

import os
import random
import signal
from collections.abc import Iterator

import pytest

from tests.edge_agent.crash import shim
from tests.edge_agent.crash.conftest import Ground
from tests.edge_agent.crash.lives import STORIES, Claims, Story, check_disk

LONG = int(os.environ.get("STROP_CRASH_KILLS", "5000"))


def count(ground: Ground, story: Story) -> int:
    """Return the durable operations of a story in which nothing goes wrong."""
    data, claims = ground.begin(story), Claims()
    code, words = ground.lives.live(data, story, claims)
    assert code == 0, claims.error
    check_disk(data, ground.manifests, story, claims)
    return int(words["count"])


def die(ground: Ground, story: Story, *kills: tuple[int, int]) -> int:
    """Live through a story, killed in one life after the other, and hold the device to its word; return the kills."""
    data, claims, killed = ground.begin(story), Claims(), 0
    for boot, (how, at) in enumerate(kills, 1):
        code, _ = ground.lives.live(data, story, claims, boot=boot, how=(how, at))
        assert code in (0, -signal.SIGKILL), claims.error
        killed += code != 0
    code, _ = ground.lives.live(data, story, claims, boot=len(kills) + 1)
    assert code == 0, claims.error
    check_disk(data, ground.manifests, story, claims)
    return killed


BEFORE, AFTER = shim.KILL_BEFORE, shim.KILL_AFTER


@pytest.mark.parametrize(("name", "stride"), [("an update", 1), ("a first install", 5), ("a bad update", 5)])
def test_a_kill_at_every_operation_reaches_the_same_end(ground: Ground, name: str, stride: int) -> None:
    """Before and after in turn: with a stride of 1 the disk is met in each of its states."""
    story = STORIES[name]
    steps = count(ground, story)
    assert steps > 100
    killed = tries = 0
    for at in range(1, steps + 1, stride):
        killed, tries = killed + die(ground, story, (BEFORE if at % 2 else AFTER, at)), tries + 1
    assert killed == tries


def _twice(rng: random.Random, steps: int) -> Iterator[tuple[int, int]]:
    """The second life is killed early, where it takes up what the first has left."""
    yield rng.choice((BEFORE, AFTER)), rng.randint(1, steps)
    yield rng.choice((BEFORE, AFTER)), rng.randint(1, 40)


def test_two_kills_in_a_row_reach_the_same_end(ground: Ground) -> None:
    rng = random.Random(5)
    for story in STORIES.values():
        steps = count(ground, story)
        for _ in range(5):
            assert die(ground, story, *_twice(rng, steps)) >= 1


@pytest.mark.crash_long
def test_many_kills_up_to_three_in_a_row(ground: Ground) -> None:
    rng, killed = random.Random(LONG), 0
    steps = {name: count(ground, story) for name, story in STORIES.items()}
    while killed < LONG:
        name = rng.choice(list(STORIES))
        plan = [*_twice(rng, steps[name]), (BEFORE, rng.randint(1, steps[name]))]
        killed += die(ground, STORIES[name], *plan[: rng.randint(1, 3)])
    print(f"{killed} kills, 0 bad states, 0 lost rows")
