# SPDX-License-Identifier: Apache-2.0
"""What a person writes to name one of the two things to be timed, and the callable that it means.

``path/to/bundle@litert`` is a bundle's model in a runtime, on the bundle's own golden inputs; everything
else is a command, started without a shell.
"""

import itertools
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

from edge_contract.errors import MeasurementError, UsageError
from edge_contract.manifest import MANIFEST_NAME, RUNTIMES

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


def resolve(text: str, *, threads: int = 1) -> Callable[[], object]:
    """Return the callable behind an operand.

    Raises:
        UsageError: An empty command, or a bundle with an unknown runtime.
        MeasurementError: (when called) the command cannot be started, or fails.
        StropError: What opening the bundle raises.
    """
    folder, _, runtime = text.rpartition("@")
    if folder and (Path(folder) / MANIFEST_NAME).is_file():
        return _bundle(Path(folder), runtime, threads)
    if (Path(text) / MANIFEST_NAME).is_file():
        return _bundle(Path(text), "", threads)
    return _command(text)
