# SPDX-License-Identifier: Apache-2.0
"""What is remembered of an order: durable (`Execution`, `Finished`) and for this process only (`Attempt`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_agent.core.policy import Wait
from edge_agent.core.probation import Evidence
from edge_contract import canonical
from edge_contract.errors import MessageError
from edge_contract.fields import Fields
from edge_contract.jobs import JobDocument, JobStatus
from edge_contract.states import Phase, Status

__all__ = ["LOOP_GUARD", "MAX_TRIES", "SCHEMA", "Attempt", "Execution", "Finished", "Update", "retry_s"]

SCHEMA: Final = 2
LOOP_GUARD: Final = 64
"""Journal writes that one order may cost; a device that reboots for ever must come to an end."""
MAX_TRIES: Final = 3
"""Restarts of the agent that a probation survives."""

POINTER_MAY_HAVE_MOVED: Final = frozenset({Phase.ACTIVATING, Phase.HEALTH_CHECK, Phase.COMMITTING, Phase.ROLLING_BACK})


def retry_s(attempt: int) -> float:
    """Return the pause before a failed step is tried again, in seconds.

    Example:
        >>> [retry_s(n) for n in (1, 2, 5, 30)]
        [1.0, 2.0, 16.0, 60.0]
    """
    return min(60.0, 2.0 ** min(max(0, attempt - 1), 10))


@dataclass(frozen=True)
class Execution:
    """One order under way, as the journal holds it.

    Attributes:
        job: The order.
        envelope: SHA-256 of the envelope that carried it.
        phase: Where it stands.
        writes: Journal writes so far, for the loop guard and for the reports' sequence.
        tries: Restarts of the agent since the pointer moved.
        crashes: Crashes of the runner while the new model was on trial.
        previous, previous_standby: The pointers to go back to.
        reason: Why it is being rolled back, written before the roll back begins.
        outcome: The status to report when the roll back is done.
        spent_s: Time used by earlier processes; the deadline is on the monotonic clock.
        figures: What the probation measured.
        baseline_us: Median latency of the model that was active before, 0 if unknown.
        swap: ``hot`` or ``stop``, see ``core.swap``; empty before it was decided.
    """

    job: JobDocument
    envelope: str
    phase: Phase
    writes: int = 0
    tries: int = 0
    crashes: int = 0
    previous: str = ""
    previous_standby: str = ""
    reason: str = ""
    outcome: Status = Status.FAILED
    spent_s: float = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)
    baseline_us: float = 0.0
    swap: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "job": self.job.to_json(),
            "envelope": self.envelope,
            "phase": self.phase.value,
            "writes": self.writes,
            "tries": self.tries,
            "crashes": self.crashes,
            "previous": self.previous,
            "previous_standby": self.previous_standby,
            "reason": self.reason,
            "outcome": self.outcome.value,
            "spent_s": self.spent_s,
            "figures": dict(self.figures),
            "baseline_us": self.baseline_us,
            "swap": self.swap,
        }

    @classmethod
    def from_json(cls, document: Any) -> "Execution":
        f = Fields(document, "journal.execution", MessageError)
        return cls(
            JobDocument.from_json(f.object("job")),
            f.text("envelope"),
            Phase(f.text("phase", among=tuple(Phase))),
            f.integer("writes", minimum=0),
            f.integer("tries", minimum=0),
            f.integer("crashes", minimum=0),
            f.text("previous"),
            f.text("previous_standby"),
            f.text("reason"),
            Status(f.text("outcome", among=tuple(Status))),
            f.number("spent_s"),
            f.object("figures", {}),
            f.number("baseline_us", 0.0),
            f.text("swap", ""),
        )


@dataclass(frozen=True)
class Finished:
    """The last order that came to an end: its result is repeated whenever the server asks again."""

    job_id: str
    envelope: str
    report: JobStatus
    is_confirmed: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "job_id": self.job_id,
            "envelope": self.envelope,
            "report": self.report.to_json(),
            "is_confirmed": self.is_confirmed,
        }

    @classmethod
    def from_json(cls, document: Any) -> "Finished":
        f = Fields(document, "journal.finished", MessageError)
        report = JobStatus.from_bytes(canonical.dumps(f.object("report")))
        return cls(f.text("job_id"), f.text("envelope"), report, f.flag("is_confirmed"))


@dataclass(frozen=True)
class Attempt:
    """What this process knows of the order beyond the journal; lost at a crash, and rebuilt.

    Attributes:
        since: Mono second at which the phase was entered here.
        started: Mono second at which this process took the order up.
        is_done: The phase's slow step, or its flip of the pointers, has ended well.
        retry_at, retries: When to run the step again, after how many failures.
        evidence: What the probation saw.
        minor: Reports since the last journal write.
        done, total: Bytes of the download.
        restore_crashes: Runner crashes during a roll back.
        wait: What the order waits for, None while it goes on.
        need_kb: About how much memory the candidate will take, 0 while unknown.
        is_held: The phase's slow step was not begun because of it.
    """

    since: float = 0.0
    started: float = 0.0
    is_done: bool = False
    retry_at: float | None = None
    retries: int = 0
    evidence: Evidence = field(default_factory=Evidence)
    minor: int = 0
    done: int = 0
    total: int = 0
    restore_crashes: int = 0
    wait: Wait | None = None
    need_kb: int = 0
    is_held: bool = False


@dataclass(frozen=True)
class Update:
    """The update machine's whole memory. ``last_job`` is the newest order ever accepted or refused."""

    execution: Execution | None = None
    attempt: Attempt = Attempt()
    finished: Finished | None = None
    last_job: str = ""

    @property
    def phase(self) -> str:
        """The phase under way, or nothing."""
        return self.execution.phase.value if self.execution else ""

    def to_json(self) -> dict[str, Any]:
        return {
            "execution": self.execution.to_json() if self.execution else None,
            "finished": self.finished.to_json() if self.finished else None,
            "last_job": self.last_job,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Update":
        execution, finished = document.get("execution"), document.get("finished")
        return cls(
            Execution.from_json(execution) if execution else None,
            Attempt(),
            Finished.from_json(finished) if finished else None,
            str(document.get("last_job", "")),
        )

    def trying(self, **changes: Any) -> "Update":
        """Return the same with changes to the attempt."""
        return replace(self, attempt=replace(self.attempt, **changes))
