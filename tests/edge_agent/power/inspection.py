# SPDX-License-Identifier: Apache-2.0
"""Looks at a disk after its power was cut: the file system comes up by its own journal and is whole, and so is all that
the agent had told the world, by the judge that also judges states of the modelled disk.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.edge_agent.crash.disk import Disk, Tree
from tests.edge_agent.crash.judge import Found, Judge
from tests.edge_agent.crash.outside import order_id
from tests.edge_agent.power.guest import agent_folder

__all__ = ["PowerJudge", "contents", "phase"]

TOOLS = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C"}


class PowerJudge(Judge):
    """Takes an order's end as the device says it: after four cuts in one trial the device gives a good model up."""

    def _good(self, ended: int, found: Found) -> str:
        ends = dict(self.claims.ended)
        if (last := found.update.finished) is not None:
            ends[last.job_id] = last.report.status.value
        taken = [v for i, v in enumerate(self.story.orders[:ended], 1) if ends[order_id(i)] == "SUCCEEDED"]
        assert not any(version.startswith("bad") for version in taken), "a bad model was kept"
        return self.manifests[taken[-1]].bundle_id if taken else ""


def phase(found: Found) -> str:
    """Return in which phase of an order the power was cut."""
    execution = found.update.execution
    return execution.phase.value if execution else "between two orders"


def contents(image: Path, scratch: Path) -> Tree:
    """Return the agent's files on a disk. The file system is repaired by its own journal, in ``image`` itself.

    Raises:
        AssertionError: It cannot be mounted, or it is not whole afterwards.
    """
    scratch.mkdir(exist_ok=True)
    if os.geteuid() == 0 and _has_loop():
        with _mounted(image, scratch) as folder:
            tree = _tree(agent_folder(folder))
    else:
        _run("e2fsck", "-f", "-p", str(image), good=(0, 1))
        shutil.rmtree(scratch)
        scratch.mkdir()
        _run("debugfs", "-R", f"rdump /agent {scratch}", str(image))
        tree = _tree(agent_folder(scratch))
    _run("e2fsck", "-f", "-n", str(image))
    return tree


def _tree(folder: Path) -> Tree:
    return Disk(folder).tree(lambda names: names.now, lambda file: file.now)


@functools.cache
def _has_loop() -> bool:
    """True if this system mounts files; a container often does not, and then the tools of ext4 read the disk."""
    return (
        shutil.which("losetup") is not None and subprocess.run(["losetup", "-f"], capture_output=True).returncode == 0
    )


@contextmanager
def _mounted(image: Path, folder: Path) -> Iterator[Path]:
    _run("mount", "-t", "ext4", "-o", "loop,noatime", str(image), str(folder))
    try:
        yield folder
    finally:
        _run("umount", str(folder))


def _run(*words: str, good: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=TOOLS)
    assert done.returncode in good, f"{' '.join(words)}: {(done.stdout + done.stderr).strip()[-600:]}"
