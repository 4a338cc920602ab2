# SPDX-License-Identifier: Apache-2.0
"""Taking a rollout back: which devices get which bundle again, and under which limits.

Each device goes back to what it ran when it was ordered, so one roll back may need several rollouts, one for each
bundle. A device that is still at work for the rollout goes along: it may end with the new bundle.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from edge_contract.states import Status
from fleet.core.execution import Execution
from fleet.core.limits import NO_LIMIT, Limits
from fleet.core.rollout import Rollout, new_rollout
from fleet.core.waves import Wave

__all__ = ["retry_rollout", "rollback_groups", "rollback_rollout"]

RETRIES = 3


def rollback_groups(
    rollout: Rollout, executions: Iterable[Execution], running: Mapping[str, str], last_good: str | None
) -> dict[str, list[str]]:
    """Return bundle → the devices that go back to it, by name.

    Args:
        rollout: The one to take back.
        executions: Its executions.
        running: Device → what it runs; "" = unknown.
        last_good: For devices of which nobody knows what they ran before; None: they stay as they are.
    """
    groups: dict[str, list[str]] = {}
    for execution in executions:
        if execution.kind != "install" or not _may_hold(execution, running.get(execution.device, "")):
            continue
        back = execution.previous or last_good
        if back and back != rollout.bundle:
            groups.setdefault(back, []).append(execution.device)
    return {bundle: sorted(devices) for bundle, devices in sorted(groups.items())}


def _may_hold(execution: Execution, running: str) -> bool:
    """True if the device runs the bundle because of this rollout, or may do so when it has ended its work."""
    if not execution.issued_at:
        return False  # it ran the bundle before, or was never asked
    if execution.is_open or execution.status in (Status.TIMED_OUT, Status.CANCELED):
        return True  # it may be at work still: its word can come late, or never
    return execution.status is Status.SUCCEEDED and running in ("", execution.bundle)


def rollback_rollout(
    number: int, parent: Rollout, target: tuple[str, str, str], devices: list[str], *, actor: str, now: float
) -> Rollout:
    """Return the rollout that brings a bundle back: everybody at once, whatever the windows and gates.

    Nothing is compared with the model that is taken back: agreement with it, and its speed, say nothing.
    """
    limits = Limits(
        timeout_s=parent.limits.timeout_s,
        grace_s=parent.limits.grace_s,
        max_failures=NO_LIMIT,
        retries=RETRIES,
        probation=replace(parent.limits.probation, min_agreement=0.0, max_latency_ratio=0.0, min_s=0.0),
    )
    waves = [Wave(tuple(devices), name=f"back from {parent.version}")]
    return new_rollout(number, target, waves, limits, now=now, created_by=actor, parent=parent.id, is_rollback=True)


def retry_rollout(number: int, parent: Rollout, devices: list[str], *, actor: str, now: float) -> Rollout:
    """Return a rollout of the same bundle to the devices that failed in an ended one, under the same limits."""
    limits = replace(parent.limits, schedule=replace(parent.limits.schedule, start_at=0.0, end_at=0.0))
    target = (parent.model, parent.version, parent.bundle)
    waves = [Wave(tuple(devices), name=f"again from {parent.id}")]
    more = {"created_by": actor, "parent": parent.id, "is_rollback": parent.is_rollback}
    return new_rollout(number, target, waves, limits, now=now, **more)
