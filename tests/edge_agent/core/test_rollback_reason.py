# SPDX-License-Identifier: Apache-2.0
"""A roll back has a reason, and the reason is durable before the pointer moves back (pain 18)."""

from edge_agent.core import effects as ef
from edge_contract import canonical
from tests.support.device_sim import NEW, OLD, Behaviour, Device, job


def test_the_reason_is_on_the_disk_before_the_roll_back_and_arrives_after_months_offline() -> None:
    device = Device(new=Behaviour("2.0.0", error_rate=0.5))
    device.run(3)
    device.order(job())
    device.run_until("health_check")
    device.online = False
    device.run_until("rolling_back")
    memory = canonical.loads(device.disk.journal)["update"]["execution"]
    assert (memory["phase"], "inferences failed" in memory["reason"]) == ("rolling_back", True)
    last = next(effect for effect in reversed(device.trace) if isinstance(effect, (ef.Persist, ef.FlipSlots)))
    assert isinstance(last, ef.FlipSlots), "journal first, pointer second"
    device.power_cycle()
    device.run(600)
    assert (device.active, device.status()) == (OLD, "IN_PROGRESS"), "nobody heard of it yet"
    device.online = True
    device.run(5)
    told = device.server.statuses["j1"]
    assert (told.status.value, "inferences failed" in told.reason) == ("FAILED", True)
    assert "rolled_back" in {alarm["kind"] for alarm in device.server.bodies("alarm")}
    assert NEW not in device.disk.pointers.values()
