# SPDX-License-Identifier: Apache-2.0
"""SIGKILL to server, broker, worker and PostgreSQL: every rollout ends as without it, and no row is lost or doubled."""

import pytest

from benchmarks.fleet import postgres as pg
from tests.fleet.crash.judge import Play
from tests.fleet.crash.plan import CASES_POSTGRES, many, one
from tests.fleet.crash.rig import CrashStage

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.fixture(scope="module")
def play(tmp_path_factory):
    if pg.find("initdb") is None:
        pytest.skip(f"no PostgreSQL: {pg.INSTALL}")
    server = pg.Postgres()
    stage = CrashStage(tmp_path_factory.mktemp("crash"), server, seed=2)
    yield Play(stage)
    stage.close()
    server.close()


@pytest.mark.parametrize("case", CASES_POSTGRES, ids=str)
def test_a_rollout_ends_as_if_nobody_had_been_killed(play, case):
    one(play, case)


@pytest.mark.crash_long
def test_many_kills(play):
    many(play)
