# SPDX-License-Identifier: Apache-2.0
"""What a person writes to name one of the two things to be timed, and the callable that it means.

``path/to/bundle@litert`` is a bundle's model in a runtime, on the bundle's own golden inputs; a ``.onnx``
or ``.tflite`` file is run by ONNX Runtime or LiteRT on random input; everything else is a command, started without a
shell.
"""

import itertools
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_contract.errors import MeasurementError, MissingDependencyError, UsageError
from edge_contract.manifest import MANIFEST_NAME, RUNTIMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["resolve"]


def _command(text: str) -> Callable[[], object]:
    words = shlex.split(text)
    if not words:
        raise UsageError("an empty command", where="strop bench")

    def call() -> object:
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        except OSError as error:
            raise MeasurementError(f"cannot be started: {error.strerror}", where=text) from error
        if done.returncode != 0:
            tail = done.stderr.decode(errors="replace").strip()[-200:]
            said = f": {tail}" if tail else ", saying nothing"
            raise MeasurementError(f"left with exit code {done.returncode}{said}", where=text, fix="run it by hand")
        return done

    return call


def _bundle(folder: Path, runtime: str, threads: int) -> Callable[[], object]:
    """Return one inference on the next golden input, round and round."""
    import numpy as np

    from edge_agent.runner.model import Model
    from edge_contract import canonical

    if runtime not in RUNTIMES:
        fix = f"write {folder}@ and one of {', '.join(RUNTIMES)}"
        raise UsageError(f"unknown runtime '{runtime}'", where=str(folder), fix=fix)
    model = Model.open(folder, runtime=runtime, threads=threads)
    manifest = canonical.loads((folder / MANIFEST_NAME).read_bytes())
    golden = canonical.loads((folder / manifest["golden"]).read_bytes())
    inputs = itertools.cycle(np.load(folder / golden["inputs"]))
    return lambda: model.infer(next(inputs))


def _random(shape: "list[int | str]", kind: str) -> "NDArray[Any]":
    """Fixed random input: codes of the whole range, or floats from 0 to 1; a free dimension is 1."""
    import numpy as np

    draw = np.random.default_rng(0)
    sizes = [size if isinstance(size, int) and size > 0 else 1 for size in shape]
    if np.dtype(kind).kind == "f":
        return draw.random(sizes).astype(kind)
    limits = np.iinfo(kind)
    return draw.integers(limits.min, limits.max, sizes, kind, endpoint=True)


def _onnx_file(path: Path, threads: int) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = {"tensor(float)": "float32"}
    given = session.get_inputs()
    feed = {i.name: _random(i.shape, kinds.get(i.type, i.type.removeprefix("tensor(")[:-1])) for i in given}
    return lambda: session.run(None, feed)


def _tflite_file(path: Path, threads: int) -> Callable[[], object]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        sizes: list[int | str] = [int(size) for size in detail["shape"]]
        interpreter.set_tensor(detail["index"], _random(sizes, detail["dtype"].__name__))
    invoke: Callable[[], object] = interpreter.invoke
    return invoke


_FILES: dict[str, Callable[[Path, int], Callable[[], object]]] = {".onnx": _onnx_file, ".tflite": _tflite_file}


def _file(path: Path, threads: int) -> Callable[[], object]:
    try:
        return _FILES[path.suffix](path, threads)
    except ImportError as error:
        fix = f"pip install {error.name}"
        raise MissingDependencyError(
            f"the package '{error.name}' is not installed", where=str(path), fix=fix
        ) from error
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise MeasurementError(f"cannot be run: {reason}", where=str(path)) from error


def resolve(text: str, *, threads: int = 1) -> Callable[[], object]:
    """Return the callable behind an operand.

    Raises:
        UsageError: An empty command, or a bundle with an unknown runtime.
        MissingDependencyError: A file's runtime is not installed.
        MeasurementError: A file cannot be run; or (when called) the command cannot be started, or fails.
        StropError: What opening the bundle or file raises.
    """
    folder, _, runtime = text.rpartition("@")
    if folder and (Path(folder) / MANIFEST_NAME).is_file():
        return _bundle(Path(folder), runtime, threads)
    if (Path(text) / MANIFEST_NAME).is_file():
        return _bundle(Path(text), "", threads)
    if Path(text).suffix in _FILES and Path(text).is_file():
        return _file(Path(text), threads)
    return _command(text)
