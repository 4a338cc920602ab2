# SPDX-License-Identifier: Apache-2.0
"""Commands to single devices: what is asked, what came back, and what is said where nothing did. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edge_contract import canonical
from edge_contract.canonical import as_float
from edge_contract.errors import ContractError, MessageError, UsageError
from edge_contract.messages import load_message, open_message

__all__ = [
    "KINDS",
    "MAX_PIECES",
    "NUDGE",
    "Command",
    "kb_for",
    "last_lines",
    "new_command",
    "read_answer",
    "round_trip",
    "state_of",
    "stored",
    "why_silent",
]

KINDS: Final[Mapping[str, float]] = {"ping": 20.0, "logs": 180.0, "diagnostics": 180.0}
"""What may be asked, and for how many seconds the answer is waited for; a device collects for up to 120 s."""

NUDGE: Final = "captures"
"""Said without waiting for an answer: look for capture orders now. An older agent does not know it and looks later."""

MAX_PIECES: Final = 100
_BYTES_A_LINE: Final = 160
_MOST_KB: Final = 1000


@dataclass(frozen=True)
class Command:
    """One command; times in seconds since 1970, 0 = never.

    Attributes:
        id: Its name in the topic.
        kind: Of ``KINDS``.
        body: What is said to the device.
        actor: Who asked.
        deadline: Until when it is said again to a device that connects, and an answer is waited for.
        answer: ``{"ok": …}`` as the device gave it, empty before.
        size: Bytes of the pieces that came on ``log/<id>``.
    """

    id: str
    device: str
    kind: str
    body: Mapping[str, Any]
    actor: str
    asked_at: float
    deadline: float
    answered_at: float = 0.0
    answer: Mapping[str, Any] = field(default_factory=dict)
    size: int = 0

    @property
    def payload(self) -> bytes:
        """The message on ``cmd/<kind>/<id>``."""
        return canonical.dumps({"v": 1, **self.body})


def new_command(kind: str, document: Any, name: tuple[str, str], actor: str, now: float) -> Command:
    """Return the command that a request asks for.

    Args:
        kind: Of ``KINDS``.
        document: ``{"lines": …}`` for logs; else nothing.
        name: (id, device).
        actor: Who asks.
        now: Seconds since 1970.

    Raises:
        UsageError: Another kind, or a number of lines that is none.

    Example:
        >>> new_command("logs", {"lines": 200}, ("k1", "pi"), "op", 0.0).payload
        b'{"kb":32,"v":1}'
    """
    if kind not in KINDS:
        raise UsageError(f"unknown command '{kind[:40]}'", fix=f"use one of {', '.join(KINDS)}")
    document = document if isinstance(document, dict) else {}
    body: dict[str, Any] = {}
    if kind == "logs":
        body = {"kb": kb_for(document.get("lines", 200))}
    elif kind == "ping":
        body = {"echo": name[0]}
    return Command(name[0], name[1], kind, body, actor, now, now + KINDS[kind])


def kb_for(lines: Any) -> int:
    """Return the kilobytes that so many lines may take.

    Example:
        >>> kb_for(1), kb_for(200), kb_for(1_000_000)
        (8, 32, 1000)
    """
    if isinstance(lines, bool) or not isinstance(lines, int) or lines < 1:
        raise UsageError(f"lines = {lines!r:.40} is not a number above 0", where="logs")
    return max(8, min(_MOST_KB, lines * _BYTES_A_LINE // 1000))


def last_lines(text: str, lines: int) -> str:
    r"""Return the last lines of each log in a device's text; every log begins with ``== NAME``.

    Example:
        >>> last_lines("== a.log\n1\n2\n3\n== b.log\n4\n", 2)
        '== a.log\n2\n3\n== b.log\n4'
    """
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("== ") or not found:
            found.append([])
        if line:
            found[-1].append(line)
    return "\n".join(line for log in found for line in [log[0], *log[1:][-lines:]])


def read_answer(payload: bytes) -> dict[str, Any]:
    """Return a device's answer; raises MessageError if it is none."""
    if len(payload) > 20_000:
        raise MessageError(f"{len(payload)} bytes of answer", where="command")
    answer = open_message(load_message(payload, "command"), "command").rest()
    if not isinstance(answer.get("ok"), bool):
        raise MessageError("does not say whether it is ok", where="command")
    return dict(answer)


def state_of(command: Command, now: float) -> str:
    """Return ``waiting``, ``done``, ``failed`` or ``timed out``; an answer counts however late it is."""
    if command.answered_at:
        return "done" if command.answer.get("ok") else "failed"
    return "timed out" if now >= command.deadline else "waiting"


def why_silent(command: Command, *, online: bool, last_seen: float, now: float) -> str:
    """Return what is said of a command without an answer.

    Example:
        >>> one = Command("k1", "pi", "ping", {}, "op", 100.0, 120.0)
        >>> why_silent(one, online=False, last_seen=40.0, now=120.0)
        'pi gave no answer within 20 s: it is offline, last heard of 80 s ago'
    """
    waited = command.deadline - command.asked_at if now >= command.deadline else now - command.asked_at
    what = f"{command.device} gave no answer within {waited:.0f} s"
    if online:
        return f"{what}, though it is online: its agent may be older, or busy with another command"
    if not last_seen:
        return f"{what}: it has never been heard of"
    return f"{what}: it is offline, last heard of {max(0.0, now - last_seen):.0f} s ago"


def round_trip(command: Command) -> dict[str, float]:
    """Return how long a ping took, and how far the device's clock is ahead, in seconds; half the way is taken off.

    Example:
        >>> one = Command("k1", "pi", "ping", {}, "op", 100.0, 120.0, 100.2, {"ok": True, "time": 103.1})
        >>> {name: round(value, 3) for name, value in round_trip(one).items()}
        {'round_trip_s': 0.2, 'clock_ahead_s': 3.0}
    """
    found = {"round_trip_s": command.answered_at - command.asked_at}
    try:
        there = as_float(command.answer.get("time"))
    except ContractError:
        return found
    return {**found, "clock_ahead_s": there - (command.asked_at + command.answered_at) / 2}


def stored(value: Mapping[str, Any]) -> bytes:
    """Return a document as it is kept; its numbers stay what they are."""
    return json.dumps(dict(value), sort_keys=True).encode()
