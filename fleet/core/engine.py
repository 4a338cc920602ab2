# SPDX-License-Identifier: Apache-2.0
"""What moves a rollout on: ``advance(world, now)`` gives the next state and what to do, and nothing else happens.

Theory of operation. The world is one rollout with its executions and what the devices are known to run. Each
call settles open executions (proof, deadline, superseded, cancelled), judges, walks the waves until nothing more
follows, and lists orders to issue or to take back. Calling it again with its own result gives the same
result and no action, so it may run each second, after every message, after a crash, or twice at once behind
one writer: state and orders are stored in one transaction, and what was stored is what is done.

The nine invariants of the rollout engine (tests/fleet/test_engine_properties.py) stand on three habits:
only ``finish`` ends an execution, only ``_walk`` moves a wave, and both go through the transition tables.
"""

from collections.abc import Mapping
from dataclasses import replace

from edge_contract.states import Phase, RolloutEvent, RolloutState, Status
from fleet.core.changes import abort
from fleet.core.execution import Execution, finish, settle
from fleet.core.ordering import Ordering
from fleet.core.rollout import LIVE, Rollout
from fleet.core.stopping import stop_reason
from fleet.core.tally import Tally, tally
from fleet.core.walk import walk
from fleet.core.world import Action, AskCancel, CloseOrder, Issue, Outcome, World

__all__ = [
    "Action",
    "AskCancel",
    "CloseOrder",
    "Issue",
    "Outcome",
    "World",
    "abort",
    "advance",
    "remove_device",
]

_STOPPED = frozenset({RolloutState.ABORTED, RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK})
_NO_RETRY = frozenset({Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED})
"""The device has judged the bundle: it would judge it again."""


def advance(world: World, now: float) -> Outcome:
    """Return the rollout's next state and the actions that lead there.

    Example:
        >>> from fleet.core.rollout import Limits, new_rollout
        >>> rollout = new_rollout(1, ("digits", "1.0.0", "ab"), [["pi"]], Limits(), now=5.0)
        >>> outcome = advance(World(rollout), 5.0)
        >>> [type(action).__name__ for action in outcome.actions], outcome.rollout.waves[0].state.value
        (['Issue'], 'RUNNING')
    """
    executions = {device: _settled(world, e, now) for device, e in world.executions.items()}
    rollout = world.rollout
    if rollout.state is RolloutState.SCHEDULED and now >= rollout.limits.schedule.start_at:
        rollout = rollout.after(RolloutEvent.START)
    ordering = Ordering(world, executions, now)
    if rollout.state in LIVE:
        reason = stop_reason(world, rollout, executions, ordering.tallies())
        if not reason:
            rollout = walk(rollout, ordering)
            # Orders that ended at once may leave a wave without anybody.
            is_live = rollout.state in LIVE
            reason = stop_reason(world, rollout, executions, ordering.tallies()) if is_live else ""
        rollout = _stopped(rollout, reason, now) if reason else rollout
    rollout, asked = _ending(world, rollout, executions, now)
    closed, issued = _closed(world, executions), _issued(world, rollout, executions, now)
    changed = tuple(e for d, e in sorted(executions.items()) if world.executions.get(d) != e)
    actions: tuple[Action, ...] = (*asked, *closed, *issued)
    return Outcome(rollout, executions, (*ordering.past, *changed), actions, ordering.last_job)


def _stopped(rollout: Rollout, reason: str, now: float) -> Rollout:
    ended = abort(rollout, reason, now)
    if rollout.limits.on_failure == "roll-back" and not rollout.is_rollback:
        return ended.after(RolloutEvent.ROLL_BACK)
    return ended


def _settled(world: World, execution: Execution, now: float) -> Execution:
    """One execution after a look at the clock, at its device, and at newer rollouts."""
    rollout, limits, device = world.rollout, world.rollout.limits, execution.device
    is_ours = world.newest.get(device, 0) <= rollout.number
    if execution.is_open and not is_ours:
        return finish(execution, Status.SUPERSEDED, "a newer rollout took the device", now)
    if execution.is_open and device in world.absent and (not execution.issued_at or device in world.blocked):
        return finish(execution, Status.REMOVED, world.absent[device], now)
    if execution.is_open:  # after a clock that went back the old deadline would be far away
        latest = now + limits.timeout_s + limits.grace_s
        execution = replace(execution, deadline=min(execution.deadline, latest))
    running = world.running.get(device, "")
    execution = settle(execution, running=running, now=now, excuse=limits.offline.policy == "excuse")
    if rollout.state in LIVE and execution.status is Status.SUCCEEDED and execution.kind == "install":
        # A device that succeeded and later runs another bundle has regressed, unless a newer rollout took it.
        regressed = is_ours and running not in ("", execution.bundle)
        execution = replace(execution, regressed=regressed) if regressed != execution.regressed else execution
    return _retried(rollout, execution, now)


