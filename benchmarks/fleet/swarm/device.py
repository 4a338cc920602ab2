# SPDX-License-Identifier: Apache-2.0
"""One simulated device: no socket and no clock; what it hears and the time go in, what it says comes out.

It keeps its telemetry until ``tm/ack``, as the real agent does, and says again what was not acknowledged. A device
has a temper: it may be slow, fail its trials, lie about them, or go on and off.
"""

import random
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from edge_contract.batches import TelemetryAck, TelemetryBatch, TelemetryRow, encode_batch
from edge_contract.errors import StropError
from edge_contract.jobs import JobDocument, JobStatus, Signed
from edge_contract.messages import JOB_PER_MODEL, Birth, Death, DesiredState, ModelState, ReportedState
from edge_contract.states import Phase, Status
from edge_contract.topics import topic

__all__ = ["TEMPERS", "Saying", "SimDevice", "Temper"]

_AGAIN_S: Final = 30.0
_ROWS: Final = 5


class Saying(NamedTuple):
    """One message to publish."""

    topic: str
    payload: bytes
    retain: bool = False


@dataclass(frozen=True)
class Temper:
    """How a device behaves.

    Attributes:
        install_s: From the order to the end of the trial.
        fails, lies: Its trial fails; it says SUCCEEDED and goes on with the old bundle.
        online_s, offline_s: Mean spells of a device that goes on and off; 0: it stays.
    """

    name: str
    install_s: float = 1.0
    fails: bool = False
    lies: bool = False
    online_s: float = 0.0
    offline_s: float = 0.0


TEMPERS: Final = {
    "good": Temper("good"),
    "slow": Temper("slow", install_s=15.0),
    "failing": Temper("failing", fails=True),
    "lying": Temper("lying", lies=True),
    "coming and going": Temper("coming and going", online_s=60.0, offline_s=20.0),
}


@dataclass
class _Job:
    order: JobDocument
    seq: int = 1
    done_at: float = 0.0
    ended: JobStatus | None = None


