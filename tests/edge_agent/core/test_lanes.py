# SPDX-License-Identifier: Apache-2.0
"""Several models on one device: each with its own orders, runner and settings; what befalls one touches no other."""

import pytest

from edge_agent.core import agent
from edge_agent.core import effects as ef
from edge_agent.core import events as ev
from edge_agent.core.lane import Identity, Plan
from edge_agent.core.settings import Settings
from edge_agent.core.state import journal
from edge_contract import canonical
from edge_contract.jobs import Probation
from edge_contract.states import Phase
from tests.support.device_sim import FACES, FACES_NEW, NEW, NEWER, OLD, Behaviour, Device, job


def two(**how: Behaviour) -> Device:
    device = Device(faces=FACES, **how)
    device.run(3)
    return device


def faces_job(job_id: str = "j2", **changes):
    return job(job_id, **{"bundle": FACES_NEW, "model": "faces", **changes})


def active(device: Device, model: str) -> str:
    return device.disk.of(model)["active"]


def test_both_models_run_side_by_side_and_are_reported() -> None:
    device = two()
    device.run(12)
    reported = device.server.reported
    assert reported is not None
    assert {name: state.running for name, state in reported.models.items()} == {"digits": OLD, "faces": FACES}
    assert reported.features == ("job-per-model", "shadow-trial")
    assert reported.models["faces"].unrecognized["source"] == "other"
    bundles = {body["bundle"] for body in device.server.bodies("result")}
    assert bundles == {OLD, FACES}
    assert {body["model"] for body in device.server.bodies("metric")} == {"digits", "faces"}


def test_orders_for_both_models_are_carried_out_at_once() -> None:
    device = two()
    device.order(job())
    device.order(faces_job())
    device.run(4)
    assert {lane.update.phase for lane in device.state.lanes.values()} == {"health_check"}
    device.run(20)
    assert (device.status("j1"), device.status("j2")) == ("SUCCEEDED", "SUCCEEDED")
    assert (active(device, "digits"), active(device, "faces")) == (NEW, FACES_NEW)


def test_a_crashing_model_rolls_back_alone_and_the_other_never_stops() -> None:
    device = two(faces_new=Behaviour("2.0.0", crash_after=40))
    before = device.state.first.runner
    device.order(faces_job())
    device.run(60)
    assert device.status("j2") == "FAILED"
    assert active(device, "faces") == FACES
    digits = device.state.lanes["digits"]
    assert digits.runner.crashes == 0
    assert (digits.runner.up_since, digits.runner.active) == (before.up_since, OLD), "it was never restarted"
    starts = [effect for effect in device.trace if isinstance(effect, ef.StartRunner)]
    assert sum(effect.lane == "digits" for effect in starts) == 1
    assert [(body["kind"], body["model"]) for body in device.server.bodies("alarm")] == [("rolled_back", "faces")]


def test_memory_for_one_candidate_is_not_promised_to_two() -> None:
    device = two()
    device.conditions, device.need_kb = ev.Conditions(memory_kb=90_000), 50_000
    device.run(1)
    device.order(job())
    device.order(faces_job())
    device.run(40)
    swaps = [device.server.statuses[name].details["swap"] for name in ("j1", "j2")]
    assert sorted(swaps) == ["hot", "stop"]
    assert (device.status("j1"), device.status("j2")) == ("SUCCEEDED", "SUCCEEDED")


def test_a_cancel_and_a_newer_order_concern_their_own_model() -> None:
    device = two()
    device.hanging.add("download")
    device.order(job("j1"))
    device.order(faces_job("j2"))
    device.run(5)
    device.order(faces_job("j2", kind="cancel"))
    device.run(3)
    assert (device.status("j1"), device.status("j2")) == ("IN_PROGRESS", "CANCELED")
    device.hanging.clear()
    device.order(job("j3", NEWER))
    device.run(30)
    assert (device.status("j1"), device.status("j3")) == ("SUPERSEDED", "SUCCEEDED")
    assert active(device, "faces") == FACES


def test_an_order_for_a_model_that_is_not_here_is_refused_and_disturbs_no_order_under_way() -> None:
    device = two()
    device.hanging.add("verify")
    device.order(job("j1"))
    device.run(3)
    device.order(job("j5", "f" * 64, model="voices"))
    device.run(3)
    assert device.status("j1") == "IN_PROGRESS"
    assert device.status("j5") == ""
    device.order(job("j1", kind="cancel"))
    device.run(10)
    assert device.status("j1") == "CANCELED"
    device.say("job/next/voices", device.retained["job/next/voices"])
    device.run(5)
    assert device.status("j5") == "REJECTED"
    assert "not 'voices'" in device.server.statuses["j5"].reason


def test_one_envelope_on_two_channels_is_one_order() -> None:
    device = two()
    device.order(job())
    assert device.retained["job/next"] == device.retained["job/next/digits"]
    device.run(20)
    assert device.status() == "SUCCEEDED"
    assert device.checks == 1
    device.power_cycle()
    device.run(10)
    assert device.checks == 1, "it is known by its digest"


def test_forged_orders_on_two_channels_are_refused_once_each_and_stop_nobody() -> None:
    device = two()
    device.order(job())
    device.forged.add(canonical.digest(device.retained["job/next"]))
    device.run(5)
    device.order(faces_job())
    device.run(30)
    assert (device.status("j1"), device.status("j2")) == ("", "SUCCEEDED")
    assert [body["kind"] for body in device.server.bodies("alarm")] == ["order_refused"]


