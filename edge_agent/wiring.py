# SPDX-License-Identifier: Apache-2.0
"""What each model has of its own on this machine: a runner, a counters file, an installer. Nothing is shared but
the disk, the link and the pace of downloads, so a crash or a leak of one touches no other.
"""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_agent.adapters import accelerator, board, clock
from edge_agent.adapters.embedded_runner import EmbeddedRunner
from edge_agent.adapters.install import Installer
from edge_agent.adapters.runner_process import RunnerProcess, lend_library
from edge_agent.adapters.spare import installed, spare_runtime
from edge_agent.core import events as ev
from edge_agent.core.lane import Plan
from edge_agent.core.swap import KEPT_KB
from edge_agent.counters import CounterFile
from edge_agent.embedding import socket_path
from edge_agent.lanes_config import LaneConfig

__all__ = ["LaneParts", "open_lane"]

_SEED_BYTES = 32


@dataclass(frozen=True)
class LaneParts:
    """One lane's adapters."""

    config: LaneConfig
    runner: RunnerProcess | EmbeddedRunner
    counters: CounterFile
    installer: Installer

    @property
    def plan(self) -> Plan:
        """What the core is to know of the lane."""
        own = self.config
        return Plan(own.key, own.model, own.runtime, own.settings, own.runner == "process", own.rungs)

    def without_accelerator(self, slot: Path) -> str:
        """Let the next start use what a slot has for the CPU, if anything; return the runtime that it will have.

        Which runtimes there are is asked from the runner's interpreter: that happens once in the life of a stick.
        """
        runtime = spare_runtime(slot, installed(self.config.runner_python))
        if runtime and isinstance(self.runner, RunnerProcess):
            self.runner.use_once(_command(self.config, self.counters.path, runtime))
        return runtime or self.config.runtime

    def re_enumerate(self) -> None:
        """Let the kernel find the accelerator anew; returns when it did; raises StropError."""
        first, *rest = self.config.re_enumerate
        if rest or not first.startswith("usb"):
            return accelerator.by_command(shlex.join(self.config.re_enumerate))
        _, *ids = first.split(":")
        accelerator.by_sysfs(ids=((ids[0], ids[1]),) if ids else accelerator.CORAL_IDS)
        return None

    def sample(self, conditions: ev.Conditions, health: dict[str, Any]) -> ev.Sample:
        """Return a look at this lane: ``health`` is the board's, on the first lane, and empty on others."""
        reading, pid, limit_kb = self.counters.read(), self.runner.pid, self.config.memory_mb * 1000
        rss_kb = board.rss_kb(pid) if pid is not None else 0
        own = {"runner_rss_kb": rss_kb} if pid is not None else {}
        tallies = reading.tallies.facts() if reading else {}
        if limit_kb:
            left = max(1, limit_kb - rss_kb + KEPT_KB)  # within its own limit nothing has to stay free for others
            conditions = replace(conditions, memory_kb=min(conditions.memory_kb or left, left))
        counted = (reading.epoch, reading.bundle, reading.counters) if reading else None
        times = reading.times if reading else ()
        seed = os.urandom(_SEED_BYTES) if self.config.settings.noise_epsilon else b""
        return ev.Sample(counted, {**health, **own, **tallies}, conditions, times, seed)


def open_lane(data: Path, own: LaneConfig, installer: Installer, post: Callable[[ev.Event], None]) -> LaneParts:
    """Return one lane's adapters; nothing is started yet."""

    def said(words: dict[str, Any]) -> None:
        post(ev.RunnerSaid(clock.now(), words, lane=own.key))

    def exited(code: int) -> None:
        post(ev.RunnerExited(clock.now(), code, lane=own.key))

    counters = own.counters(data)
    if own.runner == "embedded":
        guest = EmbeddedRunner(socket_path(data, own.model), said, exited)
        return LaneParts(own, guest, CounterFile(counters), installer)
    library, limit_kb = lend_library(data / "lib"), own.memory_mb * 1000
    child = RunnerProcess(_command(own, counters), own.log(data), said, exited, library=library, limit_kb=limit_kb)
    return LaneParts(own, child, CounterFile(counters), installer)


def _command(own: LaneConfig, counters: Path, runtime: str = "") -> list[str]:
    return [own.runner_python, "-P", "-m", "edge_agent.runner.process", *own.options(counters, runtime)]
