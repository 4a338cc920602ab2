# SPDX-License-Identifier: Apache-2.0
"""Build a bundle: a folder in which everything is named by its SHA-256, and which proves itself before it exists.

::

    FOLDER/
    ├── manifest.json       canonical JSON; its SHA-256 is the bundle's id
    ├── model.onnx          for ONNX Runtime
    ├── model.tflite        for LiteRT and tflite-runtime
    ├── golden.json         known inputs and answers: the self-test at every load
    ├── golden/             their arrays
    ├── profiles/           the reference profile of each artefact
    └── parity.json         who computed what, and how far they agree

Nothing in it depends on the time or the folder, so the same model, data and package versions give the same id.
"""

import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from compress.compressed import CompressedModel
from compress.quantize.plan import QuantizationPlan
from edge_agent.runner import golden
from edge_agent.runner.contents import Contents
from edge_agent.runner.model import Description, Model
from edge_agent.runner.preprocess import apply_batch
from edge_contract import canonical, targets
from edge_contract.errors import BundleError, DataError, ModelError, ParityError
from edge_contract.manifest import MANIFEST_NAME, Artefact, BundleFile, Manifest
from export import inspection, lineage, onnx_writer, parity, tflite_writer
from export.parity import ParityReport
from export.reference import build_profile
from export.runtimes import Execution, available, python_for

__all__ = ["GOLDEN_INPUTS", "Built", "Samples", "build", "verify", "write_artefacts"]

GOLDEN_INPUTS: Final = 24
_MAX_STEPS: Final = 2  # what an unknown version of a runtime may differ by, at least
_PARITY_INPUTS: Final = 1024
_DEFAULT_TARGETS: Final = {"onnx": "generic-x86", "tflite": "rpi4"}


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


def write_artefacts(plan: QuantizationPlan, folder: Path, target: str = "") -> list[Artefact]:
    """Write ``model.onnx`` and ``model.tflite`` into a folder and check their operators against their targets.

    Args:
        plan: What to write.
        folder: Where.
        target: Of the TFLite file; one that reads none is replaced by ``rpi4``.

    Raises:
        TargetError: No such target.
        UnsupportedOperatorError: The target does not have an operator.
    """
    onnx_target = targets.load(_DEFAULT_TARGETS["onnx"])
    tflite_target = targets.load(target or _DEFAULT_TARGETS["tflite"])
    if "tflite" not in tflite_target.integers:
        tflite_target = targets.load(_DEFAULT_TARGETS["tflite"])
    activation = onnx_target.integers["onnx"].activation
    made = [
        onnx_writer.write(plan, folder / "model.onnx", target=onnx_target.name, activation=activation),
        tflite_writer.write(plan, folder / "model.tflite", target=tflite_target.name),
    ]
    for artefact, judge in zip(made, (onnx_target, tflite_target), strict=True):
        inspection.check_operators(inspection.describe(folder / artefact.path), judge, where=artefact.path)
    return made


