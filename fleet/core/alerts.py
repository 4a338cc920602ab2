# SPDX-License-Identifier: Apache-2.0
"""Alerts: a finding that lasts becomes an alert, one that stays away ends it, and a mute keeps it quiet. Pure.

Theory of operation. Each look gives findings: what is wrong now, by rule and subject. A finding must last ``hold_s``
before its alert FIRES, and must be away for ``clear_s`` before it ENDS; so one that flickers fires once. Many subjects
of one rule become one alert of the fleet: nobody reads a thousand messages.
"""

import enum
import fnmatch
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from edge_contract.errors import UsageError

__all__ = ["Alert", "AlertRules", "Finding", "Mute", "State", "gathered", "judge", "read_rules"]

MOST_SUBJECTS: Final = 20
"""Findings of one rule that are told one by one."""


class State(enum.StrEnum):
    """Where an alert stands; an ended one is forgotten."""

    PENDING = "pending"
    FIRING = "firing"
    CLEARING = "clearing"


@dataclass(frozen=True)
class Finding:
    """What is wrong now.

    Attributes:
        rule: Name of the rule.
        subject: Device or rollout; empty for the server or the fleet.
        words: One sentence.
        severity: ``critical`` or ``warning``.
    """

    rule: str
    subject: str
    words: str
    severity: str = "warning"

    @property
    def key(self) -> str:
        return f"{self.rule}:{self.subject}"


@dataclass(frozen=True)
class Alert:
    """A finding over time; seconds since 1970, 0 = never."""

    rule: str
    subject: str
    words: str
    severity: str
    state: State
    since: float
    fired_at: float = 0.0
    away_since: float = 0.0

    @property
    def key(self) -> str:
        return f"{self.rule}:{self.subject}"

    @property
    def has_fired(self) -> bool:
        """True from its first message to its end."""
        return self.state is not State.PENDING

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "state": self.state.value, "key": self.key}


@dataclass(frozen=True)
class Mute:
    """Alerts whose key fits a pattern are not sent before ``until``; they are shown all the same."""

    id: str
    pattern: str
    until: float
    reason: str
    actor: str

    def covers(self, key: str, now: float) -> bool:
        """True if an alert of this key is quiet now.

        Example:
            >>> Mute("m1", "offline:cam-*", 100.0, "", "ada").covers("offline:cam-7", 50.0)
            True
        """
        return now < self.until and fnmatch.fnmatchcase(key, self.pattern)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class AlertRules:
    """``[rules]`` of ``alerts.toml``; 0 turns a rule off.

    Attributes:
        offline_s: A device is silent for so long.
        certificate_days: A device's certificate ends so soon.
        disk_free_mb: The data folder's disk has less.
        dead_letters: So many messages an hour could not be read.
        drift, rollout, quarantine: 1 tells of drift alarms, stopped rollouts, devices in quarantine.
        hold_s: A finding must last so long.
        clear_s: It must be away for so long.
    """

    offline_s: float = 3600.0
    certificate_days: float = 21.0
    disk_free_mb: float = 1000.0
    dead_letters: float = 10.0
    drift: float = 1.0
    rollout: float = 1.0
    quarantine: float = 1.0
    hold_s: float = 120.0
    clear_s: float = 300.0


def read_rules(text: str, where: str) -> tuple[AlertRules, dict[str, list[dict[str, Any]]]]:
    r"""Return the rules and the receivers (``webhook``, ``email``) of ``alerts.toml``.

    Raises:
        UsageError: Not TOML, an unknown key, or a value that is no number from 0 on.

    Example:
        >>> rules, receivers = read_rules('[rules]\noffline_s = 60\n[[webhook]]\nurl = "https://x"', "alerts.toml")
        >>> rules.offline_s, receivers["webhook"][0]["url"]
        (60.0, 'https://x')
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not TOML: {error}", where=where) from error
    receivers = {name: document.pop(name, []) for name in ("webhook", "email")}
    given = document.pop("rules", {})
    known = [one.name for one in fields(AlertRules)]
    for key in [*document, *(key for key in given if key not in known)]:
        raise UsageError(f"unknown key '{key}'", where=where, fix=f"use {', '.join(known)}, webhook, email")
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise UsageError(f"{key} = {value!r} is not a number from 0 on", where=where)
    for name, listed in receivers.items():
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise UsageError(f"{name} is not a list of tables", where=where, fix=f"write [[{name}]]")
    return AlertRules(**{key: float(value) for key, value in given.items()}), receivers


def gathered(findings: Iterable[Finding]) -> dict[str, Finding]:
    """Return findings by key; many of one rule become one of the fleet.

    Example:
        >>> many = [Finding("offline", f"d{i}", "silent") for i in range(50)]
        >>> [one.words for one in gathered(many).values()]
        ['50 devices: d0, d1, d2, d3, d4, d5 and more; the first: silent']
    """
    by_rule: dict[str, list[Finding]] = defaultdict(list)
    for one in findings:
        by_rule[one.rule].append(one)
    found: dict[str, Finding] = {}
    for rule, listed in by_rule.items():
        if len(listed) > MOST_SUBJECTS:
            names = ", ".join(one.subject for one in listed[:6])
            words = f"{len(listed)} devices: {names} and more; the first: {listed[0].words}"
            listed = [Finding(rule, "", words, listed[0].severity)]
        found.update({one.key: one for one in listed})
    return found


def judge(
    known: Mapping[str, Alert], found: Mapping[str, Finding], rules: AlertRules, now: float
) -> tuple[dict[str, Alert], list[tuple[str, Alert]]]:
    """Return the alerts after a look, and what happened: (``fired`` or ``ended``, alert).

    Example:
        >>> rules, wrong = AlertRules(hold_s=60, clear_s=60), gathered([Finding("disk", "", "90 MB left")])
        >>> alerts, events = judge({}, wrong, rules, 0.0)
        >>> alerts, events = judge(alerts, wrong, rules, 61.0)
        >>> events[0][0], alerts["disk:"].state.value
        ('fired', 'firing')
        >>> alerts, events = judge(alerts, {}, rules, 70.0)
        >>> alerts, events = judge(alerts, {}, rules, 131.0)
        >>> events[0][0], alerts
        ('ended', {})
    """
    after: dict[str, Alert] = {}
    events: list[tuple[str, Alert]] = []
    for key, one in found.items():
        after[key] = _seen(known.get(key), one, rules, now)
        if after[key].has_fired and not (key in known and known[key].has_fired):
            events.append(("fired", after[key]))
    for key, alert in known.items():
        if key in found or not alert.has_fired:  # a finding that did not last leaves no trace
            continue
        away = alert.away_since or now
        if now - away >= rules.clear_s:
            events.append(("ended", alert))
        else:
            after[key] = replace(alert, state=State.CLEARING, away_since=away)
    return after, events


def _seen(alert: Alert | None, one: Finding, rules: AlertRules, now: float) -> Alert:
    since = alert.since if alert else now
    if alert is not None and alert.has_fired:
        state, fired_at = State.FIRING, alert.fired_at
    else:
        is_old = now - since >= rules.hold_s
        state, fired_at = (State.FIRING, now) if is_old else (State.PENDING, 0.0)
    return Alert(one.rule, one.subject, one.words, one.severity, state, since, fired_at)
