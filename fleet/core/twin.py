# SPDX-License-Identifier: Apache-2.0
"""Which settings a device is to have, where each comes from, and what became of it on the device. Pure.

Settings come in layers: those of its groups, by priority, and the device's own on top. A layer gives single settings,
not whole documents: ``models.digits.source`` of one group stands beside ``models.digits.window_s`` of another.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edge_contract import canonical
from edge_contract.canonical import as_float
from edge_contract.errors import ContractError, UsageError
from edge_contract.messages import ReportedState
from fleet.core.groups import Group

__all__ = ["OWN", "Layer", "Setting", "change", "check_settings", "compare", "effective", "layers_of"]

OWN: Final = "device"
"""Name of the layer that is the device's own."""
_MAX_BYTES: Final = 16_000
_MAX_DEPTH: Final = 3

Path = tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """Settings of one origin: ``group NAME``, or ``device``."""

    origin: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """One setting of a device.

    Attributes:
        name: Such as ``heartbeat_s`` or ``models.digits.source``.
        wanted: Its value in the desired state, None if nobody gives one.
        reported: Its value on the device, None if it tells none.
        origin: Which layer wins; empty if nobody gives it.
        overruled: (origin, value) of the layers that lose, the strongest first.
        state: ``in force``, ``rejected``, ``waiting``, ``differs`` or ``own``: given by agent.toml alone.
        reason: Why it was rejected, by the device's word.
    """

    name: str
    wanted: Any
    reported: Any
    origin: str
    overruled: tuple[tuple[str, Any], ...]
    state: str
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**fields, "overruled": [{"origin": origin, "value": value} for origin, value in self.overruled]}


def check_settings(changes: Any, where: str) -> dict[str, Any]:
    """Return settings in the form in which they are read back; None removes one.

    Raises:
        UsageError: Not an object of names, too deep or too long; what a value may be, the device decides.
    """
    if not isinstance(changes, dict):
        raise UsageError("expected an object of settings", where=where)
    if any(len(path) > _MAX_DEPTH or not all(path) for path in _leaves(changes)):
        raise UsageError("settings stand too deep inside each other, or one has no name", where=where)
    try:
        data = canonical.dumps(changes)
    except ContractError as error:
        raise UsageError(error.what, where=where) from error
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{len(data)} bytes of settings, at most {_MAX_BYTES}", where=where)
    return dict(canonical.loads(data))


def layers_of(groups: Iterable[Group], joined: Iterable[str], own: Mapping[str, Any]) -> list[Layer]:
    """Return a device's layers, the weakest first: of two groups with one priority the later name wins.

    Example:
        >>> groups = [Group("a", priority=1, config={"heartbeat_s": 5}), Group("b", config={"heartbeat_s": 9})]
        >>> [layer.origin for layer in layers_of(groups, ["a", "b"], {})]
        ['group b', 'group a', 'device']
    """
    within = frozenset(joined)
    given = sorted((g for g in groups if g.name in within and g.config), key=lambda g: (g.priority, g.name))
    return [*(Layer(f"group {group.name}", group.config) for group in given), Layer(OWN, own)]


def effective(layers: Iterable[Layer]) -> dict[str, Any]:
    """Return the settings that come of layers, the weakest first.

    Example:
        >>> effective([Layer("group a", {"x": 1, "models": {"m": {"y": 2}}}), Layer("device", {"models": {"m": {"z": 3}}})])
        {'x': 1, 'models': {'m': {'y': 2, 'z': 3}}}
    """  # noqa: E501 - an example
    merged: dict[Path, Any] = {}
    for layer in layers:
        merged.update(_leaves(layer.config))
    return _nested(merged)


def change(own: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings after changes; None takes one away, and what is then empty.

    Example:
        >>> change({"a": 1, "models": {"m": {"x": 1}}}, {"a": None, "models": {"m": {"x": None}}})
        {}
    """
    merged = {**_leaves(own), **_leaves(changes)}
    kept = {path: value for path, value in merged.items() if value not in (None, "")}
    removed = {name for name, value in changes.items() if value is None}  # also a whole table
    return _nested({path: value for path, value in kept.items() if path[0] not in removed})


def _nested(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, value in leaves.items():
        at = found
        for word in path[:-1]:
            at = at.setdefault(word, {})
        at[path[-1]] = value
    return found


def _leaves(config: Mapping[str, Any], path: Path = ()) -> dict[Path, Any]:
    """Return path → value; only ``models`` and its tables are looked into, other values are the device's affair."""
    found: dict[Path, Any] = {}
    for name, value in config.items():
        here = (*path, name)
        if isinstance(value, Mapping) and here[0] == "models":
            found.update(_leaves(value, here))
        else:
            found[here] = value
    return found


def compare(layers: list[Layer], reported: ReportedState | None, version: int) -> list[Setting]:
    """Return every setting of a device with its origin and what became of it.

    Args:
        layers: The weakest first.
        reported: The device's last word.
        version: Of the desired state.
    """
    given = [(layer.origin, _leaves(layer.config)) for layer in layers]
    told = dict(reported.config) if reported else {}
    ignored = told.pop("ignored", {})
    ignored = ignored if isinstance(ignored, Mapping) else {}
    theirs = _leaves(told)
    taken = reported.desired_version if reported else -1
    names = sorted({path for _, leaves in given for path in leaves} | theirs.keys())
    return [_setting(path, given, theirs, ignored, is_taken=taken >= version) for path in names]


def _setting(
    path: Path,
    given: list[tuple[str, dict[Path, Any]]],
    theirs: Mapping[Path, Any],
    ignored: Mapping[str, Any],
    *,
    is_taken: bool,
) -> Setting:
    name, here = ".".join(path), theirs.get(path)
    offers = [(origin, leaves[path]) for origin, leaves in reversed(given) if path in leaves]
    if not offers:
        return Setting(name, None, here, "", (), "own")
    origin, wanted = offers[0]
    if not is_taken:
        state = "waiting"
    elif name in ignored:
        state = "rejected"
    else:
        state = "differs" if path in theirs and not _same(wanted, here) else "in force"
    reason = str(ignored[name])[:300] if state == "rejected" else ""
    return Setting(name, wanted, here, origin, tuple(offers[1:]), state, reason)


def _same(a: Any, b: Any) -> bool:
    """Numbers are the same however they are written."""
    try:
        return as_float(a) == as_float(b)
    except ContractError:
        return bool(a == b)
