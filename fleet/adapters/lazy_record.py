# SPDX-License-Identifier: Apache-2.0
"""A device's record whose documents are opened when somebody asks for them: of ten thousand most never are."""

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from edge_contract.canonical import as_float
from edge_contract.errors import ContractError, StropError
from edge_contract.messages import DesiredState, ModelState, ReportedState
from fleet.adapters.database import Row
from fleet.core.inventory import DeviceRecord

__all__ = ["COLUMNS", "LazyRecord"]

_READY: Final = (
    "device",
    "enrolled_at",
    "boot",
    "session",
    "born_at",
    "last_seen",
    "agent_version",
    "runtime",
    "runtime_version",
)
_NAMES: Final = (*_READY, "_dead_boot", "_dead_session", "_board", "_reported", "_desired")
COLUMNS: Final = ", ".join(name.removeprefix("_") for name in _NAMES)
"""What is to be selected from ``devices``."""

_SLOTS: Final = frozenset({"running", "active", "standby", "factory", "version", "phase"})


class LazyRecord(DeviceRecord):
    """A record over a row of ``COLUMNS``."""

    def __init__(self, row: Row) -> None:
        self.__dict__.update(zip(_NAMES, row, strict=True))

    @cached_property
    def dead(self) -> tuple[str, int]:
        return self.__dict__["_dead_boot"], self.__dict__["_dead_session"]

    @cached_property
    def board(self) -> dict[str, Any]:
        return dict(json.loads(self.__dict__["_board"]))

    @cached_property
    def reported(self) -> ReportedState | None:
        data = self.__dict__["_reported"]
        return _report(data) if data else None

    @cached_property
    def desired(self) -> DesiredState:
        found = json.loads(self.__dict__["_desired"])
        return DesiredState(found["version"], found["models"], found["config"])


def _report(data: bytes) -> ReportedState | None:
    """Open a report that was checked when it came; one that lacks something is left to the strict reader."""
    d = json.loads(data)
    try:
        models = {name: _model(state) for name, state in d["models"].items()}
        state = (d["device"], d["boot"], d["desired_version"], models, d["config"], d["outbox"], d["health"])
        return ReportedState(*state, as_float(d["time"]), features=tuple(d.get("features", ())))
    except (LookupError, TypeError, AttributeError, ContractError):
        try:
            return ReportedState.from_bytes(data)
        except StropError:
            return None


def _model(state: Mapping[str, Any]) -> ModelState:
    slots = (state["running"], state["active"], state["standby"], state["factory"], state["version"])
    more = {name: state[name] for name in state.keys() - _SLOTS}
    return ModelState(*slots, state.get("phase", ""), unrecognized=more)
