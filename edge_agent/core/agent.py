# SPDX-License-Identifier: Apache-2.0
"""The agent's one decision: ``handle(state, event) -> (state, effects)``.

The rim promises: events come one at a time; effects are carried out in their order; ``Persist`` is on the disk
before the next effect begins; and the events that an effect gives at once (``Flipped``, ``RowsGone``,
``BatchSent``, ``ProfileRead``) are handled before any other event.

After each event the facts are looked at until nothing more follows from them (``_settle``): the update machine
advances, the runner is brought to what is wanted, and a change of what is reported is told.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from edge_agent.core import events as ev
from edge_agent.core import hearing, orders, reports, telemetry, update
from edge_agent.core.effects import (
    CountLost,
    Effect,
    FlipSlots,
    Log,
    Note,
    Persist,
    Publish,
    ReadProfile,
    Report,
    Save,
    StopRunner,
)
from edge_agent.core.execution import POINTER_MAY_HAVE_MOVED, Update, retry_s
from edge_agent.core.outbox import Outbox
from edge_agent.core.state import WINDOWS_AHEAD, State, initial, journal, wanted
from edge_agent.core.twin import Twin, apply_desired, merge
from edge_contract import canonical
from edge_contract.batches import TelemetryAck
from edge_contract.errors import ContractError
from edge_contract.messages import Death, DesiredState
from edge_contract.states import Phase
from edge_contract.verdict import DriftState

__all__ = ["handle", "initial"]

Outcome = tuple[State, list[Effect]]


def handle(state: State, event: ev.Event) -> Outcome:
    """Return the next state, and what to do, for one event."""
    state, asked = _HANDLERS[type(event)](state, event)
    state, effects = _translate(state, asked, event.at)
    state, more = _settle(state, event.at)
    return state, effects + more


def _translate(state: State, asked: list[Effect], at: ev.Instant) -> Outcome:
    """Replace the core's inner effects by what the rim can do."""
    effects: list[Effect] = []
    for effect in asked:
        if isinstance(effect, Save):
            effects.append(Persist(journal(state)))
        elif isinstance(effect, Report):
            effects += reports.status(state, at)
        elif isinstance(effect, Note):
            state, kept = _keep(state, effect, at)
            effects += kept
        else:
            effects.append(effect)
    return state, effects


def _keep(state: State, note: Note, at: ev.Instant) -> Outcome:
    try:
        outbox, effects = state.outbox.put(note.cls, at.wall, note.body)
    except ContractError as error:  # such as NaN in what the runner says: one row is lost, and counted
        return state, [CountLost(note.cls), Log("error", f"a {note.cls} row cannot be written: {error}")]
    return replace(state, outbox=outbox), effects


def _settle(state: State, at: ev.Instant) -> Outcome:
    effects: list[Effect] = []
    for _ in Phase:  # each round leaves a phase, and none is entered twice
        found = update.fact(state.update, state.slots, state.runner, at)
        if found is None:
            break
        changed, asked = update.advance(_with_baseline(state), found[0], state.slots, at, found[1])
        state, more = _translate(replace(state, update=changed), asked, at)
        effects += more
    runner, commands = state.runner.converge(wanted(state), at.mono)
    state, told = reports.tell_changes(replace(state, runner=runner), at)
    return state, [*effects, *commands, *told]


def _booted(state: State, event: ev.Booted) -> Outcome:
    """Take over what the disk remembers, and take up again what was under way."""
    me, at, effects = state.me, event.at, list[Effect]()
    outbox = Outbox.opened(me.outbox_bytes, me.boot, event.outbox, event.dropped)
    state = replace(state, slots=event.slots, outbox=outbox, booted_at=at.mono, model=event.model or state.model)
    try:
        state = _remember(state, event.journal)
    except (ContractError, LookupError, TypeError, AttributeError, ValueError) as error:
        effects.append(
            Note("alarm", {"kind": "journal_unreadable", "reason": f"{type(error).__name__}: {error}"[:300]})
        )
    changed, resumed = update.resume(state.update, state.slots, at)
    floor = state.window_floor
    windows = replace(state.windows, number=floor + 1)
    state = replace(state, update=changed, windows=windows, window_floor=floor + WINDOWS_AHEAD)
    runner, started = state.runner.start(at.mono)
    boot = Note(
        "event", {"kind": "boot", "agent": me.agent_version, "runtime": me.runtime, "active": state.slots.active}
    )
    return replace(state, runner=runner), [Save(), *resumed, *effects, boot, *started]


