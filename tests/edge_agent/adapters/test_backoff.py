# SPDX-License-Identifier: Apache-2.0
"""The link's pauses: only a connection that lasted forgives them (pain 11)."""

from edge_agent.adapters.mqtt import SPREAD_S, STABLE_S, Link, Listener, Whose, full_jitter


class Scripted(Link):
    """A link whose connections last as long as is written down; its pauses are noted, not waited for."""

    def __init__(self, lasted: list[float]) -> None:
        hear = Listener(*(lambda *_: None for _ in range(4)))
        super().__init__(Whose("default", "pi", "b"), ("127.0.0.1", 1), lambda: None, hear, cap_s=300.0)
        self.lasted, self.pauses = lasted, list[float]()
        self._random.random = lambda: 1.0  # type: ignore[method-assign]  # the longest pause of each attempt
        self._stop.wait = self._note  # type: ignore[method-assign,assignment]

    def _note(self, pause: float) -> None:
        self.pauses.append(pause)
        if not self.lasted:
            self._stop.set()

    def _connect_once(self) -> float:
        return self.lasted.pop(0)


def test_a_broker_that_takes_and_drops_us_does_not_reset_the_back_off() -> None:
    link = Scripted([0.0, 0.0, STABLE_S / 2, 0.0, STABLE_S, 0.0, *[1.0] * 12])
    link._run()
    ceilings = [full_jitter(attempt, 1.0) for attempt in range(12)]
    assert link.pauses[:4] == ceilings[:4], "half a minute online is no end of the trouble"
    assert link.pauses[4:6] == [SPREAD_S, ceilings[0]], "a minute is, and then the fleet comes back spread"
    assert link.pauses[6:] == [*ceilings[1:], 300.0], "up to the cap, for ever"
