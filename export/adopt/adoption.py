# SPDX-License-Identifier: Apache-2.0
"""Make a bundle of model files of other makers: described from the files, run, compared, and recorded.

Nothing is known of such a file but what it says and what it does. So it is run in every runtime that its targets have
and that is at hand, each time in a process of its own (a foreign file may crash a runtime), on the same inputs; what
answers with NaN, or with the same numbers whatever the input, is refused, and so is a runtime that contradicts another
one. The answers become the golden ones: hashes where they are integers, numbers with a tolerance where they are real.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.model import Description
from edge_agent.runner.preprocess import apply_batch
from edge_contract import canonical
from edge_contract import postprocess as postprocesses
from edge_contract.errors import RuntimeAdapterError, UsageError
from edge_contract.manifest import TASKS, Artefact, Manifest
from edge_contract.postprocess import Postprocess
from edge_contract.preprocess import Preprocessing
from edge_contract.topics import is_name
from export.adopt import record
from export.adopt.describe import SHARES, Purpose, aligned, describe
from export.adopt.inputs import Given
from export.adopt.shown import with_embedding
from export.bundle import artefacts, golden
from export.bundle.artefacts import Request
from export.bundle.builder import Built
from export.bundle.folder import drafting, files, seal, write
from export.inspection import inspect
from export.parity import gate
from export.parity.fidelity import FLOAT, INT8
from export.parity.gate import ParityReport
from export.runtimes.execution import Execution, python_for

__all__ = ["Wish", "adopt"]

_DEFAULT: Final = {"onnx": "generic-x86:onnx", "tflite": "rpi4:tflite"}
_INPUTS: Final = 64  # compared between runtimes; a profile takes more
_PROFILE_INPUTS: Final = 1024

Array = NDArray[Any]
Pythons = Mapping[str, Path] | None
Executions = Mapping[str, Sequence[Execution]]


@dataclass(frozen=True)
class Wish:
    """What the bundle is to say.

    Attributes:
        name, version: Of the model.
        task: ``classification``, ``detection``, ``regression``, ``anomaly``, ``segmentation`` or ``other``.
        preprocess: From raw inputs to the file's.
        labels: Class names in the order of logits or scores; empty where there are none.
        postprocess: None for ``none`` where the file ends in shares or has no logits, else ``softmax``.
        targets: Names; by default a PC for ONNX and a Raspberry Pi 4 for TFLite.
        roles: Output → role, where they cannot be told from the file.
        parent: Id of the bundle that this one improves on.
        embedding: Show a classifier's embedding as a second output where the file hides it; its bytes change then.
        precision: What the files compute in, where their maker is ourselves; else it is told from the files.
        lineage: What is known of their making.
    """

    name: str
    version: str
    task: str
    preprocess: Preprocessing
    labels: tuple[str, ...] = ()
    postprocess: str | Postprocess | None = None
    targets: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    parent: str = ""
    precision: str = ""
    embedding: bool = False
    lineage: Mapping[str, Any] = field(default_factory=dict)


def adopt(
    models: Sequence[Path],
    out: Path,
    wish: Wish,
    given: Given,
    *,
    pythons: Mapping[str, Path] | None = None,
    overwrite: bool = False,
) -> Built:
    """Write a bundle of ``.onnx`` and ``.tflite`` files; the folder appears only when everything in it was proved.

    Args:
        models: At most one file for each target and format, all of the same model.
        out: The folder to make.
        wish: What the bundle is to say.
        given: Raw inputs.
        pythons: Runtime → interpreter, for runtimes that are not installed here.
        overwrite: Replace ``out`` if it exists.

    Raises:
        ModelError, UnsupportedOperatorError: A file that cannot be read or described.
        UsageError: Preprocessing, labels or roles that do not fit the files.
        RuntimeAdapterError: A runtime refused a file, or crashed.
        ParityError: A runtime gives NaN, one answer to all inputs, or other answers than the other ones.
        BudgetError: A file needs more memory than its target has.
        BundleError: ``out`` exists, or the finished bundle fails its own self-test.
    """
    _check(models, wish)
    is_profiled = wish.task != "classification" or given.labels is not None
    inputs = apply_batch(wish.preprocess, given.raw[: _PROFILE_INPUTS if is_profiled else _INPUTS])
    background = postprocesses.of(wish.postprocess or "none").background
    purpose = Purpose(wish.task, wish.labels, inputs.shape[1:], wish.roles, background)
    with drafting(out, overwrite=overwrite) as folder, tempfile.TemporaryDirectory() as spare:
        given_files, models = models, _shown(models, wish, Path(spare))
        described = aligned([describe(path, purpose) for path in models])
        made = _place(models, described, wish, folder, pythons)
        executions = _execute(folder, made, inputs, pythons)
        report = _judge(executions, made, inputs)
        write(folder / "parity.json", canonical.dumps(golden.rounded(report.to_json())))
        record.golden(folder, made, executions, given, wish.task)
        postprocess = _postprocess(wish, models[0], described[0])
        answers = Description(made[0], wish.preprocess, postprocess, wish.labels, task=wish.task)
        manifest = Manifest(
            model=wish.name,
            version=wish.version,
            task=wish.task,
            preprocess=wish.preprocess,
            postprocess=postprocess,
            labels=wish.labels,
            artefacts=made,
            golden=golden.NAME,
            profiles=record.profiles(folder, made, executions, answers, given),
            lineage={**wish.lineage, **record.lineage(given_files, given, executions, wish.parent)},
            files=files(folder),
        )
        return Built(seal(folder, manifest), report)


def _shown(models: Sequence[Path], wish: Wish, folder: Path) -> list[Path]:
    """Return the files, or copies that show the embedding; all of them or none, since they must answer alike."""
    if not wish.embedding or wish.task != "classification":
        return list(models)
    copies = [folder / path.name for path in models]
    made = [with_embedding(path, copy) for path, copy in zip(models, copies, strict=True)]
    return copies if all(made) else list(models)


def _check(models: Sequence[Path], wish: Wish) -> None:
    """Refuse what the manifest would refuse at the end, before anything is run."""
    if not models:
        raise UsageError("no model file", fix="give one or more .onnx or .tflite files")
    if not is_name(wish.name):
        raise UsageError(f"{wish.name!r} is no model name", where="--name", fix="use letters, digits, '.', '_', '-'")
    if wish.task not in TASKS:
        raise UsageError(f"unknown task '{wish.task}'", where="--task", fix=f"use one of {', '.join(TASKS)}")
    if wish.task in ("classification", "detection", "segmentation") and not wish.labels:
        raise UsageError(f"{wish.task} without class names", where="--labels", fix="give one for each class")
    has_boxes = postprocesses.of(wish.postprocess or "none").boxes is not None
    if has_boxes != (wish.task == "detection"):
        what = f"task '{wish.task}' {'with' if has_boxes else 'without'} [postprocess.boxes]"
        raise UsageError(what, where="--preprocess", fix="say how boxes are decoded, for detection only")


def _place(
    models: Sequence[Path], described: Sequence[Artefact], wish: Wish, folder: Path, pythons: Pythons
) -> tuple[Artefact, ...]:
    """Copy the files into the folder, each for every target that reads it; check memory, find runtimes."""
    named = wish.targets or tuple(dict.fromkeys(_DEFAULT[artefact.format] for artefact in described))
    pairs = list(zip(models, described, strict=True))
    asked = [(r, path, a) for r in _requests(named) for path, a in pairs if a.format == r.format]
    unused = next((path for path in models if path not in [path for _, path, _ in asked]), None)
    if unused is not None:
        raise UsageError(f"no target reads {unused.name}", where="--target", fix="name one that does")
    made = []
    for request, path, artefact in asked:
        inspect.check_memory(path, request.target, where=path.name)
        precision = wish.precision or artefact.precision
        made.append((replace(artefact, target=request.target.name, precision=precision), path.read_bytes()))
    return artefacts.claimed(artefacts.share(made, folder), [request for request, _, _ in asked], pythons)


def _requests(named: Sequence[str]) -> list[Request]:
    """Return what the targets read: all formats of a plain name, one of NAME:FORMAT."""
    found: list[Request] = []
    for name in named:
        one = Request.parse(name)
        is_plain = not name.endswith(f":{one.format}")
        found += [Request(one.target, kind) for kind in one.target.integers] if is_plain else [one]
    return list({(request.target.name, request.format): request for request in found}.values())


def _execute(folder: Path, made: Sequence[Artefact], inputs: Array, pythons: Pythons) -> dict[str, list[Execution]]:
    """Run each file in each of its runtimes, in a process of its own.

    Raises:
        RuntimeAdapterError: A runtime refused it, crashed, or gave NaN.
    """
    here = {name: python_for(name, pythons) or Path(sys.executable) for a in made for name in a.runtimes}
    found = artefacts.execute(folder, made, inputs, here)
    for path, executions in found.items():
        for execution in executions:
            _refuse_nan(execution, f"{path} in {execution.runtime} {execution.version}")
    return found


def _refuse_nan(execution: Execution, where: str) -> None:
    for key, values in execution.values.items():
        wrong = ~np.isfinite(values)
        if wrong.any():
            what = f"{int(wrong.sum())} of {wrong.size} numbers of output '{key}' are NaN or infinite"
            fix = "look at the inputs and --preprocess first, then at the model"
            raise RuntimeAdapterError(what, where=where, fix=fix)


def _judge(executions: Mapping[str, Sequence[Execution]], made: Sequence[Artefact], inputs: Array) -> ParityReport:
    limits = INT8 if any(artefact.precision == "int8" for artefact in made) else FLOAT
    return gate.judge_float(artefacts.told_apart(executions), inputs, limits=limits)


def _postprocess(wish: Wish, first: Path, artefact: Artefact) -> str | Postprocess:
    if wish.postprocess is not None:
        return wish.postprocess
    logits = artefact.output("logits")
    if wish.task != "classification" or logits is None:
        return "none"
    return "none" if dict(inspect.describe(first).makers).get(logits.name) in SHARES else "softmax"
