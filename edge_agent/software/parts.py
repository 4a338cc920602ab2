# SPDX-License-Identifier: Apache-2.0
"""What an agent that was started by the launcher has for its own updates; others have nothing of it."""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_agent.adapters import clock
from edge_agent.core.events import Event, Software, Stopping
from edge_agent.software import launch
from edge_agent.software.launch import FAILED, LAUNCHER, RELEASE, TRIAL
from edge_agent.software.store import ReleaseStore
from edge_contract.messages import SOFTWARE

if TYPE_CHECKING:
    from edge_agent.software.install import ReleaseInstaller

__all__ = ["SoftwareParts", "open_parts"]

STEADY_S: Final = 60.0
"""A release whose loop has turned for so long is healthy enough not to be counted."""


class SoftwareParts:
    """The rim of the agent's own software.

    Args:
        data: The data folder.
        launcher: The launcher's interpreter.
        told: What the launcher said at the start.
        alarm_s: On trial the process is ended if its loop stands still for so long; 0: not on trial.
        open_installer: Makes the installer, when the first order comes.
        post: Puts an event into the loop's queue.

    Attributes:
        is_leaving: The process ends to be replaced by the launcher.
    """

    def __init__(
        self,
        data: Path,
        launcher: str,
        told: Software,
        *,
        alarm_s: int,
        open_installer: Callable[[], "ReleaseInstaller"],
        post: Callable[[Event], None],
    ) -> None:
        self.data, self.launcher, self.told, self.slots = data, launcher, told, ReleaseStore(data)
        self._alarm_s, self._open_installer, self._post = alarm_s, open_installer, post
        self.is_leaving, self._steady_at = False, 0.0

    @cached_property
    def installer(self) -> "ReleaseInstaller":
        """The steps of an order."""
        return self._open_installer()

    def leave(self) -> None:
        """End this process cleanly, for the launcher."""
        self.is_leaving = True
        self._post(Stopping(clock.now()))

    def alive(self, mono: float) -> None:
        """The loop turns: wind the alarm clock up again, and after a while forget the counted start."""
        release = self.told.running
        if not release:
            return
        if not self._steady_at:
            self._steady_at = mono + STEADY_S
        if self._alarm_s:
            is_proven = release in launch.read(self.data).proven
            self._alarm_s = 0 if is_proven else self._alarm_s
            signal.alarm(self._alarm_s)
        elif mono >= self._steady_at:
            self._steady_at = float("inf")
            self._forget_starts(release)

    def _forget_starts(self, release: str) -> None:
        record = launch.read(self.data)
        if release in record.starts:
            try:
                launch.write(self.data, record.forgiven(release))
            except OSError:
                self._steady_at = 0.0  # again later

    def relaunch(self, words: list[str]) -> None:
        """Become the launcher, which becomes a release again."""
        signal.alarm(0)
        environ = {key: value for key, value in os.environ.items() if key not in (LAUNCHER, RELEASE, FAILED, TRIAL)}
        sys.stderr.flush()
        os.execve(self.launcher, [self.launcher, "-P", "-m", "edge_agent.launcher", *words], environ)  # noqa: S606


def open_parts(
    data: Path,
    open_installer: Callable[[str, ReleaseStore], "ReleaseInstaller"],
    post: Callable[[Event], None],
    environ: Mapping[str, str] = os.environ,
) -> SoftwareParts | None:
    """Return the parts, None where no launcher started this process.

    Args:
        data: The data folder.
        open_installer: Given the launcher's interpreter and the store, makes the installer.
        post: Puts an event into the loop's queue.
        environ: What the launcher left.
    """
    python, release = environ.get(LAUNCHER, ""), environ.get(RELEASE)
    if not python or release is None:
        return None
    seconds, failed = environ.get(TRIAL, ""), _failed(environ.get(FAILED, "{}"))
    store = ReleaseStore(data)
    return SoftwareParts(
        data,
        python,
        Software(release, store.read(SOFTWARE), failed),
        alarm_s=int(seconds) if seconds.isdigit() else 0,
        open_installer=lambda: open_installer(python, store),
        post=post,
    )


def _failed(text: str) -> dict[str, str]:
    try:
        found: Any = json.loads(text)
        return {str(release): str(reason) for release, reason in found.items()}
    except (ValueError, AttributeError):
        return {}
