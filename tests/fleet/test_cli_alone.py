# SPDX-License-Identifier: Apache-2.0
"""A newcomer with the command line alone: enrols, rolls out at a pace, finds the one that drifts, rolls back."""

import json
import re

import pytest

from strop.cli import main
from tests.fleet.test_pages import drifting
from tests.support.fleet_server import SimulatedDevice, until

pytestmark = [pytest.mark.broker, pytest.mark.long, pytest.mark.timeout(900)]

PLAN = """
model = "digits"
version = "1.1.0"
soak_s = 0
channel = "production"
[rate]
per_minute = 600
[schedule]
windows = ["00:00-24:00"]
[offline]
policy = "skip"
after_s = 86400
[[wave]]
devices = ["cam-1"]
[[wave]]
rest = true
"""


@pytest.fixture
def type_in(capsys):
    """Type a command into this process and return what it printed."""

    def typed(*words, code=0):
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert left.value.code == code, err
        return out

    return typed


def test_a_newcomer_does_it_all_with_the_command_line_alone(new_server, type_in, bundles, matcher, profile, tmp_path):
    server = new_server()
    server.trust()
    for version in ("1.0.0", "1.1.0"):
        server.register(bundles[version][0])
    where, devices = ("--data", server.data), []

    def fleet(*words, code=0):
        return type_in("fleet", *words, *where, code=code)

    assert "no token yet" in fleet("enrol", "list")
    for name in ("cam-1", "cam-2"):
        (tmp_path / "token").write_text(fleet("enrol", "new", "--name", name))
        type_in(
            *("agent", "enrol", "--data", tmp_path / name, "--server", server.endpoints["enrol"]),
            *("--token-file", tmp_path / "token", "--device", name),
        )
        devices.append(SimulatedDevice(server, tmp_path / name, name).connect())
    listed = fleet("enrol", "list")
    assert re.search(r"used .*cam-1 +cam-1", listed), listed
    try:
        first = fleet("rollout", "start", "digits", "1.0.0", "--wave", "1", "--wave", "rest", "--soak-s", 0).split()[1]
        for device in devices:
            device.install(device.order())
        fleet("rollout", "watch", first)

        (tmp_path / "plan.toml").write_text(PLAN)
        plan = fleet("rollout", "plan", tmp_path / "plan.toml")
        assert "then digits 1.1.0 stands in 'production'" in plan
        assert "if its rules are met by then; now they are not:" in plan
        second = fleet("rollout", "start", "--plan", tmp_path / "plan.toml").split()[1]
        for device in devices:
            device.install(device.order())
        fleet("rollout", "watch", second)
        shown = fleet("rollout", "show", second)
        assert "not in production, its rules are not met" in shown
        assert "orders to 600 devices a minute\norders leave within 00:00-24:00 by UTC" in shown

        drifting(server, devices[1], bundles["1.1.0"][1], matcher, profile)
        until(lambda: "cam-2" in fleet("device", "list", "drift:alarm"), "the drift in the list")
        assert "cam-1" not in fleet("device", "list", "drift:alarm")
        assert "drift" in fleet("device", "show", "cam-2").lower()
        assert "cam-2" in fleet("drift", "devices")

        assert "ROLLING_BACK" in fleet("rollout", "rollback", second, "--reason", "drift on cam-2")
        for device in devices:
            job = device.order()
            assert job.bundle == bundles["1.0.0"][1]
            device.install(job)
        until(lambda: json.loads(fleet("rollout", "show", second, "--json"))["state"] == "ROLLED_BACK", "the way back")
        assert "rollout.rollback" in fleet("audit")
    finally:
        for device in devices:
            device.close()
