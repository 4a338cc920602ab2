# SPDX-License-Identifier: Apache-2.0
"""What a rollout is: which bundle, which devices in which waves, and under which limits. ``engine`` moves it on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_contract.canonical import as_float
from edge_contract.errors import ContractError, RolloutError
from edge_contract.fields import Fields
from edge_contract.jobs import Probation
from edge_contract.states import ROLLOUT, RolloutEvent, RolloutState, step
from fleet.core.gate_limits import GateLimits
from fleet.core.limits import Limits
from fleet.core.waves import DEFAULT_WAVES, Wave, build_waves, plan_waves

__all__ = [
    "DEFAULT_WAVES",
    "LIVE",
    "UNDER_WAY",
    "Limits",
    "Request",
    "Rollout",
    "Wave",
    "build_waves",
    "new_rollout",
    "plan_waves",
    "read_plan",
    "read_request",
]

LIVE: Final = frozenset({RolloutState.RUNNING, RolloutState.PAUSED})
"""States in which a rollout is still judged."""

UNDER_WAY: Final = LIVE | {RolloutState.SCHEDULED, RolloutState.ABORTING, RolloutState.ROLLING_BACK}
"""States that the engine moves on by itself."""


@dataclass(frozen=True)
class Rollout:
    """One rollout of one bundle. ``number`` orders rollouts: where two want a device, the higher one has it.

    Attributes:
        created_by, approved_by: Who wrote it, and who else let it go.
        needs_approval: It does not start before somebody other than its author approved it.
        dynamic: Devices that begin to match while it lives join its rest wave.
        channel: Of the model, in which the bundle stands once the rollout COMPLETED; empty for none.
        parent: The rollout that this one takes back or tries again; empty for none.
        is_rollback: It brings a previous bundle back.
        rollbacks: The rollouts that bring its devices back; None before they were planned.
    """

    id: str
    number: int
    model: str
    version: str
    bundle: str
    limits: Limits
    waves: tuple[Wave, ...]
    created_at: float
    state: RolloutState = RolloutState.DRAFT
    reason: str = ""
    ended_at: float = 0.0
    created_by: str = ""
    approved_by: str = ""
    needs_approval: bool = False
    dynamic: bool = False
    channel: str = ""
    parent: str = ""
    is_rollback: bool = False
    rollbacks: tuple[str, ...] | None = None
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def after(self, event: RolloutEvent, reason: str = "", *, now: float = 0.0) -> "Rollout":
        """Return the rollout after an event.

        Raises:
            RolloutError: Its state does not accept the event.
        """
        try:
            state = step(ROLLOUT, self.state, event)
        except ContractError as error:
            raise RolloutError(error.what, where=f"rollout {self.id}", fix=error.fix) from error
        ended_at = self.ended_at if state in UNDER_WAY else now
        kept = "" if event is RolloutEvent.RESUME else self.reason
        return replace(self, state=state, reason=reason or kept, ended_at=ended_at)

    def with_wave(self, i: int, wave: Wave) -> "Rollout":
        """Return the rollout with another wave in a place."""
        return replace(self, waves=(*self.waves[:i], wave, *self.waves[i + 1 :]))

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "id": self.id,
            "number": self.number,
            "model": self.model,
            "version": self.version,
            "bundle": self.bundle,
            "limits": self.limits.to_json(),
            "waves": [wave.to_json() for wave in self.waves],
            "created_at": self.created_at,
            "state": self.state.value,
            "reason": self.reason,
            "ended_at": self.ended_at,
            "created_by": self.created_by,
            "approved_by": self.approved_by,
            "needs_approval": self.needs_approval,
            "dynamic": self.dynamic,
            "channel": self.channel,
            "parent": self.parent,
            "is_rollback": self.is_rollback,
            "rollbacks": None if self.rollbacks is None else list(self.rollbacks),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Rollout":
        """Return the rollout that ``to_json`` wrote, of this version or one before."""
        get, rollbacks = document.get, document.get("rollbacks")
        known = set(cls.__dataclass_fields__)
        return cls(
            document["id"],
            document["number"],
            document["model"],
            document["version"],
            document["bundle"],
            Limits.from_json(document["limits"]),
            tuple(Wave.from_json(wave) for wave in document["waves"]),
            as_float(document["created_at"]),
            RolloutState(document["state"]),
            document["reason"],
            as_float(document["ended_at"]),
            created_by=get("created_by", ""),
            approved_by=get("approved_by", ""),
            needs_approval=get("needs_approval", False),
            dynamic=get("dynamic", False),
            channel=get("channel", ""),
            parent=get("parent", ""),
            is_rollback=get("is_rollback", False),
            rollbacks=None if rollbacks is None else tuple(rollbacks),
            unrecognized={key: value for key, value in document.items() if key not in known},
        )


@dataclass(frozen=True)
class Request:
    """What an operator asks for: the words of a plan, read and checked as far as they can be without the fleet."""

    model: str
    bundle: str
    waves: list[Any]
    limits: Limits
    dynamic: bool = False
    channel: str = ""
    needs_approval: bool = False
    is_draft: bool = False


_OWN: Final = ("model", "bundle", "waves", "dynamic", "channel", "needs_approval", "draft")


def read_plan(document: Any) -> Request:
    """Return an operator's request.

    Raises:
        RolloutError: A field is missing, of the wrong type, or unknown.

    Example:
        >>> read_plan({"model": "digits", "bundle": "a" * 64}).waves
        [{'count': 1}, {'rest': True}]
    """
    known = {*_OWN, *Limits().to_json()}
    try:
        f = Fields(document, "rollout", ContractError)
        if unknown := sorted(set(document) - known):
            raise RolloutError(f"unknown field '{unknown[0]}'", where="rollout", fix=f"use {', '.join(sorted(known))}")
        limits = Limits.from_json(document)
        f.integer("max_failures", 0, minimum=0)  # our own word for "no limit" is none of an operator's
        _check_probations(limits)
        if limits.gates is not None:
            GateLimits.from_json(limits.gates)
        return Request(
            f.text("model"),
            f.digest("bundle"),
            f.items("waves", list(DEFAULT_WAVES)) or list(DEFAULT_WAVES),
            limits,
            f.flag("dynamic", default=False),
            f.text("channel", ""),
            f.flag("needs_approval", default=False),
            f.flag("draft", default=False),
        )
    except ContractError as error:
        raise RolloutError(error.what, where=error.where, fix=error.fix) from error


def _check_probations(limits: Limits) -> None:
    """Unknown words are kept on the wire; from an operator they are a slip."""
    for name in ("probation", "shadow"):
        if rest := getattr(limits, name).unrecognized:
            fix = f"use {', '.join([*Probation().to_json(), 'min_s'])}"
            raise RolloutError(f"unknown field '{min(rest)}'", where=f"rollout.{name}", fix=fix)
        rules: Probation = getattr(limits, name)
        if rules.min_s < 0 or rules.min_s >= rules.timeout_s:
            raise RolloutError("min_s is not below timeout_s", where=f"rollout.{name}")


def read_request(document: Any) -> tuple[str, str, list[Any], Limits]:
    """Return (model, bundle, wave specs, limits) of an operator's request; raises as ``read_plan``."""
    request = read_plan(document)
    return request.model, request.bundle, request.waves, request.limits


def new_rollout(
    number: int,
    bundle: tuple[str, str, str],
    waves: Sequence[Sequence[str] | Wave],
    limits: Limits,
    *,
    now: float,
    **more: Any,
) -> Rollout:
    """Return a rollout that is RUNNING and has not started its first wave; ``bundle`` = (model, version, bundle id).

    Example:
        >>> new_rollout(1, ("digits", "1.0.0", "ab"), [["pi"]], Limits(), now=5.0).state.value
        'RUNNING'
    """
    planned = tuple(wave if isinstance(wave, Wave) else Wave(tuple(wave)) for wave in waves)
    draft = Rollout(f"r{number}", number, *bundle, limits, planned, now, **more)
    return draft.after(RolloutEvent.SCHEDULE).after(RolloutEvent.START)
