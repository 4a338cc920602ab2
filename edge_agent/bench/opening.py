# SPDX-License-Identifier: Apache-2.0
"""Whether an agent measures at all: what does is loaded with the first order, and without leave never."""

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edge_contract.bench_words import CANCEL, COMMAND
from edge_contract.errors import BundleError

if TYPE_CHECKING:
    from edge_agent.adapters.download import Throttle
    from edge_agent.adapters.log import LogFile
    from edge_agent.adapters.mqtt import Link
    from edge_agent.adapters.slots import SlotStore
    from edge_agent.bench.bencher import Bencher
    from edge_agent.bench.quiet import Runner
    from edge_agent.config import AgentConfig
    from edge_agent.core.state import State

__all__ = ["Agent", "Door", "open_bench"]


class Agent(Protocol):
    """What is taken of the agent; the state is asked for anew each time."""

    data: Path
    config: "AgentConfig"
    log: "LogFile"
    slots: "SlotStore"
    throttle: "Throttle"
    link: "Link | None"
    state: "State"
    commands: dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]


class Door:
    """What the loop sees of benchmarks.

    Args:
        data: The device's data folder.
        make: Gives what carries them out.
    """

    def __init__(self, data: Path, make: "Callable[[], Bencher]") -> None:
        self._data, self._make, self._turn = data, make, threading.Lock()
        self._bencher: Bencher | None = None

    @property
    def held(self) -> str:
        """Id of the benchmark that measures; empty while none does."""
        return self._bencher.held if self._bencher else ""

    def tend(self, runners: "Sequence[Runner]") -> None:
        """Let runners pause or go on; called by the loop once a second."""
        if self._bencher:
            self._bencher.quiet.tend(runners)

    def start(self) -> None:
        """Take up what an earlier process left, if it left anything."""
        folder = self._data / "bench"
        if folder.is_dir() and any(path.is_dir() for path in folder.iterdir()):
            self._open()

    def stop(self) -> None:
        """End; a measurement is killed, and reported at the next start."""
        if self._bencher:
            self._bencher.stop()

    def order(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take an order: the command ``bench``; raises as ``Bencher.order``."""
        return self._open().order(body)

    def cancel(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Withdraw the order in hand: the command ``bench-cancel``; raises as ``Bencher.cancel``."""
        return self._open().cancel(body)

    def _open(self) -> "Bencher":
        with self._turn:
            if self._bencher is None:
                made = self._make()
                made.start()
                self._bencher = made
            return self._bencher


def open_bench(agent: Agent, context: Callable[[], Any], turn: threading.Lock) -> Door | None:
    """Add the commands of benchmarks; return what carries them out, None where they are not allowed or nobody asks.

    Args:
        agent: Who measures.
        context: Gives TLS with our certificate.
        turn: Held while the trust helper refreshes.
    """
    link = agent.link
    if link is None:
        return None
    if not agent.config.bench.allow:
        agent.commands[COMMAND] = _refuse
        _forget(agent)
        return None
    door = Door(agent.data, lambda: _made(agent, link, context, turn))
    agent.commands.update({COMMAND: door.order, CANCEL: door.cancel})
    return door


def _refuse(_body: Mapping[str, Any]) -> Mapping[str, Any]:
    fix = "the person at the device writes [bench] allow = true"
    raise BundleError("benchmarks are not allowed on this device", where="agent.toml", fix=fix)


def _forget(agent: Agent) -> None:
    """Delete what is left of one from the days when they were allowed."""
    if (agent.data / "bench").exists():
        from edge_agent.bench.place import Place

        if Place(agent.data).forget():
            agent.log.write("info", "benchmarks are not allowed: what was left of one is deleted")


def _made(agent: Agent, link: "Link", context: Callable[[], Any], turn: threading.Lock) -> "Bencher":
    from edge_agent.adapters.trust import TrustHelper
    from edge_agent.bench.bencher import Bencher, Surroundings
    from edge_agent.bench.files import Goods

    config, helper = agent.config, TrustHelper(agent.data)
    least = config.storage.least_free_mb * 1_000_000
    shared = (agent.slots, helper, config.device_url, context, agent.throttle, turn)
    return Bencher(
        Surroundings(
            data=agent.data,
            device=config.device,
            rules=config.bench,
            helper=helper,
            goods=Goods(*shared, least_free=least),
            lane=config.lane,
            state=lambda: agent.state,
            publish=link.publish,
            log=agent.log.write,
        )
    )