def _retried(rollout: Rollout, execution: Execution, now: float) -> Execution:
    """A failure of a live rollout that has attempts left waits for the next one; of an ended one it is final."""
    limits = rollout.limits
    if not execution.has_failed:
        return execution
    if rollout.state not in LIVE or limits.schedule.is_over(now):
        return replace(execution, retry_at=0.0) if execution.retry_at else execution
    if execution.closed or execution.attempt > limits.retries or execution.phase in _NO_RETRY or execution.retry_at:
        return execution
    wait = limits.retry_wait_s * 2.0 ** min(execution.attempt - 1, 20)
    return replace(execution, retry_at=now + max(1.0, wait))


def _ending(
    world: World, rollout: Rollout, executions: dict[str, Execution], now: float
) -> tuple[Rollout, list[AskCancel]]:
    """What follows for open orders, and for the rollout, once it is being stopped, cancelled or taken back."""
    asked: list[AskCancel] = []
    if rollout.state is RolloutState.ABORTING:
        asked = _ask(rollout, executions, now)
        left = sum(tally(executions.values(), world.rest).values(), Tally())
        if not left.moving:
            words = f"{rollout.reason}: {left.succeeded} updated, {left.bad} failed, {left.excused} cancelled"
            rollout = rollout.after(RolloutEvent.ABORT, words, now=now)
    elif rollout.state in _STOPPED:
        for device, execution in executions.items():
            executions[device] = _called_back(_retried(rollout, execution, now), now)
    if rollout.state is RolloutState.ROLLING_BACK:
        rollout = _brought_back(world, rollout, now)
    return rollout, asked


def _ask(rollout: Rollout, executions: dict[str, Execution], now: float) -> list[AskCancel]:
    """A cancel is a handshake: each device that holds an order is asked once, and answers or runs out of time."""
    asked = []
    for device, execution in sorted(executions.items()):
        if not execution.is_open or execution.cancel_by:
            continue
        if not execution.issued_at:
            executions[device] = finish(execution, Status.CANCELED, "cancelled before it was sent", now)
            continue
        executions[device] = replace(execution, cancel_by=now + rollout.limits.cancel_s)
        asked.append(AskCancel(executions[device]))
    return asked


def _called_back(execution: Execution, now: float) -> Execution:
    """An order that the device has not begun ends with its rollout; one at work ends by itself or its deadline."""
    if execution.is_open and execution.seq < 0:
        return finish(execution, Status.CANCELED, "the rollout stopped before the device began", now)
    return execution


def _brought_back(world: World, rollout: Rollout, now: float) -> Rollout:
    """The end of a roll back, once the rollouts that carry it out have ended."""
    if rollout.rollbacks is None:
        return rollout  # not planned yet: who stores this outcome plans it in the same transaction
    states = {name: world.rollbacks.get(name, RolloutState.RUNNING) for name in rollout.rollbacks}
    if any(state in LIVE or state is RolloutState.ABORTING for state in states.values()):
        return rollout
    failed = sorted(name for name, state in states.items() if state is not RolloutState.COMPLETED)
    if failed:
        return rollout.after(RolloutEvent.ABORT, f"{rollout.reason}; {failed[0]} did not bring it all back", now=now)
    return rollout.after(RolloutEvent.RESTORED, now=now)


def _closed(world: World, executions: dict[str, Execution]) -> list[CloseOrder]:
    """Orders to take back, each once: an execution may have ended here, or before, by its device's report."""
    actions = []
    for device, execution in sorted(executions.items()):
        if execution.is_open or execution.closed:
            continue
        executions[device] = replace(execution, closed=True)
        if execution.status is Status.SUPERSEDED or not execution.issued_at:
            continue  # the newer rollout's order stands there now, or none was sent
        failed = execution.status is not Status.SUCCEEDED and execution.kind == "install"
        restore = world.running.get(device, "") if failed else None
        asked = execution.status in (Status.TIMED_OUT, Status.CANCELED, Status.REMOVED)
        actions.append(CloseOrder(executions[device], restore, ask_cancel=asked))
    return actions


def _issued(world: World, rollout: Rollout, executions: dict[str, Execution], now: float) -> list[Issue]:
    """Orders that go out now: a paused rollout sends nothing new, a busy device waits."""
    if rollout.state is not RolloutState.RUNNING:
        return []
    actions = []
    for device, order in sorted(executions.items()):
        if order.is_open and not order.issued_at and device not in world.busy:
            deadline = now + rollout.limits.timeout_s + rollout.limits.grace_s
            previous = world.running.get(device, "")
            executions[device] = replace(order, issued_at=now, deadline=deadline, previous=previous)
            actions.append(Issue(executions[device]))
    return actions


def remove_device(executions: Mapping[str, Execution], device: str, now: float) -> dict[str, Execution]:
    """Return the executions after a device left the fleet: it no longer counts in any wave."""
    left = dict(executions)
    if device in left:
        left[device] = finish(left[device], Status.REMOVED, "the device left the fleet", now)
    return left
