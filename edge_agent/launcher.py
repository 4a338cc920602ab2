# SPDX-License-Identifier: Apache-2.0
"""``python -P -m edge_agent.launcher --data DIR``: choose which release of the agent runs, and become it.

Theory of operation. The launcher belongs to the software that was installed on the device ("factory") and is never
updated. It is the standard library and two small modules. It reads two pointers, counts the start durably, and
replaces itself by the agent of the chosen release (execve: same process, same service). The agent forgets the count
when it is healthy. A release that was started ``limit`` times without that is written down as failed and not started
again before a new order for it: then the release before it runs, and in the end the factory one, which is never
counted. Whatever goes wrong in here ends in the factory agent, too.

A release on trial gets an alarm clock that survives execve: if its loop does not turn it again and again, the kernel
ends the process (SIGALRM), also where no service manager has a watchdog.
"""

import contextlib
import fcntl
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.software import launch
from edge_agent.software.launch import FAILED, LAUNCHER, RELEASE, TRIAL, Launch

__all__ = ["Choice", "FACTORY", "TRIAL_ALARM_S", "choose", "environment", "main"]

TRIAL_ALARM_S: Final = 180
FACTORY: Final = ""
ALARM: Final = "STROP_TRIAL_ALARM_S"
"""A person may set another number of seconds in the unit."""
_FOREIGN: Final = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV")
"""These would lead one release to another one's packages."""


@dataclass(frozen=True)
class Choice:
    """What to run: a release, or ``FACTORY``; with why others are not run."""

    release: str
    failed: Mapping[str, str]
    is_proven: bool = True


def choose(data: Path) -> Choice:
    """Choose and count; every failure that is found is written down before anything else is started."""
    record = launch.read(data)
    for release in dict.fromkeys((launch.active_name(data, "active"), launch.active_name(data, "standby"))):
        if not release or release in record.failed:
            continue
        trouble = _trouble(data, record, release)
        if trouble:
            record = _blame(data, record, release, trouble)
            continue
        is_proven = release in record.proven
        try:
            launch.write(data, record.counted(release))
        except OSError as error:
            if not is_proven:  # it could be started for ever
                record = record.blamed(release, f"its start cannot be counted: {error}")
                continue
        return Choice(release, record.failed, is_proven)
    return Choice(FACTORY, record.failed)


def _trouble(data: Path, record: Launch, release: str) -> str:
    if not launch.is_whole(data, release):
        return "its environment is not whole"
    starts = record.starts.get(release, 0)
    return f"{starts} starts without a sign of health" if starts >= record.limit(release) else ""


def _blame(data: Path, record: Launch, release: str, reason: str) -> Launch:
    blamed = record.blamed(release, reason)
    with contextlib.suppress(OSError):  # the agent is told in any case
        launch.write(data, blamed)
    return blamed


def environment(environ: Mapping[str, str], choice: Choice) -> dict[str, str]:
    """Return the environment of the chosen release.

    Example:
        >>> found = environment({"PYTHONPATH": "/x", "LANG": "C"}, Choice("ab", {}, is_proven=False))
        >>> sorted(found), found["STROP_ON_TRIAL"]
        (['LANG', 'STROP_LAUNCHER', 'STROP_ON_TRIAL', 'STROP_RELEASE', 'STROP_RELEASES_FAILED'], '180')
    """
    foreign = () if choice.release == FACTORY else _FOREIGN
    kept = {key: value for key, value in environ.items() if key not in (*foreign, TRIAL)}
    told = {LAUNCHER: sys.executable, RELEASE: choice.release, FAILED: json.dumps(dict(choice.failed))}
    given = environ.get(ALARM, "")
    patience = given if given.isdigit() and int(given) > 0 else str(TRIAL_ALARM_S)
    return {**kept, **told, **({} if choice.is_proven else {TRIAL: patience})}


def _is_running(data: Path) -> bool:
    """True if an agent has the folder: a second start is nobody's failure."""
    try:
        with (data / "agent.lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _become(data: Path, choice: Choice, words: list[str]) -> None:
    python = str(launch.python_of(data, choice.release)) if choice.release else sys.executable
    environ = environment(os.environ, choice)
    signal.alarm(int(environ.get(TRIAL, 0)))
    os.execve(python, [python, "-P", "-m", "edge_agent", *words], environ)  # noqa: S606


def main(words: list[str]) -> int:
    """Choose and become; returns only if not even the factory agent can be started."""
    if "--data" not in words[:-1]:
        sys.stderr.write("error: usage: python -m edge_agent.launcher --data DIR [--quiet]\n")
        return 2
    data = Path(words[words.index("--data") + 1]).resolve()
    if _is_running(data):
        sys.stderr.write(f"error: {data}: another agent runs here; stop it first\n")
        return 1
    failed: Mapping[str, str] = {}
    for _ in range(3):  # each round blames a release, and there are two
        try:
            choice = choose(data)
            failed = choice.failed
            _become(data, choice, words)
        except OSError as error:  # the interpreter cannot be started
            if choice.release == FACTORY:
                sys.stderr.write(f"error: cannot start the agent: {error}\n")
                return 1
            failed = _blame(data, launch.read(data), choice.release, f"cannot be started: {error}").failed
        except Exception as error:
            sys.stderr.write(f"error: launcher: {error}\n")
            break
    _become(data, Choice(FACTORY, failed), words)
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
