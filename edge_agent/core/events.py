# SPDX-License-Identifier: Apache-2.0
"""What can happen to the agent. Every event carries its time, for the core has no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_agent.core.outbox import Held
from edge_agent.core.runner import Runner
from edge_contract.jobs import JobDocument
from edge_contract.profile import ReferenceProfile
from edge_contract.summary import Counters

__all__ = [
    "BatchSent",
    "Booted",
    "CommandDone",
    "Conditions",
    "Connected",
    "Disconnected",
    "Event",
    "Flipped",
    "HandlerFailed",
    "Instant",
    "JobChecked",
    "JobRefused",
    "LaneEvent",
    "Message",
    "ProfileRead",
    "Progress",
    "Published",
    "ReEnumerated",
    "RowsGone",
    "RunnerExited",
    "RunnerSaid",
    "Sample",
    "Slots",
    "Software",
    "StepDone",
    "StepFailed",
    "Stopping",
    "Tick",
]


@dataclass(frozen=True)
class Instant:
    """One moment on two clocks: ``wall`` in seconds since 1970 (may jump), ``mono`` in seconds (never jumps)."""

    wall: float
    mono: float


@dataclass(frozen=True)
class Slots:
    """What the disk holds for one model: bundle ids of the three pointers, and the version of each bundle."""

    active: str = ""
    standby: str = ""
    factory: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Software:
    """What the launcher told this process; a process that somebody else started has none.

    Attributes:
        running: The release that this process is, empty: as it was installed.
        slots: The pointers to releases.
        failed: Release → why the launcher does not start it.
    """

    running: str = ""
    slots: Slots = Slots()
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Conditions:
    """What decides whether an update may go on now.

    Attributes:
        utc_offset_s: Seconds that local time is ahead of UTC.
        locked_by: The update lock that an application holds; empty while nobody does.
        is_metered: Something on this device says that the link costs money.
        memory_kb: Memory that could be had without swapping, 0 while unknown.
        battery_percent: Charge while the board runs on a battery, else None.
        storage: Which limit of the disk is broken; empty while none is.
        written: The same for the day's write budget.
        benchmark: The benchmark that measures now; empty while none does. Nothing else begins meanwhile.
    """

    utc_offset_s: int = 0
    locked_by: str = ""
    is_metered: bool = False
    memory_kb: int = 0
    battery_percent: int | None = None
    storage: str = ""
    written: str = ""
    benchmark: str = ""


@dataclass(frozen=True)
class Sample:
    """What is read once a second: the runner's counters, the board's health as plain numbers, and the conditions.

    ``counters`` is (epoch, bundle id, counts since the epoch began), or None while no runner writes; ``times`` is the
    fine histogram of the same inferences' times, empty where the runner is older than it; ``seed`` is fresh chance, for
    noise on what leaves, and empty where none was asked for.
    """

    counters: tuple[int, str, Counters] | None = None
    health: Mapping[str, Any] = field(default_factory=dict)
    conditions: Conditions = Conditions()
    times: tuple[int, ...] = ()
    seed: bytes = b""


@dataclass(frozen=True, eq=False, repr=False)
class Event:
    """The root of all events. Each is one happening, so none is equal to another; that also spares the memory that
    generated methods take: 5 KB a class.
    """

    at: Instant

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({told})"


@dataclass(frozen=True, eq=False, repr=False)
class LaneEvent(Event):
    """The root of what concerns one model; ``lane`` is the key of its lane, empty for the first."""

    lane: str = field(default="", kw_only=True)


@dataclass(frozen=True, eq=False, repr=False)
class Booted(Event):
    """The process started: what the journal, the slots and the outbox held.

    ``model`` and ``slots`` are the first model's; ``others`` has the slots of the other lanes by their keys.
    ``software`` is None if no launcher started us: then the agent cannot update itself.
    ``runners`` answer already, by the keys of their lanes: the disk refused the journal at first.
    """

    model: str
    slots: Slots
    journal: Mapping[str, Any]
    outbox: tuple[Held, ...]
    dropped: Mapping[str, int]
    others: Mapping[str, Slots] = field(default_factory=dict)
    software: Software | None = None
    runners: Mapping[str, Runner] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class Tick(Event):
    """A second passed. ``sample`` is the first lane's, ``others`` has those of the other lanes by their keys."""

    sample: Sample = Sample()
    others: Mapping[str, Sample] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class Stopping(Event):
    """The process was asked to end cleanly."""


