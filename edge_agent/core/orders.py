# SPDX-License-Identifier: Apache-2.0
"""Orders from the server: which are checked, taken up, repeated, refused, superseded or cancelled.

``job/next`` is retained, so the same envelope comes again with every connection. Its digest decides whether it
is news; only news costs a run of the trust helper.
"""

from dataclasses import replace

from edge_agent.core import reports, update
from edge_agent.core.effects import CheckJob, Effect, Note, RunStep
from edge_agent.core.events import Event, Instant, JobChecked, JobRefused, Progress, StepDone, StepFailed
from edge_agent.core.execution import retry_s
from edge_agent.core.state import State
from edge_contract import canonical
from edge_contract.jobs import JobDocument
from edge_contract.states import EXECUTION, PhaseEvent
from edge_contract.topics import is_name

__all__ = ["checked", "expire", "heard", "progressed", "refused", "retry", "step_done", "step_failed"]

Outcome = tuple[State, list[Effect]]

_FAILS = {
    "preflight": PhaseEvent.PREFLIGHT_FAILED,
    "download": PhaseEvent.DOWNLOAD_FAILED,
    "verify": PhaseEvent.VERIFY_FAILED,
}
_ENDS = {"preflight": PhaseEvent.PREFLIGHT_OK, "download": PhaseEvent.DOWNLOADED}


def heard(state: State, payload: bytes) -> Outcome:
    """Take in what stands on ``job/next``."""
    if not payload:
        return replace(state, asked=("", b""), check_at=None), []
    envelope = canonical.digest(payload)
    execution, finished = state.update.execution, state.update.finished
    if execution is not None and execution.envelope == envelope:
        return state, []
    if finished is not None and finished.envelope == envelope:
        return state, reports.repeat(state)
    if envelope in (state.checking, state.refused):
        return state, []
    state = replace(state, asked=(envelope, payload), check_at=None, checks=0)
    return _check(state)


def _check(state: State) -> Outcome:
    """Ask the trust helper about the last envelope, one at a time."""
    envelope, payload = state.asked
    if state.checking or not envelope:
        return state, []
    return replace(state, checking=envelope, check_at=None), [CheckJob(envelope, payload)]


def refused(state: State, event: JobRefused) -> Outcome:
    """The helper refused an envelope, or could not run: then it is asked again later."""
    state = replace(state, checking="")
    if state.asked[0] != event.envelope:
        return _check(state)  # a newer one came meanwhile
    if event.may_retry:
        return replace(state, checks=state.checks + 1, check_at=event.at.mono + retry_s(state.checks + 1)), []
    note = Note("alarm", {"kind": "order_refused", "envelope": event.envelope, "reason": event.reason[:300]})
    return replace(state, refused=event.envelope, asked=("", b"")), [note]


def checked(state: State, event: JobChecked) -> Outcome:
    """A genuine order."""
    state = replace(state, checking="")
    if state.asked[0] != event.envelope:
        return _check(state)
    job, at = event.job, event.at
    if job.kind == "none":
        return replace(state, asked=("", b"")), []
    if not (is_name(job.job_id) and is_name(job.model)):
        # Neither may become a topic or a folder; there is no place to answer to.
        reason = f"{job.job_id[:70]!r} or {job.model[:70]!r} is not a name"
        return refused(state, JobRefused(at, event.envelope, reason))
    if job.kind == "cancel":
        return _cancel(replace(state, asked=("", b"")), job, at)
    return _install(state, job, event.envelope, at)


def _install(state: State, job: JobDocument, envelope: str, at: Instant) -> Outcome:
    memory = state.update
    done = replace(state, asked=("", b""))
    if memory.execution is None and memory.finished is not None and memory.finished.job_id == job.job_id:
        return done, reports.repeat(state)
    if memory.execution is not None and memory.execution.job.job_id == job.job_id:
        return done, []
    if job.job_id <= memory.last_job:
        return done, [Note("event", {"kind": "old_order", "job_id": job.job_id, "newest": memory.last_job})]
    if memory.execution is not None:
        return _supersede(state, job, at)
    reason = _unfit(state, job, at)
    if reason:
        changed, effects = update.refuse(memory, job, envelope, reason, at)
        return replace(done, update=changed), effects
    changed, effects = update.accept(memory, job, envelope, at)
    # What the runner refused of this bundle before is forgotten: the server asks anew.
    return replace(done, update=changed, model=job.model, runner=state.runner.forgive(job.bundle)), effects


