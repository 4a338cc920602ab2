# SPDX-License-Identifier: Apache-2.0
"""Everything the agent knows: who it is, what all models share, and one lane for each model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_agent.core.commands import Desktop
from edge_agent.core.desk import Desk
from edge_agent.core.events import Software
from edge_agent.core.execution import SCHEMA
from edge_agent.core.lane import Identity, Lane, Plan
from edge_agent.core.outbox import Outbox
from edge_agent.core.policy import Pace
from edge_agent.core.settings import Settings
from edge_agent.core.twin import Twin
from edge_contract.messages import SOFTWARE

__all__ = ["ONLY", "Launch", "State", "initial", "journal"]

ONLY: Final = ""
"""The lane of a device whose agent.toml has no ``[models.NAME]``; its model may be named by the first order."""


@dataclass(frozen=True)
class Launch:
    """What this process knows of itself as a release of the agent's software.

    Attributes:
        told: What the launcher said, None without one.
        is_heard: The server has acknowledged a row of this very start.
        good_since: Since when everything is well, mono seconds; None while something is missing.
        is_leaving: The process is about to end for the launcher.
        aside: The journal's part about software, kept for the day when there is a launcher again.
    """

    told: Software | None = None
    is_heard: bool = False
    good_since: float | None = None
    is_leaving: bool = False
    aside: Any = None


@dataclass(frozen=True)
class State:
    """The agent's memory. ``handle`` returns a new one.

    Attributes:
        lanes: One for each model, by its key: the model's name, or ``ONLY``. The first is the device's first model.
        session: Connections within this boot; 0 before the first.
        desks: Channel of orders → what lies there.
        desktop: Commands under way, and messages that do harm.
        pace: What the downloader was told of its pace.
        told: What the last twin/reported said, apart from health: a change is told at once.
        software: The lane of the agent's own software: orders and slots, no runner; None without a launcher.
        launch: What is known of this process as a release.
    """

    me: Identity
    lanes: Mapping[str, Lane]
    outbox: Outbox
    booted_at: float = 0.0
    twin: Twin = field(default_factory=Twin)
    session: int = 0
    is_connected: bool = False
    desks: Mapping[str, Desk] = field(default_factory=dict)
    desktop: Desktop = field(default_factory=Desktop)
    next_beat: float = 0.0
    pace: Pace = field(default_factory=Pace)
    told: tuple[Any, ...] = ()
    software: Lane | None = None
    launch: Launch = Launch()

    @property
    def ordered(self) -> Mapping[str, Lane]:
        """Everything that takes orders: the models' lanes, and the agent's own software."""
        return self.lanes if self.software is None else {**self.lanes, SOFTWARE: self.software}

    @property
    def first(self) -> Lane:
        """The lane of the first model."""
        return next(iter(self.lanes.values()))

    @property
    def settings(self) -> Settings:
        """The settings in force for the device: those of its first model."""
        return self.first.settings

    def lane(self, key: str) -> Lane:
        """Return a lane by its key; a key that nobody has, such as ``ONLY``, means the first."""
        return self.ordered.get(key) or self.first

    def lane_of(self, model: str) -> Lane | None:
        """Return the lane that runs a model, or the one that has no model yet, or None."""
        if model == SOFTWARE:
            return self.software
        named = [lane for lane in self.lanes.values() if lane.model == model]
        unnamed = [lane for lane in self.lanes.values() if not lane.model]
        return next(iter([*named, *unnamed]), None)

    def with_lane(self, lane: Lane) -> "State":
        """Return the same with one lane replaced."""
        if lane.plan.key == SOFTWARE:
            return replace(self, software=lane)
        return replace(self, lanes={**self.lanes, lane.plan.key: lane})


def initial(me: Identity, model: str = "", plans: Sequence[Plan] = ()) -> State:
    """Return the state before ``Booted``: with one lane for ``model``, or one for each plan."""
    plans = plans or (Plan(ONLY, model, me.runtime, me.defaults),)
    lanes = {plan.key: Lane.planned(me, plan) for plan in plans}
    return State(me, lanes, Outbox(me.outbox_bytes, me.boot))


def journal(state: State) -> dict[str, Any]:
    """Return what must survive a power cut.

    The first model stands where agents of one model look for it, so that the agent itself can be rolled back.
    """
    first, *others = state.lanes.values()
    software = state.software.to_json() if state.software else state.launch.aside
    return {
        "schema": SCHEMA,
        **first.to_json(),
        "twin": {"version": state.twin.version, "config": dict(state.twin.config)},
        "lanes": {lane.model: lane.to_json() for lane in others},
        "commands": state.desktop.to_json(),
        **({"software": software} if software else {}),
    }
