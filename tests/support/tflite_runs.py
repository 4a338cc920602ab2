# SPDX-License-Identifier: Apache-2.0
"""Run TFLite files in LiteRT here, and in tflite-runtime in its own Python."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
folder, count = sys.argv[1], int(sys.argv[2])
for index in range(count):
    answer, error = np.zeros(0), ""
    try:
        model = Interpreter(model_path=f"{folder}/{index}.tflite", num_threads=1)
        model.allocate_tensors()
        model.set_tensor(model.get_input_details()[0]["index"], np.load(f"{folder}/{index}.npy"))
        model.invoke()
        answer = model.get_tensor(model.get_output_details()[0]["index"])
    except (RuntimeError, ValueError) as refusal:
        error = str(refusal)
    np.savez(f"{folder}/{index}.npz", answer=answer, error=error)
"""


def run_here(data, inputs):
    """Return the first output in LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(model_content=data, num_threads=1)
    model.allocate_tensors()
    model.set_tensor(model.get_input_details()[0]["index"], inputs)
    model.invoke()
    return model.get_tensor(model.get_output_details()[0]["index"])


def old_python():
    """The interpreter that has tflite-runtime 2.14; the test is skipped where there is none."""
    from edge_contract.errors import MissingDependencyError
    from export.runtimes.execution import python_for

    try:
        return python_for("tflite-runtime")
    except MissingDependencyError:
        pytest.skip("tflite-runtime is missing: make venv-tflite")


def run_old(jobs, folder, python=None):
    """Run (file, inputs) pairs in another Python; return for each (first output, ""), or (nothing, the refusal)."""
    python, folder = python or old_python(), Path(folder)
    for index, (data, inputs) in enumerate(jobs):
        (folder / f"{index}.tflite").write_bytes(data)
        np.save(folder / f"{index}.npy", inputs)
    command = [str(python), "-c", SCRIPT, str(folder), str(len(jobs))]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    found = []
    for index in range(len(jobs)):
        with np.load(folder / f"{index}.npz") as answer:
            found.append((answer["answer"], str(answer["error"])))
    return found


def real(codes, data):
    """The real numbers of the first output's codes."""
    from export.tflite.reader import read

    graph = read(data, "").main
    tensor = graph.tensors[graph.outputs[0]]
    return (codes.astype(np.float64) - tensor.zero_points[0]) * tensor.scales[0] if tensor.scales else codes


def relative_error(found, answer):
    """Norm of the difference over the answer's norm."""
    return float(np.linalg.norm(found - answer) / np.linalg.norm(answer))
