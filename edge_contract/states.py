# SPDX-License-Identifier: Apache-2.0
"""The transition tables of a device's execution, a rollout and a wave. A look-up miss is the error.

The tables are the only statement of the rules; ``docs/states.md`` is drawn from them.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeVar

from edge_contract.errors import TransitionError

__all__ = [
    "EXECUTION",
    "ROLLOUT",
    "TERMINAL_STATUS",
    "WAVE",
    "Phase",
    "PhaseEvent",
    "RolloutEvent",
    "RolloutState",
    "Status",
    "WaveEvent",
    "WaveState",
    "step",
]


class Status(StrEnum):
    """What the outside sees of one execution on one device."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    REMOVED = "REMOVED"
    SUPERSEDED = "SUPERSEDED"


TERMINAL_STATUS: Final = frozenset(Status) - {Status.QUEUED, Status.IN_PROGRESS}
"""Statuses that never change again."""


class Phase(StrEnum):
    """Where an execution stands while its status is IN_PROGRESS, and where it ended."""

    QUEUED = "queued"
    ACCEPTED = "accepted"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    STAGED = "staged"
    WAITING_WINDOW = "waiting_window"
    SHADOWING = "shadowing"
    ACTIVATING = "activating"
    HEALTH_CHECK = "health_check"
    COMMITTING = "committing"
    DONE = "done"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELED = "canceled"


class PhaseEvent(StrEnum):
    """What can happen to an execution."""

    COMMAND = "command"
    PREFLIGHT_OK = "preflight_ok"
    PREFLIGHT_FAILED = "preflight_failed"
    DOWNLOADED = "downloaded"
    DOWNLOAD_FAILED = "download_failed"
    VERIFIED = "verified"
    VERIFY_FAILED = "verify_failed"
    WINDOW_CLOSED = "window_closed"
    WINDOW_OPEN = "window_open"
    SHADOW = "shadow"
    ACTIVATED = "activated"
    ACTIVATE_FAILED = "activate_failed"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    COMMITTED = "committed"
    RESTORED = "restored"
    RESTORE_FAILED = "restore_failed"
    CANCEL = "cancel"
    DEADLINE = "deadline"


P, E = Phase, PhaseEvent

_BEFORE_ACTIVATION = {E.CANCEL: P.CANCELED, E.DEADLINE: P.FAILED}

EXECUTION: Final[Mapping[Phase, Mapping[PhaseEvent, Phase]]] = {
    P.QUEUED: {E.COMMAND: P.ACCEPTED, **_BEFORE_ACTIVATION},
    P.ACCEPTED: {E.PREFLIGHT_OK: P.DOWNLOADING, E.PREFLIGHT_FAILED: P.REJECTED, **_BEFORE_ACTIVATION},
    P.DOWNLOADING: {E.DOWNLOADED: P.VERIFYING, E.DOWNLOAD_FAILED: P.FAILED, **_BEFORE_ACTIVATION},
    P.VERIFYING: {E.VERIFIED: P.STAGED, E.VERIFY_FAILED: P.FAILED, **_BEFORE_ACTIVATION},
    P.STAGED: {
        E.WINDOW_OPEN: P.ACTIVATING,
        E.WINDOW_CLOSED: P.WAITING_WINDOW,
        E.SHADOW: P.SHADOWING,
        **_BEFORE_ACTIVATION,
    },
    P.WAITING_WINDOW: {E.WINDOW_OPEN: P.ACTIVATING, E.SHADOW: P.SHADOWING, **_BEFORE_ACTIVATION},
    # An order to try a model beside the active one ends here: the pointer never moves.
    P.SHADOWING: {E.HEALTHY: P.DONE, E.UNHEALTHY: P.FAILED, **_BEFORE_ACTIVATION},
    P.ACTIVATING: {E.ACTIVATED: P.HEALTH_CHECK, E.ACTIVATE_FAILED: P.ROLLING_BACK, E.DEADLINE: P.ROLLING_BACK},
    P.HEALTH_CHECK: {E.HEALTHY: P.COMMITTING, E.UNHEALTHY: P.ROLLING_BACK, E.DEADLINE: P.ROLLING_BACK},
    P.COMMITTING: {E.COMMITTED: P.DONE},
    P.ROLLING_BACK: {E.RESTORED: P.ROLLED_BACK, E.RESTORE_FAILED: P.ROLLBACK_FAILED},
    P.DONE: {},
    P.ROLLED_BACK: {},
    P.ROLLBACK_FAILED: {},
    P.REJECTED: {},
    P.FAILED: {},
    P.CANCELED: {},
}
"""phase → event → next phase. Once the pointer may have moved (ACTIVATING), the only ways out are a commit
or a roll back; a cancel is then refused."""


