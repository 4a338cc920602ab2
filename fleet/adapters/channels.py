# SPDX-License-Identifier: Apache-2.0
"""Release channels, their history and the states of versions in the database's tables."""

from edge_contract.errors import RegistryError
from edge_contract.states import RolloutState
from fleet.adapters import tables
from fleet.adapters.database import Connection, Row
from fleet.core.channels import PRODUCTION, Move, check_channel, good_before
from fleet.core.registry import ModelVersion

__all__ = [
    "add_move",
    "bundle_of",
    "channels_of",
    "check_offered",
    "forget_version",
    "good_in",
    "last_good",
    "moves",
    "note_version",
    "registered_by",
    "retire",
    "retired",
    "standing",
    "usable",
]


def bundle_of(db: Connection, model: str, channel: str) -> str | None:
    """Return the bundle that stands in a model's channel, None if none does."""
    row = db.execute("SELECT bundle FROM channels WHERE model = ? AND channel = ?", (model, channel)).fetchone()
    return row["bundle"] if row else None


def standing(db: Connection, model: str = "") -> dict[str, dict[str, tuple[str, float]]]:
    """Return model → channel → (bundle, since when), of one model or of all."""
    only, values = ("WHERE model = ?", (model,)) if model else ("", ())
    found: dict[str, dict[str, tuple[str, float]]] = {}
    for row in db.execute(f"SELECT * FROM channels {only} ORDER BY model, channel", values):
        found.setdefault(row["model"], {})[row["channel"]] = (row["bundle"], row["since"])
    return found


def channels_of(db: Connection, bundle: str) -> dict[str, float]:
    """Return the channels that a bundle stands in, and since when."""
    rows = db.execute("SELECT channel, since FROM channels WHERE bundle = ? ORDER BY channel", (bundle,))
    return {row["channel"]: row["since"] for row in rows}


def moves(db: Connection, model: str = "", channel: str = "", limit: int = 1000) -> list[Move]:
    """Return moves, newest first; of one model, of one of its channels, or of all."""
    given = {"model": model, "channel": channel}
    words = " AND ".join(f"{key} = ?" for key, value in given.items() if value)
    where, values = f"WHERE {words}" if words else "", [value for value in given.values() if value]
    return [_move(row) for row in db.execute(_MOVES.format(where), (*values, limit))]


_MOVES = "SELECT * FROM channel_moves {} ORDER BY number DESC LIMIT ?"


def _move(row: Row) -> Move:
    return Move(
        row["number"],
        row["model"],
        row["channel"],
        row["verb"],
        row["old_bundle"],
        row["new_bundle"],
        row["time"],
        row["actor"],
        row["reason"],
    )


def add_move(
    db: Connection, model: str, channel: str, bundle: str, *, verb: str, actor: str, reason: str, now: float
) -> Move:
    """Let a bundle stand in a channel, or nothing where it is empty, and write that into the history."""
    old = bundle_of(db, model, channel) or ""
    number = 1 + (db.execute("SELECT MAX(number) AS last FROM channel_moves").fetchone()["last"] or 0)
    values = (number, model, channel, verb, old, bundle, now, actor, reason)
    db.execute("INSERT INTO channel_moves VALUES (?,?,?,?,?,?,?,?,?)", values)
    if bundle:
        statement = (
            "INSERT INTO channels VALUES (?,?,?,?)"
            " ON CONFLICT (model, channel) DO UPDATE SET bundle = excluded.bundle, since = excluded.since"
        )
        db.execute(statement, (model, channel, bundle, now))
    else:
        db.execute("DELETE FROM channels WHERE model = ? AND channel = ?", (model, channel))
    return Move(*values)


def note_version(db: Connection, bundle: str, actor: str) -> None:
    """Remember who registered a bundle; the first one stays."""
    db.execute("INSERT INTO version_states VALUES (?,?,0,'') ON CONFLICT (bundle) DO NOTHING", (bundle, actor))


def registered_by(db: Connection, bundle: str) -> str:
    """Return who registered a bundle; empty for one from before that was kept."""
    row = db.execute("SELECT registered_by FROM version_states WHERE bundle = ?", (bundle,)).fetchone()
    return row["registered_by"] if row else ""


def retire(db: Connection, bundle: str, reason: str, now: float) -> None:
    """Mark a bundle as retired; ``now`` of 0 takes that back."""
    statement = (
        "INSERT INTO version_states VALUES (?,'',?,?)"
        " ON CONFLICT (bundle) DO UPDATE SET retired_at = excluded.retired_at, retired_why = excluded.retired_why"
    )
    db.execute(statement, (bundle, now, reason))


def retired(db: Connection) -> dict[str, tuple[float, str]]:
    """Return the retired bundles: when and why."""
    rows = db.execute("SELECT bundle, retired_at, retired_why FROM version_states WHERE retired_at > 0")
    return {row["bundle"]: (row["retired_at"], row["retired_why"]) for row in rows}


def check_offered(db: Connection, version: ModelVersion, channel: str = "") -> None:
    """Raise RegistryError for a version that is retired, or for what is no channel's name."""
    if channel:
        check_channel(channel)
    if version.bundle in retired(db):
        fix = f"strop fleet model retire {version.model} {version.version} --undo"
        raise RegistryError("it is retired", where=f"{version.model} {version.version}", fix=fix)


def usable(db: Connection, model: str) -> set[str]:
    """Return the registered bundles of a model that are not retired."""
    gone = retired(db)
    rows = db.execute("SELECT bundle FROM models WHERE model = ?", (model,))
    return {row["bundle"] for row in rows} - gone.keys()


def good_in(db: Connection, model: str, channel: str, before: str) -> str:
    """Return what stood in a channel before a bundle and was not taken back; empty if nothing did."""
    return good_before(moves(db, model, channel), before, usable(db, model))


def last_good(db: Connection, model: str, before: str) -> str | None:
    """Return the bundle to which devices go back from another one, None if none is known to be good.

    That is what stands in production, if it is another bundle; else what stood there before and was not taken
    back; else, for a fleet that uses no channels, what the newest rollout of another bundle brought everywhere.
    """
    held, able = bundle_of(db, model, PRODUCTION), usable(db, model)
    if held not in (None, before) and held in able:
        return held
    return good_in(db, model, PRODUCTION, before) or _rolled_out(db, model, before, able)


def _rolled_out(db: Connection, model: str, before: str, able: set[str]) -> str | None:
    for rollout in tables.rollouts(db, [RolloutState.COMPLETED]):
        if rollout.model == model and rollout.bundle != before and rollout.bundle in able:
            return rollout.bundle
    return None


def forget_version(db: Connection, bundle: str) -> None:
    """Delete what is kept of a bundle beside its history."""
    for table in ("version_states", "version_evidence", "rule_outcomes", "models"):
        db.execute(f"DELETE FROM {table} WHERE bundle = ?", (bundle,))