@dataclass(frozen=True, eq=False, repr=False)
class Connected(Event):
    """The broker took us and our subscriptions; ``session`` counts connections within this boot."""

    session: int


@dataclass(frozen=True, eq=False, repr=False)
class Disconnected(Event):
    """The link is gone."""

    reason: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Message(Event):
    """Bytes from the broker on one of our channels, such as ``job/next``."""

    channel: str
    payload: bytes


@dataclass(frozen=True, eq=False, repr=False)
class CommandDone(Event):
    """The rim carried out a heavy command, or refused it (``ok`` is False, ``body["error"]`` says why)."""

    channel: str
    ok: bool
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class HandlerFailed(Event):
    """Whoever handled a message crashed; ``key`` is ``commands.key_of`` the message."""

    key: str
    reason: str


@dataclass(frozen=True, eq=False, repr=False)
class Published(Event):
    """The broker confirmed a publication that asked for it by a token."""

    token: str


@dataclass(frozen=True, eq=False, repr=False)
class JobChecked(Event):
    """The trust helper found an order genuine; ``envelope`` is the SHA-256 of the envelope's bytes."""

    envelope: str
    job: JobDocument


@dataclass(frozen=True, eq=False, repr=False)
class JobRefused(Event):
    """The trust helper refused an order, or could not run (``may_retry``)."""

    envelope: str
    reason: str
    may_retry: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Progress(LaneEvent):
    """Bytes of a download that are safe on disk."""

    job_id: str
    done: int
    total: int


@dataclass(frozen=True, eq=False, repr=False)
class StepDone(LaneEvent):
    """A slow step of an execution ended well: ``preflight``, ``download``, ``verify`` or ``commit``.

    ``need_kb`` is told by ``verify``: about how much memory the new model will take. ``fetched`` is told by
    ``download``: bytes, and for each file whether a patch brought it (``adapters.patches``).
    """

    job_id: str
    step: str
    slots: Slots | None = None
    need_kb: int = 0
    fetched: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class StepFailed(LaneEvent):
    """A slow step failed; with ``may_retry`` the cause may pass by itself, such as a lost network."""

    job_id: str
    step: str
    reason: str
    may_retry: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Flipped(LaneEvent):
    """The pointers were written and read back."""

    slots: Slots
    reason: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class ProfileRead(LaneEvent):
    """The reference profile of a bundle in a slot, None if it has none that can be read."""

    bundle: str
    profile: ReferenceProfile | None


@dataclass(frozen=True, eq=False, repr=False)
class RunnerSaid(LaneEvent):
    """One line from the runner, decoded: see the protocol in ``docs/agent.md``."""

    words: Mapping[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class RunnerExited(LaneEvent):
    """The runner process is gone."""

    code: int


@dataclass(frozen=True, eq=False, repr=False)
class ReEnumerated(LaneEvent):
    """The kernel looked for the accelerator anew, or could not, for a reason."""

    reason: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class BatchSent(Event):
    """A batch went out with rows up to ``up_to_seq``; 0 means that there was nothing to send."""

    boot: str
    cls: str
    up_to_seq: int


@dataclass(frozen=True, eq=False, repr=False)
class RowsGone(Event):
    """The store deleted rows of a queue, as the core had asked: after an ack, or ``dropped`` by policy."""

    boot: str
    cls: str
    rows: int
    size: int
    up_to_seq: int
    dropped: bool = False
    asked: int = 0
