# SPDX-License-Identifier: Apache-2.0
"""What is around a simulated device: bundles and how they behave, a disk that survives, and a server that listens."""

from dataclasses import dataclass, field, replace
from typing import Any

from edge_contract.jobs import JobDocument, JobStatus, Probation
from edge_contract.messages import ReportedState
from edge_contract.states import TERMINAL_STATUS

OLD, NEW, NEWER = "a" * 64, "b" * 64, "c" * 64
FACES, FACES_NEW = "d" * 64, "e" * 64


class PowerCut(BaseException):
    """The power fails before a durable operation."""


@dataclass(frozen=True)
class Behaviour:
    """How a bundle behaves in the runner."""

    version: str = "1.0.0"
    loads: bool = True
    crashes_on_load: bool = False
    crash_after: int = 0  # inferences
    agreement: float = 1.0
    error_rate: float = 0.0
    latency_us: float = 100.0


@dataclass
class Disk:
    """What survives."""

    journal: bytes = b""
    models: dict[str, dict[str, str]] = field(default_factory=dict)
    complete: set[str] = field(default_factory=set)
    rows: dict[tuple[str, str], dict[int, tuple[float, bytes]]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    def of(self, model: str) -> dict[str, str]:
        """The pointers of a model."""
        return self.models.setdefault(model, {"active": "", "standby": "", "factory": ""})

    @property
    def pointers(self) -> dict[str, str]:
        """Those of the first model."""
        return self.of("digits")


@dataclass
class Server:
    """What the server has heard."""

    statuses: dict[str, JobStatus] = field(default_factory=dict)
    rows: dict[tuple[str, str], dict[int, dict[str, Any]]] = field(default_factory=dict)
    reported: ReportedState | None = None
    said: list[tuple[str, bytes]] = field(default_factory=list)

    def hear(self, channel: str, payload: bytes) -> None:
        self.said.append((channel, payload))
        if channel.startswith("job/"):
            status = JobStatus.from_bytes(payload)
            known = self.statuses.get(status.job_id)
            if known is None or (status.seq >= known.seq and known.status not in TERMINAL_STATUS):
                self.statuses[status.job_id] = status
        if channel == "twin/reported":
            self.reported = ReportedState.from_bytes(payload)

    def bodies(self, cls: str) -> list[dict[str, Any]]:
        return [body for (_, name), rows in self.rows.items() if name == cls for body in rows.values()]


def job(job_id: str = "j1", bundle: str = NEW, **changes: Any) -> JobDocument:
    probation = changes.pop("probation", Probation(inferences=100, timeout_s=60.0))
    order = JobDocument(
        job_id=job_id,
        device="pi",
        rollout="r1",
        kind="install",
        model="digits",
        version="2.0.0",
        bundle=bundle,
        issued_at=1000.0,
        expires_at=1e9,
        timeout_s=600.0,
        probation=probation,
    )
    return replace(order, **changes)
