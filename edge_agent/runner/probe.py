# SPDX-License-Identifier: Apache-2.0
"""Run a model file in this interpreter's runtime and write what it gives: ``python -m edge_agent.runner.probe``.

The exporter starts it with another Python, so that an artefact is run in every runtime it claims although some of them
cannot live in one environment (tflite-runtime needs numpy below 2).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.model import Description, Model
from edge_contract import canonical
from edge_contract.errors import DataError, StropError, UsageError
from edge_contract.manifest import RUNTIMES, Artefact
from edge_contract.preprocess import Preprocess

__all__ = ["main"]

Array = NDArray[Any]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, 1 (refused) or 2 (wrong usage)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        facts = _probe(options)
    except StropError as error:
        if options.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(facts))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edge_agent.runner.probe",
        description="Run a model file in a runtime of this Python. Prints one JSON line: runtime, version, delegate.",
    )
    parser.add_argument("model", type=Path, help="a bundle's folder, or an artefact's JSON beside its file")
    parser.add_argument("--runtime", required=True, choices=RUNTIMES)
    parser.add_argument(
        "--inputs", type=Path, required=True, help=".npy: float32 model inputs [N,h,w,c], or raw uint8 (bundles only)"
    )
    parser.add_argument(
        "--outputs",
        type=Path,
        required=True,
        help=".npz to write: codes [N,…] per role (or name, where outputs share one)",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--debug", action="store_true", help="show a traceback")
    return parser


def _probe(options: argparse.Namespace) -> dict[str, Any]:
    model, inputs = _open(options), _array(options.inputs)
    if inputs.dtype != np.float32 and model.contents is None:
        fix = "give float32 model inputs, or a bundle's folder, which knows the preprocessing"
        raise UsageError(f"inputs of type {inputs.dtype}", where=str(options.inputs), fix=fix)
    codes = model.infer_codes(inputs) if inputs.dtype == np.float32 else model.infer_raw_codes(inputs)
    with options.outputs.open("wb") as file:  # a handle, because numpy appends .npz to other names
        np.savez(file, **codes)  # type: ignore[arg-type]  # its stub takes every keyword for allow_pickle
    session = model.session
    facts = {"runtime": session.runtime, "version": session.version, "delegate": session.delegate}
    return {**facts, "n": len(inputs), "numpy": np.__version__, "python": sys.version.split()[0]}


def _open(options: argparse.Namespace) -> Model:
    path: Path = options.model
    if path.is_dir():
        return Model.open(path, runtime=options.runtime, threads=options.threads)
    try:
        artefact = Artefact.from_json(canonical.loads(path.read_bytes(), where=str(path)), str(path))
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=str(path)) from error
    # Without a bundle there is no preprocessing, no label and no task: inputs are the model's own, outputs as they are.
    description = Description(artefact, Preprocess(), "none", (), task="other")
    return Model.load(path.parent / artefact.path, description, runtime=options.runtime, threads=options.threads)


def _array(path: Path) -> Array:
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"not an .npy array: {error}", where=str(path)) from error
    return array


if __name__ == "__main__":
    sys.exit(main())
