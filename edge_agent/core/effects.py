# SPDX-License-Identifier: Apache-2.0
"""What the core asks of the world. Effects are carried out in their order; ``Persist`` ends on the disk
before the next one begins.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edge_contract.jobs import JobDocument

__all__ = [
    "AbortStep",
    "CheckJob",
    "Command",
    "CountLost",
    "DropRows",
    "Effect",
    "FlipSlots",
    "Forget",
    "KeepRow",
    "Log",
    "Note",
    "OfLane",
    "Persist",
    "Publish",
    "ReEnumerate",
    "ReadProfile",
    "RemoveRows",
    "Report",
    "Restart",
    "RunCommand",
    "RunStep",
    "Save",
    "SendBatch",
    "SetPace",
    "StartRunner",
    "StopRunner",
    "stamp",
]


@dataclass(frozen=True, eq=False, repr=False)
class Effect:
    """The root of all effects. What a dataclass would generate for each of them stands here once: 5 KB a class."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({told})"


@dataclass(frozen=True, eq=False, repr=False)
class OfLane(Effect):
    """The root of what concerns one model; ``lane`` is the key of its lane, which ``stamp`` fills in."""

    lane: str = field(default="", kw_only=True)


def stamp(effects: Iterable[Effect], lane: str) -> list[Effect]:
    """Return effects with the lane that asked for them.

    Example:
        >>> stamp([StopRunner(), CountLost("metric")], "faces")
        [StopRunner(lane='faces'), CountLost(cls='metric')]
    """
    return [replace(effect, lane=lane) if isinstance(effect, OfLane) else effect for effect in effects]


@dataclass(frozen=True, eq=False, repr=False)
class Persist(Effect):
    """Write the journal durably, whole: after this returns, a power cut cannot undo it."""

    journal: Mapping[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Save(Effect):
    """Inside the core: persist what is now known. ``agent`` turns it into ``Persist``."""


@dataclass(frozen=True, eq=False, repr=False)
class Report(OfLane):
    """Inside the core: tell the server how the order stands. ``agent`` turns it into ``Publish``.

    ``again``: the server asks; repeat the stored result of the last order.
    """

    again: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Note(OfLane):
    """Inside the core: a row for the outbox. ``agent`` turns it into ``KeepRow``."""

    cls: str
    body: Mapping[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Publish(Effect):
    """Say something on a channel at QoS 1; with a ``token`` the broker's PUBACK comes back as Published."""

    channel: str
    payload: bytes
    retain: bool = False
    token: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class CheckJob(Effect):
    """Let the trust helper check an order's envelope."""

    envelope: str
    payload: bytes


@dataclass(frozen=True, eq=False, repr=False)
class RunCommand(Effect):
    """Carry out a heavy command beside the loop; its answer comes back as ``CommandDone`` or ``HandlerFailed``."""

    channel: str
    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class RunStep(OfLane):
    """Start a slow step of an execution beside the loop: ``preflight``, ``download``, ``verify``, ``commit``."""

    step: str
    job: JobDocument


@dataclass(frozen=True, eq=False, repr=False)
class AbortStep(OfLane):
    """Stop whatever step runs for this order; its result no longer matters."""

    job_id: str


@dataclass(frozen=True, eq=False, repr=False)
class SetPace(Effect):
    """How fast downloads may go from now on: kilobytes a second, 0 for no limit; ``held`` stops them, and says why."""

    kbps: int
    held: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Restart(Effect):
    """End this process cleanly and let the launcher choose anew which release of the agent runs."""


@dataclass(frozen=True, eq=False, repr=False)
class FlipSlots(OfLane):
    """Point ``active`` and ``standby`` at these bundles, durably; empty removes the pointer."""

    model: str
    active: str
    standby: str


@dataclass(frozen=True, eq=False, repr=False)
class Forget(OfLane):
    """Delete every slot and half-finished download that no pointer holds and that is not in ``keep``."""

    model: str
    keep: tuple[str, ...]


@dataclass(frozen=True, eq=False, repr=False)
class ReadProfile(OfLane):
    """Read a bundle's reference profile for our runtime."""

    model: str
    bundle: str


@dataclass(frozen=True, eq=False, repr=False)
class StartRunner(OfLane):
    """Start the runner process; ``is_on_cpu``: without its accelerator, by this bundle's file for the CPU."""

    is_on_cpu: bool = False
    model: str = ""
    bundle: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class ReEnumerate(OfLane):
    """Let the kernel find the lane's accelerator anew; the end comes back as ``ReEnumerated``."""


@dataclass(frozen=True, eq=False, repr=False)
class StopRunner(OfLane):
    """End the runner process, by force if it does not listen."""


@dataclass(frozen=True, eq=False, repr=False)
class Command(OfLane):
    """One line to the runner. ``bundle`` names a slot whose folder the adapter fills in."""

    words: Mapping[str, Any]
    model: str = ""
    bundle: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class KeepRow(Effect):
    """Put a row into the outbox; ``body`` is its canonical JSON."""

    boot: str
    cls: str
    seq: int
    time: float
    body: bytes


@dataclass(frozen=True, eq=False, repr=False)
class DropRows(Effect):
    """Delete the oldest rows of a queue until ``size`` bytes are free, and count them as dropped."""

    boot: str
    cls: str
    size: int


@dataclass(frozen=True, eq=False, repr=False)
class CountLost(Effect):
    """Count a row that was dropped before it was ever stored."""

    cls: str


@dataclass(frozen=True, eq=False, repr=False)
class RemoveRows(Effect):
    """The server has these rows: delete them."""

    boot: str
    cls: str
    up_to_seq: int


@dataclass(frozen=True, eq=False, repr=False)
class SendBatch(Effect):
    """Publish the oldest rows of a queue as one batch."""

    boot: str
    cls: str
    after_seq: int


@dataclass(frozen=True, eq=False, repr=False)
class Log(Effect):
    """One line for the log file."""

    level: str
    text: str
