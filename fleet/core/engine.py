# SPDX-License-Identifier: Apache-2.0
"""What moves a rollout on: ``advance(world, now)`` gives the next state and what to do, and nothing else happens.

Theory of operation. The world is one rollout with its executions and what the devices are known to run. Each
call settles open executions (proof, deadline, superseded), judges, walks the waves until nothing more
follows, and lists orders to issue or to take back. Calling it again with its own result gives the same
result and no action, so it may run each second, after every message, after a crash, or twice at once behind
one writer: state and orders are stored in one transaction, and what was stored is what is done.

The nine invariants of the rollout engine (tests/fleet/test_engine_properties.py) stand on three habits:
only ``finish`` ends an execution, only ``_walk`` moves a wave, and both go through the transition tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edge_contract.states import WAVE, Phase, RolloutEvent, RolloutState, Status, WaveEvent, WaveState, step
from fleet.core.execution import EXCUSED, Execution, finish, settle
from fleet.core.rollout import LIVE, Rollout, Wave

__all__ = ["Action", "CloseOrder", "Issue", "Outcome", "World", "abort", "advance", "failures", "remove_device"]


@dataclass(frozen=True)
class World:
    """What the engine sees.

    Attributes:
        rollout: The rollout to move on.
        executions: Of this rollout, by device.
        running: Device → bundle of the rollout's model that its runner holds, by its own report; "" = unknown.
        newest: Device → highest rollout number that has an execution of this model on it.
        busy: Devices whose open order is for another model; they get theirs afterwards.
        last_job: The highest job number given so far.
    """

    rollout: Rollout
    executions: Mapping[str, Execution] = field(default_factory=dict)
    running: Mapping[str, str] = field(default_factory=dict)
    newest: Mapping[str, int] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    last_job: int = 0


@dataclass(frozen=True)
class Issue:
    """Send the order of this execution to its device, and want its bundle."""

    execution: Execution


@dataclass(frozen=True)
class CloseOrder:
    """This execution has ended: take its order back; ``restore`` is the bundle to want again, if it failed.

    ``ask_cancel``: the device may be in the middle of it and is to be told.
    """

    execution: Execution
    restore: str | None = None
    ask_cancel: bool = False


Action = Issue | CloseOrder


@dataclass(frozen=True)
class Outcome:
    """The next state, which executions are new or changed, and what to do."""

    rollout: Rollout
    executions: dict[str, Execution]
    changed: tuple[Execution, ...]
    actions: tuple[Action, ...]
    last_job: int


def failures(world: World) -> list[tuple[str, str]]:
    """Return (device, reason) of what counts against the rollout: failed executions, and devices that went back.

    A device that succeeded and later runs another bundle has regressed, unless a newer rollout took it.
    """

    def is_ours(device: str) -> bool:
        return world.newest.get(device, 0) <= world.rollout.number

    found = []
    for device, execution in sorted(world.executions.items()):
        running = world.running.get(device, "")
        if execution.has_failed:
            found.append((device, f"{_words(execution)}: {execution.reason or 'it gave no reason'}"))
        elif execution.status is Status.SUCCEEDED and running not in ("", execution.bundle) and is_ours(device):
            found.append((device, f"went back to {running[:12]} after its success"))
    return found


def _words(execution: Execution) -> str:
    if execution.phase is Phase.ROLLED_BACK:
        return "rolled back"
    if execution.phase is Phase.ROLLBACK_FAILED:
        return "could not roll back"
    return execution.status.value.lower().replace("_", " ")


def _job_id(number: int) -> str:
    return f"j{number:015d}"


def _next_job(last: int, now: float) -> int:
    return max(last + 1, int(now * 1000))  # milliseconds, so that a server with a new database still counts up


def _settled(world: World, now: float) -> dict[str, Execution]:
    def one(device: str, execution: Execution) -> Execution:
        if execution.is_open and world.newest.get(device, 0) > world.rollout.number:
            return finish(execution, Status.SUPERSEDED, "a newer rollout took the device", now)
        return settle(execution, running=world.running.get(device, ""), now=now)

    return {device: one(device, execution) for device, execution in world.executions.items()}


def _ended_waves(waves: tuple[Wave, ...], reason: str) -> tuple[Wave, ...]:
    """Waves of a stopped rollout: those at work FAILED, those to come SKIPPED."""

    def one(wave: Wave) -> Wave:
        if wave.state in (WaveState.RUNNING, WaveState.SOAKING):
            return replace(wave, state=step(WAVE, wave.state, WaveEvent.FAIL), reason=reason)
        if wave.state is WaveState.PENDING:
            return replace(wave, state=step(WAVE, wave.state, WaveEvent.SKIP), reason="an earlier wave stopped it")
        return wave

    return tuple(one(wave) for wave in waves)


def abort(rollout: Rollout, reason: str, now: float) -> Rollout:
    """Return the rollout stopped for good; devices that succeeded stay as they are.

    Raises:
        RolloutError: It has ended already.
    """
    stopped = rollout.after(RolloutEvent.ABORT, reason, now=now)
    return replace(stopped, waves=_ended_waves(rollout.waves, reason))


def _verdict(world: World) -> str:
    """Why the rollout must stop, or ""."""
    failed = failures(world)
    if len(failed) > world.rollout.limits.max_failures:
        device, why = failed[0]
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        return f"{device}{more} {why}"
    for i, wave in enumerate(world.rollout.waves):
        if wave.state is not WaveState.RUNNING:
            continue
        mine = [world.executions[device] for device in wave.devices if device in world.executions]
        counted = [execution for execution in mine if execution.status not in EXCUSED]
        if counted and len(mine) == len(wave.devices) and all(execution.has_failed for execution in counted):
            # Forgiven failures do not make a success: nobody has shown yet that the bundle works.
            return f"no device of wave {i + 1} succeeded; {counted[0].device} {_words(counted[0])}: {counted[0].reason}"
    return ""


class _Walk:
    """One pass over the waves; collects new executions and the last job number."""

    def __init__(self, world: World, executions: dict[str, Execution], now: float) -> None:
        self.world, self.executions, self.now = world, executions, now
        self.rollout, self.last_job = world.rollout, world.last_job

    def run(self) -> None:
        """Move waves until nothing more follows: an empty or already finished wave holds nobody up."""
        if self.rollout.state is not RolloutState.RUNNING:
            return
        for i in range(len(self.rollout.waves)):
            while (event := self._event(i)) is not None:
                self._step(i, event)
            if self.rollout.waves[i].state is not WaveState.PASSED:
                return
        reached = sum(e.status is Status.SUCCEEDED for e in self.executions.values())
        reason = f"{reached} device{'s' * (reached != 1)} updated" if self.executions else "empty: no device matched"
        self.rollout = self.rollout.after(RolloutEvent.FINISH, reason, now=self.now)

    def _event(self, i: int) -> WaveEvent | None:
        wave = self.rollout.waves[i]
        if wave.state is WaveState.PENDING:
            return WaveEvent.START
        if wave.state is WaveState.RUNNING:
            done = all(device in self.executions and not self.executions[device].is_open for device in wave.devices)
            return WaveEvent.ALL_IN if done else None
        if wave.state is WaveState.SOAKING:
            soaked = self.now - wave.soaking_since >= self.rollout.limits.soak_s or not wave.devices
            return WaveEvent.SOAKED if soaked else None
        return None

    def _step(self, i: int, event: WaveEvent) -> None:
        wave = replace(self.rollout.waves[i], state=step(WAVE, self.rollout.waves[i].state, event))
        if event is WaveEvent.START:
            for device in wave.devices:
                self._order(i, device)
        if event is WaveEvent.ALL_IN:
            wave = replace(wave, soaking_since=self.now)
        waves = (*self.rollout.waves[:i], wave, *self.rollout.waves[i + 1 :])
        self.rollout = replace(self.rollout, waves=waves)

    def _order(self, i: int, device: str) -> None:
        rollout, limits = self.rollout, self.rollout.limits
        self.last_job = _next_job(self.last_job, self.now)
        order = Execution(
            job_id=_job_id(self.last_job),
            rollout=rollout.id,
            number=rollout.number,
            wave=i,
            device=device,
            model=rollout.model,
            bundle=rollout.bundle,
            status=Status.QUEUED,
            phase=Phase.QUEUED,
            deadline=self.now + limits.timeout_s + limits.grace_s,
            updated_at=self.now,
        )
        if self.world.newest.get(device, 0) > rollout.number:
            order = finish(order, Status.SUPERSEDED, "a newer rollout took the device", self.now)
        elif self.world.running.get(device, "") == rollout.bundle and device not in self.world.busy:
            order = replace(finish(order, Status.SUCCEEDED, "ran it already", self.now), phase=Phase.DONE)
        self.executions[device] = order


def _issued(world: World, rollout: Rollout, executions: dict[str, Execution], now: float) -> list[Issue]:
    """Orders that go out now: a paused rollout sends nothing new, a busy device waits."""
    if rollout.state is not RolloutState.RUNNING:
        return []
    actions = []
    for device, order in sorted(executions.items()):
        if order.is_open and not order.issued_at and device not in world.busy:
            deadline = now + rollout.limits.timeout_s + rollout.limits.grace_s
            executions[device] = replace(order, issued_at=now, deadline=deadline)
            actions.append(Issue(executions[device]))
    return actions


def _closed(world: World, executions: dict[str, Execution]) -> list[CloseOrder]:
    """Orders to take back, each once: an execution may have ended here, or before, by its device's report."""
    actions = []
    for device, execution in sorted(executions.items()):
        if execution.is_open or execution.closed:
            continue
        executions[device] = replace(execution, closed=True)
        if execution.status is Status.SUPERSEDED or execution.reason == "ran it already":
            continue  # the newer rollout's order stands there now, or none was sent
        failed = execution.status is not Status.SUCCEEDED
        restore = world.running.get(device, "") if failed else None
        asked = execution.status in (Status.TIMED_OUT, Status.CANCELED)
        actions.append(CloseOrder(execution, restore, ask_cancel=asked))
    return actions


