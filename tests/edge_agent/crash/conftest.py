# SPDX-License-Identifier: Apache-2.0
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_contract.manifest import Manifest
from tests.edge_agent.adapters.test_install import Blobs
from tests.edge_agent.crash import shim
from tests.edge_agent.crash.lives import Claims, Lives, Story
from tests.edge_agent.crash.outside import write_bundle


@dataclass
class Ground:
    """What all crash tests share.

    Attributes:
        folder: A scratch folder, in memory where that is possible: nothing here is slow but the disk.
        starts: Installed version → a data folder as it was left by a clean stop; copied, never changed.
    """

    folder: Path
    manifests: dict[str, Manifest]
    lives: Lives
    starts: dict[str, Path]

    def begin(self, story: Story, name: str = "data") -> Path:
        """Return a fresh copy of the folder in which a story begins."""
        data = self.folder / name
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(self.starts[story.installed], data, symlinks=True)
        return data


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 200_000_000 else None
    with tempfile.TemporaryDirectory(prefix="strop-crash-", dir=where) as folder:
        yield Path(folder).resolve()


@pytest.fixture(scope="session")
def ground(scratch: Path) -> Iterator[Ground]:
    if shim.GCC is None:
        pytest.skip("apt-get install gcc")
    server = Blobs()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    manifests = {}
    for version in ("1", "2", "3", "4", "bad"):
        manifests[version] = write_bundle(scratch / "bundles" / version, version)
        server.add(scratch / "bundles" / version)
    lives = Lives(shim.build(scratch), scratch / "bundles", f"http://127.0.0.1:{server.server_address[1]}")
    try:
        yield Ground(scratch, manifests, lives, _starts(scratch, lives))
    finally:
        lives.close()
        server.shutdown()
        server.server_close()
        thread.join()


def _starts(scratch: Path, lives: Lives) -> dict[str, Path]:
    """Make the two folders in which stories begin: a new device, and one that runs version 1."""
    starts = {"": scratch / "start", "1": scratch / "start1"}
    for folder in starts.values():
        folder.mkdir()
    claims = Claims()
    code, _ = lives.live(starts["1"], Story("", ("1",)), claims, boot=0)
    assert code == 0, claims.error
    (starts["1"] / "journal.json").unlink()  # orders begin anew
    return starts
