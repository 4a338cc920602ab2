# SPDX-License-Identifier: Apache-2.0
"""What the server knows of a device: births, deaths and reports fold into one record, in any order.

A birth and the death of the same session may arrive either way round (retained messages of two topics have
no order), so the record keeps the session that died instead of a flag that the last message wins.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_contract.canonical import as_float
from edge_contract.errors import ContractError
from edge_contract.messages import (
    CAPTURES,
    JOB_PER_MODEL,
    SELF_UPDATE,
    Birth,
    Death,
    DesiredState,
    ModelState,
    ReportedState,
)

__all__ = [
    "DeviceRecord",
    "Sync",
    "hear_birth",
    "hear_death",
    "hear_reported",
    "is_online",
    "sync_of",
    "told_within_s",
    "want",
]

PATIENCE_S: Final = 30.0
"""Shortest silence after which a device counts as offline even without its will."""

_MISSED_HEARTBEATS: Final = 3.5


@dataclass(frozen=True)
class DeviceRecord:
    """One device; times in seconds since 1970, 0 = never.

    Attributes:
        boot, session: Of the latest birth.
        dead: (boot, session) of the latest death.
        reported: The latest reported state, None before the first.
        desired: What the server wants; its version grows with each change.
    """

    device: str
    enrolled_at: float
    boot: str = ""
    session: int = -1
    dead: tuple[str, int] = ("", -1)
    born_at: float = 0.0
    last_seen: float = 0.0
    agent_version: str = ""
    runtime: str = ""
    runtime_version: str = ""
    board: dict[str, Any] = field(default_factory=dict)
    reported: ReportedState | None = None
    desired: DesiredState = field(default_factory=lambda: DesiredState(0, {}, {}))

    @property
    def running(self) -> dict[str, str]:
        """Model → the bundle id that the runner really holds, by the latest report."""
        models = self.reported.models if self.reported else {}
        return {name: state.running for name, state in models.items()}

    @property
    def has_lanes(self) -> bool:
        """The device takes an order for each of its models, on its own channel; others take one order at a time."""
        return self.reported is not None and JOB_PER_MODEL in self.reported.features

    @property
    def updates_itself(self) -> bool:
        """The device takes orders for the agent's own software."""
        return self.reported is not None and SELF_UPDATE in self.reported.features

    @property
    def allows_captures(self) -> bool:
        """The person at the device lets raw inputs leave it, by its latest report."""
        return self.reported is not None and CAPTURES in self.reported.features

    def model(self, name: str) -> ModelState | None:
        """The reported slots of one model."""
        return self.reported.models.get(name) if self.reported else None


def hear_birth(record: DeviceRecord, birth: Birth, seen_at: float | None) -> DeviceRecord:
    """Return the record after a birth; one of an earlier session of the same boot changes nothing.

    ``seen_at`` is None for a retained message: it tells what was said, not that the device is there now.
    """
    if birth.boot == record.boot and birth.session < record.session:
        return record
    return replace(
        record,
        boot=birth.boot,
        session=birth.session,
        born_at=birth.time,
        last_seen=record.last_seen if seen_at is None else seen_at,
        agent_version=birth.agent_version,
        runtime=birth.runtime,
        runtime_version=birth.runtime_version,
        board=birth.board,
    )


def hear_death(record: DeviceRecord, death: Death) -> DeviceRecord:
    """Return the record after a death; one of an earlier session of the same boot changes nothing.

    Example:
        >>> record = DeviceRecord("pi", 0.0, boot="b", session=2)
        >>> hear_death(record, Death("pi", "b", 1)) == record
        True
    """
    if death.boot == record.boot and death.session < record.session:
        return record
    return replace(record, dead=(death.boot, death.session))


def hear_reported(record: DeviceRecord, reported: ReportedState, seen_at: float | None) -> DeviceRecord:
    """Return the record after a report: also the heartbeat."""
    seen = record.last_seen if seen_at is None else seen_at
    return replace(record, reported=reported, last_seen=seen)


def is_online(record: DeviceRecord, now: float) -> bool:
    """True if the present session has not died and was heard of within 3.5 heartbeats (at least 30 s).

    Example:
        >>> record = DeviceRecord("pi", 0.0, boot="b", session=1, last_seen=100.0)
        >>> is_online(record, 110.0), is_online(record, 500.0)
        (True, False)
        >>> is_online(hear_death(record, Death("pi", "b", 1)), 110.0)
        False
    """
    return now - record.last_seen <= told_within_s(record)


def told_within_s(record: DeviceRecord) -> float:
    """Return how many seconds after its last word a device still counts as online; less than 0 after its death."""
    if not record.boot or record.dead == (record.boot, record.session):
        return -1.0
    return max(PATIENCE_S, _MISSED_HEARTBEATS * _heartbeat_s(record))


def _heartbeat_s(record: DeviceRecord) -> float:
    told = record.reported.config.get("heartbeat_s") if record.reported else None
    try:
        return 0.0 if told is None else as_float(told)
    except ContractError:  # a device's odd word must not make it vanish
        return 0.0


@dataclass(frozen=True)
class Sync:
    """Whether a device runs what is wanted; ``why`` says in words where it does not."""

    ok: bool
    why: str


def sync_of(record: DeviceRecord) -> Sync:
    """Return whether running and desired bundles and the configuration's version agree."""
    for model, bundle in sorted(record.desired.models.items()):
        running = record.running.get(model, "")
        if running != bundle:
            return Sync(ok=False, why=f"{model}: runs {running[:8] or 'nothing'}, wanted {bundle[:8]}")
    taken = record.reported.desired_version if record.reported else 0
    if taken < record.desired.version:
        return Sync(ok=False, why=f"settings {taken} of {record.desired.version} taken over")
    return Sync(ok=True, why="")


def want(
    desired: DesiredState, *, models: dict[str, str] | None = None, config: dict[str, Any] | None = None
) -> DesiredState:
    """Return the desired state with changes merged in and its version raised; a None value removes a key.

    The same state comes back, with the same version, where nothing changes.

    Example:
        >>> one = want(DesiredState(0, {}, {}), config={"source": "camera"})
        >>> one.version, want(one, config={"source": "camera"}) == one, want(one, config={"source": None}).config
        (1, True, {})
    """

    def merged(old: dict[str, Any], new: dict[str, Any] | None) -> dict[str, Any]:
        return {key: value for key, value in {**old, **(new or {})}.items() if value not in (None, "")}

    new_models, new_config = merged(desired.models, models), merged(desired.config, config)
    if new_models == desired.models and new_config == desired.config:
        return desired
    return replace(desired, version=desired.version + 1, models=new_models, config=new_config)
