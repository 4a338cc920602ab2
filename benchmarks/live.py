# SPDX-License-Identifier: Apache-2.0
"""Processes that a measurement needs beside what it measures: a broker on loopback, and children that end with it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from edge_contract.errors import MeasurementError

__all__ = ["broker", "ended", "until"]

_PATIENCE_S: Final = 60.0


@contextlib.contextmanager
def ended(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """End a process of ours with the block."""
    try:
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10.0)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[int]:
    """Run mosquitto on a free loopback port, and give the port; 0 where it is not installed."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        yield 0
        return
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    quiet = subprocess.DEVNULL
    with ended(subprocess.Popen([program, "-c", str(config)], stdout=quiet, stderr=quiet)):
        until(lambda: _answers(port), "mosquitto")
        yield port


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


def until(claim: Callable[[], bool], what: str) -> None:
    """Wait for a claim to hold.

    Raises:
        MeasurementError: It did not within a minute; the error says that ``what`` does not start.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while not claim():
        if time.monotonic() > deadline:
            raise MeasurementError(f"{what} does not start")
        time.sleep(0.005)
