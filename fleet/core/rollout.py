# SPDX-License-Identifier: Apache-2.0
"""What a rollout is: which bundle, which devices in which waves, and when it stops. ``engine`` moves it on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_contract.canonical import as_float
from edge_contract.errors import ContractError, RolloutError
from edge_contract.fields import Fields
from edge_contract.jobs import Probation
from edge_contract.states import ROLLOUT, RolloutEvent, RolloutState, WaveState, step

__all__ = ["DEFAULT_WAVES", "LIVE", "Limits", "Rollout", "Wave", "new_rollout", "plan_waves", "read_request"]

DEFAULT_WAVES: Final[tuple[dict[str, Any], ...]] = ({"count": 1}, {"rest": True})
"""One canary, then everybody."""

LIVE: Final = frozenset({RolloutState.RUNNING, RolloutState.PAUSED})
"""States in which a rollout is still judged."""


@dataclass(frozen=True)
class Limits:
    """When a wave is done and when a rollout must stop.

    Attributes:
        soak_s: Seconds that a wave runs after its last success, before the next one starts.
        timeout_s: Seconds that a device has from its order to its result.
        grace_s: Seconds that the server waits longer than the device, so that its own word arrives first.
        max_failures: Failed devices that the whole rollout forgives.
        probation: How a device judges the new model.
    """

    soak_s: float = 0.0
    timeout_s: float = 3600.0
    grace_s: float = 30.0
    max_failures: int = 0
    probation: Probation = field(default_factory=Probation)

    def to_json(self) -> dict[str, Any]:
        return {
            "soak_s": self.soak_s,
            "timeout_s": self.timeout_s,
            "grace_s": self.grace_s,
            "max_failures": self.max_failures,
            "probation": self.probation.to_json(),
        }

    @classmethod
    def from_json(cls, document: Any) -> "Limits":
        """Return the limits; raises ContractError for a field of the wrong type or out of its range."""
        f, default = Fields(document, "rollout", ContractError), cls()
        limits = cls(
            f.number("soak_s", default.soak_s),
            f.number("timeout_s", default.timeout_s),
            f.number("grace_s", default.grace_s),
            f.integer("max_failures", default.max_failures, minimum=0),
            Probation.from_json(f.object("probation", {}), "rollout.probation"),
        )
        if limits.timeout_s <= 0 or limits.soak_s < 0 or limits.grace_s < 0:
            raise ContractError("timeout_s must be positive, soak_s and grace_s not negative", where="rollout")
        return limits


@dataclass(frozen=True)
class Wave:
    """Devices that are updated together; ``soaking_since`` is 0 before every device is in."""

    devices: tuple[str, ...]
    state: WaveState = WaveState.PENDING
    soaking_since: float = 0.0
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "devices": list(self.devices),
            "state": self.state.value,
            "soaking_since": self.soaking_since,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Wave":
        state, since = WaveState(document["state"]), as_float(document["soaking_since"])
        return cls(tuple(document["devices"]), state, since, document["reason"])


@dataclass(frozen=True)
class Rollout:
    """One rollout of one bundle. ``number`` orders rollouts: where two want a device, the higher one has it."""

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
        ended_at = self.ended_at if state in LIVE else now
        return replace(self, state=state, reason=reason or self.reason, ended_at=ended_at)

    def to_json(self) -> dict[str, Any]:
        return {
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
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Rollout":
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
        )


def _named(wanted: Any, where: str, devices: Sequence[str], taken: Mapping[str, int]) -> tuple[str, ...]:
    if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
        raise RolloutError("'devices' is not a list of names", where=where)
    for i, name in enumerate(wanted):
        if name not in devices:
            raise RolloutError(f"device '{name}' is not enrolled", where=where, fix="strop fleet device list")
        if name in taken or name in wanted[:i]:
            raise RolloutError(f"device '{name}' stands in two waves", where=where)
    return tuple(wanted)


def _wave(spec: Any, where: str, devices: Sequence[str], taken: Mapping[str, int]) -> tuple[str, ...]:
    free = [name for name in devices if name not in taken]
    if not isinstance(spec, dict) or len(spec) != 1:
        raise RolloutError('expected {"devices": […]}, {"count": n}, {"percent": p} or {"rest": true}', where=where)
    kind, value = next(iter(spec.items()))
    if kind == "devices":
        return _named(value, where, devices, taken)
    if kind == "rest" and value is True:
        return tuple(free)
    if kind == "count" and isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return tuple(free[:value])
    if kind == "percent" and isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 100:
        # Of the whole fleet, rounded up: a small fleet's 1 % is still a canary.
        return tuple(free[: math.ceil(len(devices) * value / 100)])
    raise RolloutError(f"{kind} = {value!r} is not a wave", where=where)


def plan_waves(specs: Sequence[Any], devices: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the devices of each wave; a device stands in the first wave that takes it.

    Raises:
        RolloutError: A wave that is none, an unknown device, or one that stands twice.

    Example:
        >>> plan_waves([{"count": 1}, {"percent": 50}, {"rest": True}], ["a", "b", "c", "d"])
        (('a',), ('b', 'c'), ('d',))
    """
    taken: dict[str, int] = {}
    named = {
        n for s in specs if isinstance(s, dict) and isinstance(s.get("devices"), list) for n in map(str, s["devices"])
    }
    waves = []
    for i, spec in enumerate(specs):
        # A device that a later wave names is not swept up by an earlier count, percent or rest.
        pool = devices if isinstance(spec, dict) and "devices" in spec else [d for d in devices if d not in named]
        wave = _wave(spec, f"rollout.waves[{i}]", pool if "devices" not in spec else devices, taken)
        taken.update(dict.fromkeys(wave, i))
        waves.append(wave)
    return tuple(waves)


def read_request(document: Any) -> tuple[str, str, list[Any], Limits]:
    """Return (model, bundle, wave specs, limits) of an operator's request.

    Raises:
        RolloutError: A field is missing, of the wrong type, or unknown.
    """
    known = {"model", "bundle", "waves", "soak_s", "timeout_s", "grace_s", "max_failures", "probation"}
    try:
        f = Fields(document, "rollout", ContractError)
        unknown = sorted(set(document) - known)
        if unknown:
            raise RolloutError(f"unknown field '{unknown[0]}'", where="rollout", fix=f"use {', '.join(sorted(known))}")
        waves = f.items("waves", list(DEFAULT_WAVES)) or list(DEFAULT_WAVES)
        limits = Limits.from_json(document)
        if limits.probation.unrecognized:  # kept on the wire; from an operator it is a slip
            slip, fix = min(limits.probation.unrecognized), f"use {', '.join(Probation().to_json())}"
            raise RolloutError(f"unknown field '{slip}'", where="rollout.probation", fix=fix)
        return f.text("model"), f.digest("bundle"), waves, limits
    except ContractError as error:
        raise RolloutError(error.what, where=error.where, fix=error.fix) from error


def new_rollout(
    number: int, bundle: tuple[str, str, str], waves: Sequence[Sequence[str]], limits: Limits, *, now: float
) -> Rollout:
    """Return a rollout that is RUNNING and has not started its first wave; ``bundle`` = (model, version, bundle id).

    Example:
        >>> new_rollout(1, ("digits", "1.0.0", "ab"), [["pi"]], Limits(), now=5.0).state.value
        'RUNNING'
    """
    planned = tuple(Wave(tuple(devices)) for devices in waves)
    draft = Rollout(f"r{number}", number, *bundle, limits, planned, now)
    return draft.after(RolloutEvent.SCHEDULE).after(RolloutEvent.START)
