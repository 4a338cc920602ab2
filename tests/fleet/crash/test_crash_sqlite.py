# SPDX-License-Identifier: Apache-2.0
"""SIGKILL to server and broker, on SQLite: every rollout ends as without it, and no row is lost or doubled."""

import pytest

from tests.fleet.crash.judge import Play
from tests.fleet.crash.plan import CASES_SQLITE, many, one
from tests.fleet.crash.rig import CrashStage

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.fixture(scope="module")
def play(tmp_path_factory):
    stage = CrashStage(tmp_path_factory.mktemp("crash"), seed=1)
    yield Play(stage)
    stage.close()


@pytest.mark.parametrize("case", CASES_SQLITE, ids=str)
def test_a_rollout_ends_as_if_nobody_had_been_killed(play, case):
    one(play, case)


def test_a_server_that_is_away_beyond_every_deadline_fails_nobody(play):
    play.stage.away_s = 12.0
    play.play("short", [(0.2, "server")])
    play.stage.away_s = 0.3


@pytest.mark.crash_long
def test_many_kills(play):
    many(play)
