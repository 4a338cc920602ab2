# SPDX-License-Identifier: Apache-2.0
"""Messages from the broker, sorted by their channels; a malformed one is noted and changes nothing."""

from dataclasses import replace

from edge_agent.core import commands, heartbeat, orders, software
from edge_agent.core.effects import Note, Save
from edge_agent.core.events import Message
from edge_agent.core.flow import Outcome
from edge_agent.core.state import State
from edge_agent.core.twin import apply_desired
from edge_contract.batches import TelemetryAck
from edge_contract.errors import ContractError
from edge_contract.messages import SOFTWARE_ORDERS, DesiredState

__all__ = ["heard"]


def heard(state: State, event: Message) -> Outcome:
    """Take in one message."""
    if state.desktop.is_poison(commands.key_of(event.channel, event.payload)):
        return state, []
    try:
        if event.channel == "twin/desired":
            return _desired(state, event)
        if event.channel in ("job/next", SOFTWARE_ORDERS) or event.channel.startswith("job/next/"):
            return orders.heard(state, event.channel, event.payload)
        if event.channel == "tm/ack":
            ack = TelemetryAck.from_bytes(event.payload)
            outbox, effects = state.outbox.acked(ack)
            state = software.acknowledged(replace(state, outbox=outbox), ack)
            state, sent = heartbeat.send(state, event.at)
            return state, effects + sent
        desktop, answers = commands.heard(state.desktop, event, state.me)
        return replace(state, desktop=desktop), answers
    except ContractError as error:
        return state, [Note("event", {"kind": "bad_message", "channel": event.channel, "reason": str(error)[:300]})]


def _desired(state: State, event: Message) -> Outcome:
    if not event.payload:
        return state, []
    desired = DesiredState.from_bytes(event.payload)
    defaults = {lane.model: lane.plan.settings for lane in state.lanes.values()}
    taken = apply_desired(state.twin, desired, defaults, frozenset(state.me.sources))
    if taken is None:
        return state, []
    twin, found = taken
    for lane, settings in zip(state.lanes.values(), found, strict=True):
        runner = lane.runner.forgive(settings.source)
        state = state.with_lane(replace(lane, settings=settings, runner=runner))
    note = Note("event", {"kind": "config", "version": twin.version, "ignored": dict(twin.ignored)})
    return replace(state, twin=twin, next_beat=0.0), [Save(), note]
