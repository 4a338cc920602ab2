# SPDX-License-Identifier: Apache-2.0
"""Desired state against the state in force: which settings the server may change, and which words are refused.

Words at the top of ``config`` are for the device, and ``source`` there for its first model;
``{"models": {NAME: {…}}}`` has words for one model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_agent.core.settings import SETTINGS, Settings
from edge_contract.errors import ContractError
from edge_contract.messages import DesiredState

__all__ = ["LANE_WORDS", "SETTINGS", "Settings", "Twin", "apply_desired", "merge", "merge_models"]

LANE_WORDS: Final = ("source", "window_inferences", "window_s", "swap")
"""Settings that each model has of its own."""


@dataclass(frozen=True)
class Twin:
    """The last desired state that was taken over, and why parts of it were not."""

    version: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)


def merge(defaults: Settings, config: Mapping[str, Any], sources: frozenset[str]) -> tuple[Settings, dict[str, str]]:
    """Return the settings in force, and per refused word the reason.

    Example:
        >>> merge(Settings(), {"heartbeat_s": 5, "colour": "red"}, frozenset())[1]
        {'colour': 'unknown setting'}
    """
    accepted: dict[str, Any] = {}
    ignored: dict[str, str] = {}
    for name, value in config.items():
        read = SETTINGS.get(name)
        if read is None:
            ignored[name] = "unknown setting"
            continue
        try:
            accepted[name] = read(value)
        except ContractError as error:
            ignored[name] = error.what
    source = accepted.get("source", "")
    if source and source not in sources:
        declared = ", ".join(sorted(sources)) or "none"
        ignored["source"] = f"{source!r} is not declared in agent.toml (declared: {declared})"
        del accepted["source"]
    return replace(defaults, **accepted), ignored


def merge_models(
    defaults: Mapping[str, Settings], config: Mapping[str, Any], sources: frozenset[str]
) -> tuple[list[Settings], dict[str, str]]:
    """Return the settings in force for each model, and per refused word the reason.

    Args:
        defaults: Model → its settings by agent.toml; the first model first.
        config: The server's words.
        sources: Names of declared sources.

    Example:
        >>> config = {"window_s": 60, "source": "left", "models": {"b": {"source": "right", "heartbeat_s": 1}}}
        >>> found, ignored = merge_models({"a": Settings(), "b": Settings()}, config, frozenset({"left", "right"}))
        >>> [(one.source, one.window_s) for one in found], ignored
        ([('left', 60.0), ('right', 60.0)], {'models.b.heartbeat_s': 'no setting of one model'})
    """
    common = {name: value for name, value in config.items() if name != "models"}
    found: list[Settings] = []
    ignored: dict[str, str] = {}
    own, ignored = _tables(config.get("models", {}), frozenset(defaults))
    for i, (model, settings) in enumerate(defaults.items()):
        words = common if i == 0 else {name: value for name, value in common.items() if name != "source"}
        general, refused = merge(settings, words, sources)
        ignored.update(refused)
        special, refused = merge(general, own.get(model, {}), sources)
        ignored.update({f"models.{model}.{name}": reason for name, reason in refused.items()})
        found.append(special)
    return found, ignored


def _tables(tables: Any, models: frozenset[str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the words for each model that we have, and what is refused without a look at its value."""
    if not isinstance(tables, Mapping):
        return {}, {"models": "not an object of models"}
    own: dict[str, dict[str, Any]] = {}
    ignored: dict[str, str] = {}
    for model, table in tables.items():
        if model not in models or not isinstance(table, Mapping):
            ignored[f"models.{model}"] = "this device has no such model" if model not in models else "not an object"
            continue
        own[model] = {name: value for name, value in table.items() if name in LANE_WORDS}
        ignored.update({f"models.{model}.{n}": "no setting of one model" for n in table if n not in LANE_WORDS})
    return own, ignored


def apply_desired(
    twin: Twin, desired: DesiredState, defaults: Mapping[str, Settings], sources: frozenset[str]
) -> tuple[Twin, list[Settings]] | None:
    """Return the new twin and each model's settings, or None if this version was seen before or is older.

    Example:
        >>> seen = Twin(version=4)
        >>> apply_desired(seen, DesiredState(4, {}, {}), {"": Settings()}, frozenset()) is None
        True
    """
    if desired.version <= twin.version:
        return None
    found, ignored = merge_models(defaults, desired.config, sources)
    return Twin(desired.version, dict(desired.config), ignored), found
