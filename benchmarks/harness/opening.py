# SPDX-License-Identifier: Apache-2.0
"""The one door to the bare runtimes; each is imported only when a plan asks for it."""

from benchmarks.harness.bare import Bare
from benchmarks.plan import BenchPlan

__all__ = ["open_bare"]


def open_bare(plan: BenchPlan, dtype: str = "") -> Bare:
    """Load a plan's file in its runtime.

    Args:
        plan: Says file, runtime, delegate, threads and batch.
        dtype: Of the input where a manifest says it: decides an option of ONNX Runtime on some processors.

    Raises:
        MissingDependencyError: The runtime, or the delegate's library, is not installed.
        DeviceError: The delegate finds no device.
        RuntimeAdapterError: The runtime refuses the file.
    """
    if plan.runtime == "onnxruntime":
        from benchmarks.harness.bare_onnx import open_onnx

        return open_onnx(plan, dtype)
    from benchmarks.harness.bare_tflite import open_tflite

    return open_tflite(plan)
