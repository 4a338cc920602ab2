# SPDX-License-Identifier: Apache-2.0
"""What runs inside the virtual machine: one device, its data on a disk that may lose power at any instant.

``python -m tests.edge_agent.power.guest`` is the first process after the kernel. It says ``ready`` on the second
serial line and waits there, with the disk's driver not yet loaded: the machine is saved in this state, and every life
begins from it. One JSON line then says which life it is. From there all that the device tells the world goes to the
serial line, and where ``marks`` is set also behind the file system, straight to the disk, so that a log of the disk's
writes says what had been told when.
"""

import json
import mmap
import os
import subprocess
import termios
import threading
import time
import traceback
import tty
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from edge_contract.manifest import Manifest
from tests.edge_agent.crash.outside import World, write_bundle
from tests.edge_agent.crash.rig import Rig

__all__ = ["DATA", "MARK", "VERSIONS", "agent_folder", "main", "mark"]

VERSIONS = ("1", "2", "3", "4", "bad")
BUNDLES, DISK, DATA, LINE = Path("/bundles"), "/dev/vda", Path("/data"), "/dev/ttyS1"
MARK, BLOCK = b"strop-mark ", 4096


def agent_folder(mounted: Path) -> Path:
    """Return the agent's data folder on a mounted disk."""
    return mounted / "agent"


def mark(words: str) -> bytes:
    """Return what was told as whole blocks of a disk."""
    data = MARK + words.encode() + b"\n"
    return data + bytes(-len(data) % BLOCK)


class Blobs(BaseHTTPRequestHandler):
    """Files by their hash, over HTTP on the guest's own loopback."""

    files: Mapping[str, bytes] = {}

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        data = self.files.get(self.path.removeprefix("/blobs/"))
        self.send_response(200 if data is not None else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")


class Voice:
    """The serial line, and the blocks behind the file system.

    Args:
        marks: Where on the disk what is told shall be written too; 0 for nowhere.
    """

    def __init__(self, line: int, marks: int) -> None:
        self._line, self._at, self._told = line, marks, set[tuple[Any, ...]]()
        self._disk = os.open(DISK, os.O_RDWR | os.O_DIRECT) if marks else -1

    def said(self, text: str) -> None:
        """Tell the world; returns when the last byte has left the machine."""
        text = self._news(text)
        if not text:
            return
        os.write(self._line, text.encode() + b"\n")
        termios.tcdrain(self._line)
        if self._disk >= 0:
            self._mark(mark(text))

    def _news(self, text: str) -> str:
        """Leave out rows that were told before: a serial line is slow."""
        words = json.loads(text)
        if "committed" not in words:
            return text
        fresh = [row for row in words["committed"] if tuple(row) not in self._told]
        self._told.update(map(tuple, fresh))
        return json.dumps({"committed": fresh}) if fresh else ""

    def _mark(self, data: bytes) -> None:
        with mmap.mmap(-1, len(data)) as aligned:  # O_DIRECT wants the memory on a page's border
            aligned[:] = data
            self._at += os.pwrite(self._disk, aligned, self._at)


def main() -> None:
    """Be the machine's only program."""
    line = os.open(LINE, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(line)
    manifests = {version: write_bundle(BUNDLES / version, version) for version in VERSIONS}
    url = _serve()
    os.write(line, b'{"ready": true}\n')
    life = json.loads(_hear(line))
    try:
        _mount()
        _live(Voice(line, life["marks"]), life, url, manifests)
    except BaseException:
        os.write(line, json.dumps({"error": traceback.format_exc(limit=-4)}).encode() + b"\n")
    while True:  # the power is cut, the machine never ends by itself
        time.sleep(60)


def _live(voice: Voice, life: dict[str, Any], url: str, manifests: dict[str, Manifest]) -> None:
    if life["careless"]:
        os.fsync = lambda _handle: None  # type: ignore[assignment]  # an agent that a test must find out
    orders = tuple(life["orders"]) * life["repeat"]
    world = World(url, manifests, orders, voice.said, acks=life["acks"])
    rig = Rig(agent_folder(DATA), world, life["boot"])
    rig.run()
    rig.close()
    voice.said(json.dumps({"end": len(world.orders)}))


def _serve() -> str:
    from edge_contract import canonical

    Blobs.files = {canonical.digest(p.read_bytes()): p.read_bytes() for p in BUNDLES.rglob("*") if p.is_file()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Blobs)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def _hear(line: int) -> bytes:
    heard = b""
    while not heard.endswith(b"\n"):
        heard += os.read(line, 4096)
    return heard


def _mount() -> None:
    """The driver comes now, so nothing of an earlier disk is in the kernel's memory."""
    for driver in sorted(Path("/drivers").glob("*.ko")):
        subprocess.run(["/bin/busybox", "insmod", str(driver)], check=True)
    for _ in range(1000):
        if Path(DISK).exists():
            break
        time.sleep(0.005)
    subprocess.run(["/bin/busybox", "mount", "-t", "ext4", DISK, str(DATA)], check=True)


if __name__ == "__main__":
    main()
