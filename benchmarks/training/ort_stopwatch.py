# SPDX-License-Identifier: Apache-2.0
"""A stopwatch for latency tables: ONNX Runtime in float32 on one thread, from our own file."""

import time
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.machine import describe
from benchmarks.peers import sessions
from compress.quantize.fold import fold
from compress.quantize.trace import trace
from export.onnx.float_writer import write

__all__ = ["OrtStopwatch", "write_float"]

CALLS: Final = 60
ROUNDS: Final = 3


def write_float(model: nn.Module, example: Tensor, path: Path) -> Path:
    """Write a network as a float32 file and return its path."""
    write(fold(trace(model.eval(), example)), path, embedding=False)
    return path


class OrtStopwatch:
    """Milliseconds of one inference.

    The lower quartile of the calls of each session, and the least over three sessions: company on the machine only ever
    adds, and where a session's memory happens to lie moves all of its calls.

    Args:
        folder: For the file that is timed.
    """

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        self.path = folder / "stopwatch.onnx"
        self.about = f"ONNX Runtime {onnxruntime.__version__}, float32, 1 thread, {describe()}"

    def __call__(self, model: nn.Module, example: Tensor) -> float:
        """Return the milliseconds of a network on one input."""
        with torch.random.fork_rng():
            write_float(model, example, self.path)
        sample = np.random.default_rng(0).random(tuple(example.shape[1:]), np.float32)
        return min(self._session_ms(sample) for _ in range(ROUNDS))

    def _session_ms(self, sample: "np.typing.NDArray[np.float32]") -> float:
        loaded = sessions.load(self.path)
        prepared = loaded.prepare(sample)
        times = []
        for _ in range(CALLS + 5):
            start = time.perf_counter_ns()
            loaded.call(prepared)
            times.append(time.perf_counter_ns() - start)
        return float(np.quantile(times[5:], 0.25)) / 1e6