def build(
    compressed: CompressedModel,
    out: Path,
    *,
    version: str,
    samples: Samples,
    parent: str = "",
    pythons: Mapping[str, Path] | None = None,
    overwrite: bool = False,
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

    Raises:
        ModelError: No plan.
        DataError: Too few samples.
        ParityError: The runtimes do not compute what was evaluated.
        BundleError: ``out`` exists, or the finished bundle fails its own self-test.
    """
    if compressed.plan is None:
        raise ModelError("no quantization plan", where=compressed.name, fix='add a step of kind "quantize"')
    if not len(samples.raw):
        raise DataError("no samples", where=compressed.name, fix="give at least 128 labelled validation inputs")
    if out.exists() and not overwrite:
        raise BundleError("is there already", where=str(out), fix="choose another folder, or give --overwrite")
    draft = out.with_name(f".{out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        built = _fill(_Draft(draft, compressed, compressed.plan, samples, pythons), version, parent)
        _self_test(draft, built.manifest)
        shutil.rmtree(out, ignore_errors=True)
        draft.rename(out)
    except OSError as error:
        raise BundleError(f"cannot be written ({error.strerror})", where=str(out), fix="check the folder") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return built


@dataclass(frozen=True, eq=False)
class _Draft:
    """A bundle while it is filled: what it is made of, and where."""

    folder: Path
    compressed: CompressedModel
    plan: QuantizationPlan
    samples: Samples
    pythons: Mapping[str, Path] | None

    def inputs(self, raw: NDArray[Any]) -> NDArray[Any]:
        return apply_batch(self.compressed.preprocess, raw)

    def run(self, artefacts: Sequence[Artefact], inputs: NDArray[Any]) -> list[Execution]:
        files = [(self.folder / artefact.path, artefact) for artefact in artefacts]
        runtimes = [name for artefact in artefacts for name in available(artefact.format, self.pythons)]
        return parity.execute(files, runtimes, inputs, self.pythons)


def _fill(draft: _Draft, version: str, parent: str) -> Built:
    compressed, plan, folder, samples = draft.compressed, draft.plan, draft.folder, draft.samples
    written = write_artefacts(plan, folder, compressed.report.target)
    artefacts = tuple(replace(a, runtimes=available(a.format, draft.pythons)) for a in written)
    inputs = draft.inputs(samples.raw[:_PARITY_INPUTS])
    executions = draft.run(artefacts, inputs)
    report = parity.check(plan, executions, inputs)
    _write(folder / "parity.json", canonical.dumps(report.to_json()))
    _golden(draft, artefacts, report)
    profiles = {artefact.path: _profile(draft, artefact) for artefact in artefacts}
    manifest = Manifest(
        model=compressed.name,
        version=version,
        task="classification",
        preprocess=compressed.preprocess,
        postprocess="softmax",
        labels=compressed.labels,
        artefacts=artefacts,
        golden="golden.json",
        profiles=profiles,
        lineage=lineage.of(compressed, plan, executions[0], samples.labels[:_PARITY_INPUTS], parent),
        files=_files(folder),
    )
    _write(folder / MANIFEST_NAME, manifest.to_bytes())
    return Built(Manifest.from_bytes(manifest.to_bytes()), report)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _array(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(values), allow_pickle=False)
    return buffer.getvalue()


def _chosen(labels: NDArray[Any]) -> NDArray[Any]:
    """Rows of the golden inputs: evenly over the samples sorted by class, so that each class is there."""
    order: NDArray[Any] = np.argsort(labels, kind="stable")
    spread = np.linspace(0, len(labels) - 1, min(GOLDEN_INPUTS, len(labels))).astype(int)
    chosen: NDArray[Any] = order[spread]
    return chosen


def _golden(draft: _Draft, artefacts: Sequence[Artefact], report: ParityReport) -> None:
    samples, folder = draft.samples, draft.folder
    raw = samples.raw[_chosen(samples.labels)]
    inputs = draft.inputs(raw)
    entries = []
    for artefact in artefacts:
        for execution in draft.run([artefact], inputs):
            entries += _entry(folder / artefact.path, execution)
    moved = max(pair.by_output["logits"][2] for pair in report.pairs if parity.PYTORCH in (pair.first, pair.second))
    document = {
        "inputs": "golden/inputs.npy",
        "reference": "golden/logits.npy",
        "max_steps": max(_MAX_STEPS, moved + 1),
        "entries": entries,
    }
    _write(folder / "golden/inputs.npy", _array(raw))
    _write(folder / "golden/logits.npy", _array(parity.evaluate(draft.plan, inputs).codes["logits"]))
    _write(folder / "golden.json", canonical.dumps(document))


def _entry(path: Path, execution: Execution) -> list[dict[str, str]]:
    """One hash for all CPUs, where that holds: the built-in kernels of TFLite round otherwise on ARM than on x86."""
    if execution.delegate not in parity.EXACT_DELEGATES:
        return []
    place = {"runtime": execution.runtime, "version": execution.version, "delegate": execution.delegate}
    return [{"artefact": canonical.digest(path.read_bytes()), **place, "sha256": execution.digest()}]


def _profile(draft: _Draft, artefact: Artefact) -> str:
    """Write the reference profile of an artefact, computed on the first of its runtimes that lives here."""
    runtime = next((name for name in artefact.runtimes if python_for(name) is None), None)
    if runtime is None:
        fix = "install onnxruntime and ai-edge-litert"
        raise BundleError("no runtime here to compute the reference profile", where=artefact.path, fix=fix)
    compressed, samples = draft.compressed, draft.samples
    description = Description(artefact, compressed.preprocess, "softmax", compressed.labels)
    model = Model.load(draft.folder / artefact.path, description, runtime=runtime)
    facts = {"artefact": model.description.sha256, "runtime": runtime}
    profile = build_profile(model, samples.raw, samples.labels, names=compressed.labels, **facts)
    name = f"profiles/{artefact.path}.json"
    _write(draft.folder / name, profile.to_bytes())
    return name


def _files(folder: Path) -> tuple[BundleFile, ...]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(
        BundleFile(path.relative_to(folder).as_posix(), path.stat().st_size, canonical.digest(path.read_bytes()))
        for path in found
    )


def _self_test(folder: Path, manifest: Manifest) -> None:
    """Open the draft as a device will, in each runtime that lives here."""
    verify(folder)
    for artefact in manifest.artefacts:
        for runtime in artefact.runtimes:
            if python_for(runtime) is None:
                result = golden.check(Model.open(folder, runtime=runtime))
                if not result.is_ok:
                    raise ParityError(
                        f"golden self-test failed: {result.detail}", where=f"{artefact.path} in {runtime}"
                    )


def verify(folder: Path) -> Manifest:
    """Return the manifest of a bundle folder after every file was hashed again.

    Raises:
        BundleError: A file is missing, changed, or not in the manifest; names it.
        ManifestError: The manifest is malformed.
    """
    contents = Contents.open(Path(folder))
    for entry in contents.manifest.files:
        contents.path(entry.path)
    listed = {entry.path for entry in contents.manifest.files} | {MANIFEST_NAME}
    for path in sorted(Path(folder).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in listed:
            raise BundleError("is not in the manifest", where=str(path), fix="remove it, or build the bundle again")
    return contents.manifest
