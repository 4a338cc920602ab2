# SPDX-License-Identifier: Apache-2.0
"""NNCF on the float ONNX file; ``setting`` are keyword arguments of ``nncf.quantize``.

Its target is OpenVINO: the speed of its files in ONNX Runtime says nothing about OpenVINO.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.converters import main

__all__ = ["convert"]


def convert(material: Path, output: Path, setting: dict[str, Any]) -> tuple[str, ...]:
    """Write ``model.onnx``."""
    import nncf  # type: ignore[import-not-found, unused-ignore]
    import onnx

    model = onnx.load(str(material / "float.onnx"))
    name = model.graph.input[0].name
    samples = np.load(material / "calibration.npy")
    chosen: dict[str, Any] = {"subset_size": len(samples)}
    if "preset" in setting:
        chosen["preset"] = nncf.QuantizationPreset(setting["preset"])
    if "fast_bias_correction" in setting:
        chosen["fast_bias_correction"] = setting["fast_bias_correction"]
    if "disable_bias_correction" in setting:
        advanced = nncf.AdvancedQuantizationParameters(disable_bias_correction=setting["disable_bias_correction"])
        chosen["advanced_parameters"] = advanced
    data = nncf.Dataset([{name: sample[None]} for sample in samples])
    onnx.save(nncf.quantize(model, data, **chosen), str(output / "model.onnx"))
    return ("nncf", "onnx", "onnxruntime")


if __name__ == "__main__":
    main(convert, "nncf", "onnx")