def _remember(state: State, journal: Mapping[str, Any]) -> State:
    """Return the state with the journal's memory; an empty journal is a new device."""
    if not journal:
        return state
    known = Update.from_json(journal["update"])
    twin = journal["twin"]
    settings, ignored = merge(state.me.defaults, twin["config"], frozenset(state.me.sources))
    windows, drift = state.windows, journal.get("drift")
    if drift:
        windows = replace(windows, bundle=drift["bundle"], drift=DriftState.from_json(drift["state"]))
    return replace(
        state,
        model=state.model or journal.get("model", ""),
        update=known,
        twin=Twin(int(twin["version"]), dict(twin["config"]), ignored),
        settings=settings,
        windows=windows,
        window_floor=int(journal.get("window_floor", 0)),
    )


def _ticked(state: State, event: ev.Tick) -> Outcome:
    at = event.at
    runner, effects = state.runner.start(at.mono)
    state = replace(state, runner=runner, sample=event.sample, totals=state.totals.after(event.sample))
    steps: tuple[Callable[[State], Outcome], ...] = (
        lambda s: orders.expire(s, event),
        lambda s: orders.retry(s, at),
        _fall_back,
        lambda s: _watch(s, at),
        lambda s: _beat(s, at),
        lambda s: _send(s, at),
    )
    for one in steps:
        state, asked = one(state)
        state, more = _translate(state, asked, at)
        effects = effects + more
    return state, effects


def _fall_back(state: State) -> Outcome:
    """The active model does not load, and no order is to blame: go to the standby, then to the factory model."""
    execution, slots = state.update.execution, state.slots
    broken = state.runner.failed.get(("active", slots.active))
    if broken is None or not slots.active:
        return state, []
    if execution is not None and execution.phase in POINTER_MAY_HAVE_MOVED:
        return state, []
    for bundle in (slots.standby, slots.factory):
        if bundle and bundle != slots.active and ("active", bundle) not in state.runner.failed:
            body = {"kind": "fell_back", "from": slots.active, "to": bundle, "reason": broken[:300]}
            return state, [FlipSlots(state.model, bundle, ""), Note("alarm", body)]
    return state, []


def _watch(state: State, at: ev.Instant) -> Outcome:
    """Count drift windows; reserve their numbers; ask once for the profile of a bundle that is new here."""
    windows, effects = telemetry.observe(state.windows, state.sample, state.settings, at)
    state = replace(state, windows=windows)
    if windows.number >= state.window_floor:
        state = replace(state, window_floor=windows.number + WINDOWS_AHEAD)
        effects = [*effects, Save()]
    state = _time(state)
    bundle = windows.bundle
    if windows.base and bundle and windows.profile is None and state.profile_asked != bundle:
        state = replace(state, profile_asked=bundle)
        effects = [*effects, ReadProfile(state.model, bundle)]
    return state, effects


def _with_baseline(state: State) -> Update:
    """Write into an order that is about to move the pointer how fast the model is that it will be compared with."""
    execution = state.update.execution
    if execution is None or execution.phase not in (Phase.STAGED, Phase.WAITING_WINDOW):
        return state.update
    bundle, median = state.baseline
    known = replace(execution, baseline_us=median if bundle == state.slots.active else 0.0)
    return replace(state.update, execution=known)


def _time(state: State) -> State:
    """Keep the active model's median latency; during a trial take that of the new one as evidence."""
    execution = state.update.execution
    if execution is None or execution.phase not in POINTER_MAY_HAVE_MOVED:
        median = telemetry.median_us(state.sample, state.slots.active)
        return replace(state, baseline=(state.slots.active, median)) if median else state
    median = telemetry.median_us(state.sample, execution.job.bundle)
    seen = replace(state.update.attempt.evidence, median_us=median, baseline_us=execution.baseline_us)
    return replace(state, update=state.update.trying(evidence=seen))


def _beat(state: State, at: ev.Instant) -> Outcome:
    """The heartbeat: a metric row for the outbox, and twin/reported for whoever looks now."""
    if at.mono < state.next_beat:
        return state, []
    meter, body = state.meter.beat(state.sample, at)
    state = replace(state, meter=meter, next_beat=at.mono + state.settings.heartbeat_s)
    said: list[Effect] = [reports.reported(state, at)] if state.is_connected else []
    return state, [Note("metric", body), *said]


def _send(state: State, at: ev.Instant) -> Outcome:
    if not state.is_connected:
        return state, []
    outbox, effects = state.outbox.due(at.mono)
    return replace(state, outbox=outbox), effects


def _stopping(state: State, event: ev.Stopping) -> Outcome:
    """Say good-bye: the open window goes to the outbox, and the server need not wait for the will."""
    windows, effects = telemetry.close(state.windows, state.sample.health, event.at)
    death = Death(state.me.device, state.me.boot, state.session).to_bytes()
    said: list[Effect] = [Publish("state/death", death, retain=True)] if state.is_connected else []
    runner = replace(state.runner, stopping=True, start_at=float("inf"))
    return replace(state, windows=windows, runner=runner), [*effects, Save(), *said, StopRunner()]


