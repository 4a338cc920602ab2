# SPDX-License-Identifier: Apache-2.0
"""Commands on ``cmd/<type>/<id>``: who carries them out, and what becomes of a message that crashes whoever reads it.

A light command is answered by the core itself. A heavy one (``Identity.commands``) is carried out by the rim beside
the loop, and is in the journal while it is: a process that dies of it comes back knowing what it died of. A message,
of any channel, that crashed its handler twice is poison: it is put aside, reported, and not read again.

To add a light command: a function here, and a line in ``_LIGHT``. A heavy one: a function in the rim's table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_agent.core.effects import Effect, Note, Publish, RunCommand, Save
from edge_agent.core.events import CommandDone, HandlerFailed, Message
from edge_agent.core.lane import Identity
from edge_contract import canonical
from edge_contract.errors import ContractError, MessageError
from edge_contract.messages import load_message, open_message

__all__ = ["MAX_CRASHES", "Desktop", "crashed", "done", "heard", "key_of", "remember"]

MAX_CRASHES: Final = 2
_KEPT: Final = 64
"""Most messages of which crashes are remembered; the oldest are forgotten."""


@dataclass(frozen=True)
class Desktop:
    """What is known of commands and of messages that do harm.

    Attributes:
        running: Keys of heavy commands that the rim has in hand.
        crashes: Key of a message → how often it crashed whoever read it.
    """

    running: tuple[str, ...] = ()
    crashes: Mapping[str, int] = field(default_factory=dict)

    def is_poison(self, key: str) -> bool:
        """True if the message is put aside."""
        return self.crashes.get(key, 0) >= MAX_CRASHES

    def blamed(self, key: str) -> "Desktop":
        """Return the same after one more crash by a message."""
        counts = {**self.crashes, key: self.crashes.get(key, 0) + 1}
        kept = dict(list(counts.items())[-_KEPT:])
        return replace(self, crashes=kept, running=tuple(one for one in self.running if one != key))

    def to_json(self) -> dict[str, Any]:
        return {"running": list(self.running), "crashes": dict(self.crashes)}


Outcome = tuple[Desktop, list[Effect]]


def key_of(channel: str, payload: bytes) -> str:
    """Return the key of a message: a command by its name, whatever it says; others by their bytes, too.

    Example:
        >>> key_of("cmd/ping/7", b"{}"), key_of("twin/desired", b"{}")
        ('cmd/ping/7', 'twin/desired:44136fa355b3678a')
    """
    return channel if channel.startswith("cmd/") else f"{channel}:{canonical.digest(payload)[:16]}"


def heard(desk: Desktop, event: Message, me: Identity) -> Outcome:
    """Answer a command, or hand it to the rim."""
    kind = event.channel.split("/")[1]
    try:
        body = open_message(load_message(event.payload, "command"), "command").rest() if event.payload else {}
    except ContractError as error:
        return desk, [_answer(event.channel, ok=False, error=str(error)[:300])]
    if kind in _LIGHT:
        try:
            found = _LIGHT[kind](body, event)
        except ContractError as error:
            return desk, [_answer(event.channel, ok=False, error=str(error)[:300])]
        return desk, [_answer(event.channel, ok=True, **found)]
    if kind not in me.commands:
        known = ", ".join(sorted((*_LIGHT, *me.commands)))
        return desk, [
            _answer(event.channel, ok=False, error=f"unknown command '{kind[:40]}'; this agent knows {known}")
        ]
    if event.channel in desk.running:
        return desk, []  # the server asks twice; it is answered once
    begun = replace(desk, running=(*desk.running, event.channel))
    return begun, [Save(), RunCommand(event.channel, kind, body)]


def _ping(body: Mapping[str, Any], event: Message) -> dict[str, Any]:
    """Send back what came, and both clocks: the whole way through broker and core works."""
    echo = body.get("echo", "")
    if not isinstance(echo, str) or len(echo) > 1000:
        raise MessageError("echo is not a text of at most 1000 letters", where="command.ping")
    return {"echo": echo, "time": event.at.wall, "mono": event.at.mono}


_LIGHT: Final[Mapping[str, Callable[[Mapping[str, Any], Message], dict[str, Any]]]] = {"ping": _ping}


def _answer(channel: str, *, ok: bool, **body: Any) -> Publish:
    return Publish(f"{channel}/result", canonical.dumps({"v": 1, "ok": ok, **body}))


def done(desk: Desktop, event: CommandDone) -> Outcome:
    """The rim has carried out a heavy command, or it could not."""
    if event.channel not in desk.running:
        return desk, []
    ended = replace(desk, running=tuple(one for one in desk.running if one != event.channel))
    return ended, [Save(), _answer(event.channel, ok=event.ok, **event.body)]


def crashed(desk: Desktop, event: HandlerFailed) -> Outcome:
    """Whoever read a message crashed; after the second time the message is put aside."""
    blamed = desk.blamed(event.key)
    effects: list[Effect] = [Save()]
    if blamed.is_poison(event.key):
        effects.append(_poison(event.key, event.reason))
    if event.key.startswith("cmd/"):
        effects.append(_answer(event.key, ok=False, error=f"it crashed: {event.reason[:200]}"))
    return blamed, effects


def _poison(key: str, reason: str) -> Note:
    body = {"kind": "poison_message", "message": key, "times": MAX_CRASHES, "reason": reason[:300]}
    return Note("alarm", body)


def remember(document: Mapping[str, Any]) -> Outcome:
    """Return the desktop of a journal; what was in hand when the process died is blamed for it.

    Raises:
        ContractError, LookupError, TypeError, AttributeError, ValueError: It is no such memory.
    """
    counts = {str(key): int(n) for key, n in document.get("crashes", {}).items()}
    desk, effects = Desktop(tuple(map(str, document.get("running", ()))), counts), list[Effect]()
    for key in desk.running:
        desk = desk.blamed(key)
        if desk.is_poison(key):
            effects.append(_poison(key, "the process died while it was carried out"))
    return desk, effects
