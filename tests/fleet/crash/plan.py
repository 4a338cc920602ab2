# SPDX-License-Identifier: Apache-2.0
"""Which story, who is killed and when: thirty kills for every run, and as many as are asked for behind a marker."""

import os
import random
import time
from typing import NamedTuple

from tests.fleet.crash.judge import STORIES, Play

__all__ = ["CASES_POSTGRES", "CASES_SQLITE", "Case", "many", "one"]

MANY = int(os.environ.get("STROP_CRASH_KILLS", "500"))
SEED = int(os.environ.get("STROP_CRASH_SEED", "7"))
LASTS_S = 5.0
"""About as long as a story takes undisturbed; a kill falls anywhere in it."""


class Case(NamedTuple):
    """A story, and victims with moments in seconds."""

    number: int
    story: str
    kills: tuple[tuple[float, str], ...]

    def __str__(self) -> str:
        return f"{self.number}-{self.story.replace(' ', '-')}-{'-'.join(victim for _, victim in self.kills)}"


def _cases(count: int, stories: tuple[str, ...], victims: tuple[str, ...]) -> list[Case]:
    """Return stories with three kills each, every victim as often as the others."""
    chance = random.Random(SEED)
    killed = [victims[i % len(victims)] for i in range(3 * count)]
    chance.shuffle(killed)
    moments = [sorted(LASTS_S * chance.random() for _ in range(3)) for _ in range(count)]
    rows = [tuple(zip(moments[i], killed[3 * i : 3 * i + 3], strict=True)) for i in range(count)]
    return [Case(i, stories[i % len(stories)], rows[i]) for i in range(count)]


CASES_SQLITE = _cases(3, ("good", "canary fails", "rolled back"), ("server", "broker", "broker"))
CASES_POSTGRES = _cases(7, ("good", "one is forgiven", "rolled back"), ("postgres", "broker", "worker", "server"))


def one(play: Play, case: Case) -> None:
    """Play a story with its kills; the play judges it."""
    play.play(case.story, case.kills)


def many(play: Play) -> None:
    """See how each story ends undisturbed; then kill ``STROP_CRASH_KILLS`` processes, up to four in each story."""
    names = sorted(set(STORIES) - {"short"})  # its deadlines ask for a machine that is not busy
    for name in names:
        play.play(name)
    chance, victims = random.Random(SEED), play.stage.victims
    killed = turns = 0
    begun = time.monotonic()
    while killed < MANY:
        moments = sorted(LASTS_S * chance.random() for _ in range(chance.choice((1, 1, 2, 2, 3, 4))))
        if chance.random() < 0.2:  # all at once
            moments = [moments[0]] * len(moments)
        one(play, Case(turns, chance.choice(names), tuple((at, chance.choice(victims)) for at in moments)))
        killed, turns = killed + len(moments), turns + 1
        if turns % 10 == 0:
            print(f"{killed} kills, {turns} rollouts, {time.monotonic() - begun:.0f} s", flush=True)
    print(f"{killed} kills, {turns} rollouts, {time.monotonic() - begun:.0f} s")
