# SPDX-License-Identifier: Apache-2.0
"""One order to one device: how reports and the running bundle decide what became of it.

A device's word SUCCEEDED is a claim. It becomes true when the device's reported state says that its runner
holds the ordered bundle (hawkBit's issue 3185 is a success that was none); a claim without that proof times out.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from edge_contract.canonical import as_float
from edge_contract.jobs import JobStatus
from edge_contract.states import TERMINAL_STATUS, Phase, Status

__all__ = ["EXCUSED", "FAILURES", "Execution", "finish", "hear_status", "settle"]

_TIMES = ("deadline", "issued_at", "updated_at", "paced", "cancel_by", "retry_at")

FAILURES = frozenset({Status.FAILED, Status.TIMED_OUT, Status.REJECTED})
"""Ends that count against a rollout."""

EXCUSED = frozenset({Status.CANCELED, Status.REMOVED, Status.SUPERSEDED})
"""Ends that leave the wave's count: the device is gone, called back, or a newer rollout took it."""


@dataclass(frozen=True)
class Execution:
    """One device's part of a rollout.

    Attributes:
        job_id: Sorts by time of creation.
        number: The rollout's number; a higher one is newer.
        wave: Index of the wave.
        seq: Of the latest report heard, -1 before the first.
        claimed: The device says SUCCEEDED; its running bundle is not proof yet.
        issued_at: When the order went out; 0 while the device is busy with another model.
        deadline: After it (seconds since 1970) the execution is TIMED_OUT.
        closed: The order was taken back after the end; each execution is closed once.
        kind: ``install``, or ``shadow``: the bundle is tried beside the active one.
        attempt: 1 for the first; each attempt is an execution of its own.
        past: A later attempt, or a later wave's order to the device, took its place; it no longer counts.
        previous: The bundle that the device ran when it was ordered, to which a roll back leads.
        paced: The slot in time that the rollout's rate gave to this order, seconds since 1970.
        cancel_by: When a cancel that was asked for is forced; 0 while none is.
        retry_at: When the next attempt begins; 0 if there is none.
        regressed: It SUCCEEDED, and the device runs another bundle now.
    """

    job_id: str
    rollout: str
    number: int
    wave: int
    device: str
    model: str
    bundle: str
    status: Status
    phase: Phase
    deadline: float
    seq: int = -1
    claimed: bool = False
    closed: bool = False
    reason: str = ""
    issued_at: float = 0.0
    updated_at: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)
    kind: str = "install"
    attempt: int = 1
    past: bool = False
    previous: str = ""
    paced: float = 0.0
    cancel_by: float = 0.0
    retry_at: float = 0.0
    regressed: bool = False

    @property
    def is_open(self) -> bool:
        """True until the status is final."""
        return self.status not in TERMINAL_STATUS

    @property
    def has_failed(self) -> bool:
        return self.status in FAILURES

    def to_json(self) -> dict[str, Any]:
        return {
            "job_id": self.job_id,
            "rollout": self.rollout,
            "number": self.number,
            "wave": self.wave,
            "device": self.device,
            "model": self.model,
            "bundle": self.bundle,
            "status": self.status.value,
            "phase": self.phase.value,
            "deadline": self.deadline,
            "seq": self.seq,
            "claimed": self.claimed,
            "closed": self.closed,
            "reason": self.reason,
            "issued_at": self.issued_at,
            "updated_at": self.updated_at,
            "details": self.details,
            "kind": self.kind,
            "attempt": self.attempt,
            "past": self.past,
            "previous": self.previous,
            "paced": self.paced,
            "cancel_by": self.cancel_by,
            "retry_at": self.retry_at,
            "regressed": self.regressed,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Execution":
        """Return the execution that ``to_json`` wrote, of this version or one before; floats may be hex texts."""
        numbers = {key: as_float(document[key]) for key in _TIMES if key in document}
        states = {"status": Status(document["status"]), "phase": Phase(document["phase"])}
        return cls(**{**document, **numbers, **states})


def finish(execution: Execution, status: Status, reason: str, now: float) -> Execution:
    """Return the execution at a final status; one that is final already never changes."""
    if not execution.is_open:
        return execution
    return replace(execution, status=status, reason=reason, updated_at=now)


def hear_status(execution: Execution, report: JobStatus, now: float) -> Execution:
    """Return the execution after a report; late, double and foreign reports change nothing.

    Example:
        >>> order = Execution("j1", "r1", 1, 0, "pi", "digits", "ab", Status.QUEUED, Phase.QUEUED, 99.0)
        >>> claim = JobStatus("j1", "pi", Status.SUCCEEDED, Phase.DONE, 7, "", {}, 5.0)
        >>> heard = hear_status(order, claim, 5.0)
        >>> heard.status.value, heard.claimed, settle(heard, running="ab", now=6.0).status.value
        ('IN_PROGRESS', True, 'SUCCEEDED')
    """
    if not execution.is_open or report.job_id != execution.job_id or report.device != execution.device:
        return execution
    if report.seq <= execution.seq:
        return execution
    heard = replace(
        execution,
        phase=report.phase,
        seq=report.seq,
        reason=report.reason,
        details=report.details,
        updated_at=now,
        claimed=report.status is Status.SUCCEEDED,
    )
    if report.status in TERMINAL_STATUS and report.status is not Status.SUCCEEDED:
        return replace(heard, status=report.status)
    return replace(heard, status=Status.IN_PROGRESS)


def settle(execution: Execution, *, running: str, now: float, excuse: bool = False) -> Execution:
    """Return the execution after a look at the running bundle and the clock.

    ``excuse``: a device that said nothing until its deadline is excused, and does not count as a failure.
    """
    if not execution.is_open:
        return execution
    if execution.claimed and _is_proved(execution, running):
        return finish(execution, Status.SUCCEEDED, "", now)
    if execution.cancel_by and now >= execution.cancel_by:
        return finish(execution, Status.CANCELED, "forced: the device did not confirm the cancel in time", now)
    if now < execution.deadline:
        return execution
    if excuse and execution.seq < 0:
        return finish(execution, Status.CANCELED, "excused: no word from the device until its deadline", now)
    return finish(execution, Status.TIMED_OUT, _overdue(execution, running), now)


def _is_proved(execution: Execution, running: str) -> bool:
    """A model that was only tried beside the active one is proved by what was compared."""
    if execution.kind == "shadow":
        compared = execution.details.get("compared", 0)
        return isinstance(compared, int) and compared > 0
    return running == execution.bundle


def _overdue(execution: Execution, running: str) -> str:
    if execution.claimed and execution.kind == "shadow":
        return "said SUCCEEDED but compared nothing"
    if execution.claimed:
        runs = f"runs {running[:12]}" if running else "reports no running model"
        return f"said SUCCEEDED but {runs}"
    if not execution.issued_at:
        return "not sent: the device was busy with another model"
    if execution.seq < 0:
        return "no answer from the device"
    said = f" ({execution.reason})" if execution.reason else ""
    return f"still {execution.phase.value} at the deadline{said}"
