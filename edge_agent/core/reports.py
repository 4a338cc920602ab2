# SPDX-License-Identifier: Apache-2.0
"""What the agent says of itself on the wire: birth, twin/reported, the status of an order."""

from dataclasses import replace
from typing import Any

from edge_agent.core.effects import Effect, Publish
from edge_agent.core.events import Instant
from edge_agent.core.state import State
from edge_agent.core.update import report
from edge_contract import canonical
from edge_contract.jobs import JobStatus
from edge_contract.messages import Birth, ModelState, ReportedState

__all__ = ["birth", "in_force", "reported", "status", "tell_changes"]


def birth(state: State, at: Instant) -> Publish:
    """Return the hello of this session."""
    me = state.me
    version = state.runner.runtime_version
    said = Birth(me.device, me.boot, state.session, me.agent_version, me.runtime, version, dict(me.board), at.wall)
    return Publish("state/birth", said.to_bytes(), retain=True)


def _models(state: State) -> dict[str, ModelState]:
    if not state.model:
        return {}
    slots, runner = state.slots, state.runner
    version = runner.active_version or slots.versions.get(runner.active, "")
    model = ModelState(runner.active, slots.active, slots.standby, slots.factory, version, state.update.phase)
    return {state.model: model}


def in_force(state: State) -> dict[str, Any]:
    """Return the settings in force, and what was refused with its reason."""
    config = state.settings.to_json()
    ignored = dict(state.twin.ignored)
    failed = state.runner.failed.get(("source", state.settings.source))
    if failed:
        ignored["source"] = failed
    return {**config, "ignored": ignored} if ignored else config


def reported(state: State, at: Instant) -> Publish:
    """Return twin/reported: the truth about this device, and its heartbeat."""
    health: dict[str, Any] = {**state.sample.health, "uptime_s": round(at.mono - state.booted_at, 1)}
    if state.totals.epoch is not None:
        health.update(inferences=state.totals.inferences, errors=state.totals.errors)
    said = ReportedState(
        device=state.me.device,
        boot=state.me.boot,
        desired_version=state.twin.version,
        models=_models(state),
        config=in_force(state),
        outbox=state.outbox.report(),
        health=health,
        time=at.wall,
        unrecognized={"source": state.runner.source},
    )
    return Publish("twin/reported", said.to_bytes(), retain=True)


def tell_changes(state: State, at: Instant) -> tuple[State, list[Effect]]:
    """Publish twin/reported at once when something in it changed that is not mere health."""
    now = (_models(state), state.twin.version, canonical.dumps(in_force(state)), state.runner.source)
    if not state.is_connected or now == state.told:
        return state, []
    return replace(state, told=now), [reported(state, at)]


def status(state: State, at: Instant) -> list[Effect]:
    """Return the report of the order under way, or else of the last one if the broker has not confirmed it."""
    if not state.is_connected:
        return []
    if state.update.execution is not None:
        return [_status(report(state.update, at), "")]
    finished = state.update.finished
    if finished is None or finished.is_confirmed:
        return []
    return [_status(finished.report, f"result:{finished.job_id}")]


def repeat(state: State) -> list[Effect]:
    """Return the stored result of the last order, because the server asks again."""
    finished = state.update.finished
    if finished is None or not state.is_connected:
        return []
    return [_status(finished.report, f"result:{finished.job_id}")]


def _status(said: JobStatus, token: str) -> Publish:
    return Publish(f"job/{said.job_id}/status", said.to_bytes(), token=token)