def advance(world: World, now: float) -> Outcome:
    """Return the rollout's next state and the actions that lead there.

    Example:
        >>> from fleet.core.rollout import Limits, new_rollout
        >>> rollout = new_rollout(1, ("digits", "1.0.0", "ab"), [["pi"]], Limits(), now=5.0)
        >>> outcome = advance(World(rollout), 5.0)
        >>> [type(action).__name__ for action in outcome.actions], outcome.rollout.waves[0].state.value
        (['Issue'], 'RUNNING')
    """
    executions = _settled(world, now)
    rollout, last_job = world.rollout, world.last_job
    if rollout.state in LIVE:
        reason = _verdict(replace(world, executions=executions))
        if reason:
            rollout = abort(rollout, reason, now)
        else:
            walk = _Walk(world, executions, now)
            walk.run()
            rollout, executions, last_job = walk.rollout, walk.executions, walk.last_job
    if rollout.state is RolloutState.ABORTED:
        executions = {d: _called_back(e, now) for d, e in executions.items()}
    actions: list[Action] = [*_closed(world, executions), *_issued(world, rollout, executions, now)]
    changed = tuple(e for d, e in sorted(executions.items()) if world.executions.get(d) != e)
    return Outcome(rollout, executions, changed, tuple(actions), last_job)


def _called_back(execution: Execution, now: float) -> Execution:
    """An order that the device has not begun ends with its rollout; one at work ends by itself or its deadline."""
    if execution.is_open and execution.seq < 0:
        return finish(execution, Status.CANCELED, "the rollout stopped before the device began", now)
    return execution


def remove_device(executions: Mapping[str, Execution], device: str, now: float) -> dict[str, Execution]:
    """Return the executions after a device left the fleet: it no longer counts in any wave."""
    left = dict(executions)
    if device in left:
        left[device] = finish(left[device], Status.REMOVED, "the device left the fleet", now)
    return left
