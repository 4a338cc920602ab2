# SPDX-License-Identifier: Apache-2.0
"""A board's predictor as ``compress search --predictor board.json`` takes it: a network in, a forecast out.

The network is written for the runtimes that the board's predictor knows, as the exporter would write it, and its
operators are read from those files. Weights do not matter: integers are calibrated in the cheapest way.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_contract.errors import MeasurementError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from benchmarks.predict.board import Board
    from benchmarks.predict.predictor import Forecast
    from compress.predictors import Predictor

__all__ = ["Foreseer", "read"]

FORMATS: Final = {"onnxruntime": "onnx", "litert": "tflite", "tflite-runtime": "tflite"}
LEAST: Final = 64
"""Samples that a calibration asks for."""


def read(path: Path) -> "Predictor":
    """Return the predictor in a file of ``strop bench predict learn``; raises MeasurementError where it holds none."""
    from benchmarks.predict.board import Board

    return Foreseer(Board.load(path))


class Foreseer:
    """Forecasts of networks on one board, of the runtime that is fastest there.

    Args:
        board: What was learned there.
        threads: Of one inference.
    """

    def __init__(self, board: "Board", threads: int = 1) -> None:
        self._board, self._threads = board, threads

    def __call__(self, model: "nn.Module", inputs: "Tensor", *, is_integer: bool) -> "Forecast":
        """Return the forecast of the fastest runtime.

        Args:
            model: Float, in eval mode.
            inputs: Some inputs, float32 [N, C, H, W].
            is_integer: Its integers will run, else the float network.

        Raises:
            MeasurementError: The board's predictor knows no runtime that we write for, or no model like this one.
            UnsupportedOperatorError: A layer that the writers do not know.
        """
        from export.inspection.work import operators

        found, refusals = [], []
        with tempfile.TemporaryDirectory(prefix="strop-") as folder:
            files = _written(model, inputs, Path(folder), is_integer=is_integer)
            for way in self._ways():
                try:
                    found.append(self._board.ask(way, operators(files[FORMATS[way.partition("/")[0]]])))
                except MeasurementError as error:
                    refusals.append(error)
        if not found:
            raise refusals[0] if refusals else MeasurementError("no runtime that we write for", where="predictor")
        return _fastest(found)

    def _ways(self) -> list[str]:
        known = [way.partition("/") for way in sorted(self._board.ways)]
        return [name + "/" + count for name, _, count in known if name in FORMATS and count == str(self._threads)]


def _fastest(found: "list[Forecast]") -> "Forecast":
    """Return the forecast of the least of several: each end is the least of the ends.

    Where all intervals hold, so does this one.
    """
    from benchmarks.predict.predictor import Forecast

    return Forecast(min(one.ms for one in found), min(one.low for one in found), min(one.high for one in found))


def _written(model: "nn.Module", inputs: "Tensor", folder: Path, *, is_integer: bool) -> dict[str, Path]:
    from compress.quantize.step import folded, quantize
    from export.onnx import float_writer as float_onnx
    from export.onnx import writer as onnx
    from export.tflite import float_writer as float_tflite
    from export.tflite import writer as tflite

    paths = {kind: folder / f"model.{kind}" for kind in ("onnx", "tflite")}
    if not is_integer:
        graph = folded(model.eval(), inputs[:1])
        float_onnx.write(graph, paths["onnx"], embedding=False)
        float_tflite.write(graph, paths["tflite"], embedding=False)
        return paths
    copies = -(-LEAST // len(inputs))
    rows = inputs.repeat(copies, *[1] * (inputs.ndim - 1))[:LEAST]
    plan = quantize(model.eval(), rows, observer="min-max", correct_bias=False)
    onnx.write(plan, paths["onnx"])
    tflite.write(plan, paths["tflite"])
    return paths
