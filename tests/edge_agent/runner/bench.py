# SPDX-License-Identifier: Apache-2.0
"""An engine on a bench: no pipes, and a clock that the test turns."""

from edge_agent.runner.engine import Engine, Settings


class Bench:
    """An engine, its events, and a clock that only ``run`` and the tests move."""

    def __init__(self, folder, runtime="litert"):
        self.now, self.events = 1000.0, []
        self.counters = folder / "counters.bin"
        self.engine = Engine(Settings(runtime, self.counters), self.events.append, lambda: self.now)

    def tell(self, *commands):
        return [self.engine.obey(command) for command in commands]

    def run(self, seconds):
        """Let time pass, stopping wherever the engine wants to work."""
        end = self.now + seconds
        while (wait := self.engine.wait_s()) is not None and self.now + wait <= end:
            self.now += wait
            self.engine.work()
        self.now = end

    def of(self, *kinds):
        return [event for event in self.events if event["event"] in kinds]

    def rows(self):
        return [row for event in self.of("results") for row in event["rows"]]
