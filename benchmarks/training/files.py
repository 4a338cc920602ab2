# SPDX-License-Identifier: Apache-2.0
"""The four files of one network that a training times: float and integers, for ONNX Runtime and for LiteRT."""

from pathlib import Path
from typing import Final

from torch import Tensor, nn

from compress.quantize.plan import QuantizationPlan
from compress.quantize.step import folded
from export.onnx import float_writer as float_onnx
from export.onnx import writer as onnx
from export.tflite import float_writer as float_tflite
from export.tflite import writer as tflite

__all__ = ["RUNTIMES", "write_files"]

RUNTIMES: Final = {"onnx": "ONNX Runtime", "tflite": "LiteRT"}


def write_files(model: nn.Module, example: Tensor, plan: QuantizationPlan | None, folder: Path) -> dict[str, Path]:
    """Write a network for both runtimes and return its files by ``float onnx``, ``int8 tflite`` and so on.

    Args:
        model: The float network.
        example: One input, float32 [1, C, H, W].
        plan: Its integers; None leaves their files out.
        folder: Made if it is missing.

    Raises:
        UnsupportedOperatorError: A layer that the writers do not know.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {f"float {kind}": folder / f"float.{kind}" for kind in RUNTIMES}
    graph = folded(model.eval(), example)
    float_onnx.write(graph, paths["float onnx"], embedding=False)
    float_tflite.write(graph, paths["float tflite"], embedding=False)
    if plan is not None:
        paths |= {f"int8 {kind}": folder / f"int8.{kind}" for kind in RUNTIMES}
        onnx.write(plan, paths["int8 onnx"])
        tflite.write(plan, paths["int8 tflite"])
    return paths
