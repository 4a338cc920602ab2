# SPDX-License-Identifier: Apache-2.0
"""From a specification to a source; what a kind needs is imported only when it is asked for."""

import importlib
from collections.abc import Callable
from typing import Any, Final

from edge_agent.runner.sources.base import Source
from edge_contract.errors import UsageError

__all__ = ["KINDS", "open_source"]

KINDS: Final = {
    "replay": "edge_agent.runner.sources.replay",
    "folder": "edge_agent.runner.sources.folder",
    "frames": "edge_agent.runner.sources.frames",
    "camera": "edge_agent.runner.sources.camera",
    "microphone": "edge_agent.runner.sources.microphone",
    "mqtt": "edge_agent.runner.sources.mqtt",
    "http": "edge_agent.runner.sources.http",
}
"""Kind → the module whose ``open_spec(name, spec, now, wake)`` opens it."""


def open_source(
    name: str, spec: dict[str, Any], *, now: float = 0.0, wake: Callable[[], None] = lambda: None
) -> Source:
    """Open a source by its specification.

    Args:
        name: Its name in agent.toml.
        spec: Its table; ``kind`` decides what else may stand in it.
        now: Monotonic seconds: the first input of a paced source is due at once.
        wake: Makes the engine look; called from the threads of sources that have one.

    Raises:
        UsageError: An unknown kind, or what stands in the table.
        DataError: Its file or device cannot be used.
        MissingDependencyError: A package that this kind needs is not installed.
    """
    kind = spec.get("kind")
    if kind not in KINDS:
        what = "field 'kind' is missing" if kind is None else f"unknown value {kind!r}"
        raise UsageError(what, where=f"source '{name}'.kind", fix=f"use one of {', '.join(KINDS)}")
    found: Source = importlib.import_module(KINDS[str(kind)]).open_spec(name, spec, now, wake)
    return found
