# SPDX-License-Identifier: Apache-2.0
"""Whether an agent measures at all: where nobody has allowed it, nothing of it is loaded, and orders are refused."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edge_contract.bench_job import CANCEL, COMMAND
from edge_contract.errors import BundleError

if TYPE_CHECKING:
    from edge_agent.adapters.download import Throttle
    from edge_agent.adapters.log import LogFile
    from edge_agent.adapters.mqtt import Link
    from edge_agent.adapters.slots import SlotStore
    from edge_agent.bench.bencher import Bencher
    from edge_agent.config import AgentConfig
    from edge_agent.core.state import State

__all__ = ["Agent", "open_bench"]


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


def open_bench(agent: Agent, context: Callable[[], Any], turn: threading.Lock) -> "Bencher | None":
    """Add the commands of benchmarks; return what carries them out, None where they are not allowed or nobody asks.

    Args:
        agent: Who measures.
        context: Gives TLS with our certificate.
        turn: Held while the trust helper refreshes.
    """
    if agent.link is None:
        return None
    if not agent.config.bench.allow:
        agent.commands[COMMAND] = _refuse
        _forget(agent)
        return None
    bencher = _made(agent, agent.link, context, turn)
    agent.commands.update({COMMAND: bencher.order, CANCEL: bencher.cancel})
    return bencher


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
