# SPDX-License-Identifier: Apache-2.0
"""Why a torch module cannot become ONNX, in one line: what, at which line of the model, and a rewrite."""

import re
import traceback
from pathlib import Path
from typing import Any, Final

import torch

from edge_contract.errors import ModelError, UnsupportedOperatorError

__all__ = ["first_line", "unfixed", "untraceable", "untranslatable"]

_TORCH: Final = Path(torch.__file__).resolve().parent
_OURS: Final = Path(__file__).resolve().parents[1]
_NODE: Final = re.compile(r"translating node %(\w+) .*?target=torch\.ops\.([\w.]+)\]")
_OPERATOR: Final = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'")
_CODE: Final = re.compile(r'File "([^"]+)", line (\d+)')
_OUTSIDE: Final = "compute it before or after the model"
_REWRITES: Final = {
    "_linalg_svd": _OUTSIDE,
    "linalg_eig": _OUTSIDE,
    "_linalg_eigh": _OUTSIDE,
    "_cdist_forward": "write it as (a - b).square().sum(-1).sqrt()",
    "_fft_r2c": "compute the spectrum in the preprocessing, or use a convolution with cosines",
    "multinomial": "return the scores and sample outside the model",
    "rand": "leave randomness out of the model",
}
_BRANCH: Final = "compute both sides and choose with torch.where, or take the branch outside the model"
_BATCH: Final = "write sizes as x.shape[0], not as numbers; or fix the batch to 1 (--fixed-batch)"


def untraceable(error: Exception) -> ModelError:
    """Return the error for a module that ``torch.export`` could not trace."""
    name, place = type(error).__name__, _users_line(error)
    text = str(error)
    if "DataDependent" in name or "data-dependent" in text:
        what = "a branch, loop or size depends on data, so there is no fixed graph"
        return ModelError(what, where=place, fix=_BRANCH)
    if "Constraint" in name or "inferred to be a constant" in text or "specialized" in text:
        return ModelError("works for one batch size only", where=place, fix=_BATCH)
    if ".numpy()" in text:
        return ModelError("computes in numpy, which cannot be traced", where=place, fix="use torch operators")
    fix = "give inputs that the model accepts, and use torch operators only"
    return ModelError(f"cannot be traced: {first_line(error)}", where=place, fix=fix)


def untranslatable(error: Exception, program: Any) -> UnsupportedOperatorError | ModelError:
    """Return the error for an exported program that has no ONNX form."""
    text = "\n".join(str(link) for link in _chain(error))
    node, operator = _NODE.search(text), _OPERATOR.search(text)
    if node is None and operator is None:
        fix = "see docs/keras.md, or give another --opset"
        return ModelError(f"the ONNX exporter failed: {first_line(error)}", where="model", fix=fix)
    name = (operator[1] if operator else node[2] if node else "").replace("::", ".").removesuffix(".default")
    short = name.rsplit(".", maxsplit=1)[-1]
    place = _line_of(program, node[1] if node else short, short)
    fix = _REWRITES.get(short, "write it with operators that ONNX has, or compute it outside the model")
    return UnsupportedOperatorError(f"operator {name} has no ONNX form", where=place, fix=fix)


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _users_line(error: Exception) -> str:
    """Return the innermost line of the person's own code that led to an error."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if _OURS not in Path(frame.filename).parents and _TORCH not in Path(frame.filename).resolve().parents
    ]
    if not frames:
        return "model"
    frame = frames[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} ({(frame.line or '').strip()[:80]})"


def _line_of(program: Any, node_name: str, operator: str) -> str:
    """Return the person's line that made a node; decompositions keep a node's name or its operator's."""
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    named = [node for node in nodes if node.name == node_name]
    alike = [node for node in nodes if operator.strip("_") in str(node.target)]
    for node in (*named, *alike):
        places = _CODE.findall(str(node.meta.get("stack_trace") or ""))
        own = [(file, line) for file, line in places if _TORCH not in Path(file).resolve().parents]
        if own:
            file, line = own[-1]
            return f"{Path(file).name}:{line}"
    return "model"


def unfixed(output: str) -> ModelError:
    """Return the error for an output with a size that depends on data."""
    fix = "return a fixed number of rows (pad, or torch.topk), and drop the rest in the post-processing"
    return ModelError("its size depends on data", where=f"output '{output}'", fix=fix)


def first_line(error: Exception) -> str:
    """Return the first line that an exception says, at most 300 letters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
