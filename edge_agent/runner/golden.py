# SPDX-License-Identifier: Apache-2.0
"""The golden self-test: at every load a model answers known inputs, before it may answer real ones.

The same file gives the same integers in the same runtime, version and delegate on every CPU, so where such an entry
was recorded one hash decides. Another version or delegate may round elsewhere (LiteRT without XNNPACK moves 0.3 % of
the outputs by a step), so without an entry the answers may differ from the plan's by ``max_steps``.

``golden.json``::

    {"inputs": "golden/inputs.npy",        raw inputs [n, …], images uint8 [n, H, W] or [n, H, W, C]
     "reference": "golden/logits.npy",     the plan's signed codes int16 [n, K]; float32 for a float model
     "max_steps": 2,                       or "tolerance": 0.01 for a float model, relative to the largest value
     "entries": [{"artefact": sha256, "runtime": …, "version": …, "delegate": …, "sha256": of the int8 logits}]}

Of a classifier the logits are compared; of every other model all outputs, flat and one after the other in the order of
the manifest: the codes where all of them are 8-bit integers, else real numbers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.contents import Contents
from edge_agent.runner.model import Model
from edge_agent.runner.tensors import dequantize, signed
from edge_contract import canonical
from edge_contract.errors import BundleError, ContractError
from edge_contract.fields import Fields

__all__ = ["GoldenResult", "check", "record"]

Array = NDArray[Any]
_DEFAULT_TOLERANCE = 0.01


@dataclass(frozen=True)
class GoldenResult:
    """What the self-test found.

    Attributes:
        is_ok: The model may answer real inputs.
        how: ``exact`` (one hash), ``steps`` (within max_steps of the plan) or ``tolerance`` (a float model).
        detail: In plain words, with the numbers.
    """

    is_ok: bool
    how: str
    detail: str


def record(model: Model, raw: Array) -> dict[str, str]:
    """Return the entry of ``golden.json`` for a model and its runtime as they are here.

    Args:
        model: In the runtime, version and delegate that the entry is for.
        raw: The golden inputs [n, …].
    """
    entry = {"artefact": model.description.sha256, **_place(model)}
    return {**entry, "sha256": _digest(_answers(model, raw))}


def check(model: Model) -> GoldenResult:
    """Run a model on its bundle's golden inputs and compare.

    Raises:
        BundleError: The model lies in no bundle; or the golden files are missing, changed or do not fit the model.
        RuntimeAdapterError: The runtime failed.
    """
    if model.contents is None:
        raise BundleError("a model outside a bundle has no golden outputs", where=model.artefact.path)
    try:
        return _compare(model, model.contents)
    except ContractError as error:  # the golden files are the bundle's, whatever is wrong with them
        raise BundleError(error.what, where=error.where, fix=error.fix) from error


def _compare(model: Model, contents: Contents) -> GoldenResult:
    where = str(contents.folder / contents.manifest.golden)
    fields = Fields(canonical.loads(contents.read(contents.manifest.golden), where=where), where)
    raw, reference = contents.array(fields.text("inputs")), contents.array(fields.text("reference"))
    width = len(model.labels) if model.has_logits else sum(model.dimensions.values())
    if reference.shape != (len(raw), width) or not len(raw):
        named = "classes" if model.has_logits else "values"
        what = f"{len(raw)} inputs, reference of shape {list(reference.shape)}, {width} {named}"
        raise BundleError(what, where=where, fix="build the bundle again")
    answers = _answers(model, raw)
    if answers.dtype.kind == "f":
        return _check_floats(answers, reference, fields.number("tolerance", _DEFAULT_TOLERANCE))
    if reference.dtype.kind not in "iu":
        raise BundleError(f"a reference of type {reference.dtype} for an int8 model", where=where)
    expected = _expected(fields.items("entries", []), model)
    steps = int(np.abs(answers.astype(np.int64) - reference.astype(np.int64)).max())
    if expected:
        return _check_hash(expected, _digest(answers), steps)
    return _check_steps(steps, fields.integer("max_steps", minimum=0))


def _answers(model: Model, raw: Array) -> Array:
    """Return what is compared of the golden inputs, [n, K]: through ``predict``, as real inputs go."""
    return np.stack([_answer(model, one) for one in raw])


def _answer(model: Model, raw: Array) -> Array:
    codes = model.predict(raw).codes
    if model.has_logits:
        return signed(codes["logits"])
    if all(code.dtype.itemsize == 1 for code in codes.values()):
        return np.concatenate([signed(code) for code in codes.values()])
    return np.concatenate([dequantize(model.keys[key], code) for key, code in codes.items()])


def _digest(answers: Array) -> str:
    return canonical.digest(np.ascontiguousarray(answers).tobytes())


def _place(model: Model) -> dict[str, str]:
    session = model.session
    return {"runtime": session.runtime, "version": session.version, "delegate": session.delegate}


def _expected(entries: list[Any], model: Model) -> str:
    """Return the recorded hash for this artefact, runtime, version and delegate, or nothing."""
    wanted = {"artefact": model.description.sha256, **_place(model)}
    for i, document in enumerate(entries):
        entry = Fields(document, f"golden.entries[{i}]")
        if all(entry.text(key) == value for key, value in wanted.items()):
            return entry.digest("sha256")
    return ""


def _check_hash(expected: str, found: str, steps: int) -> GoldenResult:
    if expected == found:
        return GoldenResult(True, "exact", "the recorded integers")
    return GoldenResult(False, "exact", f"other integers than recorded, up to {steps} steps off the plan")


def _check_steps(steps: int, most: int) -> GoldenResult:
    return GoldenResult(steps <= most, "steps", f"up to {steps} steps off the plan, {most} allowed")


def _check_floats(answers: Array, reference: Array, tolerance: float) -> GoldenResult:
    peak = float(np.abs(reference).max())
    off = float(np.abs(answers - reference).max()) / (peak or 1.0)
    return GoldenResult(off <= tolerance, "tolerance", f"off by {off:.2g} of the largest value, {tolerance:g} allowed")
