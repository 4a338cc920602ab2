# SPDX-License-Identifier: Apache-2.0
"""Record the golden inputs and answers that ``edge_agent.runner.golden`` checks at every load of a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_contract import canonical
from edge_contract.manifest import Artefact
from export.bundle.folder import array_bytes, write
from export.parity.gate import EXACT_DELEGATES
from export.runtimes.execution import Execution

__all__ = ["NAME", "answers", "entries", "record", "rounded"]

NAME: Final = "golden.json"
_BYTE_CODES: Final = ("int8", "uint8")

Array = NDArray[Any]


def answers(execution: Execution, artefact: Artefact, task: str) -> Array:
    """Return what is compared of an execution, [N, K]: as ``golden`` will see it on the device.

    Of a classifier the logits, of every other model all outputs one after the other: the plan's signed codes, int16,
    where all of them are 8-bit integers; else real numbers, float32.
    """
    specs = artefact.keyed()
    keys = ["logits"] if task == "classification" else list(specs)
    wide = ("int16",) if task == "classification" else ()
    is_coded = all(specs[key].dtype in (*_BYTE_CODES, *wide) for key in keys)
    return np.concatenate([(execution.codes if is_coded else execution.values)[key] for key in keys], axis=1)


def entries(path: Path, artefact: Artefact, found: Sequence[tuple[Execution, Array]]) -> list[dict[str, str]]:
    """Return one hash for all CPUs, where that holds: TFLite's built-in kernels round otherwise on ARM than on x86.

    Args:
        path: The model file.
        artefact: Its description.
        found: Executions, each with the integers that it answered the golden inputs with [n, K].
    """
    digest = canonical.digest(path.read_bytes())
    wide = any(spec.dtype == "int16" for spec in artefact.outputs)
    return [
        {
            "artefact": digest,
            "runtime": execution.runtime,
            "version": execution.version,
            "delegate": execution.delegate,
            "sha256": canonical.digest(np.ascontiguousarray(codes.astype(np.int16 if wide else np.int8)).tobytes()),
        }
        for execution, codes in found
        if execution.delegate in EXACT_DELEGATES
    ]


def record(
    folder: Path, inputs: Array, reference: Array, rule: Mapping[str, Any], hashes: Sequence[Any], *, what: str
) -> None:
    """Write ``golden.json`` and its arrays.

    Args:
        folder: Of the bundle.
        inputs: Raw [n, …].
        reference: What they should be answered with [n, K].
        rule: ``max_steps`` for integers, ``tolerance`` for real numbers.
        hashes: From ``entries``.
        what: Names the reference's file.
    """
    name = f"golden/{what}.npy"
    document = {"inputs": "golden/inputs.npy", "reference": name, **rule, "entries": list(hashes)}
    write(folder / "golden/inputs.npy", array_bytes(inputs))
    write(folder / name, array_bytes(reference))
    write(folder / NAME, canonical.dumps(rounded(document)))


def rounded(document: Any) -> Any:
    """Return a JSON value with floats of six significant digits.

    The last bits of a float model's answers come from the CPU; a bundle of the same files keeps its id without them.

    Example:
        >>> rounded({"kl": [0.12345678, 3]})
        {'kl': [0.123457, 3]}
    """
    if isinstance(document, dict):
        return {key: rounded(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [rounded(value) for value in document]
    return float(f"{document:.6g}") if isinstance(document, float) else document
