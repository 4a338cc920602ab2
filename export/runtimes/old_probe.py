# SPDX-License-Identifier: Apache-2.0
"""Run a TFLite file in this interpreter's runtime: ``python old_probe.py MODEL.tflite INPUTS.npy OUTPUTS.npz``.

For runtimes whose Python is too old for the rest of Strop: one file, Python 3.7, numpy and tflite_runtime (or
ai_edge_litert) alone. INPUTS are rows in the model's own type and shape, run one by one; OUTPUTS holds the raw numbers
of each output, [N, ...], as ``0``, ``1`` and so on. Prints one JSON line: package, version, delegate, outputs.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

_PACKAGES = ("tflite_runtime", "ai_edge_litert")


def main(arguments: Any) -> int:
    """Answer each row of inputs; return 0, or 1 with one line on stderr."""
    model, given, taken = arguments
    try:
        package = _package()
        interpreter = _opened(package, model)
        with Path(taken).open("wb") as file:
            np.savez(file, **_answers(interpreter, np.load(given, allow_pickle=False)))
    except Exception as error:  # what the runtimes raise has no common base
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 1
    names = [str(detail["name"]) for detail in interpreter.get_output_details()]
    facts = {"package": package.__name__, "version": package.__version__, "delegate": _delegate(interpreter)}
    print(json.dumps({**facts, "outputs": names}))
    return 0


def _package() -> Any:
    for name in _PACKAGES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ImportError("neither tflite_runtime nor ai_edge_litert is installed")


def _opened(package: Any, model: str) -> Any:
    kind = importlib.import_module(package.__name__ + ".interpreter").Interpreter
    interpreter = kind(model_path=model, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def _answers(interpreter: Any, inputs: Any) -> Any:
    (source,) = interpreter.get_input_details()
    outputs = interpreter.get_output_details()
    rows: Any = [[] for _ in outputs]
    for i in range(len(inputs)):
        interpreter.set_tensor(source["index"], inputs[i : i + 1])
        interpreter.invoke()
        for k, detail in enumerate(outputs):
            rows[k].append(interpreter.get_tensor(detail["index"]).copy())
    return {str(k): np.stack(found) for k, found in enumerate(rows)}


def _delegate(interpreter: Any) -> str:
    """``xnnpack`` where a delegate has taken operators, else ``builtin``, as the runner tells them apart."""
    try:
        names = [str(op["op_name"]) for op in interpreter._get_ops_details()]  # noqa: SLF001
    except (AttributeError, KeyError, ValueError):
        return "unknown"
    return "xnnpack" if any("DELEGATE" in name.upper() for name in names) else "builtin"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
