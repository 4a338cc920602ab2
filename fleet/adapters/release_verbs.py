# SPDX-License-Identifier: Apache-2.0
"""What is asked about releases: which version stands in which channel, retiring one, and deleting what nobody uses."""

from collections.abc import Callable
from typing import Any

from edge_contract.errors import RegistryError
from edge_contract.states import RolloutState
from fleet.adapters import bench_rows, channels, tables
from fleet.adapters.blob_sweep import FileTurns, sweep
from fleet.adapters.database import Connection
from fleet.adapters.desk import Desk
from fleet.core.channels import LADDER, PRODUCTION, Move, check_channel, next_channel
from fleet.core.registry import ModelVersion

__all__ = ["Allow", "ReleaseVerbs", "known_version"]

Allow = Callable[[Connection, ModelVersion, str], str]
"""Why a version may not enter a channel by the rules, in words; empty if it may."""

_ENDED = frozenset({RolloutState.COMPLETED, RolloutState.ABORTED, RolloutState.DENIED, RolloutState.ROLLED_BACK})
_MAX_REASON = 500


def known_version(db: Connection, model: str, version: str) -> ModelVersion:
    """Return a registered version by its name, or by at least eight digits of its bundle's id.

    Raises:
        RegistryError: No version or more than one is called so.
    """
    ours = [one for one in tables.models(db) if one.model == model]
    found = [one for one in ours if one.version == version]
    if not found and len(version) >= 8:
        found = [one for one in ours if one.bundle.startswith(version)]
    if len(found) != 1:
        what = f"{len(found)} versions begin so" if found else f"model '{model[:63]}' has no version '{version[:64]}'"
        raise RegistryError(what, fix="strop fleet model list")
    return found[0]


