# SPDX-License-Identifier: Apache-2.0
"""The virtual machine from outside: started once, saved while it waits, then restored for each life and killed.

``cache=writeback`` and SIGKILL: what the guest had handed to its disk is there, what was still in its memory is gone.
"""

import contextlib
import json
import os
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.machines import vm

__all__ = ["DISK_MB", "MARKS_MB", "Machine", "SavedMachine", "format_disk"]

DISK_MB, MARKS_MB = 32, 16
"""The file system, and the blocks behind it for what was told."""
SOURCES = (
    "edge_contract",
    "edge_agent",
    "tests/edge_agent/crash",
    "tests/edge_agent/power",
    "tests/support/device_effects.py",
    "tests/support/device_sim.py",
    "tests/support/device_world.py",
)
START_S = 600


def format_disk(path: Path) -> Path:
    """Make a disk with an empty ext4, as Debian formats one, and the agent's folder on it."""
    folder = path.with_suffix(".empty")
    (folder / "agent").mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate((DISK_MB + MARKS_MB) * 2**20)
    words = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", str(folder), str(path), f"{DISK_MB}M"]
    subprocess.run(words, check=True, env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"})
    return path


class Machine:
    """A running machine: what it says on its serial line comes as JSON objects.

    Args:
        folder: For the kernel's own words.
        disk: The data disk's file.
        log: Where each write to the disk is written down too, in the format of dm-log-writes.
        saved: A saved machine to go on with.
    """

    def __init__(
        self, folder: Path, initrd: Path, disk: Path, log: Path | None = None, saved: Path | None = None
    ) -> None:
        self.monitor = folder / "monitor"
        self.monitor.unlink(missing_ok=True)
        words = [vm.QEMU, "-accel", "tcg", "-m", "256", "-nographic", "-nodefaults", "-no-reboot", "-nic", "none"]
        words += ["-kernel", str(vm.kernel()), "-initrd", str(initrd)]
        words += ["-append", "console=ttyS0 quiet panic=-1 start=tests.edge_agent.power.guest"]
        words += ["-serial", f"file:{folder / 'console'}", "-serial", "stdio"]
        words += ["-monitor", f"unix:{self.monitor},server=on,wait=off"]
        words += ["-incoming", f"exec:cat {saved}"] if saved else []
        words += [*_drive(disk, log), "-device", "virtio-blk-pci,drive=d1"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self._process = subprocess.Popen(words, **pipes)
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)

    def tell(self, words: dict[str, Any]) -> None:
        """Send one line to the guest."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()

    def until(self, is_it: Callable[[dict[str, Any]], bool], seconds: float) -> list[dict[str, Any]]:
        """Return what was said up to something; raises AssertionError if it does not come."""
        heard, end = list[dict[str, Any]](), time.monotonic() + seconds
        while not heard or not is_it(heard[-1]):
            try:
                heard.append(json.loads(self._lines.get(timeout=max(0.0, end - time.monotonic()))))
            except (queue.Empty, ValueError) as error:
                raise AssertionError(f"the machine said {heard[-3:]}, then {error!r}") from error
        return heard

    def listen(self, count: int, seconds: float) -> list[dict[str, Any]]:
        """Return so many things that were said, or fewer if they do not come in time."""
        heard, end = list[dict[str, Any]](), time.monotonic() + seconds
        while len(heard) < count:
            try:
                heard.append(json.loads(self._lines.get(timeout=max(0.0, end - time.monotonic()))))
            except queue.Empty:
                break
        return heard

    def cut(self) -> list[dict[str, Any]]:
        """Cut the power; return the rest of what was said. Half a line is none. Once more does nothing."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        lines = [self._lines.get() for _ in range(self._lines.qsize())]
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def save(self, path: Path) -> None:
        """Write the whole machine but its disk to a file, and end it."""
        with self._monitor() as monitor:
            monitor.sendall(f'migrate "exec:cat > {path}"\nquit\n'.encode())
            self._process.wait(START_S)
        self.cut()

    def await_running(self) -> None:
        """Return when a saved machine is restored; what it was told before that would be lost."""
        with self._monitor() as monitor:
            said, end = b"", time.monotonic() + START_S
            while b"VM status: running" not in said:
                assert time.monotonic() < end, said
                monitor.sendall(b"info status\n")
                time.sleep(0.02)
                said += monitor.recv(65536)

    @contextlib.contextmanager
    def _monitor(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as monitor:
            end = time.monotonic() + START_S
            while True:
                try:
                    monitor.connect(str(self.monitor))
                    break
                except OSError:
                    assert time.monotonic() < end and self._process.poll() is None, "the emulator did not start"
                    time.sleep(0.01)
            yield monitor


def _drive(disk: Path, log: Path | None) -> list[str]:
    if log is None:
        return ["-drive", f"file={disk},if=none,id=d1,format=raw,cache=writeback"]
    return [
        *("-blockdev", f"driver=file,filename={disk},node-name=f1"),
        *("-blockdev", f"driver=file,filename={log},node-name=l1"),
        *("-blockdev", "driver=blklogwrites,node-name=d1,file=f1,log=l1,log-sector-size=512"),
    ]


class SavedMachine:
    """A machine that waits to be told which life it shall live; each ``start`` is that same machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._initrd = vm.initrd(folder / "initrd", SOURCES)
        self._saved = folder / "saved"
        machine = Machine(folder, self._initrd, format_disk(folder / "first.img"))
        try:
            machine.until(lambda words: "ready" in words, START_S)
        except AssertionError as error:
            machine.cut()
            raise AssertionError((folder / "console").read_text("utf-8", "replace")[-2000:]) from error
        machine.save(self._saved)

    @contextlib.contextmanager
    def start(self, disk: Path, life: dict[str, Any], log: Path | None = None) -> Iterator[Machine]:
        """Go on with a disk, and tell the guest its life; the machine is gone afterwards."""
        machine = Machine(self._folder, self._initrd, disk, log, self._saved)
        try:
            machine.await_running()
            machine.tell(life)
            yield machine
        finally:
            machine.cut()
