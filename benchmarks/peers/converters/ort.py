# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime's static quantizer: its own preparation, QDQ, per-channel weights; activation type and method vary."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.converters import main

__all__ = ["Reader", "convert"]


class Reader:
    """Calibration samples [N, C, H, W], one at a time: what ONNX Runtime calls a CalibrationDataReader."""

    def __init__(self, name: str, samples: NDArray[np.float32]) -> None:
        self._feeds: Iterator[dict[str, NDArray[np.float32]]] = iter([{name: sample[None]} for sample in samples])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._feeds, None)


def convert(material: Path, output: Path, setting: dict[str, Any]) -> tuple[str, ...]:
    """Write ``model.onnx``."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = output / "prepared.onnx"
    quant_pre_process(str(material / "float.onnx"), str(prepared))
    name = onnx.load(str(prepared)).graph.input[0].name
    samples = np.load(material / "calibration.npy", mmap_mode="r")[: setting.get("samples")]
    extra = {"CalibPercentile": setting["percentile"]} if "percentile" in setting else {}
    types = {"uint8": quantization.QuantType.QUInt8, "int8": quantization.QuantType.QInt8}
    quantization.CalibrationDataReader.register(Reader)
    quantization.quantize_static(
        str(prepared),
        str(output / "model.onnx"),
        Reader(name, samples),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=types[setting["activation"]],
        weight_type=types["int8"],
        calibrate_method=getattr(quantization.CalibrationMethod, setting["method"]),
        extra_options=extra,
    )
    prepared.unlink()
    return ("onnxruntime", "onnx")


if __name__ == "__main__":
    main(convert, "onnx", "onnxruntime.quantization")
