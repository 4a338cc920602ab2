# SPDX-License-Identifier: Apache-2.0
"""What went wrong in TensorFlow's converter, in one line: a crash, a timeout, a lack of memory, or a page of MLIR."""

import json
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_contract import errors
from edge_contract.errors import MissingDependencyError, ModelError, StropError, UnsupportedOperatorError

__all__ = ["FLOAT_INSTEAD", "INSTALL", "SAVED_MODEL", "Ending", "explain"]

INSTALL: Final = 'pip install "strop[tensorflow]"'

FLOAT_INSTEAD: Final = "give --precision float32"
_RECURRENT: Final = ("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
_LOOPS: Final = ("While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase")
_REWRITES: Final = {
    "Erf": "use keras.activations.gelu, which TFLite has, or a ReLU",
    "MatrixDeterminant": "compute it outside the model",
    "StringLength": "take numbers, not strings",
}
SAVED_MODEL: Final = "write the model with model.export(FOLDER) where its classes are known, and give that folder"
# A page of MLIR holds one line each that a person needs.
_MISSING: Final = re.compile(r"(?:TF Select|Custom|Flex) ops: ([^\n]+)")
_NODE: Final = re.compile(r'fused\["([\w.]+):", "([^"@]+)')
_UNQUANTIZED: Final = re.compile(r"Quantization not yet supported for op: '?([\w.]+)")
_UNKNOWN_CLASS: Final = re.compile(r"Could not locate (?:class|function) '([^']+)'")
_FATAL: Final = re.compile(r"^F\d{4} .*?\] (.+)$", re.MULTILINE)
_MEMORY: Final = re.compile(
    r"bad_alloc|MemoryError|ResourceExhausted|OOM when|[Cc]annot allocate|failed to allocate|pthread_create"
)


@dataclass(frozen=True)
class Ending:
    """How the child process ended.

    Attributes:
        code: Exit code, negative for a signal; None if it was stopped after ``timeout_s``.
        words: The end of what it printed.
        folder: The job's folder with whatever it left there.
        timeout_s, memory_mib: The bounds that it ran under.
    """

    code: int | None
    words: str
    folder: Path
    timeout_s: int
    memory_mib: int

    def stage(self) -> str:
        """Return what was being done last."""
        file = self.folder / "stage.txt"
        return file.read_text(encoding="utf-8") if file.exists() else "starting"

    def facts(self) -> dict[str, Any]:
        """Return the layers and operators of the model, empty if it was not read."""
        return _document(self.folder / "facts.json")

    def refusal(self) -> dict[str, Any]:
        """Return the error that the child wrote, empty if it crashed."""
        return _document(self.folder / "refusal.json")


def _document(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a crash may leave half a file
        return {}
    return found


def explain(ending: Ending, where: str) -> StropError:
    """Return the one error that says why a conversion ended without a file.

    Args:
        ending: How the child ended.
        where: The model's path.
    """
    refusal = ending.refusal()
    if ending.code is None:
        what = f"TensorFlow gave no answer in {ending.timeout_s} s while {ending.stage()}"
        return ModelError(what, where=where, fix="give fewer calibration samples or a smaller model")
    text = str(refusal.get("what", "")) or ending.words
    if _MEMORY.search(text) or ending.code == -signal.SIGKILL:
        what = f"TensorFlow needed more than {ending.memory_mib} MiB while {ending.stage()}"
        return ModelError(what, where=where, fix="give --memory-mib a larger number, or a smaller model")
    if not refusal:
        return _crash(ending, where)
    if refusal["kind"]:
        kind: type[StropError] = getattr(errors, refusal["kind"])
        inside = f"{where}, {refusal['where']}" if refusal["where"] else where
        return kind(refusal["what"], where=inside, fix=refusal["fix"])
    return _failure(ending, text, where)


def _crash(ending: Ending, where: str) -> StropError:
    facts = ending.facts()
    code = ending.code or 0
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    loops = [n for n in _RECURRENT if n in facts.get("layers", {})] or [
        n for n in _LOOPS if n in facts.get("operators", {})
    ]
    crashed = f"TensorFlow crashed ({name}) while {ending.stage()}"
    if loops and "int8" in ending.stage():
        what = f"{crashed}: its quantizer cannot read the loop of {', '.join(loops)}"
        fix = f"{FLOAT_INSTEAD}, build the layer with unroll=True and the same weights, or use ONNX Runtime"
        return UnsupportedOperatorError(what, where=where, fix=fix)
    if ending.stage() == "importing TensorFlow":
        return MissingDependencyError(crashed, where=where, fix=INSTALL)
    said = _FATAL.search(ending.words)
    reason = f": {said[1][:200]}" if said else " without a word"
    return ModelError(f"{crashed}{reason}", where=where, fix=f"replace its newest layers, or {FLOAT_INSTEAD}")


def _failure(ending: Ending, text: str, where: str) -> StropError:
    if ending.stage() == "importing TensorFlow":
        return MissingDependencyError(f"TensorFlow cannot be imported: {_line(text)}", where=where, fix=INSTALL)
    unknown = _UNKNOWN_CLASS.search(text)
    if unknown:
        return ModelError(f"class '{unknown[1]}' is not Keras's own", where=where, fix=SAVED_MODEL)
    if "Lambda" in text and "deserialization" in text:
        what = "a Lambda layer holds Python code, which is not run from a file"
        return ModelError(what, where=where, fix=SAVED_MODEL)
    missing = _MISSING.search(text)
    if missing:
        return _no_operator(missing[1], text, where)
    unquantized = _UNQUANTIZED.search(text)
    if unquantized:
        what = f"operator {unquantized[1]} has no int8 form in TensorFlow's quantizer"
        return UnsupportedOperatorError(what, where=where, fix=f"replace the layer, or {FLOAT_INSTEAD}")
    if ending.stage() == "loading the model":
        fix = "write it again with model.save('x.keras') or model.export(FOLDER)"
        return ModelError(f"cannot be loaded: {_line(text)}", where=where, fix=fix)
    return ModelError(f"failed while {ending.stage()}: {_line(text)}", where=where, fix="see docs/keras.md")


def _no_operator(names: str, text: str, where: str) -> StropError:
    operators = [name.split("(")[0].strip() for name in names.split(",")]
    nodes = {kind: node for kind, node in _NODE.findall(text) if kind in operators}
    places = ", ".join(f"{name} (node '{nodes[name]}')" if name in nodes else name for name in operators)
    verb = "has" if len(operators) == 1 else "have"
    what = f"{places} {verb} no TFLite operator; the Flex runtime that would run it is on no device of ours"
    fix = next((_REWRITES[name] for name in operators if name in _REWRITES), "replace it, or export ONNX from PyTorch")
    return UnsupportedOperatorError(what, where=where, fix=fix)


def _line(text: str) -> str:
    """Return the first line that says something, at most 300 letters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else "no reason given")[:300]
