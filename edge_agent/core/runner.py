# SPDX-License-Identifier: Apache-2.0
"""Supervision of the runner process: what it should hold, what it holds, and when to start it again.

The rule is convergence. ``converge`` compares what is wanted with what the runner itself has said and asks
for the difference; after a crash everything is unknown again and the same rule rebuilds it. So there is no
second path for restarts.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge_agent.core.effects import Command, Effect, StartRunner, StopRunner

__all__ = ["Runner", "Wanted", "backoff_s"]

LOAD_TIMEOUT_S: Final = 90.0
"""A load that is not answered for so long has hung in native code: end the process."""
STABLE_S: Final = 60.0
_FIRST_S: Final = 0.5
_LONGEST_S: Final = 60.0


def backoff_s(crashes: int) -> float:
    """Return the pause before the next start, in seconds.

    Example:
        >>> [backoff_s(n) for n in (1, 2, 3, 20)]
        [0.5, 1.0, 2.0, 60.0]
    """
    return min(_LONGEST_S, _FIRST_S * 2.0 ** min(max(0, crashes - 1), 20))


@dataclass(frozen=True)
class Wanted:
    """What the runner should hold: two bundle ids and a source name with its specification.

    ``alone``: there is no memory for a second model, so the runner is ended before another one is loaded.
    """

    model: str = ""
    active: str = ""
    shadow: str = ""
    source: str = ""
    spec: tuple[tuple[str, Any], ...] = ()
    alone: bool = False


@dataclass(frozen=True)
class Runner:
    """What is known of the runner, by its own word.

    Attributes:
        is_up, is_ready: The process was started; it has said ``ready``.
        active, shadow, source: What it said to hold.
        asked: role → (name, mono) of a request that is not yet answered.
        failed: (role, name) → reason of what it refused; not asked again before something changes.
        crashes: Unexpected ends in a row; reset after a stable minute.
        start_at: When to start it, mono seconds.
        stopping: Its end is our wish.
    """

    is_up: bool = False
    is_ready: bool = False
    runtime_version: str = ""
    active: str = ""
    active_version: str = ""
    shadow: str = ""
    source: str = ""
    asked: dict[str, tuple[str, float]] = field(default_factory=dict)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)
    crashes: int = 0
    start_at: float = 0.0
    up_since: float = 0.0
    stopping: bool = False

    def start(self, mono: float) -> tuple["Runner", list[Effect]]:
        """Start the process if it is down and its pause is over; forgive old crashes; end a hung one."""
        if not self.is_up:
            if mono < self.start_at:
                return self, []
            return replace(self, is_up=True, is_ready=False, up_since=mono, stopping=False), [StartRunner()]
        if self.crashes and mono - self.up_since >= STABLE_S:
            return replace(self, crashes=0), []
        hung = any(mono - since > LOAD_TIMEOUT_S for _, since in self.asked.values())
        if hung and not self.stopping:
            return replace(self, asked={}), [StopRunner()]  # counts as a crash
        return self, []

    def exited(self, mono: float) -> "Runner":
        """The process ended: forget what it held; a crash costs a longer pause. Refusals are remembered."""
        crashes = self.crashes if self.stopping else self.crashes + 1
        pause = 0.0 if self.stopping else backoff_s(crashes)
        return Runner(runtime_version=self.runtime_version, failed=self.failed, crashes=crashes, start_at=mono + pause)

    def heard(self, words: dict[str, Any]) -> "Runner":
        """Take over what the runner says of itself."""
        event = str(words.get("event", ""))
        name = str(words.get("bundle", words.get("name", "")))
        role = "source" if event.startswith("source") else str(words.get("role", ""))
        if event == "ready":
            return replace(self, is_ready=True, runtime_version=str(words.get("runtime_version", "")))
        if event in ("loaded", "source"):
            known: dict[str, Any] = {role: name} if role in ("active", "shadow", "source") else {}
            if role == "active":
                known["active_version"] = str(words.get("version", ""))
            return replace(self._answered(role, name), **known)
        if event in ("load_failed", "source_failed"):
            refused = replace(
                self._answered(role, name), failed={**self.failed, (role, name): str(words.get("reason", ""))}
            )
            return replace(refused, source="") if role == "source" else refused
        return self

    def _answered(self, role: str, name: str) -> "Runner":
        if self.asked.get(role, ("", 0.0))[0] != name:
            return self
        return replace(self, asked={k: v for k, v in self.asked.items() if k != role})

    def forgive(self, name: str) -> "Runner":
        """Forget refusals of a name, because something about it changed."""
        return replace(self, failed={key: why for key, why in self.failed.items() if key[1] != name})

    def converge(self, wanted: Wanted, mono: float) -> tuple["Runner", list[Effect]]:
        """Ask for the difference between what is wanted and what the runner holds."""
        if not self.is_ready or self.stopping:
            return self, []
        holds = self.asked.get("active", ("", 0.0))[0] or self.active
        in_the_way = wanted.alone and holds != wanted.active
        if holds and (not wanted.active or in_the_way):
            return replace(self, stopping=True), [StopRunner()]  # the protocol cannot unload the active model
        runner, effects = self, list[Effect]()
        holds_shadow = self.shadow or self.asked.get("shadow", ("", 0.0))[0]
        if holds_shadow and holds_shadow != wanted.shadow:
            effects.append(Command({"cmd": "unload", "role": "shadow"}))
            runner = replace(runner, shadow="", asked={k: v for k, v in runner.asked.items() if k != "shadow"})
        for role, name in (("active", wanted.active), ("shadow", wanted.shadow)):
            if name and _needs(runner, role, name):
                effects.append(Command({"cmd": "load", "role": role}, wanted.model, name))
                runner = replace(runner, asked={**runner.asked, role: (name, mono)})
        if wanted.source and wanted.active and _needs(runner, "source", wanted.source):
            spec = dict(wanted.spec)
            effects.append(Command({"cmd": "source", "name": wanted.source, "spec": spec}))
            runner = replace(runner, asked={**runner.asked, "source": (wanted.source, mono)})
        return runner, effects


def _needs(runner: Runner, role: str, name: str) -> bool:
    """True if the runner neither holds a name in a role, nor is asked for it, nor has refused it."""
    holds = {"active": runner.active, "shadow": runner.shadow, "source": runner.source}[role]
    asked = runner.asked.get(role, ("", 0.0))[0]
    return name not in (holds, asked) and (role, name) not in runner.failed
