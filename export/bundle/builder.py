# SPDX-License-Identifier: Apache-2.0
"""Build a bundle: a folder in which everything is named by its SHA-256, and which proves itself before it exists.

::

    FOLDER/
    ├── manifest.json       canonical JSON; its SHA-256 is the bundle's id
    ├── model.onnx          for ONNX Runtime
    ├── model.tflite        for LiteRT and tflite-runtime; several are model-<target>.tflite
    ├── golden.json         known inputs and answers: the self-test at every load
    ├── golden/             their arrays
    ├── profiles/           the reference profile of each artefact
    └── parity.json         who computed what, and how far they agree

Nothing in it depends on the time or the folder, so the same model, data and package versions give the same id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compress.checks.gate import Waiver, gate
from compress.compressed import CompressedModel
from compress.quantize.plan import QuantizationPlan
from edge_agent.runner.model import Description, Model
from edge_agent.runner.preprocess import apply_batch
from edge_contract import canonical
from edge_contract.errors import DataError, ModelError
from edge_contract.manifest import Artefact, Manifest
from export.bundle import artefacts, golden, lineage
from export.bundle.artefacts import Request
from export.bundle.expected import expected
from export.bundle.folder import drafting, files, seal, verify, write
from export.bundle.recorded import Recorded
from export.bundle.reference import Answering, build_profile
from export.parity import gate as parity_gate
from export.parity.gate import ParityReport
from export.runtimes.execution import Execution, python_for, run
from export.runtimes.matrix import claims

__all__ = ["GOLDEN_INPUTS", "Built", "Samples", "build", "chosen", "verify"]

GOLDEN_INPUTS: Final = 24
_MAX_STEPS: Final = 2  # what an unknown version of a runtime may differ by, at least
_PARITY_INPUTS: Final = 1024
_BATCH: Final = 128


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled raw inputs that nothing was fitted to: uint8 [N, H, W] or [N, H, W, C], classes [N]."""

    raw: NDArray[Any]
    labels: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Built:
    """A finished bundle."""

    manifest: Manifest
    parity: ParityReport


def build(
    compressed: CompressedModel,
    out: Path,
    *,
    version: str,
    samples: Samples,
    parent: str = "",
    pythons: Mapping[str, Path] | None = None,
    overwrite: bool = False,
    targets: Sequence[str] = (),
    waived: Sequence[Waiver] = (),
    loop: Mapping[str, Any] | None = None,
) -> Built:
    """Write a bundle of a compressed model; the folder appears only when everything in it was proved.

    Args:
        compressed: With a plan.
        out: The folder to make.
        version: For people.
        samples: Validation inputs: for parity, golden inputs and the reference profile; at least 128.
        parent: Id of the bundle that this one improves on.
        pythons: Runtime → interpreter, for runtimes that are not installed here.
        overwrite: Replace ``out`` if it exists.
        targets: One artefact for each, as ``artefacts.Request.parse`` takes them; by default ONNX for a PC and TFLite
            for the recipe's target.
        waived: Failed checks that a person answers for; the lineage says so.
        loop: What the healing loop says of its run, for the lineage.

    Raises:
        ModelError: No plan.
        CheckError: A check of the recipe failed and is not waived.
        DataError: Too few samples.
        TargetError, UnsupportedOperatorError, BudgetError: A target that does not exist, or cannot run the model.
        ParityError: The runtimes do not compute what was evaluated.
        BundleError: ``out`` exists, or the finished bundle fails its own self-test.
    """
    if compressed.plan is None:
        raise ModelError("no quantization plan", where=compressed.name, fix='add a step of kind "quantize"')
    if not len(samples.raw):
        raise DataError("no samples", where=compressed.name, fix="give at least 128 labelled validation inputs")
    checked = gate(compressed.report.checks, waived, compressed.name)
    asked = artefacts.requests(targets, compressed.report.target)
    with drafting(out, overwrite=overwrite) as folder:
        told = lineage.of_checks(checked) | lineage.of_loop(loop)
        draft = _Draft(folder, compressed, compressed.plan, samples, pythons, told)
        return _fill(draft, asked, version, parent)


@dataclass(frozen=True, eq=False)
class _Draft:
    """A bundle while it is filled: what it is made of, and where."""

    folder: Path
    compressed: CompressedModel
    plan: QuantizationPlan
    samples: Samples
    pythons: Mapping[str, Path] | None
    told: Mapping[str, Any]

    def inputs(self, raw: NDArray[Any]) -> NDArray[Any]:
        return apply_batch(self.compressed.preprocess, raw)

    def run(
        self, made: Sequence[Artefact], inputs: NDArray[Any], old_of: Sequence[Request] = ()
    ) -> dict[str, list[Execution]]:
        return artefacts.execute(self.folder, made, inputs, self.pythons, old_of=old_of)