def test_settings_for_one_model_and_for_all() -> None:
    device = two()
    words = {"window_s": 77, "source": "test", "models": {"faces": {"source": "test", "window_s": 99}}}
    device.want(1, **words, heartbeat_s=30)
    device.run(3)
    digits, faces = device.state.lanes.values()
    assert (digits.settings.window_s, faces.settings.window_s) == (77.0, 99.0)
    assert (digits.runner.source, faces.runner.source) == ("test", "test")
    device.want(2, models={"faces": {"colour": 1, "source": "nowhere"}, "voices": {}})
    device.run(3)
    assert device.server.reported is not None
    ignored = device.server.reported.config["ignored"]
    assert ignored["models.faces.colour"] == "no setting of one model"
    assert "is not declared" in ignored["models.faces.source"]
    assert ignored["models.voices"] == "this device has no such model"
    assert device.state.lanes["faces"].runner.source == "other", "back to agent.toml"
    device.power_cycle()
    device.run(3)
    assert device.state.twin.version == 2


@pytest.mark.parametrize("phase", ["downloading", "activating", "health_check"])
def test_power_cuts_in_both_lanes_resume_both(phase: str) -> None:
    device = two()
    device.flips_fail = phase == "activating"
    device.order(faces_job())
    device.order(job())
    for _ in range(2000):
        if device.state.lanes["faces"].update.phase == phase:
            break
        device.deliver() if device.later else device.run(1)
    device.flips_fail = False
    device.power_cycle()
    device.run(60)
    assert (device.status("j1"), device.status("j2")) == ("SUCCEEDED", "SUCCEEDED")


def test_power_lost_before_each_durable_step_of_two_updates_at_once() -> None:
    def make() -> Device:
        device = two(faces_new=Behaviour("2.0.0", error_rate=0.4))
        device.order(job())
        device.order(faces_job())
        return device

    probe = make()
    before = probe.ops
    probe.run(60)
    steps = probe.ops - before
    assert steps > 25
    for cut in range(0, steps, 3):
        device = make()
        device.cut_before = device.ops + cut
        device.run(50)
        assert (device.status("j1"), device.status("j2")) == ("SUCCEEDED", "FAILED"), cut
        assert (active(device, "digits"), active(device, "faces")) == (NEW, FACES)
        assert [lane.runner.active for lane in device.state.lanes.values()] == [NEW, FACES]


def booted(memory: dict, *keys: str) -> agent.State:
    """An agent with these lanes over a journal."""
    me = Identity("pi", "b", "litert", "0", sources={"test": {}, "other": {}})
    plans = [Plan(key, key, "litert", Settings()) for key in keys if key]
    state = agent.initial(me, keys[0], plans)
    others = {key: ev.Slots() for key in keys[1:]}
    return agent.handle(state, ev.Booted(ev.Instant(1.0, 1.0), keys[0], ev.Slots(), memory, (), {}, others))[0]


def test_the_journal_knows_models_by_name_whatever_agent_toml_says_next() -> None:
    """One model, then two, then the other one first, then one again: each keeps its own last order."""
    device = two()
    device.order(job())
    device.order(faces_job())
    device.run(30)
    memory = canonical.loads(canonical.dumps(journal(device.state)))
    assert memory["model"] == "digits", "where an agent of one model looks"
    for keys in (("digits", "faces"), ("faces", "digits"), ("digits",), ("faces",), ("digits", "faces", "voices")):
        lanes = booted(memory, *keys).lanes
        found = {key: lane.update.finished.job_id for key, lane in lanes.items() if lane.update.finished}
        assert found == {key: {"digits": "j1", "faces": "j2"}[key] for key in keys if key != "voices"}


def test_the_journal_of_one_model_is_read_by_an_agent_of_several_and_the_other_way_round() -> None:
    device = Device()
    device.run(2)
    device.order(job(probation=Probation(inferences=10_000, timeout_s=600.0)))
    device.run_until("health_check")
    memory = canonical.loads(device.disk.journal)
    lane = booted(memory, "digits", "faces").lanes["digits"]
    assert lane.update.phase == Phase.HEALTH_CHECK
    again = canonical.loads(canonical.dumps(journal(booted(memory, "digits", "faces"))))
    assert booted(again, "digits").first.update.phase == Phase.HEALTH_CHECK


def test_another_model_does_not_inherit_the_order_of_the_one_before() -> None:
    device = Device()
    device.run(2)
    device.order(job(probation=Probation(inferences=10_000, timeout_s=600.0)))
    device.run_until("health_check")
    lane = booted(canonical.loads(device.disk.journal), "voices").first
    assert (lane.model, lane.update.execution) == ("voices", None)


def test_an_unnamed_device_takes_its_models_name_from_the_journal() -> None:
    device = Device()
    device.run(2)
    device.order(job())
    device.run(20)
    me = Identity("pi", "b", "litert", "0")
    state = agent.initial(me)
    memory = canonical.loads(device.disk.journal)
    state, _ = agent.handle(state, ev.Booted(ev.Instant(1.0, 1.0), "", ev.Slots(), memory, (), {}))
    assert state.first.model == "digits"
    assert state.first.update.finished is not None
