# SPDX-License-Identifier: Apache-2.0
"""Inference does not wait for the journal: what happens at a start while the disk refuses to write it.

Nothing may be begun that the journal does not know: no order is taken up, no row gets a number, nobody is told. But the
active model can be read, so the runners are started and brought to what the pointers say, by the same rule as ever
(``Runner.converge``). What they say is kept, and goes to the core once the journal is on the disk.
"""

import contextlib
import queue
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edge_agent.adapters import clock
from edge_agent.adapters.performer import PERSIST_PAUSE_S, PERSIST_TRIES
from edge_agent.adapters.store import Journal
from edge_agent.core import events as ev
from edge_agent.core.effects import Effect, StartRunner, stamp
from edge_agent.core.lane import Lane, wanted
from edge_agent.core.runner import Runner
from edge_contract.errors import StoreError

__all__ = ["Alone"]

_LOOK_S: Final = 0.5
_OF_THIS_LIFE: Final = frozenset({"ready", "loaded", "load_failed", "source", "source_failed"})
"""What a runner says of itself: of no meaning once it has ended."""
_MOST_HEARD: Final = 100_000


@dataclass
class Alone:
    """Runners without a core.

    Args:
        lanes: The lanes as they would begin, by key.
        perform: Carries out an effect.
        inbox: Where runners' events come in.
    """

    lanes: Mapping[str, Lane]
    perform: Callable[[Effect], object]
    inbox: "queue.SimpleQueue[ev.Event]"
    heard: list[ev.Event] = field(default_factory=list)
    runners: dict[str, Runner] = field(default_factory=dict)

    def until_written(self, journal: Journal, memory: Mapping[str, Any], alive: Callable[[float], object]) -> None:
        """Start the runners and serve them until the disk takes the journal again.

        Args:
            journal: Where it lies.
            memory: What was read of it: written as it is, no promise lies in that.
            alive: Told the monotonic time before each try: waiting for room is no hang.

        Raises:
            StoreError: It never did within five minutes, or the process is asked to stop.
        """
        for key, lane in self.lanes.items():
            self.runners[key] = lane.runner
            if lane.runner.is_up:
                self.perform(StartRunner(lane=key))
        for _ in range(PERSIST_TRIES):
            alive(clock.now().mono)
            if not self._wait(PERSIST_PAUSE_S):
                break
            with contextlib.suppress(StoreError):
                journal.write(memory)
                return
        journal.write(memory)

    def _wait(self, pause_s: float) -> bool:
        """Serve the runners for so long; False: the process is asked to stop."""
        ends = clock.now().mono + pause_s
        while (now := clock.now().mono) < ends:
            if not self._serve(min(_LOOK_S, ends - now)):
                return False
        return True

    def _serve(self, wait_s: float) -> bool:
        try:
            event = self.inbox.get(timeout=max(0.001, wait_s))
        except queue.Empty:
            self._restart()
            return True
        if isinstance(event, ev.RunnerSaid):
            self._hear(event)
        elif isinstance(event, ev.RunnerExited):
            self._forget(event)
        elif isinstance(event, ev.Stopping):
            self.inbox.put(event)
            return False
        else:
            self.heard.append(event)
        return True

    def _hear(self, event: ev.RunnerSaid) -> None:
        if len(self.heard) < _MOST_HEARD:
            self.heard.append(event)
        runner = self.runners[event.lane].heard(dict(event.words))
        self.runners[event.lane], asked = runner.converge(wanted(self.lanes[event.lane]), event.at.mono)
        for effect in stamp(asked, event.lane):
            self.perform(effect)

    def _forget(self, event: ev.RunnerExited) -> None:
        def is_void(one: ev.Event) -> bool:
            of_it = isinstance(one, ev.RunnerSaid) and one.lane == event.lane
            return of_it and one.words.get("event") in _OF_THIS_LIFE  # type: ignore[attr-defined]

        self.heard = [one for one in self.heard if not is_void(one)]
        self.runners[event.lane] = self.runners[event.lane].exited(event.at.mono)

    def _restart(self) -> None:
        for key, runner in self.runners.items():
            changed, asked = runner.start(clock.now().mono)
            self.runners[key] = changed
            for effect in stamp(asked, key):
                self.perform(effect)
