# SPDX-License-Identifier: Apache-2.0
"""How good the answers of exactly the timed bytes are: a fast model that answers wrongly is no result.

Labelled samples are answered in the same runtime as the timing. Without them a bundle's own words count, if its golden
answers come out here: then these bytes in this runtime are what the bundle speaks of. numpy and one runtime only.
"""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any, Final

from benchmarks.plan import BenchPlan
from benchmarks.result.artifact import manifest_of
from benchmarks.result.schema import Quality
from edge_contract.canonical import as_float
from edge_contract.errors import ContractError, DataError
from edge_contract.manifest import Manifest

__all__ = ["quality_of", "wilson"]

_Z: Final = 1.959963984540054  # 97.5 % of the normal distribution


def wilson(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share.

    Example:
        >>> [round(end, 4) for end in wilson(8, 10)]
        [0.4902, 0.9433]

    Reference:
        E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927)
    """
    p, z2 = right / n, _Z * _Z
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def quality_of(plan: BenchPlan, data: Path | None) -> Quality | None:
    """Return how good the plan's bytes are in the plan's runtime.

    Args:
        plan: Names the bytes and the runtime.
        data: An .npz with inputs ``x`` [N, …] and labels ``y`` [N]; None or without ``y``: the bundle's own words.

    Returns:
        The quality, or None where nobody knows: neither labels nor a bundle whose golden answers come out.

    Raises:
        DataError: The file cannot be read, or inputs and labels do not fit.
        StropError: What opening and running the model raises.
    """
    labelled = _labelled(data) if data is not None else None
    if labelled is not None and data is not None:
        return _measured(plan, *labelled, hashlib.sha256(data.read_bytes()).hexdigest())
    manifest = manifest_of(plan)
    return _of_bundle(plan, manifest) if manifest is not None else None


def _labelled(data: Path) -> tuple[Any, Any] | None:
    """Return inputs and labels; None for a file without labels, which is good for timing only."""
    import numpy as np

    if data.suffix != ".npz":
        return None
    try:
        with np.load(data) as arrays:
            if "x" not in arrays or "y" not in arrays:
                return None
            x, y = arrays["x"], arrays["y"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"no readable arrays ({error})", where=str(data), fix="write it with numpy.savez") from error
    if len(x) != len(y) or not len(x):
        raise DataError(f"{len(x)} inputs x and {len(y)} labels y", where=str(data), fix="give one label for each")
    return x, y


def _measured(plan: BenchPlan, x: Any, y: Any, digest: str) -> Quality:
    from benchmarks import quality_answers

    answered = quality_answers.answers(plan, x)
    if answered.classes is not None:
        found = _share(int((answered.classes == y.reshape(len(y))).sum()), len(y))
    else:
        found = _mean(_errors(plan, answered.values, y))
    return Quality(
        *found,
        runtime_same_as_perf=True,
        source="samples",
        sha256=plan.sha256,
        data=digest,
        runtime=answered.runtime,
    )


def _errors(plan: BenchPlan, values: Any, y: Any) -> list[float]:
    if values.size != y.size:
        what = f"{values.shape[1:]} numbers for each input, labels of shape {y.shape[1:]}"
        raise DataError(what, where=Path(plan.artefact).name, fix="give y in the shape of the answers")
    errors = abs(values.reshape(y.shape).astype(float) - y.astype(float)).reshape(len(y), -1).mean(axis=1)
    return [float(one) for one in errors]


def _share(right: int, n: int) -> tuple[str, float, int, tuple[float, float]]:
    return "top1", right / n, n, wilson(right, n)


def _mean(values: Sequence[float]) -> tuple[str, float, int, tuple[float, float]]:
    """Return the mean of each sample's absolute error, with its normal interval."""
    n, mean = len(values), sum(values) / len(values)
    half = _Z * sqrt(sum((one - mean) ** 2 for one in values) / (n * max(n - 1, 1)))
    return "mae", mean, n, (mean - half, mean + half)


def _of_bundle(plan: BenchPlan, manifest: Manifest) -> Quality | None:
    """Return what the bundle says, if its golden answers come out here."""
    said = _said(manifest.lineage)
    if said is None:
        return None
    from edge_agent.runner import golden
    from edge_agent.runner.model import Model

    target = next((one.target for one in manifest.artefacts if manifest.file(one.path).sha256 == plan.sha256), "")
    model = Model.open(
        Path(plan.bundle), runtime=plan.runtime, threads=plan.threads, target=target, delegate=plan.delegate
    )
    if model.description.sha256 != plan.sha256:
        return None
    found = golden.check(model)
    if not found.is_ok:
        return None
    metric, value, n, low, high = said
    runtime = f"{model.session.runtime} {model.session.version}"
    more = {"golden": found.how, "words": found.detail}
    return Quality(
        metric, value, n, (low, high), found.how == "exact", "bundle", plan.sha256, runtime=runtime, more=more
    )


def _said(lineage: Mapping[str, Any]) -> tuple[str, float, int, float, float] | None:
    """Return (metric, value, samples, low, high): of the test split if the lineage has it, else of the validation."""
    metric = str(lineage.get("metric") or "top1")
    tested = lineage.get("accuracy") or {}
    for one, name in (
        (tested.get(lineage.get("shipped") or "int8"), metric),
        (lineage.get("validation"), f"{metric} of validation"),
    ):
        try:
            if isinstance(one, Mapping) and int(one["samples"]) > 0:
                value, low, high = (as_float(one[key]) for key in ("accuracy", "low", "high"))
                return name, value, int(one["samples"]), low, high
        except (KeyError, TypeError, ValueError, ContractError):
            continue
    return None