class RolloutState(StrEnum):
    """Where a rollout stands."""

    DRAFT = "DRAFT"
    PENDING_APPROVAL = "PENDING_APPROVAL"
    APPROVED = "APPROVED"
    DENIED = "DENIED"
    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    ABORTING = "ABORTING"
    ROLLING_BACK = "ROLLING_BACK"
    COMPLETED = "COMPLETED"
    ABORTED = "ABORTED"
    ROLLED_BACK = "ROLLED_BACK"


class RolloutEvent(StrEnum):
    """What can happen to a rollout."""

    SUBMIT = "submit"
    APPROVE = "approve"
    DENY = "deny"
    SCHEDULE = "schedule"
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    FINISH = "finish"
    CANCEL = "cancel"
    ABORT = "abort"
    ROLL_BACK = "roll_back"
    RESTORED = "restored"


R, V = RolloutState, RolloutEvent

_NOT_STARTED = {V.ABORT: R.ABORTED, V.CANCEL: R.ABORTED}
_AT_WORK = {V.CANCEL: R.ABORTING, V.ABORT: R.ABORTED, V.ROLL_BACK: R.ROLLING_BACK}

ROLLOUT: Final[Mapping[RolloutState, Mapping[RolloutEvent, RolloutState]]] = {
    R.DRAFT: {V.SUBMIT: R.PENDING_APPROVAL, V.SCHEDULE: R.SCHEDULED, **_NOT_STARTED},
    R.PENDING_APPROVAL: {V.APPROVE: R.APPROVED, V.DENY: R.DENIED, **_NOT_STARTED},
    R.APPROVED: {V.SCHEDULE: R.SCHEDULED, **_NOT_STARTED},
    R.SCHEDULED: {V.START: R.RUNNING, **_NOT_STARTED},
    R.RUNNING: {V.PAUSE: R.PAUSED, V.FINISH: R.COMPLETED, **_AT_WORK},
    # Pausing twice is a no-op: hawkBit's issue 2161 is an engine that broke on it.
    R.PAUSED: {V.RESUME: R.RUNNING, V.PAUSE: R.PAUSED, **_AT_WORK},
    # A cancel is a handshake: the rollout waits here for each device's own word, or its deadline.
    R.ABORTING: {V.CANCEL: R.ABORTING, V.ABORT: R.ABORTED, V.ROLL_BACK: R.ROLLING_BACK},
    # The rollouts that bring the previous bundles back are at work; one that fails leaves this one ABORTED.
    R.ROLLING_BACK: {V.RESTORED: R.ROLLED_BACK, V.ABORT: R.ABORTED},
    R.DENIED: {},
    R.COMPLETED: {V.ROLL_BACK: R.ROLLING_BACK},
    R.ABORTED: {V.ROLL_BACK: R.ROLLING_BACK},
    R.ROLLED_BACK: {},
}


class WaveState(StrEnum):
    """Where a wave of a rollout stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SOAKING = "SOAKING"
    PASSED = "PASSED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


class WaveEvent(StrEnum):
    """What can happen to a wave."""

    START = "start"
    ALL_IN = "all_in"
    SOAKED = "soaked"
    FAIL = "fail"
    SKIP = "skip"


W, G = WaveState, WaveEvent

WAVE: Final[Mapping[WaveState, Mapping[WaveEvent, WaveState]]] = {
    W.PENDING: {G.START: W.RUNNING, G.SKIP: W.SKIPPED},
    W.RUNNING: {G.ALL_IN: W.SOAKING, G.FAIL: W.FAILED},
    W.SOAKING: {G.SOAKED: W.PASSED, G.FAIL: W.FAILED},
    W.PASSED: {},
    W.FAILED: {},
    W.SKIPPED: {},
}

S = TypeVar("S", bound=StrEnum)
T = TypeVar("T", bound=StrEnum)


def step(table: Mapping[S, Mapping[T, S]], state: S, event: T) -> S:
    """Return the next state.

    Raises:
        TransitionError: The state does not accept the event.

    Example:
        >>> step(EXECUTION, Phase.HEALTH_CHECK, PhaseEvent.UNHEALTHY).value
        'rolling_back'
        >>> step(WAVE, WaveState.PASSED, WaveEvent.FAIL)
        Traceback (most recent call last):
        edge_contract.errors.TransitionError: PASSED does not accept 'fail'; it is final
    """
    accepted = table[state]
    if event not in accepted:
        fix = f"it accepts {', '.join(e.value for e in accepted)}" if accepted else "it is final"
        raise TransitionError(f"{state.value} does not accept '{event.value}'", fix=fix)
    return accepted[event]
