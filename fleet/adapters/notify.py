# SPDX-License-Identifier: Apache-2.0
"""Alerts on their way: signed webhooks and e-mail out of the outbox, tried again with longer and longer waits.

A webhook is a POST of JSON with the headers ``strop-timestamp`` (seconds since 1970) and ``strop-signature``:
``v1=`` and the HMAC-SHA256 of ``<timestamp>.<body>`` in hex. A receiver computes the same, compares in constant
time, refuses timestamps that are minutes old, and takes an ``id`` that it knows as done.
"""

import hashlib
import hmac
import json
import logging
import smtplib
import ssl
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import StropError, UsageError
from fleet.adapters.alert_book import AlertVerbs
from fleet.adapters.database import Connection, Row
from fleet.adapters.pulse import Pulse
from fleet.adapters.store import Store

__all__ = ["Notifier", "signature"]

_log = logging.getLogger("strop.fleet.alerts")

LOOK_S: Final = 15.0
_TIMEOUT_S: Final = 10.0
_FIRST_WAIT_S: Final = 5.0
_LONGEST_WAIT_S: Final = 3600.0
_GIVE_UP_S: Final = 86_400.0


def signature(secret: bytes, timestamp: int, body: bytes) -> str:
    """Return what the header ``strop-signature`` holds.

    Example:
        >>> signature(b"key", 1700000000, b"{}")[:14]
        'v1=9d713ed406b'
    """
    return "v1=" + hmac.new(secret, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def _secret(receiver: Mapping[str, Any], key: str) -> str:
    path = receiver.get(key, "")
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=f"alerts.toml {key} = {path}") from error


def post(receiver: Mapping[str, Any], body: bytes, now: float) -> None:
    """Send one webhook; raises StropError unless the answer is 2xx."""
    import httpx

    stamp, secret = int(now), _secret(receiver, "secret_file")
    headers = {"content-type": "application/json", "strop-timestamp": str(stamp)}
    if secret:
        headers["strop-signature"] = signature(secret.encode(), stamp, body)
    url = str(receiver.get("url", ""))
    try:
        answer = httpx.post(
            url, content=body, headers=headers, timeout=_TIMEOUT_S, follow_redirects=False, trust_env=False
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StropError(f"no answer: {error}", where=url) from error
    if not answer.is_success:
        raise StropError(f"answered {answer.status_code}", where=url)


def mail(receiver: Mapping[str, Any], body: bytes, _now: float) -> None:
    """Send one e-mail; raises StropError if the server refuses it."""
    said = json.loads(body)
    alert, message = said["alert"], EmailMessage()
    message["From"], message["To"] = str(receiver.get("from", "")), ", ".join(map(str, receiver.get("to", [])))
    message["Subject"] = " ".join(f"[strop] {said['event']}: {alert['rule']} {alert['subject']}".split())[:200]
    message["Message-ID"] = f"<{said['id']}@strop.invalid>"
    message.set_content(f"{alert['words']}\n\nrule {alert['rule']}, {alert['severity']}, {said['event']}\n")
    host, port = str(receiver.get("host", "localhost")), int(receiver.get("port", 25))
    try:
        with smtplib.SMTP(host, port, timeout=_TIMEOUT_S) as server:
            if receiver.get("starttls", False):
                server.starttls(context=ssl.create_default_context())
            if receiver.get("user"):
                server.login(str(receiver["user"]), _secret(receiver, "password_file"))
            server.send_message(message)
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise StropError(f"the mail was not taken: {error}", where=f"{host}:{port}") from error


_SENDERS: Final[Mapping[str, Callable[[Mapping[str, Any], bytes, float], None]]] = {"webhook": post, "email": mail}


class Notifier:
    """A thread that looks for alerts and empties the outbox; a receiver that is away holds nobody else up for long.

    Args:
        alerts: Looks, and knows the receivers.
        store: The database.
        clock: Seconds since 1970.
    """

    def __init__(self, alerts: AlertVerbs, store: Store, clock: Callable[[], float]) -> None:
        self._alerts, self._store, self._clock = alerts, store, clock
        self._pulse = Pulse("alerts", LOOK_S, self._step, "alerts could not be looked for", at_once=False)

    def start(self) -> None:
        """Begin."""
        self._pulse.start()

    def stop(self) -> None:
        """End; a message that is being sent is waited for."""
        self._pulse.stop(_TIMEOUT_S)

    def _step(self) -> None:
        self._alerts.step()
        self.deliver()

    def deliver(self) -> int:
        """Send what is due; return how many were taken."""
        _, receivers = self._alerts.settings()
        now = self._clock()

        def due(db: Connection) -> list[Row]:
            statement = (
                "SELECT * FROM alert_outbox WHERE sent_at = 0 AND next_at <= ? AND created_at > ? ORDER BY created_at"
            )
            return db.execute(statement, (now, now - _GIVE_UP_S)).fetchall()

        taken, away = 0, set[str]()
        for row in self._store.read(due):
            if row["receiver"] in away or self._pulse.is_stopping:
                continue
            fault = self._send(row, receivers)
            if fault:
                away.add(row["receiver"])
            taken += not fault
        return taken

    def _send(self, row: Row, receivers: Mapping[str, list[dict[str, Any]]]) -> str:
        kind, _, number = row["receiver"].partition(":")
        listed, now = receivers.get(kind, []), self._clock()
        fault = ""
        if int(number) >= len(listed):
            fault = "this receiver stands in alerts.toml no more"
        else:
            try:
                _SENDERS[kind](listed[int(number)], bytes(row["body"]), now)
            except StropError as error:
                fault = str(error)
        tries = row["tries"] + 1
        wait = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(row["tries"], 20))
        values = (tries, fault[:300], 0.0 if fault else now, now + wait, row["id"])
        statement = "UPDATE alert_outbox SET tries = ?, error = ?, sent_at = ?, next_at = ? WHERE id = ?"
        self._store.write(lambda db: db.execute(statement, values).rowcount)
        return fault