def _unfit(state: State, job: JobDocument, at: Instant) -> str:
    """Return why this device cannot take the order up, or nothing."""
    if job.device != state.me.device:
        return f"the order is for device '{job.device}'"
    if state.model and job.model != state.model:
        return f"this device runs model '{state.model}', not '{job.model}'"
    if at.wall >= job.expires_at:
        return f"the order expired {at.wall - job.expires_at:.0f} s ago"
    if len(job.bundle) != 64 or set(job.bundle) - set("0123456789abcdef"):
        return f"'{job.bundle[:70]}' is not a bundle id"
    return ""


def _supersede(state: State, job: JobDocument, at: Instant) -> Outcome:
    """A newer order: leave the older one if the pointer has not moved, else wait for its end.

    The envelope stays in ``asked``; it is checked again when the way is free (``retry``).
    """
    execution = state.update.execution
    assert execution is not None
    waiting = replace(state, check_at=at.mono)
    if PhaseEvent.CANCEL not in EXECUTION[execution.phase]:
        return waiting, []
    changed, effects = update.supersede(state.update, state.slots, at, job.job_id)
    return replace(waiting, update=changed), effects


def _cancel(state: State, job: JobDocument, at: Instant) -> Outcome:
    """Cancel the order that the document names: by its id, or, with an id of its own, by rollout and bundle."""
    execution = state.update.execution
    if execution is None:
        return state, reports.repeat(state)
    theirs = execution.job
    same_work = (job.rollout, job.bundle) == (theirs.rollout, theirs.bundle) and job.job_id > theirs.job_id
    if job.job_id != theirs.job_id and not same_work:
        return state, []
    if PhaseEvent.CANCEL not in EXECUTION[execution.phase]:
        body = {"kind": "cancel_refused", "job_id": theirs.job_id, "phase": execution.phase.value}
        return state, [Note("event", body)]
    changed, effects = update.advance(state.update, PhaseEvent.CANCEL, state.slots, at, "cancelled by the operator")
    return replace(state, update=changed), effects


def _is_ours(state: State, event: StepDone | StepFailed | Progress, step: str = "") -> bool:
    """True if the event belongs to the order and the phase under way; late ones from before are dropped."""
    execution = state.update.execution
    if execution is None or execution.job.job_id != event.job_id:
        return False
    return not step or any(isinstance(e, RunStep) and e.step == step for e in update.enter(state.update, state.slots))


def progressed(state: State, event: Progress) -> Outcome:
    """Bytes are safe on disk: say so; the pace is the downloader's."""
    if not _is_ours(state, event):
        return state, []
    changed = state.update.trying(done=event.done, total=event.total, minor=state.update.attempt.minor + 1, retries=0)
    state = replace(state, update=changed)
    return state, reports.status(state, event.at)


def step_done(state: State, event: StepDone) -> Outcome:
    """A slow step ended well."""
    if not _is_ours(state, event, event.step):
        return state, []
    slots = event.slots or state.slots
    state = replace(state, slots=slots, update=state.update.trying(is_done=True))
    if event.step not in _ENDS:
        return state, []  # ``update.fact`` looks at what else must be true
    changed, effects = update.advance(state.update, _ENDS[event.step], slots, event.at)
    return replace(state, update=changed), effects


def step_failed(state: State, event: StepFailed) -> Outcome:
    """A slow step failed: again later if the cause may pass, else the order ends."""
    if not _is_ours(state, event, event.step):
        return state, []
    if event.may_retry or event.step not in _FAILS:
        retries = state.update.attempt.retries + 1
        changed = state.update.trying(retries=retries, retry_at=event.at.mono + retry_s(retries))
        first: list[Effect] = [Note("event", {"kind": "step_failed", "step": event.step, "reason": event.reason[:300]})]
        return replace(state, update=changed), first if retries == 1 else []
    changed, effects = update.advance(state.update, _FAILS[event.step], state.slots, event.at, event.reason)
    return replace(state, update=changed), effects


def retry(state: State, at: Instant, *, now: bool = False) -> Outcome:
    """Run again what failed and is due; ``now`` when the network came back."""
    effects: list[Effect] = []
    due = state.update.attempt.retry_at
    if state.update.execution is not None and due is not None and (now or at.mono >= due):
        effects += update.enter(state.update, state.slots)
        state = replace(state, update=state.update.trying(retry_at=None))
    is_free = state.update.execution is None or not state.asked[0] or state.checks
    if state.check_at is not None and is_free and (now or at.mono >= state.check_at):
        state, more = _check(state)
        effects += more
    return state, effects


def expire(state: State, event: Event) -> Outcome:
    """End an order whose time is over, if its phase can be left."""
    if not update.deadline_passed(state.update, event.at):
        return state, []
    execution = state.update.execution
    assert execution is not None
    reason = f"not done within {execution.job.timeout_s:g} s, in phase {execution.phase.value}"
    changed, effects = update.advance(state.update, PhaseEvent.DEADLINE, state.slots, event.at, reason)
    return replace(state, update=changed), effects
