# SPDX-License-Identifier: Apache-2.0
"""ai-edge-quantizer on the float TFLite file: its recipe ``static_wi8_ai8``, with its own or true ranges.

``ranges = "default"`` averages the smallest and largest value over the samples; ``"min-max"`` keeps the true ones,
which needs a private attribute of the pinned version.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.converters import main

__all__ = ["convert"]


def convert(material: Path, output: Path, setting: dict[str, Any]) -> tuple[str, ...]:
    """Write ``model.tflite``."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import calibrator, quantizer, recipe  # type: ignore[import-not-found, unused-ignore]
    from ai_edge_quantizer.utils import qsv_utils  # type: ignore[import-not-found, unused-ignore]

    source = str(material / "float.tflite")
    signatures = Interpreter(model_path=source).get_signature_list()
    signature, names = next((name, entry["inputs"]) for name, entry in signatures.items())
    samples = np.load(material / "calibration.npy").transpose(0, 2, 3, 1)
    data = {signature: [{names[0]: np.ascontiguousarray(sample[None])} for sample in samples]}
    tool = quantizer.Quantizer(source)
    tool.load_quantization_recipe(recipe.static_wi8_ai8())
    if setting["ranges"] == "default":
        found = tool.calibrate(data)
    else:
        observer = calibrator.Calibrator(source, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
        observer.calibrate(data, tool._recipe_manager)  # noqa: SLF001
        found = observer.get_model_qsvs()
    tool.quantize(found).export_model(str(output / "model.tflite"), overwrite=True)
    return ("ai-edge-quantizer", "ai-edge-litert")


if __name__ == "__main__":
    main(convert, "ai_edge_quantizer", "ai_edge_quantizer.calibrator")
