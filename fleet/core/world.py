# SPDX-License-Identifier: Apache-2.0
"""What the rollout engine sees, and what it answers.

The world may hold all executions of the rollout, or only those that may move with the counts of the ``rest``: the
answer is the same (tests/fleet/test_engine_partial.py). So one step over a rollout to ten thousand devices costs
what moved since the step before.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from edge_contract.states import RolloutState
from fleet.core.execution import Execution
from fleet.core.gates import WaveVerdict
from fleet.core.rollout import Rollout
from fleet.core.tally import Tally

__all__ = ["Action", "AskCancel", "CloseOrder", "Issue", "Outcome", "World"]


@dataclass(frozen=True)
class World:
    """What the engine sees.

    Attributes:
        rollout: The rollout to move on.
        executions: Of this rollout, by device: the newest of each device, all or those that may move.
        running: Device → bundle of the rollout's model that its runner holds, by its own report; "" = unknown.
        newest: Device → highest rollout number that has an execution of this model on it.
        busy: Devices whose open order is for another model; they get theirs afterwards.
        last_job: The highest job number given so far.
        rest: Wave → counts of the executions that are not in ``executions``.
        ordered: Wave → devices whose execution in it is not in ``executions``.
        absent: Device → why it gets no order: it left, is in quarantine, or was not seen for long.
        blocked: Devices in quarantine or on their way out: they leave the order that they hold, too.
        taken: Devices that hold an order of an older rollout of this model, or an earlier one of this rollout.
        offsets: Device → seconds that its clock is ahead of UTC.
        can_shadow: Devices that can try a model beside the active one.
        paced: The slot in time of the rollout's latest order, by its rate.
        verdict: What the gates say of the wave that is RUNNING or SOAKING; None where none are asked.
        rollbacks: Id → state of the rollouts that bring this one's devices back.
    """

    rollout: Rollout
    executions: Mapping[str, Execution] = field(default_factory=dict)
    running: Mapping[str, str] = field(default_factory=dict)
    newest: Mapping[str, int] = field(default_factory=dict)
    busy: AbstractSet[str] = frozenset()
    last_job: int = 0
    rest: Mapping[int, Tally] = field(default_factory=dict)
    ordered: Mapping[int, AbstractSet[str]] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    blocked: AbstractSet[str] = frozenset()
    taken: AbstractSet[str] = frozenset()
    offsets: Mapping[str, float] = field(default_factory=dict)
    can_shadow: AbstractSet[str] = frozenset()
    paced: float = 0.0
    verdict: WaveVerdict | None = None
    rollbacks: Mapping[str, RolloutState] = field(default_factory=dict)


@dataclass(frozen=True)
class Issue:
    """Send the order of this execution to its device, and want its bundle."""

    execution: Execution


@dataclass(frozen=True)
class AskCancel:
    """Ask the device to leave this order; it answers with its own word, or the cancel is forced at ``cancel_by``."""

    execution: Execution


@dataclass(frozen=True)
class CloseOrder:
    """This execution has ended: take its order back; ``restore`` is the bundle to want again, if it failed.

    ``ask_cancel``: the device may be in the middle of it and is to be told.
    """

    execution: Execution
    restore: str | None = None
    ask_cancel: bool = False


Action = Issue | AskCancel | CloseOrder


@dataclass(frozen=True)
class Outcome:
    """The next state, which executions are new or changed, and what to do."""

    rollout: Rollout
    executions: dict[str, Execution]
    changed: tuple[Execution, ...]
    actions: tuple[Action, ...]
    last_job: int
