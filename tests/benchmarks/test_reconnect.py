# SPDX-License-Identifier: Apache-2.0
"""The storm's arithmetic, and a broker that really dies under a few devices."""

import shutil

import pytest

from benchmarks.fleet import reconnect
from benchmarks.fleet.reconnect import Storm, design_s
from edge_agent.adapters.mqtt import SPREAD_S, STABLE_S, reconnect_pause

GOOD = Storm(5000, 1.0, 9.0, 10.5, 12.0, 560, 570, 5010, 0.2)


def latest_return(away_s, shares):
    """When the slowest of many devices is back, by the agent's own rule and nothing else."""
    latest = 0.0
    for share in shares:
        attempt, pause = reconnect_pause(0, STABLE_S, share)
        at = pause
        while at < away_s:
            attempt, pause = reconnect_pause(attempt, 0.0, share)
            at += pause
        latest = max(latest, at)
    return latest


@pytest.mark.parametrize("away_s", [0.5, 3.0, 9.0, 14.0, 25.0])
def test_the_design_bounds_what_the_rule_does(away_s):
    shares = [(i + 0.5) / 400 for i in range(400)]
    most = 0
    for share in shares:
        attempt, at, failed = 0, reconnect_pause(0, STABLE_S, share)[1], 0
        while at < away_s:
            failed += 1
            attempt, pause = reconnect_pause(attempt, 0.0, share)
            at += pause
        most = max(most, failed)
    assert latest_return(away_s, shares) <= design_s(away_s, most)
    assert design_s(away_s, most) >= SPREAD_S


def test_late_attempts_of_the_simulation_are_not_the_fleets():
    assert GOOD.is_good
    assert not Storm(**{**vars(GOOD), "all_s": 12.5}).is_good
    assert Storm(**{**vars(GOOD), "all_s": 12.5, "late_s": 1.0}).is_good


def test_the_table_says_the_worst_second_and_whether_it_held():
    text = reconnect.table([GOOD, Storm(**{**vars(GOOD), "all_s": 99.0})])
    assert "5000 devices, the broker killed 2 times" in text
    assert "560 connections, 1.1 times an even spread over 10 s" in text
    assert "MISSED" in text


def test_a_few_devices_come_back_after_the_broker_died():
    if shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None:
        pytest.skip("no mosquitto: apt-get install mosquitto")
    (found,) = reconnect.measured(4, 1, stable_s=0.2)
    assert (found.devices, found.is_good) == (4, True)
    assert found.tried >= 4
    assert 0.0 < found.away_s <= found.most_s <= found.all_s
