# SPDX-License-Identifier: Apache-2.0
"""The life of the control process around its loop: one for each data folder, until a signal, or until the launcher
is to choose another release of it.
"""

import fcntl
import gc
import os
import signal
from pathlib import Path
from typing import IO

from edge_agent.adapters import binding
from edge_agent.adapters.log import LogFile
from edge_agent.app import App
from edge_agent.config import load
from edge_contract.errors import StoreError

__all__ = ["run"]


def _lock(data: Path) -> IO[str]:
    """Hold the data folder for this process alone; the kernel lets go when it ends.

    Raises:
        StoreError: Another agent has it.
    """
    handle = (data / "agent.lock").open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise StoreError("another agent runs here", where=str(data), fix="stop it first") from error
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle


def run(data: Path, *, is_quiet: bool = False) -> int:
    """Run the agent until SIGTERM or SIGINT; return its exit code.

    Raises:
        StropError: It cannot start: configuration, lock or disk.
    """
    said = binding.at_start(data)  # before the configuration: an identity that was put aside names no server
    config = load(data)
    lock = _lock(data)
    try:
        app = App(data, config, LogFile(data / "logs" / "agent.log", is_quiet=is_quiet))
        for level, line in said:
            app.log.write(level, line)
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda _number, _frame: app.stop())
        app.begin()
        gc.collect()  # what the start left behind makes room for what comes
        gc.freeze()  # what lives until the end need not be looked at again
        try:
            app.loop()
        finally:
            app.end()
    finally:
        lock.close()
    if app.software and app.software.is_leaving:
        app.software.relaunch(["--data", str(data), *(["--quiet"] if is_quiet else [])])
    return 0
