# SPDX-License-Identifier: Apache-2.0
"""A small bundle with a real reference profile, for tests of the server: the model is a template matcher in numpy."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_agent.runner.observe import Observer
from edge_contract import canonical
from edge_contract.manifest import Artefact, BundleFile, Manifest, TensorSpec
from edge_contract.preprocess import Preprocess
from edge_contract.profile import ReferenceProfile
from edge_contract.summary import DriftSummary, short_hash
from export.bundle.reference import build_profile

CLASSES = 10


@dataclass(frozen=True)
class Answer:
    logits: np.ndarray
    embedding: np.ndarray


class Matcher:
    """Ten random prototypes; logits are similarities, the embedding is a random projection."""

    labels = tuple(str(i) for i in range(CLASSES))

    def __init__(self, seed=0):
        random = np.random.default_rng(seed)
        self.prototypes = random.uniform(0, 255, (CLASSES, 14, 14))
        self.projection = random.normal(0, 0.01, (12, 196))

    def infer(self, raw):
        flat = raw.astype(np.float64).reshape(-1)
        distances = ((self.prototypes.reshape(CLASSES, -1) - flat) ** 2).mean(axis=1)
        return Answer(-distances / 420, self.projection @ flat)

    def draw(self, n, seed, *, shift=0.0):
        """Return n noisy prototypes [n, 14, 14] and their classes; ``shift`` mixes another prototype in."""
        random = np.random.default_rng(seed)
        truth = random.integers(0, CLASSES, n)
        other = self.prototypes[(truth + 3) % CLASSES]
        mixed = (1 - shift) * self.prototypes[truth] + shift * other
        raw = mixed * 0.3 + 90 + random.normal(0, 92, mixed.shape)
        return np.clip(raw, 0, 255).astype(np.uint8), truth


def profile_of(matcher):
    raw, truth = matcher.draw(750, seed=1)
    return build_profile(matcher, raw, truth)


def window(matcher, profile, device, bundle, number, *, seed, n=200, shift=0.0, start_ms=0, duration_ms=1000):
    """Return (summary, results): one window of real answers, results as [reference, class, confidence]."""
    raw, truth = matcher.draw(n, seed=seed, shift=shift)
    observer, results = Observer(profile), []
    random = np.random.default_rng(seed)
    for i, image in enumerate(raw):
        answer = matcher.infer(image)
        observer.observe(answer.logits, answer.embedding, image, float(random.gamma(9, 45)))
        share = np.exp(answer.logits - answer.logits.max())
        results.append([f"s{seed}:{i}", int(answer.logits.argmax()), float((share / share.sum()).max())])
    summary = DriftSummary(
        device=short_hash(device, 8),
        bundle=bundle[:32],
        profile_crc=profile.crc,
        boot=short_hash("boot", 4),
        window=number,
        start_ms=start_ms,
        duration_ms=duration_ms,
        counters=observer.counters(),
    )
    return summary, results, {f"s{seed}:{i}": int(label) for i, label in enumerate(truth)}


def write_bundle(folder: Path, version: str, profile: ReferenceProfile, *, model: str = "digits", lineage=None) -> str:
    """Write a bundle whose files are all there and return its id; the model file is made of its version."""
    labels = "".join(f"{name}\n" for name in profile.labels)
    contents = {
        "golden.json": b"{}",
        "labels.txt": labels.encode(),
        "model.tflite": version.encode() * 2000,
        "profile.json": profile.to_bytes(),
    }
    folder.mkdir(parents=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    spec = TensorSpec("input", "input", (1, 14, 14, 1), "int8", "NHWC", 0.5, 0)
    logits = TensorSpec("logits", "logits", (1, CLASSES), "int8", "NC", 0.5, 0)
    runtimes = ("litert", "tflite-runtime")
    artefact = Artefact("model.tflite", "tflite", runtimes, "rpi4", "int8", "", spec, (logits,))
    manifest = Manifest(
        model=model,
        version=version,
        task="classification",
        preprocess=Preprocess.from_json({"resize": [14, 14], "scale": 0.25}),
        postprocess="softmax",
        labels=profile.labels,
        artefacts=(artefact,),
        golden="golden.json",
        profiles={"model.tflite": "profile.json"},
        lineage={"accuracy": {"top1": profile.accuracy, "n": profile.size}, "parent": "", **(lineage or {})},
        files=tuple(BundleFile(n, len(d), canonical.digest(d)) for n, d in sorted(contents.items())),
    )
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return manifest.bundle_id
