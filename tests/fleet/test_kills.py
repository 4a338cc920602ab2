# SPDX-License-Identifier: Apache-2.0
"""SIGKILL to server, workers, broker and PostgreSQL while devices publish and a rollout runs: it ends as without."""

import os
import time

import pytest

from benchmarks.fleet import postgres as pg
from tests.support.fleet_kills import Fleet, parts

pytestmark = [pytest.mark.broker, pytest.mark.slow]

LONG = int(os.environ.get("STROP_CRASH_KILLS", "500"))
VERSIONS = ("1.0.0", "1.1.0", "1.2.0")


def test_a_rollout_and_every_acknowledged_row_survive_kills_of_each_part(tmp_path, bundles, postgres):
    fleet = Fleet(tmp_path, postgres, bundles, devices=3)
    try:
        rollout = fleet.roll_out("1.0.0")
        for part in ("worker", "postgres", "broker", "server"):
            time.sleep(fleet.chance.uniform(0.1, 0.6))
            fleet.kill(part)
        fleet.settle(rollout)
        fleet.check("1.0.0")
    finally:
        fleet.close()


@pytest.mark.crash_long
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_many_kills(tmp_path, bundles, database):
    """Rollout after rollout, each with a handful of kills at random points; STROP_CRASH_KILLS sets how many in all."""
    server = pg.Postgres() if database == "postgres" else None
    fleet = Fleet(tmp_path, server, bundles, devices=6)
    queue, killed = parts(1, server is not None), 0
    try:
        for turn in range(LONG):
            version = VERSIONS[turn % len(VERSIONS)]
            rollout = fleet.roll_out(version)
            for _ in range(fleet.chance.randint(3, 8)):
                time.sleep(fleet.chance.expovariate(2.0))
                fleet.kill(next(queue))
                killed += 1
            fleet.settle(rollout)
            fleet.check(version)
            for device in fleet.devices:
                device.go_on()
            if killed >= LONG:
                break
        print(f"{database}: {killed} kills, {turn + 1} rollouts")
    finally:
        fleet.close()
        if server is not None:
            server.close()
