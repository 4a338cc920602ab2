# SPDX-License-Identifier: Apache-2.0
"""Everything the agent knows: who it is, and one frozen ``State``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edge_agent.core.events import Sample, Slots
from edge_agent.core.execution import POINTER_MAY_HAVE_MOVED, SCHEMA, Update
from edge_agent.core.outbox import Outbox
from edge_agent.core.runner import Runner, Wanted
from edge_agent.core.telemetry import Meter, Totals, Windows
from edge_agent.core.twin import Settings, Twin
from edge_contract.states import Phase

__all__ = ["Identity", "State", "initial", "journal", "wanted"]

WINDOWS_AHEAD: Final = 1000
"""Window numbers are reserved in the journal by so many, so that closing a window costs no fsync."""


@dataclass(frozen=True)
class Identity:
    """What does not change while the process lives.

    Attributes:
        device: Name of the device.
        boot: Random id of this process start: it separates sequence numbers of different starts.
        runtime: The runner's runtime, such as ``litert``.
        agent_version: Version of this program.
        board: What the board says of itself.
        sources: Declared sources, name → specification.
        defaults: Settings of agent.toml.
        outbox_bytes: Most bytes that the outbox may hold.
    """

    device: str
    boot: str
    runtime: str
    agent_version: str
    board: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    defaults: Settings = field(default_factory=Settings)
    outbox_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True)
class State:
    """The agent's memory. ``handle`` returns a new one.

    Attributes:
        model: Name of the model that this device runs; the first order names it if agent.toml does not.
        session: Connections within this boot; 0 before the first.
        checking: Digest of the envelope that the trust helper has in hand.
        asked: The last envelope on ``job/next``, and its digest.
        refused: Digest of an envelope that was refused; it stays retained, and is not checked again.
        check_at, checks: When to ask the trust helper again, after how many failures.
        profile_asked: The bundle whose profile was read, or tried.
        window_floor: Window numbers below this are reserved.
        baseline: The bundle that was active before any trial, and its median latency in µs.
        totals: Inferences and failures since the start, over models and restarts of the runner.
        told: What the last twin/reported said, apart from health: a change is told at once.
    """

    me: Identity
    model: str
    settings: Settings
    outbox: Outbox
    windows: Windows
    booted_at: float = 0.0
    slots: Slots = field(default_factory=Slots)
    runner: Runner = field(default_factory=Runner)
    update: Update = field(default_factory=Update)
    twin: Twin = field(default_factory=Twin)
    meter: Meter = field(default_factory=Meter)
    sample: Sample = field(default_factory=Sample)
    totals: Totals = field(default_factory=Totals)
    session: int = 0
    is_connected: bool = False
    checking: str = ""
    asked: tuple[str, bytes] = ("", b"")
    refused: str = ""
    check_at: float | None = None
    checks: int = 0
    profile_asked: str = ""
    window_floor: int = 0
    next_beat: float = 0.0
    baseline: tuple[str, float] = ("", 0.0)
    told: tuple[Any, ...] = ()


def initial(me: Identity, model: str) -> State:
    """Return the state before ``Booted``."""
    outbox = Outbox(me.outbox_bytes, me.boot)
    return State(me, model, me.defaults, outbox, Windows(me.device, me.boot))


def journal(state: State) -> dict[str, Any]:
    """Return what must survive a power cut."""
    twin = state.twin
    drift = state.windows.drift
    return {
        "schema": SCHEMA,
        "model": state.model,
        "update": state.update.to_json(),
        "twin": {"version": twin.version, "config": dict(twin.config)},
        "window_floor": state.window_floor,
        "drift": {"bundle": state.windows.bundle, "state": drift.to_json()} if drift else None,
    }


def wanted(state: State) -> Wanted:
    """Return what the runner should hold, given the slots and the order under way.

    The candidate is tried as a shadow before the switch, the previous model is the shadow after it.
    """
    source = state.settings.source
    spec = tuple(state.me.sources.get(source, {}).items())
    shadow, execution = "", state.update.execution
    if execution is not None:
        bundle, phase = execution.job.bundle, execution.phase
        is_checked = phase is Phase.VERIFYING and state.update.attempt.is_done
        if is_checked or phase in (Phase.STAGED, Phase.WAITING_WINDOW):
            shadow = bundle
        elif phase in POINTER_MAY_HAVE_MOVED and phase not in (Phase.ROLLING_BACK, Phase.COMMITTING):
            shadow = execution.previous if state.slots.active == bundle else bundle
    if not state.slots.active or shadow == state.slots.active:
        shadow = ""
    return Wanted(state.model, state.slots.active, shadow, source if spec else "", spec)
