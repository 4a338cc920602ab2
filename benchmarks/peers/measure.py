# SPDX-License-Identifier: Apache-2.0
"""Make one row: convert in a child process, run its files, compare with the float model."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.peers import child, environments, sessions, store
from benchmarks.peers.leftover import float_operators, stripped_size
from benchmarks.peers.material import Material
from benchmarks.peers.rows import MEMORY_LIMIT_MIB, Row
from benchmarks.peers.sessions import Answers
from benchmarks.peers.statistics import divergence, paired_drop, wilson
from edge_contract.errors import MissingDependencyError, StropError

__all__ = ["distance", "flatness", "judge", "key_of", "measure"]

OURS: Final = (  # what decides the bytes of our files
    "compress/quantize", "compress/steps", "compress/recipe_table.py", "export/onnx", "export/tflite",
    "export/packed.py",
)  # fmt: skip
_PEERS: Final = environments.ROOT / "benchmarks/peers"


def key_of(material: Material, row: Row) -> str:
    """Return the digest of everything that a row depends on; for our rows also our quantizer and writers."""
    code = [_PEERS / name for name in ("measure.py", "statistics.py", "sessions.py", "leftover.py", "child.py")]
    code += [_PEERS / "converters/__init__.py", _PEERS / f"converters/{row.converter}.py"]
    if row.converter == "ours":
        code += [environments.ROOT / name for name in OURS]
    parts = [material.net, material.digest, row.digest_text, environments.digest(row.environment)]
    return store.digest([*parts, store.code_digest(*code)])


def measure(material: Material, row: Row, *, root: Path = store.BUILD) -> dict[str, Any]:
    """Return a row's result, from the disk if nothing that it depends on has changed.

    A tool that fails is a result too, kept with its last words as ``error``; a missing environment is not kept. What
    failed for a passing reason, such as a full disk, is tried again once its folder below ``build/peers`` is gone.
    """
    try:
        python = environments.python(row.environment)
    except MissingDependencyError as error:
        return {"row": row.name, "error": str(error)}
    return store.once("rows", key_of(material, row), lambda folder: _make(material, row, python, folder), root=root)


def _make(material: Material, row: Row, python: Path, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"row": row.name, "folder": str(folder), "start": row.start, "files": {}}
    setting = json.dumps(material.setting | row.setting)
    module = f"benchmarks.peers.converters.{row.converter}"
    command = [str(python), "-m", module, str(material.folder), str(folder), setting]
    try:
        cost = child.run(command, where=row.name, limit_mib=MEMORY_LIMIT_MIB)
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        found |= {"versions": facts["versions"], "cost": _cost(cost, facts)}
        for path in sorted(folder.glob("model.onnx")) + sorted(folder.glob("model.tflite")):
            found["files"][path.suffix[1:]] = judge(material, path)
    except StropError as error:
        found["error"] = str(error)
    return found


def _cost(cost: child.Cost, facts: dict[str, Any]) -> dict[str, float]:
    """The child knows its own peak exactly; what was polled from outside can only have missed some of it."""
    peak = max(cost.peak_mib, facts["peak_mib"])
    return {"cpu_s": cost.cpu_s, "convert_cpu_s": facts["convert_cpu_s"], "wall_s": cost.wall_s, "peak_mib": peak}


def judge(material: Material, path: Path) -> dict[str, Any]:
    """Return a file's size, accuracy and distance from the float model; its codes are left beside it."""
    answers = sessions.answers(path, material.samples.inputs)
    if answers.codes is not None:
        np.save(path.with_name(f"codes-{path.suffix[1:]}.npy"), answers.codes)
    loaded = sessions.load(path)
    data = path.read_bytes()
    return {
        "bytes": len(data),
        "stripped_bytes": stripped_size(path) if path.suffix == ".onnx" else len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "input": "float32" if loaded.source is None else loaded.source.dtype,
        "float_operators": float_operators(path),
        **distance(material, answers),
    }


def distance(material: Material, answers: Answers) -> dict[str, Any]:
    """Return accuracy and drop over the samples with a class, agreement and divergence over those that are judged."""
    samples, reference = material.samples, material.reference.logits
    known = samples.labels >= 0
    before, after = (logits.argmax(1)[known] == samples.labels[known] for logits in (reference, answers.logits))
    same = reference.argmax(1)[samples.judged] == answers.logits.argmax(1)[samples.judged]
    return {
        "labelled": int(known.sum()),
        "right": int(after.sum()),
        "right_float": int(before.sum()),
        "drop": asdict(paired_drop(before, after)),
        "judged": int(samples.judged.sum()),
        "agreement": asdict(wilson(int(same.sum()), len(same))),
        "kl": divergence(reference[samples.judged], answers.logits[samples.judged]),
    }


def flatness(material: Material, row: Row, counts: tuple[int, ...]) -> list[dict[str, float]]:
    """Return what a row's conversion costs with so many calibration samples each; the material must hold enough.

    Peaks include the samples themselves, whose size stands beside them.
    """
    one = material.samples.calibration[:1].nbytes / 2**20
    found = []
    for count in counts:
        result = measure(material, replace(row, setting=row.setting | {"samples": count}))
        found.append(
            {"samples": count, "samples_mib": count * one, **result.get("cost", {})}
            | {k: result[k] for k in ("error",) if k in result}
        )
    return found
