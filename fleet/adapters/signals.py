# SPDX-License-Identifier: Apache-2.0
"""Signals to train again in the database: made when alarms persist, held by whoever works on one, closed for good.

A signal is OPEN until it is HANDLED (healed, or done by a person) or DISMISSED by a person with a reason. Who works on
it holds it for a time (a lease): a second loop is refused, and one that died lets go by itself.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import UsageError
from edge_contract.findings import Level
from edge_contract.profile import ReferenceProfile
from edge_contract.retrain import RetrainSignal
from edge_contract.summary import decode
from fleet.adapters import signal_rows as rows
from fleet.adapters import tables
from fleet.adapters.alert_book import AlertVerbs
from fleet.adapters.database import Connection, Row
from fleet.adapters.desk import Desk
from fleet.adapters.roster import Line, Roster
from fleet.adapters.signal_rows import OPEN, open_signals
from fleet.core.alerts import Alert, State
from fleet.core.retrain import Cohort, RetrainRules, Suspect, is_due, needed, persists, read_rules, signal_of

__all__ = ["CLOSED", "OPEN", "SignalVerbs", "open_signals"]

RULES_NAME: Final = "retrain.toml"
CLOSED: Final = ("handled", "dismissed")
LONGEST_LEASE_S: Final = 86_400.0
MOST_LOOKS: Final = 1000
"""Devices of one bundle whose windows are read in one look."""


class SignalVerbs:
    """Looks for models that are worth a new training, and what people and loops do with the signals.

    Args:
        desk: Database, clock, audit.
        roster: The devices' lines.
        alerts: Brings a signal to the receivers of ``alerts.toml``.
        data: The data folder: ``retrain.toml``.
    """

    def __init__(self, desk: Desk, roster: Roster, alerts: AlertVerbs, data: Path) -> None:
        self._desk, self._roster, self._alerts, self._data = desk, roster, alerts, data
        self._suspects = frozenset[str]()

    def rules(self) -> RetrainRules:
        """Return the settings in force; raises UsageError where the file cannot be read."""
        path = self._data / RULES_NAME
        try:
            return read_rules(path.read_text(encoding="utf-8"), str(path))
        except FileNotFoundError:
            return RetrainRules()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot be read: {error}", where=str(path)) from error

    def step(self) -> list[RetrainSignal]:
        """Look once; return the signals that were made."""
        rules, lines = self.rules(), self._roster.lines()
        # A device with two models has one level here, that of its newest window: who was suspected is looked at again.
        alarmed = {line.device for line in lines if line.level in (Level.WARN.value, Level.ALARM.value)}
        suspects = alarmed | (self._suspects & {line.device for line in lines})
        if not suspects:
            return []
        looked = [line for line in lines if line.device in suspects and not line.held]
        cohorts, left = self._desk.store.read(lambda db: self._look(db, rules, lines, looked))
        self._suspects = left | frozenset(alarmed)
        return [made for cohort in cohorts if (made := self._make(rules, cohort)) is not None]

    def _look(
        self, db: Connection, rules: RetrainRules, lines: list[Line], looked: list[Line]
    ) -> tuple[list[Cohort], frozenset[str]]:
        """Return the cohorts that may make a signal, and who stays suspected."""
        found, left = list[Cohort](), set[str]()
        for model, bundle in sorted({(slot.model, slot.running) for line in looked for slot in line.slots}):
            version = tables.model(db, bundle) if bundle else None
            if version is None:
                continue
            mine, size = rules.of(model), sum(_runs(line, model, bundle) for line in lines)
            known = rows.healed_devices(db, version.manifest.lineage)
            runs = [one.device for one in looked if _runs(one, model, bundle) and one.device not in known][:MOST_LOOKS]
            all_ = [Suspect(device, rows.verdicts(db, device, bundle, mine.windows)) for device in runs]
            left |= {one.device for one in all_ if one.verdicts and one.verdicts[-1].level is not Level.OK}
            sure = tuple(one for one in all_ if persists(mine, one.verdicts))
            if len(sure) >= needed(mine, size):
                found.append(Cohort(model, bundle, size, sure))
        return found, frozenset(left)

    def _make(self, rules: RetrainRules, cohort: Cohort) -> RetrainSignal | None:
        mine, now = rules.of(cohort.model), self._desk.clock()

        def job(db: Connection) -> RetrainSignal | None:
            if (held := rows.open_of(db, cohort)) is not None:
                self._grow(db, held, signal_of(mine, cohort, now), now)
            if rows.is_busy(db, cohort.model) or not is_due(mine, cohort, rows.last_time(db, cohort.model), now):
                return None
            made = replace(signal_of(mine, cohort, now), number=rows.next_number(db))
            db.execute(
                f"INSERT INTO retrain_signals ({rows.COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                (made.number, made.model, made.bundle, rows.OPEN, now, 0.0, "", "", "", 0.0, rows.document_of(made)),
            )
            detail = {"number": made.number, "bundle": made.bundle, "devices": list(made.devices)[:50]}
            self._desk.audit(db, "server", "signal.make", made.model, detail)
            self._tell(db, "signal", made, now, f"{_words(made)}: train {made.model} again")
            return made

        return self._desk.store.write(job)

    def _grow(self, db: Connection, row: Row, seen: RetrainSignal, now: float) -> None:
        """Take devices into an open signal whose alarms persist since it was made; not while somebody works on it."""
        signal = rows.signal_in(row)
        new = sorted(set(seen.devices) - set(signal.devices))
        if not new or now < row["held_until"]:
            return
        since = min(signal.since_ms, seen.since_ms)
        devices = tuple(sorted({*signal.devices, *new}))
        grown = replace(seen, number=signal.number, devices=devices, since_ms=since)
        statement = "UPDATE retrain_signals SET document = ? WHERE number = ?"
        db.execute(statement, (rows.document_of(grown), signal.number))
        self._desk.audit(db, "server", "signal.grow", signal.model, {"number": signal.number, "devices": new[:50]})

    def _tell(self, db: Connection, event: str, made: RetrainSignal, now: float, words: str) -> None:
        alert = Alert("retrain", made.model, words, "warning", State.FIRING, now, now)
        self._alerts.tell(db, event, alert, {"signal": made.to_json()})

    def listed(self, *, every: bool = False) -> list[dict[str, Any]]:
        """Return the open signals, or all, newest first."""
        now, only = self._desk.clock(), "" if every else "WHERE state = 'open'"
        found = self._desk.store.read(
            lambda db: db.execute(f"SELECT {rows.COLUMNS} FROM retrain_signals {only} ORDER BY number DESC").fetchall()
        )
        return [rows.shown(row, now) for row in found]

    def show(self, number: int) -> dict[str, Any]:
        """Return one signal with its evidence, which of its devices run its bundle and allow captures, and what is now.

        Raises:
            UsageError: No such signal.
        """
        now = self._desk.clock()

        def read(db: Connection) -> dict[str, Any]:
            row = rows.known_row(db, number)
            signal = rows.signal_in(row)
            records = [record for name in signal.devices if (record := tables.device(db, name)) is not None]
            there = [one for one in records if one.running.get(signal.model) == signal.bundle]
            consenting = [one.device for one in there if one.allows_captures]
            states = [rows.now_of(db, one.device, one.running.get(signal.model, "")) for one in records]
            return {
                **rows.shown(row, now),
                "running": [o.device for o in there],
                "consenting": consenting,
                "now": states,
            }

        return self._desk.store.read(read)

    def profile(self, number: int) -> bytes:
        """Return the reference profile that the signal's devices were judged with.

        Raises:
            UsageError: No such signal, or its bundle or windows are gone.
        """

        def read(db: Connection) -> bytes | None:
            signal = rows.signal_in(rows.known_row(db, number))
            version, windows = tables.model(db, signal.bundle), rows.drifted(db, signal)
            if version is None or not windows:
                return None
            crc = decode(windows[0]).profile_crc
            paths = sorted(set(version.manifest.profiles.values()))
            held = (self._desk.blobs.read(version.manifest.file(path).sha256) for path in paths)
            return next((data for data in held if ReferenceProfile.from_bytes(data).crc == crc), None)

        found = self._desk.store.read(read)
        if found is None:
            raise UsageError("its bundle's profile or its windows are gone", where=f"signal {number}")
        return found

    def windows(self, number: int) -> list[bytes]:
        """Return the summaries of the newest windows that stood at the level, of each device of a signal."""
        return self._desk.store.read(lambda db: rows.drifted(db, rows.signal_in(rows.known_row(db, number))))

    def take(self, number: int, holder: str, seconds: float, actor: str) -> dict[str, Any]:
        """Hold a signal for a time, or for longer; nobody else may work on it until then.

        Raises:
            UsageError: No such signal, or not a time up to a day.
            RegistryError: It is closed, or somebody else holds it.
        """
        now = self._desk.clock()
        if not holder or len(holder) > 100 or not holder.isprintable() or not 1.0 <= seconds <= LONGEST_LEASE_S:
            raise UsageError("a signal is held under a name, for 1 s to a day", where=f"signal {number}")

        def job(db: Connection) -> dict[str, Any]:
            row = rows.open_row(db, number)
            rows.refuse_other(row, holder, now)
            statement = "UPDATE retrain_signals SET holder = ?, held_until = ? WHERE number = ?"
            db.execute(statement, (holder, now + seconds, number))
            if row["holder"] != holder:
                self._desk.audit(db, actor, "signal.take", row["model"], {"number": number, "holder": holder})
            return rows.shown(rows.known_row(db, number), now)

        return self._desk.store.write(job)

    def leave(self, number: int, holder: str, reason: str, actor: str) -> dict[str, Any]:
        """Let go of a signal and leave it open, with the reason why the work on it failed.

        Raises:
            UsageError: No such signal.
            RegistryError: It is closed, or somebody else holds it.
        """
        now = self._desk.clock()

        def job(db: Connection) -> dict[str, Any]:
            row = rows.open_row(db, number)
            rows.refuse_other(row, holder, now)
            statement = "UPDATE retrain_signals SET holder = '', held_until = 0, actor = ?, reason = ? WHERE number = ?"
            db.execute(statement, (actor, _short(reason), number))
            self._desk.audit(db, actor, "signal.leave", row["model"], {"number": number, "reason": _short(reason)})
            return rows.shown(rows.known_row(db, number), now)

        return self._desk.store.write(job)

    def close(self, number: int, outcome: str, reason: str, actor: str, *, holder: str = "") -> dict[str, Any]:
        """Close a signal: ``handled``, or ``dismissed`` with a reason. A person may close one that a loop holds.

        Raises:
            UsageError: No such signal, another outcome, or no reason.
            RegistryError: It is closed, or another loop holds it.
        """
        now = self._desk.clock()
        if outcome not in CLOSED or not reason.strip():
            raise UsageError(f"how is it closed? {outcome[:20]!r}", fix=f"use {' or '.join(CLOSED)}, with a reason")

        def job(db: Connection) -> dict[str, Any]:
            row = rows.open_row(db, number)
            if holder:
                rows.refuse_other(row, holder, now)
            names = "state = ?, closed_at = ?, actor = ?, reason = ?, holder = '', held_until = 0"
            values = (outcome, now, actor, _short(reason), number)
            db.execute(f"UPDATE retrain_signals SET {names} WHERE number = ?", values)
            self._desk.audit(db, actor, f"signal.{outcome}", row["model"], {"number": number, "reason": _short(reason)})
            self._tell(
                db, outcome, rows.signal_in(row), now, f"signal {number} of {row['model']} is {outcome}: {reason}"
            )
            return rows.shown(rows.known_row(db, number), now)

        return self._desk.store.write(job)


def _runs(line: Line, model: str, bundle: str) -> bool:
    return any(slot.model == model and slot.running == bundle for slot in line.slots)


def _words(made: RetrainSignal) -> str:
    return f"{len(made.devices)} of {made.evidence['cohort']} devices see other inputs, {made.evidence['rule']}"


def _short(text: str) -> str:
    return " ".join(text.split())[:500]
