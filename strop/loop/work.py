# SPDX-License-Identifier: Apache-2.0
"""What every step of the loop has at hand: its run, its settings, the server, and patience."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

from edge_contract.errors import RegistryError, StropError, UsageError
from fleet.adapters.pulse import Pulse
from strop.loop.config import LoopConfig
from strop.loop.journal import Run
from strop.loop.server import Server

__all__ = ["LEASE_S", "Lease", "Work"]

T = TypeVar("T")
LEASE_S: Final = 600.0
"""A loop that died lets go of its signal after so many seconds."""


@dataclass
class Work:
    """One run at work.

    Attributes:
        run: What is recorded.
        config: Settings.
        server: The fleet server.
        say: Is told one line at a time.
        lost: Why the signal is no longer ours, empty while it is.
        wall: Seconds since 1970.
    """

    run: Run
    config: LoopConfig
    server: Server
    say: Callable[[str], None]
    lost: list[str] = field(default_factory=list)
    wall: Callable[[], float] = time.time

    @property
    def is_delivered(self) -> bool:
        """True once everybody has the bundle: from then on nothing is taken back, whatever becomes of the signal."""
        return bool(self.run.step("rollout")["state"] == "done")

    def check(self) -> None:
        """Raise StropError if somebody closed the signal, or another loop works on it, before the bundle is out."""
        if self.lost and not self.is_delivered:
            raise StropError(self.lost[0], where=f"signal {self.run.number}")

    def wait(self, what: str, probe: Callable[[], T | None], until: float) -> T:
        """Return the first answer of a probe that is not None.

        Args:
            what: What is waited for, for the message.
            probe: Looks once.
            until: Seconds since 1970.

        Raises:
            StropError: It did not come true in time, or the signal was lost meanwhile.
        """
        while True:
            self.check()
            answer = probe()
            if answer is not None:
                return answer
            if self.wall() >= until:
                raise StropError(f"waited in vain for {what}")
            self.server.sleep(self.config.limits.poll_s)

    def until(self, step: str, seconds: float) -> float:
        """Return a step's deadline: set when it was first asked for, the same after a restart."""
        facts = self.run.facts(step)
        if "until" not in facts:
            self.run.note(step, until=self.wall() + seconds)
        return float(self.run.facts(step)["until"])

    def signal_path(self, verb: str = "") -> str:
        """Return the path of our signal on the server."""
        return f"/drift/signals/{self.run.number}{f'/{verb}' if verb else ''}"

    def take(self) -> dict[str, Any]:
        """Hold the signal for ``LEASE_S`` more; raises RegistryError where it is closed or another one holds it."""
        answer: dict[str, Any] = self.server.call(
            "POST", self.signal_path("take"), {"holder": self.run.id, "seconds": LEASE_S}
        )
        return answer


class Lease:
    """Holds a run's signal while it works, by a thread: a training of hours must not lose it.

    Args:
        work: The run; ``work.lost`` says why when it is lost.
    """

    def __init__(self, work: Work) -> None:
        self._work, self._lock = work, threading.Lock()
        self._pulse = Pulse("lease", LEASE_S / 5, self._renew, "the signal could not be held", at_once=False)

    def __enter__(self) -> Self:
        self._pulse.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._pulse.stop(1.0)

    def _renew(self) -> None:
        try:
            self._work.take()
        except (RegistryError, UsageError) as error:
            with self._lock:
                self._work.lost.append(str(error))
        except StropError:  # away for long: the step that needs the server says so
            return
