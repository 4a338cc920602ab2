# SPDX-License-Identifier: Apache-2.0
"""What a rollout changes beside its devices: the channel of its model at its end; and who joins it on the way."""

from collections.abc import Callable
from dataclasses import replace

from edge_contract.states import RolloutState
from fleet.adapters import channels, device_states, tables
from fleet.adapters.database import Connection
from fleet.adapters.fleet_query import matching
from fleet.core.registry import ModelVersion
from fleet.core.rollout import Rollout

__all__ = ["Refusal", "has_ended", "joining"]

Refusal = Callable[[Connection, ModelVersion, str], str]
"""Why the promotion rules keep a version out of a channel; empty if they do not."""


def has_ended(db: Connection, rollout: Rollout, now: float, refusal: Refusal) -> None:
    """Let the bundle stand in the channel that the plan names, or take it out of it after a roll back.

    Where the promotion rules refuse it, the devices keep the version and the channel stays as it is; the rollout's
    reason and the audit log say why. A person may set the channel by force, with a reason.
    """
    channel, actor = rollout.channel, f"rollout {rollout.id}"
    if not channel or rollout.is_rollback:
        return
    stands = channels.bundle_of(db, rollout.model, channel) == rollout.bundle
    if rollout.state is RolloutState.COMPLETED and not stands:
        version = tables.model(db, rollout.bundle)
        unmet = refusal(db, version, channel) if version else "it is registered no more"
        if unmet:
            _refused(db, rollout, unmet, now)
            return
        words = {"verb": "set", "reason": rollout.reason}
        channels.add_move(db, rollout.model, channel, rollout.bundle, actor=actor, now=now, **words)
    if rollout.state is RolloutState.ROLLED_BACK and stands:
        before = channels.good_in(db, rollout.model, channel, rollout.bundle)
        words = {"verb": "demote", "reason": rollout.reason}
        channels.add_move(db, rollout.model, channel, before, actor=actor, now=now, **words)


def _refused(db: Connection, rollout: Rollout, unmet: str, now: float) -> None:
    detail = {"model": rollout.model, "version": rollout.version, "channel": rollout.channel, "unmet": unmet}
    tables.add_audit(db, time=now, actor="engine", action="channel.refused", subject=rollout.id, detail=detail)
    said = f"not in {rollout.channel}, its rules are not met: {unmet.replace(': not met', '')}"
    reason = f"{rollout.reason}; {said}" if rollout.reason else said
    tables.put_rollout(db, replace(rollout, reason=reason))


def joining(db: Connection, rollout: Rollout, now: float) -> list[str]:
    """Return the devices that a dynamic rollout's rest wave wants now, by name."""
    rest = [wave for wave in rollout.waves if wave.is_rest]
    if not rest:
        return []
    blocked = device_states.blocked(db)
    if rest[-1].query:
        found = matching(db, rest[-1].query, now)
    else:
        found = [row["device"] for row in db.execute("SELECT device FROM devices ORDER BY device")]
    return [device for device in found if device not in blocked]
