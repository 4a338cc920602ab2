# SPDX-License-Identifier: Apache-2.0
"""Who runs trials: processes of this machine, or Ray's workers on a cluster. Both run ``trial.perform``."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from compress.search.task import Result, Task
from compress.search.trial import perform
from edge_contract.errors import MissingDependencyError

__all__ = ["LocalWorkers", "RayWorkers", "Workers"]


class Workers(Protocol):
    """Runs tasks, ``count`` at once."""

    count: int

    def submit(self, task: Task) -> "Future[Result]": ...

    def stop(self) -> None: ...


class LocalWorkers:
    """One fresh process for each trial: a crash or a leak ends with it.

    Args:
        count: Trials at once. They share the cores: a recipe that leaves ``threads`` to PyTorch gets its share of them.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
        self._pool = ThreadPoolExecutor(count)
        self._children: set[subprocess.Popen[str]] = set()

    def submit(self, task: Task) -> "Future[Result]":
        return self._pool.submit(self._run, task)

    def _run(self, task: Task) -> Result:
        command = [sys.executable, "-m", "compress.search.trial"]
        pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        child: subprocess.Popen[str] = subprocess.Popen(command, **pipes, text=True, env=self._environment)
        self._children.add(child)
        try:
            answer, errors = child.communicate(json.dumps(task.to_json()))
        finally:
            self._children.discard(child)
        if child.returncode:
            last = (errors.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
            return Result("failed", f"the worker ended: {last}")
        return Result.from_json(json.loads(answer))

    def stop(self) -> None:
        """End what is still running; its finished steps stay on disk."""
        for child in tuple(self._children):
            child.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)


class RayWorkers:
    """Tasks on a Ray cluster; all its machines must see the same files.

    Args:
        count: Trials at once.
        address: Of the cluster; empty starts one on this machine.

    Raises:
        MissingDependencyError: Ray is not installed.
    """

    def __init__(self, count: int, address: str = "") -> None:
        try:
            import ray
        except ImportError as error:
            fix = "run: pip install 'strop[ray]'"
            raise MissingDependencyError("this needs the package 'ray'", fix=fix) from error
        self.count, self._ray = count, ray
        words: dict[str, Any] = {"address": address} if address else {"num_cpus": count, "include_dashboard": False}
        ray.init(ignore_reinit_error=True, log_to_driver=False, **words)
        remote: Callable[[dict[str, Any]], Any] = ray.remote(_perform)
        self._remote = remote
        self._pool = ThreadPoolExecutor(count)

    def submit(self, task: Task) -> "Future[Result]":
        return self._pool.submit(self._run, task)

    def _run(self, task: Task) -> Result:
        answer = self._remote.remote(task.to_json())  # type: ignore[attr-defined]
        return Result.from_json(self._ray.get(answer))

    def stop(self) -> None:
        """Leave the cluster."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._ray.shutdown()


def _perform(task: dict[str, Any]) -> dict[str, Any]:
    return perform(Task.from_json(task)).to_json()
