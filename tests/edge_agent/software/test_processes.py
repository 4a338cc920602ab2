# SPDX-License-Identifier: Apache-2.0
"""A real agent updates itself: real processes, a real launcher, environments built by pip.

The release is the repository's own code under another version number, with or without a fault. The fast tests begin
with a built environment; ``make crash-long`` runs the rest, with real kills in each phase.
"""

import json
import threading
from pathlib import Path

import pytest

from edge_agent.software import launch
from edge_contract.messages import SOFTWARE
from edge_contract.states import Status
from tests.edge_agent.software.conftest import Ground
from tests.support.agent_process import until

pytestmark = pytest.mark.broker


def end(ground: Ground) -> str:
    """Return the reason of the order's end, after the device has said which release runs."""
    until(lambda: ground.peer.result, "the end")
    result = ground.peer.result
    assert result is not None
    wanted = ground.bundle if result.status is Status.SUCCEEDED else ""
    until(lambda: ground.peer.running() == wanted, "the release that it ends with")
    return f"{result.status.value}: {result.reason}"


def test_an_agent_updates_itself_and_goes_on(ground: Ground, built: Path) -> None:
    ground.have_environment(built)
    service = ground.start()
    assert ground.peer.running() == ""
    ground.order(timeout_s=30.0)
    assert end(ground) == "SUCCEEDED: "
    assert ground.peer.births[-1].agent_version == "0.2.0"
    assert service.codes == []  # one process all the time: it became the launcher, and that the new release
    assert ground.record.proven == (ground.bundle,)
    boots = [row["agent"] for row in ground.peer.of("event") if row["kind"] == "boot"]
    assert boots == ["0.1.0", "0.2.0"]


def test_a_release_that_dies_is_left_for_the_installed_one_and_the_server_hears_why(
    ground: Ground, built: Path
) -> None:
    ground.have_environment(built)
    ground.fail("dies at import")
    service = ground.start()
    ground.order()
    assert end(ground) == "FAILED: the new release was given up: 3 starts without a sign of health"
    assert service.codes == [3, 3, 3]
    until(lambda: not launch.venv_of(ground.data, ground.bundle).exists(), "the bad release is deleted")
    told = lambda: [row["model"] for row in ground.peer.of("alarm") if row["kind"] == "rolled_back"]  # noqa: E731
    until(told, "the alarm")
    assert told() == [SOFTWARE]
    assert [path.is_symlink() for path in (ground.data / "models").glob("*/active")] == [True]


FAULTS = {
    "hangs at import": ("2", 8.0, "3 starts without a sign of health"),
    "its loop hangs": ("2", 8.0, "3 starts without a sign of health"),
    "dies after a while": ("180", 60.0, "3 starts without a sign of health"),
    "cannot connect": ("180", 4.0, "no connection to the broker within 4 s of the new release"),
    "reads no model": ("180", 8.0, "the runner does not hold model 'compass' within 8 s of the new release"),
}
"""Fault → seconds of the alarm clock, seconds of the trial, a piece of the reason."""


@pytest.mark.crash_long
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_release_ends_where_the_good_one_was(ground: Ground, fault: str) -> None:
    alarm_s, timeout_s, piece = FAULTS[fault]
    ground.fail(fault)
    ground.start(STROP_TRIAL_ALARM_S=alarm_s)
    ground.order(timeout_s=timeout_s)
    reason = end(ground)
    assert reason.startswith("FAILED: ")
    assert piece in reason
    until(lambda: not launch.venv_of(ground.data, ground.bundle).exists(), "the bad release is deleted")


@pytest.mark.crash_long
@pytest.mark.parametrize("phase", ["accepted", "downloading", "verifying", "activating", "health_check", "committing"])
def test_a_kill_in_each_phase_reaches_the_same_end(ground: Ground, phase: str) -> None:
    service = ground.start()
    killed = threading.Event()

    def kill_in_phase() -> None:
        while not killed.is_set():
            if _phase(ground.data) == phase:
                service.kill()
                killed.set()

    thread = threading.Thread(target=kill_in_phase, daemon=True)
    thread.start()
    ground.order(timeout_s=8.0)
    reason = end(ground)
    caught = killed.is_set()
    killed.set()
    thread.join()
    assert reason == "SUCCEEDED: "
    assert caught == (-9 in service.codes)
    assert not list(ground.data.glob("*.damaged"))


def _phase(data: Path) -> str:
    try:
        document = json.loads((data / "journal.json").read_bytes())
        return str(document["software"]["update"]["execution"]["phase"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
