# SPDX-License-Identifier: Apache-2.0
"""The waves of a running rollout, one after the other, as far as the facts lead."""

import math
from dataclasses import replace

from edge_contract.states import WAVE, RolloutEvent, RolloutState, WaveEvent, WaveState, step
from fleet.core.ordering import Ordering
from fleet.core.rollout import Rollout
from fleet.core.tally import Tally
from fleet.core.waves import SHADOW, Wave

__all__ = ["walk"]

_OVER = frozenset({WaveState.PASSED, WaveState.SKIPPED})


def walk(rollout: Rollout, ordering: Ordering) -> Rollout:
    """Move waves until nothing more follows: an empty or already finished wave holds nobody up."""
    if rollout.state is not RolloutState.RUNNING:
        return rollout
    ordering.again(rollout)
    judged = next((i for i, wave in enumerate(rollout.waves) if wave.state not in _OVER), -1)
    for i in range(len(rollout.waves)):
        while (event := _event(rollout, i, ordering)) is not None:
            rollout = rollout.with_wave(i, _moved(rollout.waves[i], event, ordering.now))
        if i == judged and _is_starved(rollout, i, ordering):
            words = ordering.world.verdict.words if ordering.world.verdict else ""
            return rollout.after(RolloutEvent.PAUSE, f"wave {i + 1} has too little evidence: {words}")
        if rollout.waves[i].state not in _OVER:
            return rollout
    tallies = ordering.tallies()
    whole = sum(tallies.values(), Tally())
    if whole.moving:
        return rollout  # devices that a wave did not wait for
    reason = f"{whole.succeeded} device{'s' * (whole.succeeded != 1)} updated"
    return rollout.after(RolloutEvent.FINISH, reason if whole.total else "empty: no device matched", now=ordering.now)


def _event(rollout: Rollout, i: int, ordering: Ordering) -> WaveEvent | None:
    wave = rollout.waves[i]
    if wave.state is WaveState.PENDING:
        return WaveEvent.SKIP if rollout.limits.schedule.is_over(ordering.now) else WaveEvent.START
    if wave.state is WaveState.RUNNING:
        ordering.fill(rollout, i, ordering.tallies().get(i, Tally()))
        return WaveEvent.ALL_IN if _is_in(rollout, i, ordering.tallies().get(i, Tally())) else None
    if wave.state is WaveState.SOAKING:
        return WaveEvent.SOAKED if _has_soaked(rollout, wave, ordering) else None
    return None


def _is_in(rollout: Rollout, i: int, count: Tally) -> bool:
    """Has the wave waited for its devices long enough? The last wave waits for all."""
    wave, share = rollout.waves[i], rollout.limits.finished_share
    ended, size = count.finished + count.excused, len(wave.devices)
    if wave.is_forced:
        return True
    if wave.kind == SHADOW and size and not count.succeeded:
        return False  # without a comparison the plan has to stop, see ``stopping``
    if count.total >= size and not count.moving:
        return True
    return share < 1.0 and i + 1 < len(rollout.waves) and ended >= math.ceil(share * size)


def _has_soaked(rollout: Rollout, wave: Wave, ordering: Ordering) -> bool:
    if wave.is_forced or not wave.devices:
        return True
    is_over = ordering.now - wave.soaking_since >= _soak_s(rollout, wave)
    return is_over and not _waits(rollout, wave, ordering)


def _soak_s(rollout: Rollout, wave: Wave) -> float:
    return rollout.limits.soak_s if wave.soak_s is None else wave.soak_s


def _waits(rollout: Rollout, wave: Wave, ordering: Ordering) -> bool:
    """Gates that have not looked at the whole wave yet hold it, too: the verdict at hand is of before it was in."""
    if rollout.limits.gates is not None and wave.soaking_since >= ordering.now:
        return True
    verdict = ordering.world.verdict
    return verdict is not None and verdict.decision == "wait"


def _is_starved(rollout: Rollout, i: int, ordering: Ordering) -> bool:
    """The gates have waited for evidence as long as they may: an operator has to look."""
    wave, limits = rollout.waves[i], rollout.limits
    if wave.state is not WaveState.SOAKING or not _waits(rollout, wave, ordering):
        return False
    since = max(wave.soaking_since + _soak_s(rollout, wave), wave.gate_from)
    return ordering.now - since >= limits.gate_timeout_s


def _moved(wave: Wave, event: WaveEvent, now: float) -> Wave:
    moved = replace(wave, state=step(WAVE, wave.state, event))
    if event is WaveEvent.ALL_IN:
        return replace(moved, soaking_since=now)
    if event is WaveEvent.SKIP:
        return replace(moved, reason="the rollout's time was over")
    return moved
