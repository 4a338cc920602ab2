# SPDX-License-Identifier: Apache-2.0
"""Why a rollout must stop: too many failures, too large a share of them, nobody who succeeded, or its gates.

A share is of the *finished* devices, so that a canary of a slow group is judged by who has an answer
(hawkBit divides by the whole group, and a 1 % canary trips late).
"""

from collections.abc import Mapping

from edge_contract.states import WaveState
from fleet.core.execution import Execution
from fleet.core.limits import NO_LIMIT
from fleet.core.rollout import Rollout
from fleet.core.tally import Tally, bucket_of, words
from fleet.core.waves import SHADOW
from fleet.core.world import World

__all__ = ["failures", "stop_reason"]

_AT_WORK = (WaveState.RUNNING, WaveState.SOAKING)


def failures(executions: Mapping[str, Execution], running: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (device, reason) of what counts against the rollout: failed executions, and devices that went back."""
    found = []
    for device, execution in sorted(executions.items()):
        bucket = bucket_of(execution)
        if bucket == "failed":
            found.append((device, f"{words(execution)}: {execution.reason or 'it gave no reason'}"))
        elif bucket == "regressed":
            found.append((device, f"went back to {running.get(device, '')[:12]} after its success"))
    return found


def stop_reason(
    world: World, rollout: Rollout, executions: Mapping[str, Execution], tallies: Mapping[int, Tally]
) -> str:
    """Return why the rollout must stop, or ""."""
    if world.verdict is not None and world.verdict.decision == "fail":
        return world.verdict.words
    limits, whole = rollout.limits, sum(tallies.values(), Tally())
    if limits.max_failures != NO_LIMIT and whole.bad > limits.max_failures:
        return _who(world, executions, whole.bad)
    if whole.finished >= limits.min_finished and whole.bad > limits.max_failed_share * whole.finished:
        return f"{_share(whole, limits.max_failed_share)}; {_who(world, executions, whole.bad)}"
    for i, wave in enumerate(rollout.waves):
        if wave.state in _AT_WORK:
            reason = _of_wave(world, rollout, executions, tallies.get(i, Tally()), i)
            if reason:
                return reason
    return ""


def _of_wave(world: World, rollout: Rollout, executions: Mapping[str, Execution], count: Tally, i: int) -> str:
    limits, wave = rollout.limits, rollout.waves[i]
    mine = {device: e for device, e in executions.items() if e.wave == i}
    if count.finished >= limits.min_wave_finished and count.bad > limits.max_wave_failed_share * count.finished:
        return f"wave {i + 1}: {_share(count, limits.max_wave_failed_share)}; {_who(world, mine, count.bad)}"
    is_in = wave.devices and count.total >= len(wave.devices) and not count.moving
    if wave.state is not WaveState.RUNNING or not is_in or count.succeeded:
        return ""
    if count.bad:
        # Forgiven failures do not make a success: nobody has shown yet that the bundle works.
        return f"no device of wave {i + 1} succeeded; {_who(world, mine, count.bad)}"
    if wave.kind == SHADOW:
        reason = next((f": {e.device}: {e.reason}" for _, e in sorted(mine.items()) if e.reason), "")
        return f"no device of wave {i + 1} could compare the models{reason}"
    return ""


def _share(count: Tally, limit: float) -> str:
    return f"{count.bad} of {count.finished} finished devices failed, more than {limit:.0%}"


def _who(world: World, executions: Mapping[str, Execution], count: int) -> str:
    known = failures(executions, world.running)
    if not known:
        return f"{count} device{'s' * (count != 1)} failed"
    device, why = known[0]
    return f"{device}{f' and {count - 1} more' if count > 1 else ''} {why}"
