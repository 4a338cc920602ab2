# SPDX-License-Identifier: Apache-2.0
"""Keras files as networks: a child process takes the model apart, and plain PyTorch layers are put together from it.

The network's answers, and those of every layer on the way, are compared with Keras' own on random inputs.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import fx

from compress.sources.keras_layers import LAYERS
from compress.sources.keras_net import Step, build
from edge_contract.errors import MissingDependencyError, ModelError, StropError, UnsupportedOperatorError

__all__ = ["load_keras", "put_together"]

INSTALL: Final = 'pip install "strop[tensorflow]"'
_TIMEOUT_S: Final = 600
_ROOT: Final = Path(__file__).resolve().parents[2]
_WAY_OUT: Final = "give the .keras file it was made from, or convert it as it is with strop export keras"


def load_keras(path: Path, *, size: tuple[int, int] | None = None) -> fx.GraphModule:
    """Return the network in a ``.keras`` or ``.h5`` file, in eval mode; ``meta["notes"]`` says what was left out.

    Inputs are [N, C, H, W] where Keras has [N, H, W, C], and [N, C, T] where it has [N, T, C].

    Args:
        path: The file.
        size: Height and width for a model that leaves them free.

    Raises:
        MissingDependencyError: TensorFlow is not installed.
        ModelError: No Keras model, a SavedModel, several inputs or outputs, a class of Python code, NaN in a weight, or
            a layer whose answers differ from Keras' own.
        UnsupportedOperatorError: A layer that has no form here; names it.
    """
    _check(path)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _take_apart(folder, path, size)
        return put_together(folder, str(path))


def put_together(folder: Path, where: str) -> fx.GraphModule:
    """Return the network from the folder that ``compress.keras_child`` has filled; ``where`` names it in messages."""
    document = json.loads((folder / "layers.json").read_text(encoding="utf-8"))
    weights, values = _arrays(folder / "weights.npz"), _arrays(folder / "values.npz")
    try:
        steps = [_step(number, one, weights, values) for number, one in enumerate(document["steps"])]
        return build(steps, document["output"], values, LAYERS)
    except (ModelError, UnsupportedOperatorError) as error:
        inside = f"{where}, {error.where}" if error.where else where
        raise type(error)(error.what, where=inside, fix=error.fix) from error


def _check(path: Path) -> None:
    """Refuse what is no Keras file before TensorFlow is started."""
    where = str(path)
    if path.is_dir():
        what = "a SavedModel holds operations, and no layers that could be trained or pruned"
        if not (path / "saved_model.pb").is_file():
            what = "no model: saved_model.pb is missing"
        raise ModelError(what, where=where, fix=_WAY_OUT)
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", where=where) from error
    wanted = b"PK\x03\x04" if path.suffix == ".keras" else b"\x89HDF\r\n\x1a\n"
    if not start.startswith(wanted):
        raise ModelError("no Keras file", where=where, fix="write it again with model.save('x.keras')")
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingDependencyError("TensorFlow is not installed, and reads Keras files", where=where, fix=INSTALL)


def _take_apart(folder: Path, path: Path, size: tuple[int, int] | None) -> None:
    job = {"model": str(path.resolve()), "size": None if size is None else list(size)}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "compress.keras_child", str(folder)],
            cwd=folder,  # not the caller's: a file named keras.py there would be taken for Keras
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        what = f"TensorFlow gave no answer in {_TIMEOUT_S} s"
        raise ModelError(what, where=str(path), fix="give a smaller model") from error
    if done.returncode or not (folder / "layers.json").is_file():
        raise _explain(folder, done, str(path))


def _environment(folder: Path) -> dict[str, str]:
    """A plain TensorFlow: no GPU, no messages, none of the person's own Keras settings."""
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
        "KERAS_HOME": str(folder),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
    }


def _explain(folder: Path, done: "subprocess.CompletedProcess[bytes]", where: str) -> StropError:
    file = folder / "refusal.json"
    if not file.is_file():
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        what = f"TensorFlow crashed (exit code {done.returncode}): {' '.join(words[-1:])[:200]}"
        return ModelError(what, where=where, fix="load it in Keras by hand, and see docs/keras.md")
    refusal = json.loads(file.read_text(encoding="utf-8"))
    if refusal["fix"]:
        inside = f"{where}, {refusal['where']}" if refusal["where"] else where
        return ModelError(refusal["what"], where=inside, fix=refusal["fix"])
    reason = " ".join(refusal["what"].split())[:250]
    if refusal["stage"] == "importing TensorFlow":
        return MissingDependencyError(f"TensorFlow cannot be imported: {reason}", where=where, fix=INSTALL)
    fix = "use Keras' own layers: code is not run from a file" if "Lambda" in reason or "locate" in reason else ""
    what = f"failed while {refusal['stage']}: {reason}"
    return ModelError(what, where=where, fix=fix or "write it again with model.save('x.keras')")


def _arrays(file: Path) -> dict[str, Any]:
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _step(number: int, one: dict[str, Any], weights: dict[str, Any], values: dict[str, Any]) -> Step:
    key = f"{number}/"
    own = {name.removeprefix(key): array for name, array in weights.items() if name.startswith(key)}
    for name, array in own.items():
        if not np.isfinite(array).all():
            raise ModelError("holds NaN or Inf", where=f"weight '{one['name']}/{name}'", fix="train the model again")
    shape = tuple(values[str(number)].shape[1:])
    return Step(str(number), one["name"], one["kind"], one["config"], tuple(one["inputs"]), own, shape, one["outputs"])
