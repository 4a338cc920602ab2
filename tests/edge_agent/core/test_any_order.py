# SPDX-License-Identifier: Apache-2.0
"""Whatever happens in whatever order, with crashes: one bootable model, results told, rows complete."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_contract.states import TERMINAL_STATUS
from tests.support.device_sim import NEW, NEWER, OLD, Behaviour, Device, job

BEHAVIOURS = st.sampled_from(
    [
        Behaviour(),
        Behaviour(agreement=0.2),
        Behaviour(error_rate=0.3),
        Behaviour(loads=False),
        Behaviour(crashes_on_load=True),
        Behaviour(crash_after=60),
    ]
)
ACTIONS = st.one_of(
    st.tuples(st.just("run"), st.integers(1, 12)),
    st.tuples(st.just("cut"), st.integers(0, 6)),
    st.tuples(st.just("order"), st.sampled_from([NEW, NEWER, OLD])),
    st.tuples(st.just("old order"), st.just(0)),
    st.tuples(st.just("again"), st.just(0)),
    st.tuples(st.just("cancel"), st.just(0)),
    st.tuples(st.just("offline"), st.just(0)),
    st.tuples(st.just("online"), st.just(0)),
    st.tuples(st.just("crash"), st.just(0)),
    st.tuples(st.just("hang"), st.sampled_from(["preflight", "download", "verify", "commit"])),
    st.tuples(st.just("garbage"), st.sampled_from([b"", b"{}", b"\xff", b'{"v":9}'])),
    st.tuples(st.just("config"), st.sampled_from(["test", "other", "nowhere"])),
)


class World:
    """Applies one action after the other to a device."""

    def __init__(self, new: Behaviour, newer: Behaviour) -> None:
        self.device = Device(new=new, newer=newer)
        self.number = 10
        self.version = 0

    def apply(self, name: str, value: Any) -> None:
        device = self.device
        if name == "run":
            device.run(value)
        elif name == "cut":
            device.cut_before = device.ops + value
            device.run(5)
        elif name == "order":
            self.number += 1
            device.order(job(f"j{self.number:03}", value, timeout_s=150.0))
        elif name == "old order":
            device.order(job("j001", NEWER))
        elif name == "again":
            device.say("job/next", device.retained.get("job/next", b""))
        elif name == "cancel":
            device.order(job(f"j{self.number:03}", kind="cancel"))
        elif name in ("offline", "online"):
            device.online = name == "online"
        elif name == "crash":
            device.end_runner()
        elif name == "hang":
            device.hanging.add(value)
        elif name == "garbage":
            for channel in ("job/next", "twin/desired", "tm/ack", "cmd/x/1"):
                device.say(channel, value)
        elif name == "config":
            self.version += 1
            device.want(self.version, source=value)
        self.check_always()

    def check_always(self) -> None:
        device = self.device
        assert device.active in device.disk.complete, "the active pointer leads to a complete slot"
        assert device.disk.pointers["factory"] == OLD, "the factory model stays"
        execution = device.state.update.execution
        assert execution is None or execution.writes <= 64
        assert device.state.outbox.size <= device.state.outbox.limit

    def settle(self) -> None:
        """The network is there and nothing hangs; a step that hung before is redone by a restart."""
        device = self.device
        device.hanging.clear()
        device.online, device.cut_before = True, None
        device.power_cycle()
        for _ in range(20):
            device.run(20)
            if device.state.update.execution is None and not device.state.asked[0]:
                return

    def check_end(self) -> None:
        device = self.device
        assert device.state.update.execution is None
        assert device.state.runner.active == device.active, "the runner holds what the pointer says"
        finished = device.state.update.finished
        if finished is not None:
            assert finished.report.status in TERMINAL_STATUS
            told = device.server.statuses[finished.job_id]
            assert told.status is finished.report.status, "the result was told"
        if device.active != OLD:
            assert device.bundles[device.active] in (Behaviour("2.0.0"), Behaviour("3.0.0"), Behaviour()), (
                "a bad model never stays"
            )
        self.check_rows()

    def check_rows(self) -> None:
        """Each queue reached the server as 1, 2, 3, … without a gap, and at most a moment's rows wait."""
        for (boot, cls), rows in self.device.server.rows.items():
            waiting = self.device.disk.rows.get((boot, cls), {})
            assert set(rows) | set(waiting) == set(range(1, max({*rows, *waiting}) + 1)), (boot, cls)
        assert sum(len(rows) for rows in self.device.disk.rows.values()) < 40


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(BEHAVIOURS, BEHAVIOURS, st.lists(ACTIONS, min_size=3, max_size=14))
def test_any_order_of_events_with_crashes_ends_with_one_proven_model(new, newer, actions) -> None:
    world = World(new, newer)
    for name, value in actions:
        world.apply(name, value)
    world.settle()
    world.check_end()
