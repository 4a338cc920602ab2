# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.training.bench_models FOLDER``: what benchmarks/results is measured with.

The two networks of the zoo that were trained on Fashion-MNIST, each as integers and in float32, each in ONNX and in
TFLite: four bundles, and ``fashion-test.npz`` with the test split's images as they come (uint8) and their classes;
``fashion-test-250.npz`` has the first of them, for emulated boards. The same checkpoints and package versions give
the same bytes. Half a minute with one thread.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_contract.preprocess import Preprocess

__all__ = ["DATA", "FEW", "LABELS", "NETS", "main", "make", "make_one"]

NETS: Final = ("mobilenet-v2", "mobilenet-v3")
PRECISIONS: Final = ("int8", "float32")
DATA: Final = "fashion-test.npz"
FEW: Final = "fashion-test-250.npz"
LABELS: Final = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip
CALIBRATION: Final = 256
SHOWN: Final = 512
PREPROCESS: Final = Preprocess(scale=1 / 255)


def make(folder: Path) -> list[Path]:
    """Make what is missing in a folder and return the bundles."""
    from tests.zoo import data

    folder.mkdir(parents=True, exist_ok=True)
    images, classes = data.load("t10k")
    for name, count in ((DATA, len(images)), (FEW, 250)):
        if not (folder / name).exists():
            np.savez_compressed(folder / name, x=images[:count], y=classes[:count])
    made = []
    for net in NETS:
        for precision in PRECISIONS:
            out = folder / f"{net}-{precision}"
            if not out.exists():
                print(f"{out.name}: writing both files, running them", flush=True)
                make_one(net, precision, out)
            made.append(out)
    return made


def make_one(net: str, precision: str, out: Path) -> None:
    """Write one network in one precision as a bundle of both formats.

    Raises:
        StropError: A file could not be written or does not answer as it must.
    """
    from export.adopt.adoption import Wish, adopt
    from export.adopt.inputs import Given
    from tests.zoo import data

    raw, classes = data.load("t10k")
    given = Given.of(raw[:SHOWN], classes[:SHOWN], "Fashion-MNIST, test split")
    wish = Wish(f"fashion-{net}", precision, "classification", PREPROCESS, labels=LABELS, precision=precision)
    with tempfile.TemporaryDirectory() as draft:
        files = [Path(draft) / "model.onnx", Path(draft) / "model.tflite"]
        _write(net, precision, *files)
        adopt(files, out, wish, given)


def _write(net: str, precision: str, onnx: Path, tflite: Path) -> None:
    import torch

    from compress.quantize.step import folded, quantize
    from tests.zoo import data
    from tests.zoo.models import load

    torch.set_num_threads(1)
    model: Any = load(net)
    if precision == "int8":
        from export.onnx import writer as onnx_writer
        from export.tflite import writer as tflite_writer

        plan = quantize(model, data.calibration(CALIBRATION), embedding=False)
        onnx_writer.write(plan, onnx)
        tflite_writer.write(plan, tflite)
        return
    from export.onnx import float_writer as float_onnx
    from export.tflite import float_writer as float_tflite

    graph = folded(model, data.calibration(1))
    float_onnx.write(graph, onnx, embedding=False)
    float_tflite.write(graph, tflite, embedding=False)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    words = sys.argv[1:] if arguments is None else arguments
    for path in make(Path(words[0] if words else "build/bench")):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
