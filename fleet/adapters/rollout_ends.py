# SPDX-License-Identifier: Apache-2.0
"""What a rollout changes beside its devices: the channel of its model at its end; and who joins it on the way."""

from edge_contract.states import RolloutState
from fleet.adapters import channels, device_states
from fleet.adapters.database import Connection
from fleet.adapters.fleet_query import matching
from fleet.core.rollout import Rollout

__all__ = ["has_ended", "joining"]


def has_ended(db: Connection, rollout: Rollout, now: float) -> None:
    """Let the bundle stand in the channel that the plan names, or take it out of it after a roll back."""
    channel, actor = rollout.channel, f"rollout {rollout.id}"
    if not channel or rollout.is_rollback:
        return
    stands = channels.bundle_of(db, rollout.model, channel) == rollout.bundle
    if rollout.state is RolloutState.COMPLETED and not stands:
        words = {"verb": "set", "reason": rollout.reason}
        channels.add_move(db, rollout.model, channel, rollout.bundle, actor=actor, now=now, **words)
    if rollout.state is RolloutState.ROLLED_BACK and stands:
        before = channels.good_in(db, rollout.model, channel, rollout.bundle)
        words = {"verb": "demote", "reason": rollout.reason}
        channels.add_move(db, rollout.model, channel, before, actor=actor, now=now, **words)


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
