# SPDX-License-Identifier: Apache-2.0
"""The models' own inference pauses while the bare model is measured: asked by one thread, carried out by the loop."""

import threading
from collections.abc import Sequence

from edge_agent.adapters.embedded_runner import EmbeddedRunner
from edge_agent.adapters.runner_process import RunnerProcess

__all__ = ["Quiet", "Runner"]

Runner = RunnerProcess | EmbeddedRunner


class Quiet:
    """What was asked of the runners, and which of them heard it.

    Attributes:
        is_wanted: The runners are to pause; a runner that is started meanwhile, too.
    """

    def __init__(self) -> None:
        self.is_wanted = False
        self._paused, self._tended = dict[int, int](), threading.Event()

    def tend(self, runners: Sequence[Runner]) -> None:
        """Pause runners, or let them go on. The loop calls it once a second: nobody else writes to a runner."""
        for place, runner in enumerate(runners):
            pid = runner.pid
            if not isinstance(runner, RunnerProcess) or pid is None:
                continue
            if self.is_wanted and self._paused.get(place) != pid:
                runner.send({"cmd": "pause"})
                self._paused[place] = pid
            elif not self.is_wanted and self._paused.pop(place, None) == pid:
                runner.send({"cmd": "resume"})
        self._tended.set()

    def begin(self, within_s: float) -> None:
        """Ask for quiet, and wait until the loop has passed it on."""
        self.is_wanted = True
        self._tended.clear()
        self._tended.wait(within_s)