class ReleaseVerbs:
    """Verbs on channels and versions; each is one transaction with its audit entry.

    Args:
        desk: Database, blobs, clock.
        allow: What the promotion rules say.
    """

    def __init__(self, desk: Desk, allow: Allow) -> None:
        self._desk, self._allow = desk, allow
        self.files = FileTurns(desk.store)
        """Held while files are judged by who needs them: registering and sweeping must not cross."""

    def promote(
        self, model: str, version: str, actor: str, *, to: str = "", reason: str = "", force: bool = False
    ) -> Move:
        """Let a version climb to the next channel, or to a named one.

        Raises:
            RegistryError: It is not known, is retired, does not meet the rules, or stands there already.
        """

        def job(db: Connection) -> Move:
            one = known_version(db, model, version)
            channel = check_channel(to) if to else next_channel(channels.channels_of(db, one.bundle))
            return self._enter(db, one, channel, "promote", actor, reason=reason, force=force)

        return self._desk.store.write(job)

    def set(self, model: str, channel: str, version: str, actor: str, *, reason: str = "", force: bool = False) -> Move:
        """Let a version stand in a channel, whatever stood there; raises as ``promote``."""

        def job(db: Connection) -> Move:
            one = known_version(db, model, version)
            return self._enter(db, one, check_channel(channel), "set", actor, reason=reason, force=force)

        return self._desk.store.write(job)

    def demote(self, model: str, channel: str, actor: str, *, reason: str = "") -> Move:
        """Take a channel back to what stood there before and was good; empty it where nothing did.

        Raises:
            RegistryError: Nothing stands in the channel.
        """

        def job(db: Connection) -> Move:
            held = channels.bundle_of(db, model, check_channel(channel))
            if held is None:
                raise RegistryError("nothing stands there", where=f"channel {channel} of {model[:63]}")
            back = channels.good_in(db, model, channel, held)
            return self._moved(db, model, channel, back, verb="demote", actor=actor, reason=reason)

        return self._desk.store.write(job)

    def retire(self, model: str, version: str, actor: str, *, reason: str = "", undo: bool = False) -> dict[str, Any]:
        """End a version: it leaves its channels, enters none any more, and nothing goes back to it. Devices stay.

        Raises:
            RegistryError: It stands in production: that must be decided first.
        """

        def job(db: Connection) -> dict[str, Any]:
            one = known_version(db, model, version)
            held = {} if undo else channels.channels_of(db, one.bundle)
            if PRODUCTION in held:
                fix = f"strop fleet channel demote {model} {PRODUCTION}"
                raise RegistryError("it stands in production", where=f"{model} {one.version}", fix=fix)
            for channel in held:
                self._moved(db, model, channel, "", verb="retire", actor=actor, reason=reason)
            channels.retire(db, one.bundle, _short(reason), 0.0 if undo else self._desk.clock())
            verb = "model.restore" if undo else "model.retire"
            self._desk.audit(db, actor, verb, one.bundle, {"model": model, "version": one.version, "reason": reason})
            return {"bundle": one.bundle, "left": sorted(held), "retired": not undo}

        return self._desk.store.write(job)

    def delete(self, model: str, version: str, actor: str, *, reason: str = "") -> dict[str, Any]:
        """Delete a version that nothing uses; its files go with the next sweep unless another version has them.

        Raises:
            RegistryError: A device runs or is to run it, a channel holds it, or a rollout is under way: says where.
        """

        def job(db: Connection) -> dict[str, Any]:
            one = known_version(db, model, version)
            if where := uses(db, one):
                fix = "roll out another version and clear its channels first"
                raise RegistryError(f"in use: {'; '.join(where)}", where=f"{model} {one.version}", fix=fix)
            channels.forget_version(db, one.bundle)
            detail = {"model": model, "version": one.version, "reason": _short(reason)}
            self._desk.audit(db, actor, "model.delete", one.bundle, detail)
            return {"bundle": one.bundle, "deleted": True}

        return self._desk.store.write(job)

    def sweep_files(self, actor: str, *, grace_s: float) -> dict[str, int]:
        """Delete files that no registered version needs and that nobody sent or asked for within the grace period."""
        with self.files.alone():
            needed = self._desk.store.read(needed_files)
            gone = sweep(self._desk.blobs, needed, before=self._desk.clock() - grace_s)
        if gone["files"]:
            self._desk.store.write(lambda db: self._desk.audit(db, actor, "blob.sweep", "blobs", gone))
        return gone

    def enter_by_rules(self, db: Connection, version: ModelVersion, channel: str, words: str) -> Move:
        """Let a version that meets every condition enter its channel, in the transaction that judged it."""
        return self._moved(db, version.model, channel, version.bundle, verb="rules", actor="rules", reason=words)

    def _enter(
        self, db: Connection, one: ModelVersion, channel: str, verb: str, actor: str, *, reason: str, force: bool
    ) -> Move:
        where = f"{one.model} {one.version}"
        if one.bundle in channels.retired(db):
            raise RegistryError("it is retired", where=where, fix=f"strop fleet model retire {where} --undo")
        if channels.bundle_of(db, one.model, channel) == one.bundle:
            raise RegistryError(f"it stands in {channel} already", where=where)
        unmet = self._allow(db, one, channel)
        if unmet and not (force and reason):
            fix = f"strop fleet model check {where}; or --force with a --reason, which the history keeps"
            raise RegistryError(f"the rules of {channel} are not met: {unmet}", where=where, fix=fix)
        said = f"{reason} (forced: {unmet})" if unmet else reason
        return self._moved(db, one.model, channel, one.bundle, verb=verb, actor=actor, reason=said)

    def _moved(
        self, db: Connection, model: str, channel: str, bundle: str, *, verb: str, actor: str, reason: str
    ) -> Move:
        now = self._desk.clock()
        move = channels.add_move(db, model, channel, bundle, verb=verb, actor=actor, reason=_short(reason), now=now)
        detail = {"channel": channel, "old": move.old, "new": move.new, "reason": move.reason}
        self._desk.audit(db, actor, f"channel.{verb}", model, detail)
        return move


def _short(text: str) -> str:
    return " ".join(text.split())[:_MAX_REASON]


def uses(db: Connection, version: ModelVersion) -> list[str]:
    """Return in words where a version is used: channels, rollouts, devices; empty if nowhere."""
    held = channels.channels_of(db, version.bundle)
    found = [f"channel {name}" for name in sorted(held, key=lambda n: (n not in LADDER, n))]
    live = [state for state in RolloutState if state not in _ENDED]
    found += [
        f"rollout {one.id} ({one.state.value})" for one in tables.rollouts(db, live) if one.bundle == version.bundle
    ]
    found += sorted({f"order {one.job_id}" for one in tables.unclosed_executions(db) if one.bundle == version.bundle})
    running, wanted = list[str](), list[str]()
    for record in tables.devices(db):
        if record.running.get(version.model) == version.bundle:
            running.append(record.device)
        if record.desired.models.get(version.model) == version.bundle:
            wanted.append(record.device)
    return found + _devices("runs on", running) + _devices("wanted on", wanted)


def _devices(words: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{words} {', '.join(names[:3])}{more}"]


def needed_files(db: Connection) -> set[str]:
    """Return the SHA-256 of every file that a registered version or a benchmark needs, manifests included."""
    found = bench_rows.needed_blobs(db)
    for version in tables.models(db):
        found.add(version.bundle)
        found.update(entry.sha256 for entry in version.manifest.files)
    return found
