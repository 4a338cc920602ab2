# SPDX-License-Identifier: Apache-2.0
"""Answers of a plan's bytes in the plan's runtime: through its bundle, or of a bare file as it stands.

A bare file has no preprocessing: its inputs must be what the file takes, as they are timed.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.plan import BenchPlan
from edge_contract.errors import DataError

__all__ = ["Answers", "answers"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Answers:
    """What a model answered.

    Attributes:
        classes: int64 [N] of a classifier, else None.
        values: float [N, …] of everything else, else None.
        runtime: Name and version.
    """

    classes: Array | None
    values: Array | None
    runtime: str


def answers(plan: BenchPlan, x: Array) -> Answers:
    """Return the answers to inputs [N, …].

    Raises:
        DataError: Inputs that the model cannot take.
        MissingDependencyError: The runtime is not installed.
        RuntimeAdapterError: The runtime refuses the file, or failed.
    """
    return _bundle(plan, x) if plan.bundle else _bare(plan, x)


def _bundle(plan: BenchPlan, x: Array) -> Answers:
    from edge_agent.runner.answers import Values
    from edge_agent.runner.model import Model

    target = _target(plan)
    model = Model.open(
        Path(plan.bundle), runtime=plan.runtime, threads=plan.threads, target=target, delegate=plan.delegate
    )
    if model.description.sha256 != plan.sha256:
        what = f"the bundle's file for {plan.runtime} is {model.description.sha256[:12]}, the plan's {plan.sha256[:12]}"
        raise DataError(what, where=plan.bundle, fix="make the plan again")
    runtime = f"{model.session.runtime} {model.session.version}"
    if model.has_logits:
        return Answers(np.array([model.infer(one).cls for one in x], np.int64), None, runtime)
    if model.task not in ("regression", "anomaly"):
        what = f"labels for {model.task} are not counted here"
        raise DataError(what, where=plan.bundle, fix="leave --data's y out: the bundle's own words count")
    found = []
    for one in x:
        answer = model.predict(one)
        assert isinstance(answer, Values)
        found.append(next(iter(answer.values.values())))
    return Answers(None, np.stack(found), runtime)


def _target(plan: BenchPlan) -> str:
    from benchmarks.result.artifact import manifest_of

    manifest = manifest_of(plan)
    assert manifest is not None
    return next((one.target for one in manifest.artefacts if manifest.file(one.path).sha256 == plan.sha256), "")


def _bare(plan: BenchPlan, x: Array) -> Answers:
    from benchmarks.harness.opening import open_bare

    name, bare = Path(plan.artefact).name, open_bare(replace(plan, batch=1))
    if len(bare.inputs) != 1:
        raise DataError(f"the file has {len(bare.inputs)} inputs, one is supported", where=name)
    found = []
    for one in x:
        bare.place([_fitted(one, bare.inputs[0].shape, bare.inputs[0].dtype, name)])
        bare.invoke()
        outputs = bare.fetch()
        if len(outputs) != 1:
            fix = "give its bundle, which says which one holds the answer"
            raise DataError(f"the file has {len(outputs)} outputs", where=name, fix=fix)
        found.append(np.array(outputs[0]).reshape(-1))
    flat, runtime = np.stack(found), f"{bare.name} {bare.version}"
    is_classifier = flat.shape[1] > 1
    return Answers(flat.argmax(1), None, runtime) if is_classifier else Answers(None, flat, runtime)


def _fitted(one: Array, shape: tuple[int, ...], dtype: str, where: str) -> Array:
    """Return one input with its batch of one; it must have the file's own shape and type already, as for the timing."""
    whole = one if one.ndim == len(shape) and one.shape[:1] == (1,) else one[None]
    if whole.shape[1:] != shape[1:] or whole.dtype.name != dtype:
        what = f"inputs of {one.dtype} {list(one.shape)}, the file takes {dtype} {list(shape[1:])}"
        raise DataError(what, where=where, fix="prepare them, or give the bundle, which knows how")
    return np.ascontiguousarray(whole)
