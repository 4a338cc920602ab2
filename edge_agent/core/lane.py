# SPDX-License-Identifier: Apache-2.0
"""One model on the device: its slots, its runner, its update machine, its drift windows. Lanes share no fate."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_agent.core.events import Sample, Slots
from edge_agent.core.execution import POINTER_MAY_HAVE_MOVED, Update
from edge_agent.core.ladder import Ladder, Rungs
from edge_agent.core.privacy import Spent
from edge_agent.core.runner import Runner, Wanted
from edge_agent.core.settings import Settings
from edge_agent.core.swap import STOP
from edge_agent.core.telemetry import Meter, Totals, Windows
from edge_contract.states import Phase
from edge_contract.verdict import DriftState

__all__ = ["WINDOWS_AHEAD", "Identity", "Lane", "Plan", "wanted"]

WINDOWS_AHEAD: Final = 1000
"""Window numbers are reserved in the journal by so many, so that closing a window costs no fsync."""


@dataclass(frozen=True)
class Identity:
    """What does not change while the process lives.

    Attributes:
        device: Name of the device.
        boot: Random id of this process start: it separates sequence numbers of different starts.
        runtime: The first model's runtime, such as ``litert``.
        agent_version: Version of this program.
        board: What the board says of itself.
        sources: Declared sources, name → specification.
        defaults: Settings of agent.toml.
        outbox_bytes: Most bytes that the outbox may hold.
        commands: Names of heavy commands that the rim can carry out.
        allows_captures: The person at the device lets raw inputs leave it.
    """

    device: str
    boot: str
    runtime: str
    agent_version: str
    board: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    defaults: Settings = field(default_factory=Settings)
    outbox_bytes: int = 16 * 1024 * 1024
    commands: tuple[str, ...] = ()
    allows_captures: bool = False


@dataclass(frozen=True)
class Plan:
    """What agent.toml says of one lane.

    Attributes:
        key: How the rim calls the lane.
        model: Name of its model; empty: the first order names it.
        runtime: Its runner's runtime.
        settings: In force until the server says otherwise.
        owns_runner: False if an application embeds the runner: its process cannot be ended to make room.
        rungs: How patient its accelerator's reset ladder is; None on a CPU.
    """

    key: str
    model: str
    runtime: str
    settings: Settings = field(default_factory=Settings)
    owns_runner: bool = True
    rungs: Rungs | None = None


@dataclass(frozen=True)
class Lane:
    """The memory of one model.

    Attributes:
        sample: The last look at its runner and at the board,
        is_sampled: if there was one since the start.
        totals: Inferences and failures since the start, over bundles and restarts of the runner.
        profile_asked: The bundle whose profile was read, or tried.
        window_floor: Window numbers below this are reserved.
        baseline: The bundle that was active before any trial, and its median latency in µs.
        ladder: Where its accelerator stands,
        reset_until: and how long the runner waits for a re-enumeration at most, mono seconds.
    """

    me: Identity
    plan: Plan
    model: str
    settings: Settings
    windows: Windows
    slots: Slots = field(default_factory=Slots)
    runner: Runner = field(default_factory=Runner)
    update: Update = field(default_factory=Update)
    meter: Meter = field(default_factory=Meter)
    sample: Sample = field(default_factory=Sample)
    is_sampled: bool = False
    totals: Totals = field(default_factory=Totals)
    profile_asked: str = ""
    window_floor: int = 0
    baseline: tuple[str, float] = ("", 0.0)
    ladder: Ladder = field(default_factory=Ladder)
    reset_until: float = 0.0

    @classmethod
    def planned(cls, me: Identity, plan: Plan) -> "Lane":
        """Return the lane before ``Booted``."""
        return cls(me, plan, plan.model, plan.settings, Windows(me.device, me.boot))

    def trying(self, **changes: Any) -> "Lane":
        """Return the same with changes to the attempt at its order."""
        return replace(self, update=self.update.trying(**changes))

    def to_json(self) -> dict[str, Any]:
        """Return what must survive a power cut."""
        drift = self.windows.drift
        return {
            "model": self.model,
            "update": self.update.to_json(),
            "window_floor": self.window_floor,
            "drift": {"bundle": self.windows.bundle, "state": drift.to_json()} if drift else None,
            **({"privacy": self.windows.spent.to_json()} if self.windows.spent.epsilon else {}),
        }

    def remember(self, document: Mapping[str, Any]) -> "Lane":
        """Return the lane with a journal's memory.

        Raises:
            ContractError, LookupError, TypeError, AttributeError, ValueError: It is no such memory.
        """
        windows, drift = self.windows, document.get("drift")
        if drift:
            windows = replace(windows, bundle=drift["bundle"], drift=DriftState.from_json(drift["state"]))
        if "privacy" in document:
            windows = replace(windows, spent=Spent.from_json(document["privacy"]))
        return replace(
            self,
            model=self.model or document.get("model", ""),
            update=Update.from_json(document["update"]),
            windows=windows,
            window_floor=int(document.get("window_floor", 0)),
        )


def wanted(lane: Lane) -> Wanted:
    """Return what the runner should hold, given the slots and the order under way.

    The candidate is tried as a shadow before the switch, the previous model is the shadow after it; where there is
    memory for one only, each is alone.
    """
    source = lane.settings.source
    spec = tuple(lane.me.sources.get(source, {}).items())
    shadow, alone, execution = "", False, lane.update.execution
    if execution is not None and execution.swap == STOP:
        alone = execution.phase in POINTER_MAY_HAVE_MOVED
    elif execution is not None:
        bundle, phase = execution.job.bundle, execution.phase
        is_checked = phase is Phase.VERIFYING and lane.update.attempt.is_done and execution.swap
        if is_checked or phase in (Phase.STAGED, Phase.WAITING_WINDOW, Phase.SHADOWING):
            shadow = bundle
        elif phase in POINTER_MAY_HAVE_MOVED and phase not in (Phase.ROLLING_BACK, Phase.COMMITTING):
            shadow = execution.previous if lane.slots.active == bundle else bundle
    if not lane.slots.active or shadow == lane.slots.active:
        shadow = ""
    return Wanted(lane.model, lane.slots.active, shadow, source if spec else "", spec, alone=alone)