def _fill(draft: _Draft, asked: Sequence[Request], version: str, parent: str) -> Built:
    compressed, plan, folder, samples = draft.compressed, draft.plan, draft.folder, draft.samples
    made = artefacts.claimed(artefacts.write_all(plan, folder, asked), asked, draft.pythons)
    inputs = draft.inputs(samples.raw[:_PARITY_INPUTS])
    executions = artefacts.told_apart(draft.run(made, inputs, asked))
    report = _judge(draft, asked, executions, inputs)
    write(folder / "parity.json", canonical.dumps(golden.rounded(report.to_json())))
    _golden(draft, made, report)
    profiles = {path: _profile(draft, artefact) for path, artefact in artefacts.by_path(made).items()}
    manifest = Manifest(
        model=compressed.name,
        version=version,
        task="classification",
        preprocess=compressed.preprocess,
        postprocess="softmax",
        labels=compressed.labels,
        artefacts=made,
        golden=golden.NAME,
        profiles=profiles,
        lineage={
            **lineage.of(compressed, plan, executions[0], samples.labels[:_PARITY_INPUTS], parent),
            **draft.told,
        },
        files=files(folder),
        input_contract=expected(compressed.preprocess, samples.raw),
    )
    return Built(seal(folder, manifest), report)


def _judge(
    draft: _Draft, asked: Sequence[Request], executions: Sequence[Execution], inputs: NDArray[Any]
) -> ParityReport:
    """Compare every runtime with every other one, with the plan and with the float model."""
    labels = draft.samples.labels[: len(inputs)]
    reference = {"logits": _float_logits(draft.compressed.model, inputs)}
    report = parity_gate.check(
        draft.plan, executions, inputs, reference=reference, labels=labels, pythons=draft.pythons
    )
    found = [claim for request in asked for claim in claims(request.target, request.format, executions)]
    return replace(report, claims=tuple(dict.fromkeys(found)))


def _float_logits(model: nn.Module, inputs: NDArray[Any]) -> NDArray[np.float32]:
    """Return the float model's logits [N, K] for inputs float32 [N, h, w, c]."""
    with torch.no_grad():
        rows = torch.split(torch.from_numpy(np.ascontiguousarray(np.moveaxis(inputs, -1, 1), np.float32)), _BATCH)
        found: NDArray[np.float32] = torch.cat([model(part) for part in rows]).numpy()
    return found


def chosen(labels: NDArray[Any], count: int = GOLDEN_INPUTS) -> NDArray[Any]:
    """Return rows for the golden inputs: evenly over the samples sorted by class, so that each class is there."""
    order: NDArray[Any] = np.argsort(labels, kind="stable")
    spread = np.linspace(0, len(labels) - 1, min(count, len(labels))).astype(int)
    rows: NDArray[Any] = order[spread]
    return rows


def _golden(draft: _Draft, made: Sequence[Artefact], report: ParityReport) -> None:
    raw = draft.samples.raw[chosen(draft.samples.labels)]
    inputs, known = draft.inputs(raw), artefacts.by_path(made)
    hashes = [
        entry
        for path, found in draft.run(made, inputs).items()
        for entry in golden.entries(draft.folder / path, known[path], [(e, e.codes["logits"]) for e in found])
        if not report.off_list  # float sums have another order, and other integers, on another CPU
    ]
    moved = max(
        pair.by_output["logits"][2] for pair in report.pairs if parity_gate.PYTORCH in (pair.first, pair.second)
    )
    rule = {"max_steps": max(_MAX_STEPS, moved + 1)}
    reference = parity_gate.evaluate(draft.plan, inputs).codes["logits"]
    golden.record(draft.folder, raw, reference, rule, hashes, what="logits")


def _profile(draft: _Draft, artefact: Artefact) -> str:
    """Write the reference profile of a file, computed on the first runtime that its targets claim."""
    compressed, samples, runtime = draft.compressed, draft.samples, artefact.runtimes[0]
    description = Description(artefact, compressed.preprocess, "softmax", compressed.labels)
    python, path = python_for(runtime, draft.pythons), draft.folder / artefact.path
    if python is None:
        model: Answering = Model.load(path, description, runtime=runtime)
    else:
        model = Recorded.of(run(path, artefact, runtime, draft.inputs(samples.raw), python))
    facts = {"artefact": canonical.digest(path.read_bytes()), "runtime": runtime}
    how = {"names": compressed.labels, "preprocess": compressed.preprocess}
    profile = build_profile(model, samples.raw, samples.labels, **how, **facts)  # type: ignore[arg-type]  # mixed
    name = f"profiles/{artefact.path}.json"
    write(draft.folder / name, profile.to_bytes())
    return name
