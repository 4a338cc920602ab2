# SPDX-License-Identifier: Apache-2.0
"""Convert one Keras or SavedModel file with TensorFlow's own converter: ``python -m export.keras.child FOLDER``.

A process of its own, because the converter may end the process that runs it (recurrent layers in int8 make TensorFlow
2.21 segfault), prints to every stream it finds, and takes half a gigabyte. ``export.keras.converter`` writes the
folder, starts this, and reads the answer; ``stage.txt`` and ``facts.json`` say how far it came when there is none.

::

    FOLDER/job.json          model, precision, shape, memory_mib       in
    FOLDER/inputs.npy        float32 [N, ...]: calibration and check   in
    FOLDER/stage.txt         what is being done                        out
    FOLDER/facts.json        layers and graph operators                out
    FOLDER/checked.npy       float32 [M, ...]: at most 256 inputs      out
    FOLDER/reference.npz     output name → float32 [M, ...]            out
    FOLDER/model.tflite      the converter's file, as it came          out
    FOLDER/refusal.json      kind, what, where, fix                    out, if it was refused

Every free dimension is fixed before the conversion (batch 1): memory is then known before anything runs, and no
accelerator takes another batch.
"""

import importlib
import json
import resource
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_contract.errors import ModelError, StropError
from export.keras.load import Loaded, fixed, load

__all__ = ["CHECKED", "main"]

CHECKED: Final = 256
"""Inputs whose float outputs are computed for the comparison."""


def main(arguments: list[str]) -> int:
    """Do the job in a folder; return 0, or 1 with ``refusal.json`` written."""
    folder = Path(arguments[0])
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    _bound(int(job["memory_mib"]))
    try:
        _convert(folder, job)
    except StropError as error:
        _refuse(folder, type(error).__name__, error.what, error.where, error.fix)
    except Exception as error:  # Keras and TensorFlow raise whatever they like; the parent explains it
        _refuse(folder, "", f"{type(error).__name__}: {error}", "", "")
    else:
        return 0
    return 1


def _bound(memory_mib: int) -> None:
    """Limit private memory, and leave no core dump of a crash."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory_mib << 20, memory_mib << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _refuse(folder: Path, kind: str, what: str, where: str, fix: str) -> None:
    document = {"kind": kind, "what": what, "where": where, "fix": fix}
    (folder / "refusal.json").write_text(json.dumps(document), encoding="utf-8")


def _convert(folder: Path, job: dict[str, Any]) -> None:
    def stage(text: str) -> None:
        (folder / "stage.txt").write_text(text, encoding="utf-8")

    stage("importing TensorFlow")
    tf: Any = importlib.import_module("tensorflow")
    stage("loading the model")
    loaded = load(tf, Path(job["model"]))
    shape = fixed(loaded.shape, job["shape"])
    inputs = _inputs(folder / "inputs.npy", shape)
    stage("tracing the model")
    module, function = _trace(tf, loaded, shape)
    (folder / "facts.json").write_text(json.dumps(_facts(loaded, function)), encoding="utf-8")
    stage("running the model")
    rows = [function(tf.constant(row[None])) for row in inputs[:CHECKED]]
    np.save(folder / "checked.npy", inputs[:CHECKED])
    names = list(rows[0])
    reference = {name: np.concatenate([row[name].numpy() for row in rows]) for name in names}
    _check_answers(reference)
    np.savez(folder / "reference.npz", **reference)  # type: ignore[arg-type]  # its stub knows no names
    stage(f"converting to {job['precision']}")
    saved = str(folder / "saved")
    tf.saved_model.save(module, saved, signatures={"serving_default": function})
    (folder / "model.tflite").write_bytes(_tflite(tf, saved, inputs, job["precision"]))


def _check_answers(reference: dict[str, Any]) -> None:
    """Refuse a model that is broken already: no range can be taken from NaN, and no file be compared with it."""
    for name, answers in reference.items():
        bad = ~np.isfinite(answers.reshape(len(answers), -1)).all(axis=1)
        if bad.any():
            what = f"output '{name}' holds NaN or an infinity for input {int(bad.argmax())}"
            raise ModelError(what, fix="train the model again, or leave that input out")


def _inputs(path: Path, shape: tuple[int, ...]) -> Any:
    """Return the caller's inputs, or sixteen random ones: seed 0, standard normal."""
    if path.exists():
        return np.load(path, mmap_mode="r", allow_pickle=False)
    return np.random.default_rng(0).standard_normal((16, *shape[1:]), np.float32)


def _trace(tf: Any, loaded: Loaded, shape: tuple[int, ...]) -> tuple[Any, Any]:
    module = tf.Module()
    module.kept = loaded.kept
    specification = [tf.TensorSpec(shape, tf.float32, name="input")]
    module.run = tf.function(loaded.call, input_signature=specification)
    function = module.run.get_concrete_function()
    for name, tensor in function.structured_outputs.items():
        if tensor.dtype != tf.float32:
            what = f"output '{name}' is {tensor.dtype.name}"
            raise ModelError(what, fix="return the scores, and leave argmax and the like to the post-processing")
        if None in tuple(tensor.shape[1:] if tensor.shape.rank else (None,)):
            fix = "make every size a constant of the model; ONNX Runtime takes what depends on data"
            raise ModelError(f"output '{name}' has a size that depends on data", fix=fix)
    return module, function


def _facts(loaded: Loaded, function: Any) -> dict[str, Any]:
    graph = function.graph.as_graph_def()
    operators = Counter(node.op for node in graph.node)
    for inner in graph.library.function:
        operators.update(node.op for node in inner.node_def)
    return {"layers": loaded.layers, "operators": dict(operators), "outputs": list(function.structured_outputs)}


def _tflite(tf: Any, saved: str, inputs: Any, precision: str) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(saved)
    converter.exclude_conversion_metadata = True
    if precision == "float32":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        return bytes(converter.convert())

    def samples() -> Iterator[list[Any]]:
        for row in inputs:
            yield [np.ascontiguousarray(row[None])]

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    # Per-channel ones give constant output, without an error, on tflite-runtime 2.7 to 2.9.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True  # noqa: SLF001
    return bytes(converter.convert())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
