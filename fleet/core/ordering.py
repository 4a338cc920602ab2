# SPDX-License-Identifier: Apache-2.0
"""Who gets an order now: new executions of a wave, at the rollout's rate, inside its windows, attempt by attempt."""

from dataclasses import replace
from typing import Final

from edge_contract.states import Phase, Status
from fleet.core.execution import Execution, finish
from fleet.core.rollout import Rollout
from fleet.core.tally import Tally, bucket_of, tally
from fleet.core.waves import SHADOW
from fleet.core.world import World

__all__ = ["MOST", "Ordering"]

MOST: Final = 250
"""Most orders of one step, whatever the rate: signing and storing them holds up what devices send meanwhile."""

_CATCH_UP_S: Final = 10.0
"""Slots of the rate that were missed longer ago are not made up for: after a pause nobody is flooded."""


class Ordering:
    """Makes the orders of one step; new executions go into ``executions``, those that they replace into ``past``.

    Args:
        world: What the engine sees.
        executions: The loaded ones, after they were settled; changed here.
        now: Seconds since 1970.
    """

    def __init__(self, world: World, executions: dict[str, Execution], now: float) -> None:
        self.world, self.executions, self.now = world, executions, now
        self.past: list[Execution] = []
        self.last_job, self._paced = world.last_job, world.paced

    def tallies(self) -> dict[int, Tally]:
        """Return wave → counts, of this moment."""
        return tally(self.executions.values(), self.world.rest)

    def again(self, rollout: Rollout) -> None:
        """Begin the next attempt of failed devices that is due."""
        for device, old in list(self.executions.items()):
            if bucket_of(old) != "retry" or not old.closed or self.now < old.retry_at:
                continue
            new = replace(self._draft(rollout, old.wave, device), attempt=old.attempt + 1)
            # A device that left, or that a newer rollout took, is no longer a failure of this one.
            ended = self._ended(rollout, old.wave, new)
            if ended is None and not self._is_open(rollout, device):
                continue
            self._replace(old)
            self.executions[device] = ended or new

    def fill(self, rollout: Rollout, i: int, count: Tally) -> None:
        """Make the orders of a wave that may go out now."""
        devices = rollout.waves[i].devices
        if count.total >= len(devices):
            return
        ordered = self.world.ordered.get(i, frozenset())
        interval, sent = self._interval(rollout, count), 0
        for device in devices:
            known = self.executions.get(device)
            if device in ordered or (known is not None and known.wave == i):
                continue
            order = self._draft(rollout, i, device)
            ended = self._ended(rollout, i, order)
            if ended is not None:
                self._put(ended)
                continue
            slot = self._slot(interval)
            if slot is None or sent >= MOST:
                return
            if self._is_open(rollout, device):
                sent += 1
                self._paced = slot if interval else 0.0
                self._put(replace(order, paced=self._paced))
            elif rollout.limits.schedule.clock == "utc":
                return

    def _put(self, order: Execution) -> None:
        if (old := self.executions.get(order.device)) is not None:
            self._replace(old)
        self.executions[order.device] = order

    def _replace(self, old: Execution) -> None:
        """An earlier attempt, or an earlier wave's order, no longer counts."""
        ended = finish(old, Status.SUPERSEDED, "the rollout went on to its next order", self.now)
        self.past.append(replace(ended, past=True, closed=True))

    def _draft(self, rollout: Rollout, i: int, device: str) -> Execution:
        # Milliseconds, so that a server with a new database still counts up.
        self.last_job = max(self.last_job + 1, int(self.now * 1000))
        return Execution(
            job_id=f"j{self.last_job:015d}",
            rollout=rollout.id,
            number=rollout.number,
            wave=i,
            device=device,
            model=rollout.model,
            bundle=rollout.bundle,
            status=Status.QUEUED,
            phase=Phase.QUEUED,
            deadline=self.now + rollout.limits.timeout_s + rollout.limits.grace_s,
            updated_at=self.now,
            kind=rollout.waves[i].kind,
            paced=self._paced,
        )

    def _ended(self, rollout: Rollout, i: int, order: Execution) -> Execution | None:
        """Return the order's end where it needs none, None where it is to be sent."""
        world, device = self.world, order.device
        if rollout.limits.schedule.is_over(self.now):
            return finish(order, Status.CANCELED, "the rollout's time was over", self.now)
        if world.newest.get(device, 0) > rollout.number:
            return finish(order, Status.SUPERSEDED, "a newer rollout took the device", self.now)
        if (why := world.absent.get(device)) is not None:
            return finish(order, Status.REMOVED, why, self.now)
        runs_it = world.running.get(device, "") == rollout.bundle
        if rollout.waves[i].kind == SHADOW:
            why = "runs it already" if runs_it else "its agent cannot run a shadow"
            is_able = not runs_it and device in world.can_shadow
            return None if is_able else finish(order, Status.CANCELED, why, self.now)
        # A device that is at work for an older rollout will run that one's bundle: it needs this order.
        if runs_it and device not in world.busy and device not in world.taken:
            return replace(finish(order, Status.SUCCEEDED, "ran it already", self.now), phase=Phase.DONE)
        return None

    def _interval(self, rollout: Rollout, count: Tally) -> float:
        """Return the seconds between two orders, 0 without a rate."""
        rate = rollout.limits.rate
        return 60.0 / rate.at(count.succeeded) if rate else 0.0

    def _slot(self, interval: float) -> float | None:
        """Return the slot in time of the next order, None if it has not come."""
        if not interval:
            return self.now
        last = self._paced if self._paced <= self.now else 0.0  # the clock went back
        slot = max(last + interval, self.now - _CATCH_UP_S) if last else self.now
        return slot if slot <= self.now else None

    def _is_open(self, rollout: Rollout, device: str) -> bool:
        schedule = rollout.limits.schedule
        offset = self.world.offsets.get(device, 0.0) if schedule.clock == "device" else 0.0
        return schedule.is_open(self.now, offset)
