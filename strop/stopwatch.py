# SPDX-License-Identifier: Apache-2.0
"""The stopwatch of this machine: what ``compress`` is handed to measure latency with.

``compress`` knows neither file formats nor runtimes; a stopwatch is passed to it by name, ``module:callable``. This
one writes the model for ONNX Runtime and LiteRT, runs both on one thread, and answers with the faster one. A lab with
boards passes its own, which copies the files to a board and times them there.
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compress.quantize.plan import QuantizationPlan

__all__ = ["here", "interleaved", "written"]

BLOCKS: Final = 15
BLOCK_SECONDS: Final = 0.02


def here(model: "nn.Module", example: "Tensor", plan: "QuantizationPlan | None" = None) -> float:
    """Return the latency of one input on this machine, milliseconds: one thread, the faster of both runtimes.

    Args:
        model: The float model, written in float32 if there is no plan.
        example: One input, float32 [1, C, H, W].
        plan: The int8 model.

    Raises:
        UnsupportedOperatorError: A layer that the writers do not know.
    """
    with tempfile.TemporaryDirectory(prefix="strop-") as folder:
        files = written(model, example, plan, Path(folder))
        return min(interleaved([_call(file) for file in files]))


def written(model: "nn.Module", example: "Tensor", plan: "QuantizationPlan | None", folder: Path) -> list[Path]:
    """Write a model for ONNX Runtime and LiteRT into a folder; return both files. Arguments as of ``here``."""
    from compress.quantize.step import folded
    from export.onnx import float_writer as float_onnx
    from export.onnx import writer as onnx
    from export.tflite import float_writer as float_tflite
    from export.tflite import writer as tflite

    files = [folder / "model.onnx", folder / "model.tflite"]
    if plan is not None:
        onnx.write(plan, files[0])
        tflite.write(plan, files[1])
        return files
    graph = folded(model, example)
    float_onnx.write(graph, files[0], embedding=False)
    float_tflite.write(graph, files[1], embedding=False)
    return files


def _call(file: Path) -> Callable[[], object]:
    from benchmarks.operands import resolve

    return resolve(str(file), threads=1)


def interleaved(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Return the median time of each call in milliseconds, from short blocks taken in turns.

    Example:
        >>> fast, slow = interleaved([lambda: None, lambda: time.sleep(0.001)])
        >>> fast < slow
        True
    """
    loops = [_loops(call) for call in calls]
    blocks: list[list[float]] = [[] for _ in calls]
    for _, (place, call) in itertools.product(range(BLOCKS), enumerate(calls)):
        started = time.perf_counter()
        for _ in range(loops[place]):
            call()
        blocks[place].append((time.perf_counter() - started) / loops[place])
    return [1000 * statistics.median(block) for block in blocks]


def _loops(call: Callable[[], object]) -> int:
    """Return how many calls fill a block; the runtime warms up meanwhile."""
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < BLOCK_SECONDS:
        call()
        count += 1
    return count
