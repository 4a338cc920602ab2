# SPDX-License-Identifier: Apache-2.0
"""What the agent says of itself on the wire: birth, twin/reported, the status of an order."""

from dataclasses import replace
from typing import Any

from edge_agent.core.effects import Effect, Publish
from edge_agent.core.events import Instant
from edge_agent.core.lane import Lane
from edge_agent.core.state import State
from edge_agent.core.twin import LANE_WORDS
from edge_agent.core.update import report
from edge_contract import canonical
from edge_contract.jobs import JobStatus
from edge_contract.messages import (
    CAPTURES,
    JOB_PER_MODEL,
    SELF_UPDATE,
    SHADOW_TRIAL,
    SOFTWARE,
    Birth,
    Death,
    ModelState,
    ReportedState,
)

__all__ = ["birth", "death", "in_force", "reported", "status", "tell_changes"]


def birth(state: State, at: Instant) -> Publish:
    """Return the hello of this session."""
    me = state.me
    version = state.first.runner.runtime_version
    said = Birth(me.device, me.boot, state.session, me.agent_version, me.runtime, version, dict(me.board), at.wall)
    return Publish("state/birth", said.to_bytes(), retain=True)


def death(state: State) -> bytes:
    """Return the good-bye of this session, which the broker says for us if we cannot."""
    return Death(state.me.device, state.me.boot, state.session).to_bytes()


def _models(state: State) -> dict[str, ModelState]:
    models = {lane.model: _model(state, lane) for lane in state.lanes.values() if lane.model}
    return {**models, **_software(state)}


def _software(state: State) -> dict[str, ModelState]:
    """The agent's own software stands among the models: what runs is believed, not what an order says."""
    lane, told = state.software, state.launch.told
    if lane is None or told is None:
        return {}
    wait, slots = lane.update.attempt.wait, lane.slots
    more: dict[str, Any] = {"waiting": {**wait.to_json(), "text": wait.text}} if wait else {}
    held = (slots.active, slots.standby, slots.factory)
    return {SOFTWARE: ModelState(told.running, *held, state.me.agent_version, lane.update.phase, unrecognized=more)}


def _model(state: State, lane: Lane) -> ModelState:
    slots, runner, wait = lane.slots, lane.runner, lane.update.attempt.wait
    version = runner.active_version or slots.versions.get(runner.active, "")
    more: dict[str, Any] = {"waiting": {**wait.to_json(), "text": wait.text}} if wait else {}
    if lane.ladder.is_on_cpu:
        more["accelerator"] = "failed"
    if len(state.lanes) > 1:
        totals = {"inferences": lane.totals.inferences, "errors": lane.totals.errors}
        more.update(runtime=lane.plan.runtime, source=runner.source, **totals)
    held = (slots.active, slots.standby, slots.factory)
    return ModelState(runner.active, *held, version, lane.update.phase, unrecognized=more)


def in_force(state: State) -> dict[str, Any]:
    """Return the settings in force, and what was refused with its reason; the first model's stand at the top."""
    ignored = dict(state.twin.ignored)
    for lane in state.lanes.values():
        failed = lane.runner.failed.get(("source", lane.settings.source))
        if failed:
            ignored["source" if lane is state.first else f"models.{lane.model}.source"] = failed
    config = state.first.settings.to_json()
    if len(state.lanes) > 1:
        config["models"] = {lane.model: _own(lane) for lane in state.lanes.values() if lane.model}
    return {**config, "ignored": ignored} if ignored else config


def _own(lane: Lane) -> dict[str, Any]:
    return {word: getattr(lane.settings, word) for word in LANE_WORDS}


def reported(state: State, at: Instant) -> Publish:
    """Return twin/reported: the truth about this device, and its heartbeat."""
    health: dict[str, Any] = {**state.first.sample.health, "uptime_s": round(at.mono - state.booted_at, 1)}
    counted = [lane.totals for lane in state.lanes.values() if lane.totals.epoch is not None]
    if counted:
        health.update(inferences=sum(t.inferences for t in counted), errors=sum(t.errors for t in counted))
    said = ReportedState(
        device=state.me.device,
        boot=state.me.boot,
        desired_version=state.twin.version,
        models=_models(state),
        config=in_force(state),
        outbox=state.outbox.report(),
        health=health,
        time=at.wall,
        features=_features(state),
        unrecognized={
            "source": state.first.runner.source,
            "utc_offset_s": state.first.sample.conditions.utc_offset_s,
        },
    )
    return Publish("twin/reported", said.to_bytes(), retain=True)


def _features(state: State) -> tuple[str, ...]:
    update, captures = (SELF_UPDATE,) if state.software else (), (CAPTURES,) if state.me.allows_captures else ()
    return (JOB_PER_MODEL, SHADOW_TRIAL, *update, *captures)


def tell_changes(state: State, at: Instant) -> tuple[State, list[Effect]]:
    """Publish twin/reported at once when something in it changed that is not mere health."""
    lanes = [(lane.runner.source, lane.update.attempt.wait) for lane in state.ordered.values()]
    now = (_models(state), state.twin.version, canonical.dumps(in_force(state)), lanes)
    if not state.is_connected or now == state.told:
        return state, []
    return replace(state, told=now), [reported(state, at)]


def status(lane: Lane, at: Instant, *, again: bool = False) -> list[Effect]:
    """Return the report of the order under way, or else of the last one if the broker has not confirmed it.

    Args:
        lane: Whose order.
        at: Now.
        again: The server asks: only the last one's stored result, confirmed or not.
    """
    if lane.update.execution is not None and not again:
        return [_status(report(lane.update, at), "")]
    finished = lane.update.finished
    if finished is None or (finished.is_confirmed and not again):
        return []
    return [_status(finished.report, f"result:{finished.job_id}")]


def _status(said: JobStatus, token: str) -> Publish:
    return Publish(f"job/{said.job_id}/status", said.to_bytes(), token=token)
