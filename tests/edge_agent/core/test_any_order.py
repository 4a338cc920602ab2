# SPDX-License-Identifier: Apache-2.0
"""Whatever happens in whatever order, with crashes: one bootable model, results told, rows complete."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.core.events import Conditions
from edge_contract.states import TERMINAL_STATUS, Phase, Status
from tests.support.device_sim import FACES, FACES_NEW, NEW, NEWER, OLD, Behaviour, Device, job

CONDITIONS = {
    "lock": Conditions(locked_by="the camera", memory_kb=900_000),
    "metered": Conditions(is_metered=True, memory_kb=900_000),
    "short": Conditions(memory_kb=60_000),
    "free": Conditions(memory_kb=900_000),
}

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
    st.tuples(st.just("faces"), st.sampled_from([FACES, FACES_NEW])),
    st.tuples(st.just("old order"), st.just(0)),
    st.tuples(st.just("again"), st.just(0)),
    st.tuples(st.just("cancel"), st.just(0)),
    st.tuples(st.just("offline"), st.just(0)),
    st.tuples(st.just("online"), st.just(0)),
    st.tuples(st.just("crash"), st.just(0)),
    st.tuples(st.just("hang"), st.sampled_from(["preflight", "download", "verify", "commit"])),
    st.tuples(st.just("garbage"), st.sampled_from([b"", b"{}", b"\xff", b'{"v":9}'])),
    st.tuples(st.just("config"), st.sampled_from(["test", "other", "nowhere"])),
    st.tuples(st.just("conditions"), st.sampled_from(["lock", "metered", "short", "free"])),
)


class World:
    """Applies one action after the other to a device."""

    def __init__(self, new: Behaviour, newer: Behaviour, faces: str = "") -> None:
        self.device = Device(new=new, newer=newer, faces=faces, faces_new=newer)
        self.device.need_kb = 50_000
        self.number = 10
        self.was_short = False  # alone, a model that disagrees has nobody to disagree with
        self.results: dict[str, Status] = {}
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
        elif name == "faces" and len(device.keys) > 1:
            self.number += 1
            device.order(job(f"j{self.number:03}", value, model="faces", timeout_s=150.0))
        elif name == "old order":
            device.order(job("j001", NEWER))
        elif name == "again":
            for channel in [name for name in device.retained if name.startswith("job/next")]:
                device.say(channel, device.retained[channel])
        elif name == "cancel":
            device.order(job(f"j{self.number:03}", kind="cancel"))
            if len(device.keys) > 1:
                device.order(job(f"j{self.number:03}", kind="cancel", model="faces"))
        elif name == "conditions":
            device.conditions = CONDITIONS[value]
            self.was_short |= value == "short"
        elif name in ("offline", "online"):
            device.online = name == "online"
        elif name == "crash":
            device.end_runner()
            device.end_runner(-9, device.keys[-1])
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
        for model, factory in (("digits", OLD), *([("faces", FACES)] if len(device.keys) > 1 else [])):
            pointers = device.disk.of(model)
            assert pointers["active"] in device.disk.complete, "the active pointer leads to a complete slot"
            assert pointers["factory"] == factory, "the factory model stays"
        orders = [lane.update.execution for lane in device.state.lanes.values()]
        assert all(one is None or one.writes <= 64 for one in orders)
        assert all(one is None or one.job.model == lane.model for one, lane in zip(orders, device.state.lanes.values()))
        self.check_terminal()
        assert device.state.outbox.size <= device.state.outbox.limit

    def check_terminal(self) -> None:
        """A result that was told never changes, and every order under way has a deadline that is not long over."""
        for job_id, status in self.device.server.statuses.items():
            if status.status in TERMINAL_STATUS:
                known = self.results.setdefault(job_id, status.status)
                assert known is status.status
        for lane in self.device.state.lanes.values():
            order, attempt = lane.update.execution, lane.update.attempt
            if order is not None and order.phase not in (Phase.COMMITTING, Phase.ROLLING_BACK):
                assert order.spent_s + self.device.mono - attempt.started <= order.job.timeout_s + 2

    def settle(self) -> None:
        """The network is there and nothing hangs; a step that hung before is redone by a restart."""
        device = self.device
        device.hanging.clear()
        device.online, device.cut_before, device.conditions = True, None, CONDITIONS["free"]
        device.power_cycle()
        for _ in range(20):
            device.run(20)
            is_idle = all(lane.update.execution is None for lane in device.state.lanes.values())
            if is_idle and not any(desk.envelope for desk in device.state.desks.values()):
                return

    def check_end(self) -> None:
        device = self.device
        for lane in device.state.lanes.values():
            active = device.disk.of(lane.model)["active"]
            assert lane.update.execution is None
            assert lane.runner.active == active, "the runner holds what the pointer says"
            finished = lane.update.finished
            if finished is not None:
                assert finished.report.status in TERMINAL_STATUS
                told = device.server.statuses[finished.job_id]
                assert told.status is finished.report.status, "the result was told"
            if active not in (OLD, FACES):
                good = (Behaviour("2.0.0"), Behaviour("3.0.0"), Behaviour(), Behaviour(agreement=0.2))
                assert device.bundles[active] in good[: 4 if self.was_short else 3], "a bad model never stays"
        self.check_rows()

    def check_rows(self) -> None:
        """Each queue reached the server as 1, 2, 3, … without a gap, and at most a moment's rows wait."""
        for (boot, cls), rows in self.device.server.rows.items():
            waiting = self.device.disk.rows.get((boot, cls), {})
            assert set(rows) | set(waiting) == set(range(1, max({*rows, *waiting}) + 1)), (boot, cls)
        assert sum(len(rows) for rows in self.device.disk.rows.values()) < 40


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(BEHAVIOURS, BEHAVIOURS, st.lists(ACTIONS, min_size=3, max_size=14))
def test_any_order_of_events_with_crashes_ends_with_one_proven_model(new, newer, actions) -> None:
    world = World(new, newer)
    for name, value in actions:
        world.apply(name, value)
    world.settle()
    world.check_end()


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(BEHAVIOURS, BEHAVIOURS, st.lists(ACTIONS, min_size=3, max_size=14))
def test_the_same_holds_for_each_of_two_models(new, newer, actions) -> None:
    world = World(new, newer, FACES)
    for name, value in actions:
        world.apply(name, value)
    world.settle()
    world.check_end()
