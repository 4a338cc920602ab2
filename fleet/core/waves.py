# SPDX-License-Identifier: Apache-2.0
"""Waves: what an operator writes of them, and which devices stand in which.

A wave is one way to choose devices (``devices``, ``count``, ``percent``, ``query`` or ``rest``; a query may be cut by
count or percent) with what it may have of its own: ``kind``, ``name``, ``soak_s``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edge_contract.canonical import as_float
from edge_contract.errors import ContractError, RolloutError
from edge_contract.fields import Fields
from edge_contract.states import WaveState

__all__ = ["DEFAULT_WAVES", "INSTALL", "SHADOW", "Wave", "build_waves", "plan_waves"]

DEFAULT_WAVES: Final[tuple[dict[str, Any], ...]] = ({"count": 1}, {"rest": True})
"""One canary, then everybody."""

INSTALL, SHADOW = "install", "shadow"
_CHOICES: Final = frozenset({"devices", "count", "percent", "query", "rest"})
_OPTIONS: Final = frozenset({"kind", "name", "soak_s"})
_FORM: Final = 'expected {"devices": […]}, {"count": n}, {"percent": p}, {"query": "…"} or {"rest": true}'


@dataclass(frozen=True)
class Wave:
    """Devices that are updated together.

    Attributes:
        soaking_since: Seconds since 1970; 0 before every device is in.
        kind: ``install``, or ``shadow``: the bundle runs beside the active one, and nothing is switched.
        name: For people; empty for a number.
        soak_s: Its own soak, None for the rollout's.
        query: What chose its devices, empty for other choices.
        is_rest: It took everybody who was left: who joins a dynamic rollout comes here.
        is_forced: An operator sent it on before all its devices were in, or before its soak was over.
        gate_from: From when on the wait for the gates' evidence counts, where that is after the soak.
    """

    devices: tuple[str, ...]
    state: WaveState = WaveState.PENDING
    soaking_since: float = 0.0
    reason: str = ""
    kind: str = INSTALL
    name: str = ""
    soak_s: float | None = None
    query: str = ""
    is_rest: bool = False
    is_forced: bool = False
    gate_from: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "devices": list(self.devices),
            "state": self.state.value,
            "soaking_since": self.soaking_since,
            "reason": self.reason,
            "kind": self.kind,
            "name": self.name,
            "soak_s": self.soak_s,
            "query": self.query,
            "is_rest": self.is_rest,
            "is_forced": self.is_forced,
            "gate_from": self.gate_from,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Wave":
        """Return the wave that ``to_json`` wrote, of this version or one before."""
        soak, get = document.get("soak_s"), document.get
        return cls(
            tuple(document["devices"]),
            WaveState(document["state"]),
            as_float(document["soaking_since"]),
            document["reason"],
            get("kind", INSTALL),
            get("name", ""),
            None if soak is None else as_float(soak),
            get("query", ""),
            get("is_rest", False),
            get("is_forced", False),
            as_float(get("gate_from", 0.0)),
        )


Matching = Callable[[str], Sequence[str]]
"""query → the names of devices that match it, sorted."""


def _nobody_asks(query: str) -> Sequence[str]:
    raise RolloutError(f"the query {query!r} cannot be asked here", where="rollout.waves")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _named(wanted: Any, where: str, devices: frozenset[str], taken: Mapping[str, int]) -> tuple[str, ...]:
    if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
        raise RolloutError("'devices' is not a list of names", where=where)
    seen: set[str] = set()
    for name in wanted:
        if name not in devices:
            raise RolloutError(f"device '{name}' is not enrolled", where=where, fix="strop fleet device list")
        if name in taken or name in seen:
            raise RolloutError(f"device '{name}' stands in two waves", where=where)
        seen.add(name)
    return tuple(wanted)


def _cut(spec: Mapping[str, Any], free: Sequence[str], whole: int, where: str) -> tuple[str, ...]:
    """The first devices, by count or as a percentage of ``whole``; all of them where neither is asked."""
    for key, value in spec.items():
        if key == "count":
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise RolloutError(f"count = {value!r} is not a wave", where=where)
            return tuple(free[:value])
        if key == "percent":
            if not _is_number(value) or not 0 < value <= 100:
                raise RolloutError(f"percent = {value!r} is not a wave", where=where)
            # Rounded up: a small fleet's 1 % is still a canary.
            return tuple(free[: math.ceil(whole * value / 100)])
    return tuple(free)


@dataclass(frozen=True)
class _Pool:
    """Whom a wave may choose from.

    Attributes:
        devices: Everybody.
        free: Whom no other wave names.
        taken: Who stands in an earlier wave of the same kind.
        matching: Asks a query.
    """

    devices: Sequence[str]
    free: Sequence[str]
    taken: Mapping[str, int]
    matching: Matching


def _choose(spec: Mapping[str, Any], where: str, pool: _Pool) -> tuple[str, ...]:
    choice, taken = {key: value for key, value in spec.items() if key not in _OPTIONS}, pool.taken
    kinds = set(choice)
    if unknown := sorted(kinds - _CHOICES):
        raise RolloutError(f"{unknown[0]} = {choice[unknown[0]]!r} is not a wave", where=where, fix=_FORM)
    if not (len(kinds) == 1 or ("query" in kinds and len(kinds) == 2 and kinds & {"count", "percent"})):
        raise RolloutError(_FORM, where=where)
    if "devices" in kinds:
        return _named(choice["devices"], where, frozenset(pool.devices), taken)
    if "rest" in kinds and choice["rest"] is not True:
        raise RolloutError(f"rest = {choice['rest']!r} is not a wave", where=where)
    if "query" in kinds:
        if not isinstance(choice["query"], str) or not choice["query"].strip():
            raise RolloutError(f"query = {choice['query']!r} is not a wave", where=where)
        allowed = frozenset(pool.free)
        free = [name for name in pool.matching(choice["query"]) if name in allowed and name not in taken]
        return _cut(choice, free, len(free), where)
    free = [name for name in pool.free if name not in taken]
    return _cut(choice, free, len(pool.devices), where)


def _options(spec: Mapping[str, Any], where: str) -> dict[str, Any]:
    f = Fields({key: value for key, value in spec.items() if key in _OPTIONS}, where, ContractError)
    kind, name = f.text("kind", INSTALL, among=(INSTALL, SHADOW)), f.text("name", "")
    soak = None if spec.get("soak_s") is None else f.number("soak_s")
    if soak is not None and soak < 0:
        raise RolloutError("must not be negative", where=f"{where}.soak_s")
    return {"kind": kind, "name": name, "soak_s": soak}


def build_waves(specs: Sequence[Any], devices: Sequence[str], matching: Matching = _nobody_asks) -> tuple[Wave, ...]:
    """Return the waves that an operator's words make of the fleet.

    A device stands in the first wave of each kind that takes it: one that was tried with a shadow is updated later.

    Args:
        specs: What the operator wrote.
        devices: Everybody, by name.
        matching: Asks a query.

    Raises:
        RolloutError: A wave that is none, an unknown device, or one that stands twice.

    Example:
        >>> waves = build_waves([{"count": 1, "kind": "shadow"}, {"rest": True, "soak_s": 60}], ["a", "b"])
        >>> [(wave.kind, wave.devices, wave.soak_s) for wave in waves]
        [('shadow', ('a',), None), ('install', ('a', 'b'), 60.0)]
    """
    named = {name for spec in specs for name in _names_in(spec)}
    free = [name for name in devices if name not in named]
    taken: dict[str, dict[str, int]] = {INSTALL: {}, SHADOW: {}}
    waves = []
    for i, spec in enumerate(specs):
        where = f"rollout.waves[{i}]"
        if not isinstance(spec, dict):
            raise RolloutError(_FORM, where=where)
        try:
            options = _options(spec, where)
        except ContractError as error:
            raise RolloutError(error.what, where=error.where, fix=error.fix) from error
        kind = options["kind"]
        # A device that a later wave names is not swept up by an earlier count, percent or rest.
        pool = _Pool(devices, devices if kind == SHADOW else free, taken[kind], matching)
        chosen = _choose(spec, where, pool)
        taken[kind].update(dict.fromkeys(chosen, i))
        is_rest = spec.get("rest") is True or ("query" in spec and not {"count", "percent"} & set(spec))
        waves.append(Wave(chosen, query=spec.get("query", ""), is_rest=is_rest and kind == INSTALL, **options))
    return tuple(waves)


def _names_in(spec: Any) -> list[str]:
    if not isinstance(spec, dict) or not isinstance(spec.get("devices"), list) or spec.get("kind") == SHADOW:
        return []
    return [str(name) for name in spec["devices"]]


def plan_waves(specs: Sequence[Any], devices: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the devices of each wave; raises as ``build_waves``.

    Example:
        >>> plan_waves([{"count": 1}, {"percent": 50}, {"rest": True}], ["a", "b", "c", "d"])
        (('a',), ('b', 'c'), ('d',))
    """
    return tuple(wave.devices for wave in build_waves(specs, devices))
