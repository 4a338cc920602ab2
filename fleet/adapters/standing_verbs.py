# SPDX-License-Identifier: Apache-2.0
"""Quarantine, release, decommission: who gets no orders any more, and what becomes of what they sent.

Each verb is one transaction with its audit entry. A device learns of its quarantine by its desired state, which is
retained: it hears it at its next connection, too. An agent of the version before keeps the word unread.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import UsageError
from edge_contract.topics import is_name, topic
from fleet.adapters import device_states, erasure, quarantine, rollout_tables, tables, telemetry
from fleet.adapters.database import Connection
from fleet.adapters.desk import Desk, known_device
from fleet.adapters.identities import Identities
from fleet.adapters.judging import WindowJudge
from fleet.adapters.orders import Message
from fleet.core.device_states import DECOMMISSIONED, QUARANTINED, Standing
from fleet.core.engine import remove_device

__all__ = ["StandingVerbs"]

TOLD: Final = ("twin/reported", "state/birth", "state/death")
"""Channels on which the broker may hold a word of a device."""


class StandingVerbs:
    """Verbs on a device's standing in the fleet.

    Args:
        desk: The database and what belongs to it.
        identities: Certificates, and what speaks for a clone.
        captures: Folder of the captures' samples.
    """

    def __init__(self, desk: Desk, identities: Identities, captures: Path) -> None:
        self._desk, self._identities, self._captures = desk, identities, captures
        self.quarantine_clones = False
        """Put a device into quarantine by itself when it is taken for cloned."""
        self.false_alarms = 0.0
        """Of drift, per device and year, for windows that were kept apart."""
        identities.on_suspected = self._suspected

    def quarantine(self, device: str, reason: str, actor: str) -> Standing:
        """Give a device no orders, keep what it sends apart, and tell it; twice changes nothing.

        Raises:
            UsageError: It is not enrolled.
        """

        def job(db: Connection) -> tuple[Standing, list[Message]]:
            known_device(db, device)
            before = device_states.standing(db, device)
            if before is not None:
                return before, []
            return self._put(db, device, reason, actor)

        return self._desk.do(job)

    def _put(self, db: Connection, device: str, reason: str, actor: str) -> tuple[Standing, list[Message]]:
        why = Standing(QUARANTINED, self._desk.clock(), reason[:300] or "by an operator", actor)
        device_states.put(db, device, why)
        rollout_tables.mark_device(db, device)
        self._desk.audit(db, actor, "device.quarantine", device, {"reason": why.reason})
        return why, self._tell(db, device, {"reason": why.reason, "since": why.since})

    def _tell(self, db: Connection, device: str, word: dict[str, Any] | None) -> list[Message]:
        """Write the word into the desired state, or take it out."""
        record = known_device(db, device)
        others = {name: value for name, value in record.desired.unrecognized.items() if name != "quarantine"}
        more = {**others, **({"quarantine": word} if word else {})}
        desired = replace(record.desired, version=record.desired.version + 1, unrecognized=more)
        tables.put_device(db, replace(record, desired=desired))
        return [Message(topic(self._desk.addresses.tenant, device, "twin/desired"), desired.to_bytes())]

    def release(self, device: str, actor: str, *, accept: bool = False) -> dict[str, Any]:
        """Let a device out of quarantine: it gets orders again, and a suspicion of a clone is taken back.

        Args:
            device: Its name.
            actor: Who says so.
            accept: Take in what it sent meanwhile; else that stays apart until it is too old.

        Raises:
            UsageError: It is not in quarantine.
        """
        now = self._desk.clock()
        unfold = telemetry.unfolding(WindowJudge(self._desk.blobs, self.false_alarms), self._desk.clock)

        def job(db: Connection) -> tuple[dict[str, Any], list[Message]]:
            if not device_states.is_quarantined(db, device):
                raise UsageError(f"device '{device}' is not in quarantine", fix="strop fleet device list quarantined")
            taken = quarantine.accept(db, device, now, unfold) if accept else 0
            device_states.clear(db, device)
            if self._identities.is_suspected(db, device):
                self._identities.forgive_in(db, device, actor, now)
            self._desk.audit(db, actor, "device.release", device, {"accepted_rows": taken})
            return {"released": device, "accepted_rows": taken}, self._tell(db, device, None)

        return self._desk.do(job)

    def _suspected(self, device: str, why: str) -> None:
        """A device was taken for cloned, inside the transaction of what spoke for it: act after its commit."""
        if self.quarantine_clones:

            def job(db: Connection) -> list[Message]:  # what noticed it may have been undone
                is_suspected = self._identities.is_suspected(db, device)
                return self._quarantine_suspects(db, {device: why}) if is_suspected else []

            self._desk.store.submit(job, then=lambda done: self._desk.send(done.result()))

    def sweep(self) -> int:
        """Quarantine every suspect that is not yet; return how many. For what another process noticed."""
        if not self.quarantine_clones:
            return 0
        suspects = self._desk.store.read(self._identities.suspects)

        def job(db: Connection) -> tuple[int, list[Message]]:
            messages = self._quarantine_suspects(db, suspects)
            return len(messages), messages

        return self._desk.do(job) if suspects else 0

    def _quarantine_suspects(self, db: Connection, suspects: dict[str, str]) -> list[Message]:
        messages: list[Message] = []
        for device, why in sorted(suspects.items()):
            if tables.device(db, device) is not None and device_states.standing(db, device) is None:
                messages += self._put(db, device, f"clone suspected: {why}", "server")[1]
        return messages

    def remove(self, device: str, actor: str) -> None:
        """Forget a device: its executions end as REMOVED and no wave waits for it. What it sent is kept.

        Its certificates are revoked: to come back it needs a token.

        Raises:
            UsageError: It is not enrolled.
        """

        def job(db: Connection) -> tuple[None, list[Message]]:
            messages = self._leave(db, device)
            self._desk.audit(db, actor, "device.remove", device, {})
            return None, messages

        self._desk.do(job)
        self._cut_off(device, actor)

    def decommission(self, device: str, actor: str, *, delete: bool = False) -> dict[str, Any]:
        """Take a device out of the fleet for good; return the proof, which stands in the audit log.

        Its certificates are revoked, the broker forgets what it held, and the device's name stays known as gone until
        a new token enrols it again.

        Args:
            device: Its name.
            actor: Who says so.
            delete: Delete all that it sent, also of a device that was removed before.

        Raises:
            UsageError: Nobody knows it.
        """

        def job(db: Connection) -> tuple[dict[str, Any], list[Message]]:
            messages = self._leave(db, device) if tables.device(db, device) is not None else []
            proof = erasure.erase(db, device) if delete else {"rows": {}, "sha256": ""}
            why = Standing(DECOMMISSIONED, self._desk.clock(), "data deleted" if delete else "data kept", actor)
            device_states.put(db, device, why)
            detail = {"deleted": delete, **proof}
            self._desk.audit(db, actor, "device.decommission", device, detail)
            return {"device": device, **detail}, messages

        self._desk.store.read(lambda db: self._check_known(db, device))
        proof = self._desk.do(job)
        self._cut_off(device, actor)
        return {**proof, "files": _drop_samples(self._captures, device) if delete else 0}

    def _check_known(self, db: Connection, device: str) -> None:
        held = db.execute("SELECT device FROM certificates WHERE device = ?", (device,)).fetchone()
        if not is_name(device) or (held is None and device_states.standing(db, device) is None):
            known_device(db, device)

    def _leave(self, db: Connection, device: str) -> list[Message]:
        now = self._desk.clock()
        known_device(db, device)
        for execution in [e for e in tables.unclosed_executions(db) if e.device == device]:
            gone = remove_device({device: execution}, device, now)
            tables.put_executions(db, gone.values())
        cleared = self._cleared(device, "twin/desired", *self._desk.book.channels(db, device))
        for table in erasure.RECORD:
            db.execute(f"DELETE FROM {table} WHERE device = ?", (device,))
        device_states.clear(db, device)
        return [*cleared, *self._desk.book.tick(db, now)]

    def _cut_off(self, device: str, actor: str) -> None:
        """Revoke its certificates, then let the broker forget its words: its end is the last of them, as its will."""
        self._identities.forget(device, actor)
        self._desk.send(self._cleared(device, *TOLD))

    def _cleared(self, device: str, *channels: str) -> list[Message]:
        """Empty retained messages: the broker forgets what it held there."""
        return [Message(topic(self._desk.addresses.tenant, device, channel), b"") for channel in channels]

    def shown(self, db: Connection, device: str) -> dict[str, Any]:
        """Return what is shown of a device's standing: empty for one in good order."""
        why = device_states.standing(db, device)
        if why is None:
            return {}
        return {"standing": {**why.to_json(), "rows_apart": quarantine.counts(db, device)}}

    def all_shown(self, db: Connection) -> dict[str, dict[str, Any]]:
        """Return device → the same without its rows, for every device that gets no orders."""
        found = device_states.all_standings(db)
        return {name: {"standing": why.to_json()} for name, why in found.items()}

    def prune(self, before: float) -> None:
        """Delete what was kept apart before a time."""
        self._desk.store.write(lambda db: quarantine.prune(db, before))


def _drop_samples(folder: Path, device: str) -> int:
    """Delete the sealed samples of a device from every campaign; return how many files went."""
    gone = 0
    for campaign in folder.iterdir() if folder.is_dir() else ():
        where = campaign / device
        if campaign.is_dir() and where.is_dir():
            gone += sum(1 for _ in where.iterdir())
            shutil.rmtree(where)
    return gone
