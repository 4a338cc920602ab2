# SPDX-License-Identifier: Apache-2.0
"""The update machine: orders and facts in, durable transitions and effects out.

Theory of operation. The phases and their events are the table ``edge_contract.states.EXECUTION``. Three rules
carry the safety:

1. Every transition is one ``Save`` before the effects of the phase that it enters. So after a power cut the
   journal names a phase whose effects may be missing, half done or done; never one whose journal is missing.
2. The effects of a phase are idempotent, and ``resume`` issues them again: that is the crash-restart table.
3. Facts (a slot holds all its bytes, the runner holds this bundle, the probation has its evidence) become
   events in ``fact``, which only looks at the state. A fact that arrives twice, late or early does no harm.

A restart of the agent costs a journal write, so an order that makes the device reboot for ever ends at
``LOOP_GUARD``.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from edge_agent.core import shadowing
from edge_agent.core.effects import AbortStep, Effect, FlipSlots, Forget, Note, Report, RunStep, Save
from edge_agent.core.events import Instant, Slots
from edge_agent.core.execution import (
    LOOP_GUARD,
    MAX_TRIES,
    POINTER_MAY_HAVE_MOVED,
    Attempt,
    Execution,
    Finished,
    Update,
)
from edge_agent.core.probation import Evidence, judge
from edge_agent.core.runner import Runner
from edge_agent.core.swap import STOP
from edge_contract.jobs import JobDocument, JobStatus
from edge_contract.states import EXECUTION, Phase, PhaseEvent, Status, step

__all__ = ["accept", "advance", "crashed", "deadline_passed", "fact", "refuse", "report", "resume", "supersede"]

P, E = Phase, PhaseEvent
Outcome = tuple[Update, list[Effect]]

RESTORE_S: Final = 300.0
"""A roll back that takes longer has failed."""
RESTORE_CRASHES: Final = 3

_STEPS: Final[Mapping[Phase, str]] = {
    P.ACCEPTED: "preflight",
    P.DOWNLOADING: "download",
    P.VERIFYING: "verify",
    P.COMMITTING: "commit",
}
"""phase → the slow step that it runs."""

_FINAL: Final[Mapping[Phase, Status]] = {
    P.DONE: Status.SUCCEEDED,
    P.REJECTED: Status.REJECTED,
    P.CANCELED: Status.CANCELED,
    P.FAILED: Status.FAILED,
    P.ROLLED_BACK: Status.FAILED,
    P.ROLLBACK_FAILED: Status.FAILED,
}
"""The phases that end an order, and the status that they mean unless a deadline or a newer order ended it."""


def accept(update: Update, job: JobDocument, envelope: str, at: Instant) -> Outcome:
    """Take up an order: it is in the journal before anything is done for it."""
    fresh = Execution(job, envelope, Phase.QUEUED)
    started = Update(fresh, Attempt(since=at.mono, started=at.mono), update.finished, job.job_id)
    return advance(started, E.COMMAND, Slots(), at)


def advance(update: Update, event: PhaseEvent, slots: Slots, at: Instant, reason: str = "") -> Outcome:
    """Make one transition: journal, report, then the effects of the phase that is entered.

    Raises:
        TransitionError: The phase does not accept the event.
    """
    execution = _under_way(update)
    phase = step(EXECUTION, execution.phase, event)
    if execution.writes + 1 >= LOOP_GUARD and phase not in _FINAL:
        return _break_loop(update, slots, at)
    changed = _written(replace(execution, phase=phase), update, at)
    if phase is P.ACTIVATING:
        changed = _remember_way_back(changed, slots)
    if reason and phase in (P.ROLLING_BACK, *_FINAL):
        changed = replace(changed, reason=changed.reason or reason)
    if event is E.DEADLINE:
        changed = replace(changed, outcome=Status.TIMED_OUT)
    if execution.phase is P.HEALTH_CHECK:
        changed = replace(changed, figures={**changed.figures, **_seen(update, at).figures()})
    if execution.phase is P.SHADOWING:
        changed = replace(changed, figures={**changed.figures, **shadowing.figures(_seen(update, at))})
    attempt = Attempt(since=at.mono, started=at.mono, evidence=Evidence(crashes=changed.crashes))
    entered = replace(update, execution=changed, attempt=attempt)
    if phase in _FINAL:
        return _finish(entered, slots, at)
    return entered, [Save(), Report(), _note(changed), *enter(entered, slots)]


def enter(update: Update, slots: Slots) -> list[Effect]:
    """Return the effects of the present phase; they may be issued any number of times."""
    execution = _under_way(update)
    model, bundle = execution.job.model, execution.job.bundle
    if execution.phase in _STEPS:
        return [RunStep(_STEPS[execution.phase], execution.job)]
    if execution.phase is P.ACTIVATING:
        standby = execution.previous if execution.previous != bundle else slots.standby
        return [FlipSlots(model, bundle, standby)]
    if execution.phase is P.ROLLING_BACK:
        return [FlipSlots(model, execution.previous, execution.previous_standby)]
    return []


def resume(update: Update, slots: Slots, at: Instant) -> Outcome:
    """Take an order up again after a restart, by the crash-restart table.

    Downloading, verifying, committing and rolling back are done again; a trial counts the restart, and after
    ``MAX_TRIES`` of them the new model is blamed.
    """
    execution = update.execution
    if execution is None:
        return update, []
    if execution.writes + 1 >= LOOP_GUARD:
        return _break_loop(replace(update, attempt=Attempt(since=at.mono, started=at.mono)), slots, at)
    on_trial = execution.phase in (P.ACTIVATING, P.HEALTH_CHECK)
    again = replace(execution, writes=execution.writes + 1, tries=execution.tries + on_trial)
    attempt = Attempt(since=at.mono, started=at.mono, evidence=Evidence(crashes=again.crashes))
    resumed = replace(update, execution=again, attempt=attempt)
    if on_trial and again.tries > MAX_TRIES:
        event = E.UNHEALTHY if again.phase is P.HEALTH_CHECK else E.ACTIVATE_FAILED
        return advance(resumed, event, slots, at, f"the agent restarted {again.tries} times during the trial")
    return resumed, [Save(), Report(), *enter(resumed, slots)]


def fact(update: Update, slots: Slots, runner: Runner, at: Instant) -> tuple[PhaseEvent, str] | None:
    """Return the event that the present facts amount to, with its reason, or None."""
    execution, attempt = update.execution, update.attempt
    if execution is None:
        return None
    phase = execution.phase
    if phase is P.VERIFYING and attempt.is_done:
        return _golden(execution, slots, runner)
    if phase in (P.STAGED, P.WAITING_WINDOW):
        if attempt.wait is None:
            return E.SHADOW if shadowing.is_trial(execution) else E.WINDOW_OPEN, ""
        return (E.WINDOW_CLOSED, "") if phase is P.STAGED else None
    if phase is P.ACTIVATING and attempt.is_done:
        return _activated(execution, runner)
    if phase is P.HEALTH_CHECK:
        return _health(update, runner, at)
    if phase is P.SHADOWING:
        return shadowing.fact(execution, _seen(update, at), runner)
    if phase is P.COMMITTING and attempt.is_done:
        return E.COMMITTED, ""
    if phase is P.ROLLING_BACK:
        return _restored(execution, attempt, runner, at)
    return None


def _golden(execution: Execution, slots: Slots, runner: Runner) -> tuple[PhaseEvent, str] | None:
    """The bytes are right; the runner must also compute the golden outputs, as a shadow, before the switch.

    A device without an active model has no answers to protect, and one without the memory for both cannot have two:
    there the load at activation is the test.
    """
    if not execution.swap:
        return None  # it is not decided yet
    bundle = execution.job.bundle
    if (unfit := shadowing.refusal(execution, slots)) is not None:
        return E.VERIFY_FAILED, unfit
    if slots.active in ("", bundle) or execution.swap == STOP or bundle in (runner.shadow, runner.active):
        return E.VERIFIED, ""
    failed = runner.failed.get(("shadow", bundle))
    if failed is not None:
        return E.VERIFY_FAILED, failed
    if execution.crashes > execution.job.probation.max_crashes:
        return E.VERIFY_FAILED, f"the runner crashed {execution.crashes} times while it tried the new model"
    return None


def _activated(execution: Execution, runner: Runner) -> tuple[PhaseEvent, str] | None:
    failed = runner.failed.get(("active", execution.job.bundle))
    if failed is not None:
        return E.ACTIVATE_FAILED, failed
    if execution.crashes > execution.job.probation.max_crashes:
        return E.ACTIVATE_FAILED, f"the runner crashed {execution.crashes} times while it loaded the new model"
    return (E.ACTIVATED, "") if runner.active == execution.job.bundle else None


def _seen(update: Update, at: Instant) -> Evidence:
    return replace(update.attempt.evidence, waited_s=at.mono - update.attempt.since)


def _health(update: Update, runner: Runner, at: Instant) -> tuple[PhaseEvent, str] | None:
    """The old model runs beside the new one where there is an old one that loads; then both are compared."""
    execution = _under_way(update)
    failed = runner.failed.get(("active", execution.job.bundle))
    if failed is not None:
        return E.UNHEALTHY, failed
    previous = execution.previous
    has_shadow = (
        previous not in ("", execution.job.bundle)
        and execution.swap != STOP
        and ("shadow", previous) not in runner.failed
    )
    healthy, reason = judge(execution.job.probation, replace(_seen(update, at), has_shadow=has_shadow))
    return None if healthy is None else (E.HEALTHY if healthy else E.UNHEALTHY, reason)


def _restored(execution: Execution, attempt: Attempt, runner: Runner, at: Instant) -> tuple[PhaseEvent, str] | None:
    """With nothing to go back to, the old state is an empty runner."""
    if attempt.is_done and runner.active == execution.previous and "active" not in runner.asked:
        return E.RESTORED, ""
    failed = runner.failed.get(("active", execution.previous))
    if failed is not None:
        return E.RESTORE_FAILED, f"{execution.reason}; and the previous model does not load: {failed}"
    if attempt.restore_crashes > RESTORE_CRASHES:
        return E.RESTORE_FAILED, f"{execution.reason}; and the runner crashed {attempt.restore_crashes} times after it"
    if at.mono - attempt.since > RESTORE_S:
        return E.RESTORE_FAILED, f"{execution.reason}; and the previous model did not come up in {RESTORE_S:g} s"
    return None


def crashed(update: Update, slots: Slots, at: Instant, *, no_memory: bool = False) -> Outcome:
    """Count an unexpected end of the runner against the order under way, durably.

    ``no_memory``: the kernel ended it; while it tried the candidate beside the old model that means: one at a time.
    """
    execution = update.execution
    if execution is None:
        return update, []
    if execution.phase is P.ROLLING_BACK:
        return update.trying(restore_crashes=update.attempt.restore_crashes + 1), []
    on_trial = execution.phase in (P.ACTIVATING, P.HEALTH_CHECK, P.SHADOWING)
    if not on_trial and not (execution.phase is P.VERIFYING and update.attempt.is_done):
        return update, []
    if execution.writes + 1 >= LOOP_GUARD:
        return _break_loop(update, slots, at)
    swap = STOP if no_memory and execution.phase is P.VERIFYING else execution.swap
    counted = _written(replace(execution, crashes=execution.crashes + 1, swap=swap), update, at)
    blamed = replace(update, execution=counted).trying(started=at.mono, evidence=Evidence(crashes=counted.crashes))
    return blamed, [Save()]


def deadline_passed(update: Update, at: Instant) -> bool:
    """True if the order has used up its time and its phase can still be left for that reason."""
    execution = update.execution
    if execution is None or E.DEADLINE not in EXECUTION[execution.phase]:
        return False
    return execution.spent_s + at.mono - update.attempt.started >= execution.job.timeout_s


def supersede(update: Update, slots: Slots, at: Instant, newer: str) -> Outcome:
    """End an order that has not moved the pointer, because a newer one came."""
    marked = replace(_under_way(update), outcome=Status.SUPERSEDED)
    return advance(replace(update, execution=marked), E.CANCEL, slots, at, f"superseded by order {newer}")


def report(update: Update, at: Instant) -> JobStatus:
    """Return the report of the order under way; ``seq`` grows by 1000 with each journal write."""
    execution, attempt = _under_way(update), update.attempt
    seq = execution.writes * 1000 + min(attempt.minor, 999)
    details = {**execution.figures, **({"swap": execution.swap} if execution.swap else {})}
    if attempt.total:
        details.update(done=attempt.done, total=attempt.total)
    reason = execution.reason
    if attempt.wait is not None:
        details["waiting"] = attempt.wait.to_json()
        reason = reason or attempt.wait.text
    job = execution.job
    words = (execution.phase, seq, reason, details, at.wall)
    return JobStatus(job.job_id, job.device, Status.IN_PROGRESS, *words)


def _under_way(update: Update) -> Execution:
    assert update.execution is not None, "no order is under way"
    return update.execution


def _written(execution: Execution, update: Update, at: Instant) -> Execution:
    """Count a journal write, and the time that this process has spent since the last one."""
    spent = execution.spent_s + max(0.0, at.mono - update.attempt.started)
    return replace(execution, writes=execution.writes + 1, spent_s=spent)


def _remember_way_back(execution: Execution, slots: Slots) -> Execution:
    """Where to go back to. An order for the bundle that already runs goes back to the standby."""
    if slots.active == execution.job.bundle:
        return replace(execution, previous=slots.standby or slots.active, previous_standby="")
    return replace(execution, previous=slots.active, previous_standby=slots.standby)


def _finish(update: Update, slots: Slots, at: Instant) -> Outcome:
    """Write the result down; it is reported from the journal until the broker took it."""
    execution = _under_way(update)
    status = _FINAL[execution.phase]
    if status in (Status.FAILED, Status.CANCELED) and execution.outcome is not Status.FAILED:
        status = execution.outcome
    last = replace(report(update, at), status=status)
    finished = Finished(execution.job.job_id, execution.envelope, last)
    ended = Update(None, Attempt(), finished, update.last_job)
    model, effects = execution.job.model, list[Effect]()
    if execution.phase is P.ROLLBACK_FAILED and slots.factory:
        # Before the journal says that it is over: a power cut in between must not leave an unproven model active.
        effects.append(FlipSlots(model, slots.factory, ""))
    effects += [Save(), Report(), _note(execution, status)]
    if execution.phase in (P.ROLLED_BACK, P.ROLLBACK_FAILED):
        effects.append(Note("alarm", {**_body(execution, status), "kind": execution.phase.value}))
    # A download that ran out of time is kept: the next order for the same bundle resumes it.
    is_resumable = status is Status.TIMED_OUT and execution.phase is P.FAILED
    # So is what was tried as a shadow: the order to install it is likely to follow.
    is_tried = shadowing.is_trial(execution) and execution.phase is P.DONE
    keep = (execution.job.bundle,) if is_resumable or is_tried else ()
    return ended, [*effects, AbortStep(execution.job.job_id), Forget(model, keep)]


def _break_loop(update: Update, slots: Slots, at: Instant) -> Outcome:
    """End an order that has cost too many journal writes: nothing new runs, the factory model if need be."""
    execution = _under_way(update)
    moved = execution.phase in POINTER_MAY_HAVE_MOVED
    reason = f"loop guard: {LOOP_GUARD} journal writes in phase {execution.phase.value}"
    phase = P.ROLLBACK_FAILED if moved else P.FAILED
    ended = _written(replace(execution, phase=phase, reason=execution.reason or reason), update, at)
    way_back = replace(slots, factory=slots.factory or execution.previous) if moved else slots
    return _finish(replace(update, execution=ended), way_back, at)


def _body(execution: Execution, status: Status) -> dict[str, object]:
    return {
        "kind": "job",
        "job_id": execution.job.job_id,
        "bundle": execution.job.bundle,
        "status": status.value,
        "phase": execution.phase.value,
        "reason": execution.reason,
    }


def refuse(update: Update, job: JobDocument, envelope: str, reason: str, at: Instant) -> Outcome:
    """Answer an order that cannot be taken up at all, such as one for a model that this device does not have."""
    execution = Execution(job, envelope, Phase.REJECTED, writes=1, reason=reason)
    asked = Update(execution, Attempt(started=at.mono), update.finished, job.job_id)
    answered, effects = _finish(asked, Slots(), at)
    return answered, [effect for effect in effects if isinstance(effect, (Save, Report, Note))]


def _note(execution: Execution, status: Status = Status.IN_PROGRESS) -> Note:
    return Note("event", _body(execution, status))
