# SPDX-License-Identifier: Apache-2.0
"""What all rows of a network share: both float files, the samples, and the float model's answers in ONNX Runtime."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import child, environments, sessions, store
from benchmarks.peers.rows import NETS
from benchmarks.peers.samples import CALIBRATION, SAMPLES, Samples
from edge_contract.errors import StropError

__all__ = ["Material", "prepare"]


@dataclass(frozen=True, eq=False)
class Material:
    """A network's shared files and data.

    Attributes:
        net: Name in the zoo.
        folder: Has ``float.onnx``, ``float.tflite`` (where it could be made) and ``calibration.npy``.
        samples: What is judged on.
        reference: The float model's answers in ONNX Runtime.
        digest: Of all the files.
        notes: Why a file is missing.
    """

    net: str
    folder: Path
    samples: Samples
    reference: sessions.Answers
    digest: str
    notes: dict[str, str]

    @property
    def setting(self) -> dict[str, Any]:
        """What converters that start from PyTorch must know."""
        return {"net": self.net, "shape": list(NETS[self.net].shape)}


def _weights(net: str) -> bytes:
    """The bytes that decide a network: its definition and its checkpoint, where it has one."""
    zoo = environments.ROOT / "tests/zoo"
    checkpoint = zoo / f"checkpoints/{net}.pt"
    return (zoo / "models.py").read_bytes() + (checkpoint.read_bytes() if checkpoint.exists() else b"")


def prepare(net: str, *, calibration: int = CALIBRATION) -> Material:
    """Export a network to both float formats and keep its samples; what was made before is taken again.

    Raises:
        MeasurementError: The network cannot be exported to ONNX.
    """
    makers = environments.ROOT / "benchmarks/peers"
    pins = environments.digest("main"), environments.digest("google")
    code = store.code_digest(makers / "samples.py", makers / "material.py", *makers.glob("converters/float_*.py"))
    key = store.digest([net, _weights(net), str(calibration), *pins, code])
    found = store.once("material", key, lambda folder: _make(net, folder, calibration))
    folder = store.BUILD / "material" / key
    arrays = np.load(folder / "samples.npz")
    samples = Samples(np.load(folder / "calibration.npy"), arrays["inputs"], arrays["labels"], arrays["judged"])
    reference = sessions.Answers(arrays["reference"], None)
    return Material(net, folder, samples, reference, found["digest"], found["notes"])


def _make(net: str, folder: Path, calibration: int) -> dict[str, Any]:
    samples = SAMPLES[net](calibration)
    np.save(folder / "calibration.npy", samples.calibration)
    setting = json.dumps({"net": net, "shape": NETS[net].shape})
    words = [str(folder), str(folder), setting]
    child.run([environments.python("main"), "-m", "benchmarks.peers.converters.float_onnx", *words], where="float.onnx")
    notes = {}
    try:
        child.run(
            [environments.python("google"), "-m", "benchmarks.peers.converters.float_tflite", *words],
            where="float.tflite",
        )
    except StropError as error:  # rows that need it say so; the others go on
        notes["float.tflite"] = str(error)
    reference = sessions.answers(folder / "float.onnx", samples.inputs).logits
    np.savez(
        folder / "samples.npz",
        inputs=samples.inputs,
        labels=samples.labels,
        judged=samples.judged,
        reference=reference,
    )
    files = [folder / name for name in ("calibration.npy", "float.onnx", "float.tflite")]
    bodies = [hashlib.sha256(file.read_bytes()).digest() for file in files if file.exists()]
    return {"digest": store.digest([*bodies, reference.tobytes()]), "notes": notes}