@dataclass
class SimDevice:
    """A device of the swarm.

    Args:
        name, tenant: Who it is.
        temper: How it behaves.
        every_s: Pause between telemetry batches; the first comes at a random moment of it.
        seed: For its figures and moments.
    """

    name: str
    temper: Temper
    every_s: float = 60.0
    tenant: str = "default"
    seed: int = 0
    boot: str = "boot1"
    session: int = 0
    running: str = ""
    version: str = ""
    wanted: int = 0
    made: int = 0
    acked: int = 0
    unsent: dict[int, TelemetryRow] = field(default_factory=dict)
    said_at: dict[int, float] = field(default_factory=dict)
    job: _Job | None = None
    next_batch: float = 0.0

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.name} {self.seed}")

    def will(self) -> Saying:
        """What the broker says when the connection is lost."""
        return self._say("state/death", Death(self.name, self.boot, self.session).to_bytes(), retain=True)

    def channels(self) -> list[str]:
        """What it subscribes to."""
        heard = ("twin/desired", "job/next", "job/next/+", "tm/ack")
        return [topic(self.tenant, self.name, channel) for channel in heard[:2]] + [
            f"strop/v1/{self.tenant}/{self.name}/{channel}" for channel in heard[2:]
        ]

    def connected(self, now: float) -> list[Saying]:
        """It is online: birth, report, and what was not acknowledged."""
        if not self.next_batch:
            self.next_batch = now + self.every_s * self.random.random()
        board = {"machine": "simulated", "model": self.temper.name, "serial": self.name}
        birth = Birth(self.name, self.boot, self.session, "0.1.0", "litert", "2.3.0", board, now)
        said = [self._say("state/birth", birth.to_bytes(), retain=True), self._report(now)]
        self.said_at.clear()
        if self.job is not None and self.job.ended is not None:
            said.append(self._status(self.job.ended))
        return said

    def lost(self) -> None:
        """The connection is gone."""
        self.session += 1

    def hear(self, name: str, payload: bytes, now: float) -> list[Saying]:
        """Take one message."""
        channel = name.split("/", 4)[4]
        try:
            if channel == "tm/ack":
                return self._ack(TelemetryAck.from_bytes(payload))
            if channel == "twin/desired" and payload:
                self.wanted = max(self.wanted, DesiredState.from_bytes(payload).version)
                return [self._report(now)]
            if channel.startswith("job/next") and payload:
                return self._ordered(JobDocument.from_bytes(Signed.from_bytes(payload).payload), now)
        except StropError:
            return []
        return []

    def tick(self, now: float, *, is_online: bool) -> list[Saying]:
        """A moment passed: telemetry is made online and offline, and said online."""
        if self.next_batch and now >= self.next_batch:
            self.next_batch += self.every_s
            self._make(now)
        said = self._finish(now) if self.job is not None and self.job.done_at and now >= self.job.done_at else []
        return said + self._batch(now) if is_online else []

    def _make(self, now: float) -> None:
        for _ in range(_ROWS):
            self.made += 1
            us = self.random.gammavariate(9, 110)
            body: dict[str, Any] = {
                "seconds": self.every_s / _ROWS,
                "bundle": self.running,
                "n": self.random.randrange(90, 110),
                "errors": 0,
                "p50_us": us,
                "p95_us": us * self.random.uniform(1.2, 1.6),
                "rss_kb": self.random.randrange(24_000, 31_000),
                "temperature_c": self.random.uniform(40, 70),
                "note": f"{self.random.getrandbits(800):x}",  # what does not compress, up to about a kilobyte a batch
            }
            self.unsent[self.made] = TelemetryRow(self.made, now, body)

    def _batch(self, now: float) -> list[Saying]:
        due = [seq for seq in self.unsent if now - self.said_at.get(seq, -_AGAIN_S) >= _AGAIN_S][:50]
        if not due:
            return []
        self.said_at.update(dict.fromkeys(due, now))
        rows = tuple(self.unsent[seq] for seq in due)
        batch = TelemetryBatch(self.name, self.boot, "metric", min(self.unsent) - 1, rows)
        return [self._say("tm/metric", encode_batch(batch))]

    def _ack(self, ack: TelemetryAck) -> list[Saying]:
        if ack.boot == self.boot and ack.cls == "metric":
            self.acked = max(self.acked, ack.up_to_seq)
            for seq in [seq for seq in self.unsent if seq <= ack.up_to_seq]:
                del self.unsent[seq]
                self.said_at.pop(seq, None)
        return []

    def _ordered(self, order: JobDocument, now: float) -> list[Saying]:
        known = self.job is not None and self.job.order.job_id == order.job_id
        if order.kind == "install" and not known:
            self.job = _Job(order, done_at=now + self.temper.install_s * self.random.uniform(0.5, 1.5))
            return [self._told(Status.IN_PROGRESS, Phase.DOWNLOADING, now)]
        if order.kind == "cancel" and known and self.job is not None and self.job.ended is None:
            self.job.done_at = 0.0
            return [self._told(Status.CANCELED, Phase.DONE, now)]
        return [self._status(self.job.ended)] if known and self.job is not None and self.job.ended is not None else []

    def _finish(self, now: float) -> list[Saying]:
        assert self.job is not None
        self.job.done_at = 0.0
        begun = self._told(Status.IN_PROGRESS, Phase.HEALTH_CHECK, now)
        if self.temper.fails:
            return [begun, self._told(Status.FAILED, Phase.ROLLED_BACK, now, "its trial failed"), self._report(now)]
        if not self.temper.lies:
            self.running, self.version = self.job.order.bundle, self.job.order.version
        return [begun, self._report(now), self._told(Status.SUCCEEDED, Phase.DONE, now)]

    def _told(self, status: Status, phase: Phase, now: float, reason: str = "") -> Saying:
        assert self.job is not None
        self.job.seq += 1
        report = JobStatus(self.job.order.job_id, self.name, status, phase, self.job.seq, reason, {}, now)
        if status not in (Status.QUEUED, Status.IN_PROGRESS):
            self.job.ended = report
        return self._status(report)

    def _status(self, report: JobStatus) -> Saying:
        return self._say(f"job/{report.job_id}/status", report.to_bytes())

    def _report(self, now: float) -> Saying:
        models = {"digits": ModelState(self.running, self.running, "", "", self.version)} if self.running else {}
        health = {"inferences": 100 * self.made, "errors": 0, "rss_kb": 25_000, "uptime_s": 60.0}
        outbox = {"rows": len(self.unsent), "bytes": 200 * len(self.unsent), "dropped": {}}
        config = {"heartbeat_s": self.every_s}
        state = ReportedState(
            self.name, self.boot, self.wanted, models, config, outbox, health, now, features=(JOB_PER_MODEL,)
        )
        return self._say("twin/reported", state.to_bytes(), retain=True)

    def _say(self, channel: str, payload: bytes, *, retain: bool = False) -> Saying:
        return Saying(topic(self.tenant, self.name, channel), payload, retain)
