# SPDX-License-Identifier: Apache-2.0
"""What an operator changes about a rollout: each function takes one and returns the next, or refuses."""

from collections.abc import Iterable
from dataclasses import replace

from edge_contract.errors import RolloutError
from edge_contract.states import WAVE, RolloutEvent, RolloutState, WaveEvent, WaveState, step
from fleet.core.accounts import same_person
from fleet.core.rollout import LIVE, Rollout
from fleet.core.waves import Wave

__all__ = [
    "abort",
    "advance_wave",
    "approve",
    "cancel",
    "deny",
    "join",
    "pause",
    "release",
    "resume",
    "roll_back",
    "skip_wave",
]

_AT_WORK = (WaveState.RUNNING, WaveState.SOAKING)


def _ended_waves(waves: tuple[Wave, ...], reason: str) -> tuple[Wave, ...]:
    """Waves of a stopped rollout: those at work FAILED, those to come SKIPPED."""

    def one(wave: Wave) -> Wave:
        if wave.state in _AT_WORK:
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


def cancel(rollout: Rollout, reason: str, now: float) -> Rollout:
    """Return the rollout ABORTING: its devices are asked to leave their orders. One that has not begun ends at once.

    Raises:
        RolloutError: It has ended already.
    """
    if rollout.state is RolloutState.ABORTING:
        return rollout
    stopped = rollout.after(RolloutEvent.CANCEL, reason, now=now)
    return replace(stopped, waves=_ended_waves(rollout.waves, reason))


def roll_back(rollout: Rollout, reason: str, now: float) -> Rollout:
    """Return the rollout ROLLING_BACK: the devices that run its bundle are to get their previous one again.

    Raises:
        RolloutError: It has not begun, or is a roll back itself and still at work.
    """
    if rollout.is_rollback:
        fix = f"strop fleet rollout start {rollout.model} VERSION"
        raise RolloutError("it is a roll back itself", where=f"rollout {rollout.id}", fix=fix)
    stopped = rollout.after(RolloutEvent.ROLL_BACK, reason, now=now)
    # An earlier roll back that failed is planned anew.
    return replace(stopped, waves=_ended_waves(rollout.waves, reason), rollbacks=None)


def pause(rollout: Rollout) -> Rollout:
    """Return the rollout PAUSED; pausing a paused one changes nothing.

    Raises:
        RolloutError: It does not run.
    """
    return rollout if rollout.state is RolloutState.PAUSED else rollout.after(RolloutEvent.PAUSE)


def resume(rollout: Rollout, now: float) -> Rollout:
    """Return the rollout RUNNING again; gates that wait for evidence get their time anew.

    Raises:
        RolloutError: It is not PAUSED.
    """
    resumed = rollout.after(RolloutEvent.RESUME)
    waves = tuple(replace(w, gate_from=now) if w.state is WaveState.SOAKING else w for w in rollout.waves)
    return replace(resumed, waves=waves)


def release(rollout: Rollout) -> Rollout:
    """Return a draft, or an approved rollout, on its way: to who approves it, or SCHEDULED.

    Raises:
        RolloutError: It is neither.
    """
    if rollout.state is RolloutState.DRAFT and rollout.needs_approval:
        return rollout.after(RolloutEvent.SUBMIT)
    return rollout.after(RolloutEvent.SCHEDULE)


def _other(rollout: Rollout, actor: str, verb: str) -> None:
    if same_person(actor, rollout.created_by):
        fix = "let another operator look at it"
        raise RolloutError(f"'{actor}' wrote it and may not {verb} it", where=f"rollout {rollout.id}", fix=fix)


def approve(rollout: Rollout, actor: str) -> Rollout:
    """Return the rollout approved and SCHEDULED.

    Raises:
        RolloutError: It does not wait for approval, or its author asks.
    """
    approved = rollout.after(RolloutEvent.APPROVE)
    _other(rollout, actor, "approve")
    return release(replace(approved, approved_by=actor))


def deny(rollout: Rollout, actor: str, reason: str, now: float) -> Rollout:
    """Return the rollout DENIED; raises as ``approve``."""
    denied = rollout.after(RolloutEvent.DENY, f"denied by {actor}{f': {reason}' if reason else ''}", now=now)
    _other(rollout, actor, "deny")
    return denied


def _find(rollout: Rollout, states: tuple[WaveState, ...], what: str) -> int:
    if rollout.state not in LIVE:
        raise RolloutError(f"it is {rollout.state.value}", where=f"rollout {rollout.id}")
    for i, wave in enumerate(rollout.waves):
        if wave.state in states:
            return i
    raise RolloutError(f"no wave {what}", where=f"rollout {rollout.id}", fix=f"strop fleet rollout show {rollout.id}")


def advance_wave(rollout: Rollout) -> Rollout:
    """Return the rollout whose wave at work waits for nothing more: no further device, no soak, no gate.

    Raises:
        RolloutError: No wave is at work.
    """
    i = _find(rollout, _AT_WORK, "is at work")
    return rollout.with_wave(i, replace(rollout.waves[i], is_forced=True, reason="sent on by hand"))


def skip_wave(rollout: Rollout) -> Rollout:
    """Return the rollout without its next wave.

    Raises:
        RolloutError: No wave is to come.
    """
    i = _find(rollout, (WaveState.PENDING,), "is to come")
    wave = rollout.waves[i]
    return rollout.with_wave(i, replace(wave, state=step(WAVE, wave.state, WaveEvent.SKIP), reason="skipped by hand"))


def join(rollout: Rollout, devices: Iterable[str]) -> Rollout:
    """Return the rollout with new devices in its rest wave, as long as that has not begun to soak.

    Example:
        >>> from fleet.core.rollout import Limits, build_waves, new_rollout
        >>> waves = build_waves([{"count": 1}, {"rest": True}], ["a", "b"])
        >>> rollout = new_rollout(1, ("m", "1", "ab"), waves, Limits(), now=0.0, dynamic=True)
        >>> join(rollout, ["b", "c"]).waves[1].devices
        ('b', 'c')
    """
    rest = [i for i, w in enumerate(rollout.waves) if w.is_rest and w.state in (WaveState.PENDING, WaveState.RUNNING)]
    if not rest or not rollout.dynamic or rollout.state not in LIVE:
        return rollout
    known = {device for wave in rollout.waves if wave.kind == "install" for device in wave.devices}
    new = tuple(device for device in devices if device not in known)
    wave = rollout.waves[rest[-1]]
    return rollout.with_wave(rest[-1], replace(wave, devices=wave.devices + new)) if new else rollout
