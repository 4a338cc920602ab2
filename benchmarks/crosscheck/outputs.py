# SPDX-License-Identifier: Apache-2.0
"""What the tools print, in the forms of their versions so far.

``benchmark_model`` (TFLite, LiteRT) ends each phase with ``count=50 first=… avg=… std=…``; newer ones add ``median=``.
``onnxruntime_perf_test`` prints ``P50 Latency: 0.00123 s`` (before 2023 ``P50 Latency is 0.00123 sec``), or only an
average when it was told to. ``litert-benchmark`` prints milliseconds with two digits, so its step is 10 µs.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edge_contract.errors import MeasurementError

__all__ = ["ToolTime", "benchmark_model", "litert_benchmark", "perf_test", "profiler"]

_NUMBER: Final = r"([-+0-9.]+(?:[eE][-+]?\d+)?)"


@dataclass(frozen=True)
class ToolTime:
    """The time of one inference by a tool.

    Attributes:
        us: Microseconds.
        statistic: ``median`` or ``average``: what the tool tells, and what ours is compared by.
        step_us: The last digit that it prints.
        runs: Behind it; 0: not told.
    """

    us: float
    statistic: str
    step_us: float
    runs: int = 0


def benchmark_model(text: str) -> ToolTime:
    """Read ``benchmark_model``; the last phase counts, the one before it was the warm-up.

    Raises:
        MeasurementError: No phase.

    Example:
        >>> benchmark_model("INFO: count=74 first=14850 curr=13315 min=13105 max=15765 avg=13520.2 std=470")
        ToolTime(us=13520.2, statistic='average', step_us=1.0, runs=74)
    """
    phases = re.findall(rf"count=(\d+)((?:\s+\w+={_NUMBER})+)", text)
    if not phases:
        raise _unread("benchmark_model", "count=… avg=…", text)
    count, words = phases[-1][0], dict(re.findall(rf"(\w+)={_NUMBER}", phases[-1][1]))
    statistic = "median" if "median" in words else "average"
    told = words.get("median", words.get("avg"))
    if told is None:
        raise _unread("benchmark_model", "avg=…", text)
    return ToolTime(float(told), statistic, 1.0, int(count))


def perf_test(text: str) -> ToolTime:
    r"""Read ``onnxruntime_perf_test``.

    Raises:
        MeasurementError: Neither a P50 nor an average.

    Example:
        >>> perf_test("Average inference time cost: 1.25 ms\nP50 Latency: 0.00123 s\nTotal inference requests: 1000")
        ToolTime(us=1230.0, statistic='median', step_us=0.01, runs=1000)
    """
    runs = re.search(r"Total (?:inference requests|iterations):\s*(\d+)", text)
    count = int(runs[1]) if runs else 0
    half = re.search(rf"P50 Latency(?::| is)\s*{_NUMBER}\s*s", text)
    if half:  # six significant digits of a stream
        return ToolTime(round(float(half[1]) * 1e6, 3), "median", 0.01, count)
    mean = re.search(rf"Average (?:inference )?time cost:\s*{_NUMBER}\s*ms", text)
    if mean is None:
        raise _unread("onnxruntime_perf_test", "P50 Latency", text)
    return ToolTime(round(float(mean[1]) * 1e3, 3), "average", 0.01, count)


def litert_benchmark(text: str) -> ToolTime:
    r"""Read ``litert-benchmark``, which the wheel of ai-edge-litert brings.

    Raises:
        MeasurementError: No median.

    Example:
        >>> litert_benchmark("Inference (avg):       1.30 ms (50 runs)\nInference (median):    1.25 ms")
        ToolTime(us=1250.0, statistic='median', step_us=10.0, runs=50)
    """
    half = re.search(rf"Inference \(median\):\s*{_NUMBER} ms", text)
    if half is None:
        raise _unread("litert-benchmark", "Inference (median)", text)
    runs = re.search(r"Inference \(avg\):.*\((\d+) runs\)", text)
    return ToolTime(round(float(half[1]) * 1e3, 3), "median", 10.0, int(runs[1]) if runs else 0)


def profiler(text: str) -> ToolTime:
    """Read the sum of all operators from a profile; raises MeasurementError if it is none."""
    try:
        document: Mapping[str, float] = json.loads(text.strip().splitlines()[-1])
        return ToolTime(float(document["sum_us"]), "median", 1.0, int(document["runs"]))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise _unread("profiler", "strop.ops/1", text) from error


def _unread(tool: str, wanted: str, text: str) -> MeasurementError:
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "nothing")
    what = f"there is no '{wanted}' in what it printed; its last line: {last[:160]}"
    return MeasurementError(what, where=tool, fix="run it by hand, and report its version")
