# SPDX-License-Identifier: Apache-2.0
"""The reset ladder of an accelerator: restart, re-enumerate, the CPU model, an alarm; a pure function of its failures.

Sticks on USB hang (google-coral/edgetpu issue 766, Frigate's #9663: twenty restarts that changed nothing). A restart of
the process helps against a crashed driver library; re-enumeration against a stick that no longer answers; against a
dead one only the CPU. Each rung is tried before the next, a quiet time climbs back down, and a device on its CPU model
tries the accelerator again after a pause that doubles. None of this is held against a model: it is the device.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

__all__ = ["Action", "Ladder", "Rungs"]


class Action(StrEnum):
    """What to do before the runner is started the next time."""

    RESTART = "restart"
    RE_ENUMERATE = "re_enumerate"
    USE_CPU = "use_cpu"
    USE_ACCELERATOR = "use_accelerator"


@dataclass(frozen=True)
class Rungs:
    """How patient the ladder is.

    Attributes:
        restarts: Restarts before the device is re-enumerated.
        re_enumerations: How often it is re-enumerated before the CPU takes over; 0 where nothing can do it.
        stable_s: Without a failure for so long, everything is forgiven.
        retry_s: On the CPU, the accelerator is tried again after so long; doubled with each failure of such a try.
        retry_max_s: And at last after so long.
    """

    restarts: int = 2
    re_enumerations: int = 2
    stable_s: float = 600.0
    retry_s: float = 3600.0
    retry_max_s: float = 86_400.0


@dataclass(frozen=True)
class Ladder:
    """Where an accelerator stands.

    Attributes:
        failures: Since the last quiet time: hangs, crashes of the runner, loads that found no device.
        last: When the last of them was, mono seconds.
        is_on_cpu: The CPU model answers.
        retry_at, pause_s: When to try the accelerator again, and the pause before it.
        is_trying: This is such a try: one failure ends it.
        is_alarmed: A person was told that the CPU took over.

    Example:
        >>> ladder, said = Ladder(), []
        >>> for second in range(5):
        ...     ladder, action, alarm = ladder.failed(float(second), Rungs(restarts=1, re_enumerations=2))
        ...     said.append(f"{action}{'!' if alarm else ''}")
        >>> said
        ['restart', 're_enumerate', 're_enumerate', 'use_cpu!', 'restart']
    """

    failures: int = 0
    last: float = 0.0
    is_on_cpu: bool = False
    retry_at: float = 0.0
    pause_s: float = 0.0
    is_trying: bool = False
    is_alarmed: bool = False

    def failed(self, mono: float, rungs: Rungs) -> tuple["Ladder", Action, bool]:
        """Return the ladder after a failure, what to do, and whether to raise an alarm.

        Args:
            mono: When it failed, on a clock that never goes back.
            rungs: How patient to be.
        """
        if self.is_on_cpu:  # the CPU model's own crash: the accelerator has nothing to do with it
            return self, Action.RESTART, False
        count = self.failures + 1
        failed = replace(self, failures=count, last=mono)
        if count <= rungs.restarts and not self.is_trying:
            return failed, Action.RESTART, False
        if count <= rungs.restarts + rungs.re_enumerations and not self.is_trying:
            return failed, Action.RE_ENUMERATE, False
        pause = min(rungs.retry_max_s, self.pause_s * 2 if self.is_trying else rungs.retry_s)
        on_cpu = replace(failed, is_on_cpu=True, is_trying=False, pause_s=pause, retry_at=mono + pause, is_alarmed=True)
        return on_cpu, Action.USE_CPU, not self.is_alarmed

    def passed(self, mono: float, rungs: Rungs) -> tuple["Ladder", Action | None]:
        """Return the ladder after some time, and what to do now, if anything: try the accelerator again.

        A try begins with the next start of the runner, after a re-enumeration where that is possible.

        Example:
            >>> Ladder(is_on_cpu=True, retry_at=100.0, pause_s=50.0).passed(100.0, Rungs())[1]
            <Action.USE_ACCELERATOR: 'use_accelerator'>
        """
        if self.is_on_cpu:
            if mono < self.retry_at:
                return self, None
            return replace(self, is_on_cpu=False, is_trying=True, last=mono), Action.USE_ACCELERATOR
        if (self.failures or self.is_trying) and mono - self.last >= rungs.stable_s:
            return Ladder(), None
        return self, None
