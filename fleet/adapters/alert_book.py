# SPDX-License-Identifier: Apache-2.0
"""Alerts in the database: looked for, kept, muted, and put into an outbox in the transaction in which they fire."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from edge_contract import canonical
from edge_contract.errors import UsageError
from edge_contract.states import RolloutState
from fleet.adapters.database import Connection, upsert
from fleet.adapters.desk import Desk
from fleet.adapters.roster import Line, Roster
from fleet.core.alerts import Alert, AlertRules, Finding, Mute, State, gathered, judge, read_rules

__all__ = ["AlertVerbs"]

RULES_NAME: Final = "alerts.toml"
_KEPT_S: Final = 7 * 86_400.0
_LONGEST_MUTE_S: Final = 30 * 86_400.0
_STOPPED: Final = (RolloutState.ABORTED.value, RolloutState.PAUSED.value)
_ROLLOUTS: Final = 40
_DAY_S: Final = 86_400.0


class AlertVerbs:
    """Looks for what is wrong, and what operators do with it. Safe to call from any thread.

    Args:
        desk: Database, clock, audit.
        roster: The devices' lines.
        data: The data folder: ``alerts.toml`` and the disk that must not fill.
    """

    def __init__(self, desk: Desk, roster: Roster, data: Path) -> None:
        self._desk, self._roster, self._data = desk, roster, data

    def settings(self) -> tuple[AlertRules, dict[str, list[dict[str, Any]]]]:
        """Return rules and receivers; raises UsageError where the file cannot be read."""
        path = self._data / RULES_NAME
        try:
            return read_rules(path.read_text(encoding="utf-8"), str(path))
        except FileNotFoundError:
            return AlertRules(), {"webhook": [], "email": []}
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot be read: {error}", where=str(path)) from error

    def step(self) -> list[tuple[str, Alert]]:
        """Look once; return what fired or ended, which stands in the outbox already unless it is muted."""
        rules, receivers = self.settings()
        now, lines = self._desk.clock(), self._roster.lines()
        names = [f"{kind}:{i}" for kind, listed in receivers.items() for i in range(len(listed))]

        def job(db: Connection) -> list[tuple[str, Alert]]:
            found = gathered(_findings(db, rules, lines, self._data, now))
            after, events = judge(_alerts(db), found, rules, now)
            db.execute("DELETE FROM alerts")
            statement = "INSERT INTO alerts (alert, document) VALUES (?,?)"
            db.executemany(statement, [(key, canonical.dumps(one.to_json())) for key, one in after.items()])
            mutes = _mutes(db)
            for event, alert in events:
                self._desk.audit(db, "server", f"alert.{event}", alert.key, {"words": alert.words})
                if not any(mute.covers(alert.key, now) for mute in mutes):
                    self._put_out(db, event, alert, names, now)
            db.execute("DELETE FROM alert_outbox WHERE created_at < ?", (now - _KEPT_S,))
            return events

        return self._desk.store.write(job)

    def tell(self, db: Connection, event: str, alert: Alert, more: dict[str, Any]) -> None:
        """Put news that is no lasting finding into the outbox, in the caller's transaction; a mute keeps it quiet.

        Rules that cannot be read must not lose what is being written: then nobody is told.
        """
        now = self._desk.clock()
        if any(mute.covers(alert.key, now) for mute in _mutes(db)):
            return
        with contextlib.suppress(UsageError):
            _, receivers = self.settings()
            names = [f"{kind}:{i}" for kind, listed in receivers.items() for i in range(len(listed))]
            self._put_out(db, event, alert, names, now, more)

    def _put_out(  # noqa: PLR0917 - one row of the outbox for each receiver
        self, db: Connection, event: str, alert: Alert, names: list[str], now: float, more: dict[str, Any] | None = None
    ) -> None:
        for name in names:
            message = self._desk.random_bytes(8).hex()
            body = {"id": message, "event": event, "time": now, "alert": alert.to_json(), **(more or {})}
            values = (message, name, json.dumps(body, sort_keys=True).encode(), now, now, 0, "", 0.0)
            db.execute(
                "INSERT INTO alert_outbox (id, receiver, body, created_at, next_at, tries, error, sent_at) "
                "VALUES (?,?,?,?,?,?,?,?)",
                values,
            )

    def test(self, actor: str) -> int:
        """Put a message for each receiver into the outbox; return how many."""
        _, receivers = self.settings()
        now = self._desk.clock()
        names = [f"{kind}:{i}" for kind, listed in receivers.items() for i in range(len(listed))]
        alert = Alert("test", "", f"a test by {actor}", "warning", State.FIRING, now, now)

        def job(db: Connection) -> int:
            self._put_out(db, "test", alert, names, now)
            self._desk.audit(db, actor, "alert.test", "", {"receivers": len(names)})
            return len(names)

        return self._desk.store.write(job)

    def mute(self, pattern: str, seconds: float, reason: str, actor: str) -> Mute:
        """Send no alerts whose key fits a pattern, for a time.

        Raises:
            UsageError: An empty pattern, or a time of more than 30 days.
        """
        if not pattern or len(pattern) > 200 or not pattern.isprintable():
            raise UsageError("which alerts?", fix="write a key such as offline:cam-7, or a pattern such as offline:*")
        if not 1.0 <= seconds <= _LONGEST_MUTE_S:
            raise UsageError(f"a mute cannot last {seconds:g} s", fix="use 1 s to 30 days")
        mute = Mute(
            self._desk.random_bytes(4).hex(),
            pattern,
            self._desk.clock() + seconds,
            " ".join(reason.split())[:300],
            actor,
        )

        def job(db: Connection) -> Mute:
            columns = ("pattern", "until", "reason", "actor")
            db.execute(upsert("alert_mutes", "id", *columns), (mute.id, pattern, mute.until, mute.reason, actor))
            detail = {"pattern": pattern, "until": mute.until, "reason": mute.reason}
            self._desk.audit(db, actor, "alert.mute", mute.id, detail)
            return mute

        return self._desk.store.write(job)

    def unmute(self, mute_id: str, actor: str) -> None:
        """End a mute; raises UsageError if there is none."""

        def job(db: Connection) -> None:
            if db.execute("DELETE FROM alert_mutes WHERE id = ?", (mute_id,)).rowcount == 0:
                raise UsageError(f"mute '{mute_id[:40]}' is not known", fix="strop fleet alert list")
            self._desk.audit(db, actor, "alert.unmute", mute_id, {})

        self._desk.store.write(job)

    def shown(self) -> dict[str, Any]:
        """Return alerts, mutes and what the outbox holds."""
        now = self._desk.clock()

        def read(db: Connection) -> dict[str, Any]:
            mutes = [one for one in _mutes(db) if now < one.until]
            alerts = sorted(_alerts(db).values(), key=lambda one: (one.state, one.severity, -one.since))
            rows = db.execute("SELECT * FROM alert_outbox ORDER BY created_at DESC LIMIT 50").fetchall()
            return {
                "alerts": [{**a.to_json(), "muted": any(m.covers(a.key, now) for m in mutes)} for a in alerts],
                "mutes": [one.to_json() for one in mutes],
                "outbox": [{key: row[key] for key in row.keys() if key != "body"} for row in rows],  # noqa: SIM118
            }

        return self._desk.store.read(read)


def _alerts(db: Connection) -> dict[str, Alert]:
    found = {}
    for row in db.execute("SELECT alert, document FROM alerts").fetchall():
        d = json.loads(bytes(row["document"]))
        times = (canonical.as_float(d[key]) for key in ("since", "fired_at", "away_since"))
        found[row["alert"]] = Alert(d["rule"], d["subject"], d["words"], d["severity"], State(d["state"]), *times)
    return found


def _mutes(db: Connection) -> list[Mute]:
    rows = db.execute("SELECT * FROM alert_mutes ORDER BY until").fetchall()
    return [Mute(row["id"], row["pattern"], row["until"], row["reason"], row["actor"]) for row in rows]


def _findings(db: Connection, rules: AlertRules, lines: list[Line], data: Path, now: float) -> Iterator[Finding]:
    yield from _of_devices(rules, lines, now)
    if rules.certificate_days:
        yield from _of_certificates(db, rules.certificate_days, now)
    if rules.rollout:
        yield from _of_rollouts(db)
    free = shutil.disk_usage(data).free / 1e6
    if free < rules.disk_free_mb:
        yield Finding("disk", "", f"{free:.0f} MB are left on the disk of {data}", "critical")
    if rules.dead_letters:
        row = db.execute("SELECT COUNT(*) AS n FROM dead_letters WHERE time > ?", (now - 3600.0,)).fetchone()
        if row["n"] >= rules.dead_letters:
            yield Finding("dead_letters", "", f"{row['n']} messages of the last hour could not be read")


def _of_devices(rules: AlertRules, lines: list[Line], now: float) -> Iterator[Finding]:
    for line in lines:
        if rules.offline_s and line.last_seen and now - line.last_seen > rules.offline_s:
            yield Finding(
                "offline", line.device, f"{line.device} has said nothing for {(now - line.last_seen) / 60:.0f} min"
            )
        if rules.drift and line.level == "ALARM":
            lost = f", about {100 * line.loss:.0f} % of accuracy lost" if line.loss and line.loss > 0.005 else ""
            yield Finding(
                "drift", line.device, f"{line.device} sees other inputs than its model knows{lost}", "critical"
            )
        if rules.quarantine and line.held == "quarantined":
            yield Finding("quarantine", line.device, f"{line.device} is in quarantine")


def _of_certificates(db: Connection, days: float, now: float) -> Iterator[Finding]:
    rows = db.execute(
        "SELECT d.device AS device, MAX(c.not_after) AS ends FROM devices d JOIN certificates c ON c.device = d.device "
        "WHERE c.revoked_at = 0 GROUP BY d.device HAVING MAX(c.not_after) < ? ORDER BY d.device",
        (now + days * _DAY_S,),
    )
    for row in rows.fetchall():
        left = (row["ends"] - now) / _DAY_S
        words = f"the certificate of {row['device']} {'ends in' if left > 0 else 'ended'} {abs(left):.0f} days"
        yield Finding("certificate", row["device"], words if left > 0 else f"{words} ago")


def _of_rollouts(db: Connection) -> Iterator[Finding]:
    """A stopped rollout, until a newer one of its model was started."""
    rows = db.execute("SELECT state, document FROM rollouts ORDER BY number DESC LIMIT ?", (_ROLLOUTS,)).fetchall()
    seen: set[str] = set()
    for row in rows:
        document = json.loads(bytes(row["document"]))
        if document["model"] not in seen and row["state"] in _STOPPED:
            stopped = f"rollout {document['id']} of {document['model']} {document['version']} is {row['state'].lower()}"
            yield Finding("rollout", document["id"], f"{stopped}: {document['reason'] or 'by hand'}", "critical")
        seen.add(document["model"])
