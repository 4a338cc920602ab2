# SPDX-License-Identifier: Apache-2.0
"""What the launcher and the agent tell each other through the disk and the environment.

::

    <data>/software/strop-agent/{active,standby}     which release is to run; none: the installed one ("factory")
    <data>/software/strop-agent/slots/<release>/     its manifest and wheels
    <data>/software/venvs/<release>/                 the environment made of them; ``strop.json`` says that it is whole
    <data>/software/launch.json                      starts that are not known to be healthy, failures, who is proven

``launch.json`` is written by one side at a time: the launcher becomes the agent, and the agent the launcher. It says
little, so that the launcher, which is never updated, can read it for ever: more words do no harm.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from edge_contract import durable

__all__ = ["MARK", "PROVEN_STARTS", "TRIAL_STARTS", "Launch", "active_name", "is_whole", "python_of", "read", "write"]

TRIAL_STARTS: Final = 3
"""So often a release on trial is started before it is given up."""
PROVEN_STARTS: Final = 10
"""The same for one that was healthy before: more often it is the power supply that fails."""
MARK: Final = "strop.json"
LAUNCHER, RELEASE, FAILED, TRIAL = "STROP_LAUNCHER", "STROP_RELEASE", "STROP_RELEASES_FAILED", "STROP_ON_TRIAL"
"""What the launcher tells the agent by its environment: the launcher's interpreter; which this is; release → why
it is not run; and, on trial, for how many seconds the loop may stand still."""


@dataclass(frozen=True)
class Launch:
    """The record.

    Attributes:
        starts: Release → starts since the last sign of health.
        failed: Release → why the launcher does not start it.
        proven: Releases that passed their trial.
    """

    starts: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    proven: tuple[str, ...] = ()

    def counted(self, release: str) -> "Launch":
        """Return the record with one start more."""
        return replace(self, starts={**self.starts, release: self.starts.get(release, 0) + 1})

    def blamed(self, release: str, reason: str) -> "Launch":
        """Return the record with a failure; its starts are forgotten."""
        return replace(self.forgiven(release), failed={**self.failed, release: reason})

    def forgiven(self, release: str) -> "Launch":
        """Return the record without starts and failure of a release."""
        starts = {key: n for key, n in self.starts.items() if key != release}
        return replace(self, starts=starts, failed={key: why for key, why in self.failed.items() if key != release})

    def committed(self, release: str) -> "Launch":
        """Return the record with a release that passed its trial."""
        return replace(self.forgiven(release), proven=tuple(dict.fromkeys((*self.proven, release))))

    def only(self, kept: frozenset[str]) -> "Launch":
        """Return the record without releases that are gone."""
        starts = {key: n for key, n in self.starts.items() if key in kept}
        failed = {key: why for key, why in self.failed.items() if key in kept}
        return Launch(starts, failed, tuple(key for key in self.proven if key in kept))

    def limit(self, release: str) -> int:
        """Return how often a release may be started in a row without a sign of health.

        Example:
            >>> Launch(proven=("a",)).limit("a"), Launch().limit("a")
            (10, 3)
        """
        return PROVEN_STARTS if release in self.proven else TRIAL_STARTS


def _path(data: Path) -> Path:
    return data / "software" / "launch.json"


def read(data: Path) -> Launch:
    """Return the record of a data folder; one that is missing or cannot be read is empty."""
    try:
        document: Any = json.loads(_path(data).read_bytes())
        starts = {str(key): int(n) for key, n in dict(document.get("starts", {})).items()}
        failed = {str(key): str(why) for key, why in dict(document.get("failed", {})).items()}
        return Launch(starts, failed, tuple(str(key) for key in document.get("proven", ())))
    except (OSError, ValueError, TypeError, AttributeError):
        return Launch()


def write(data: Path, launch: Launch) -> None:
    """Replace the record durably; raises OSError, and then the old one stands."""
    words = {"v": 1, "starts": dict(launch.starts), "failed": dict(launch.failed), "proven": list(launch.proven)}
    _path(data).parent.mkdir(exist_ok=True)
    durable.sweep(_path(data))
    durable.write(_path(data), json.dumps(words, sort_keys=True).encode())


def active_name(data: Path, pointer: str) -> str:
    """Return the release that a pointer leads to, empty where there is none."""
    try:
        return (data / "software" / "strop-agent" / pointer).readlink().name
    except OSError:
        return ""


def venv_of(data: Path, release: str) -> Path:
    """Return the folder of a release's environment."""
    return data / "software" / "venvs" / release


def python_of(data: Path, release: str) -> Path:
    """Return the interpreter of a release."""
    return venv_of(data, release) / "bin" / "python"


def is_whole(data: Path, release: str) -> bool:
    """True if the environment of a release was finished, and its interpreter can be started."""
    return (venv_of(data, release) / MARK).is_file() and os.access(python_of(data, release), os.X_OK)
