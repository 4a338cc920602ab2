# SPDX-License-Identifier: Apache-2.0
"""Strop: one plan from a zoo network, written to ``model.onnx`` and ``model.tflite``.

Starts from PyTorch, where other rows start from a float file, so its cost includes torch and tracing.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.converters import main

__all__ = ["convert"]


def convert(material: Path, output: Path, setting: dict[str, Any]) -> tuple[str, ...]:
    """Write both files and ``model.plan``; ``setting`` names the network, and holds the options of ``quantize``."""
    import torch

    from compress.quantize.step import quantize
    from export.onnx import writer as onnx_writer
    from export.tflite import writer as tflite_writer
    from tests.zoo.models import load

    torch.set_num_threads(1)
    samples = torch.from_numpy(np.load(material / "calibration.npy", mmap_mode="c")[: setting.get("samples")])
    plan = quantize(load(setting["net"]), samples, embedding=False, **setting.get("options", {}))
    plan.save(output / "model.plan")
    onnx_writer.write(plan, output / "model.onnx", activation=setting.get("activation", "uint8"))
    tflite_writer.write(plan, output / "model.tflite")
    return ("torch", "onnx", "ai-edge-litert")


if __name__ == "__main__":
    main(convert, "torch", "compress.quantize.step", "export.onnx.writer", "export.tflite.writer")