def _connected(state: State, event: ev.Connected) -> Outcome:
    state = replace(state, is_connected=True, session=event.session, told=(), outbox=state.outbox.offline())
    effects: list[Effect] = [reports.birth(state, event.at), *reports.status(state, event.at)]
    state, tried = orders.retry(state, event.at, now=True)
    state, sent = _send(state, event.at)
    return state, [*effects, *tried, *sent]


def _disconnected(state: State, event: ev.Disconnected) -> Outcome:
    return replace(state, is_connected=False, outbox=state.outbox.offline()), []


def _message(state: State, event: ev.Message) -> Outcome:
    """Sort a message by its channel; a malformed one is noted and changes nothing."""
    try:
        if event.channel == "twin/desired":
            return _desired(state, event)
        if event.channel == "job/next":
            return orders.heard(state, event.payload)
        if event.channel == "tm/ack":
            outbox, effects = state.outbox.acked(TelemetryAck.from_bytes(event.payload))
            state, sent = _send(replace(state, outbox=outbox), event.at)
            return state, effects + sent
        answer = canonical.dumps({"v": 1, "ok": False, "error": "this agent knows no commands yet"})
        return state, [Publish(f"{event.channel}/result", answer)]
    except ContractError as error:
        return state, [Note("event", {"kind": "bad_message", "channel": event.channel, "reason": str(error)[:300]})]


def _desired(state: State, event: ev.Message) -> Outcome:
    if not event.payload:
        return state, []
    desired = DesiredState.from_bytes(event.payload)
    taken = apply_desired(state.twin, desired, state.me.defaults, frozenset(state.me.sources))
    if taken is None:
        return state, []
    twin, settings = taken
    runner = state.runner.forgive(settings.source)
    note = Note("event", {"kind": "config", "version": twin.version, "ignored": dict(twin.ignored)})
    return replace(state, twin=twin, settings=settings, runner=runner, next_beat=0.0), [Save(), note]


def _published(state: State, event: ev.Published) -> Outcome:
    finished = state.update.finished
    if finished is None or finished.is_confirmed or event.token != f"result:{finished.job_id}":
        return state, []
    confirmed = replace(state.update, finished=replace(finished, is_confirmed=True))
    return replace(state, update=confirmed), [Save()]


def _flipped(state: State, event: ev.Flipped) -> Outcome:
    """The pointers were written, or not: then the phase tries again."""
    state = replace(state, slots=event.slots)
    execution = state.update.execution
    targets = {}
    if execution is not None:
        targets = {Phase.ACTIVATING: execution.job.bundle, Phase.ROLLING_BACK: execution.previous}
    if not event.reason:
        is_done = execution is not None and targets.get(execution.phase) == event.slots.active
        return replace(state, update=state.update.trying(is_done=is_done)) if is_done else state, []
    note = Note("alarm", {"kind": "slots", "reason": event.reason[:300]})
    if execution is None or execution.phase not in targets:
        return state, [note]
    retries = state.update.attempt.retries + 1
    tried = state.update.trying(retries=retries, retry_at=event.at.mono + retry_s(retries))
    return replace(state, update=tried), [note] if retries == 1 else []


def _profile_read(state: State, event: ev.ProfileRead) -> Outcome:
    if event.bundle != state.windows.bundle:
        return state, []
    return replace(state, windows=replace(state.windows, profile=event.profile)), []


def _sent(state: State, event: ev.BatchSent) -> Outcome:
    return replace(state, outbox=state.outbox.sent(event.boot, event.cls, event.up_to_seq)), []


def _gone(state: State, event: ev.RowsGone) -> Outcome:
    facts = {"rows": event.rows, "size": event.size, "up_to_seq": event.up_to_seq}
    outbox = state.outbox.gone(event.boot, event.cls, dropped=event.dropped, asked=event.asked, **facts)
    return replace(state, outbox=outbox), []


_HANDLERS: Final[Mapping[type[ev.Event], Callable[[State, Any], Outcome]]] = {
    ev.Booted: _booted,
    ev.Tick: _ticked,
    ev.Stopping: _stopping,
    ev.Connected: _connected,
    ev.Disconnected: _disconnected,
    ev.Message: _message,
    ev.Published: _published,
    ev.JobChecked: orders.checked,
    ev.JobRefused: orders.refused,
    ev.Progress: orders.progressed,
    ev.StepDone: orders.step_done,
    ev.StepFailed: orders.step_failed,
    ev.Flipped: _flipped,
    ev.ProfileRead: _profile_read,
    ev.RunnerSaid: hearing.said,
    ev.RunnerExited: hearing.exited,
    ev.BatchSent: _sent,
    ev.RowsGone: _gone,
}
