# SPDX-License-Identifier: Apache-2.0
"""What is around the device: bundles, orders, what is signed, a runner, and a server that remembers what it heard.

The runner answers from memory, but it loads a model only if every file in the slot has the hash of its manifest.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.adapters.install import needed_files
from edge_agent.adapters.trust import SignedBlob
from edge_agent.core import events as ev
from edge_contract import canonical
from edge_contract.errors import StropError
from edge_contract.jobs import JobDocument, Probation, Signed
from edge_contract.manifest import MANIFEST_NAME, Artefact, BundleFile, Manifest, TensorSpec
from edge_contract.preprocess import Preprocess
from tests.support import device_sim

MODEL, RUNTIME = "digits", "litert"


def write_bundle(folder: Path, version: str) -> Manifest:
    """Write a small bundle: labels that never change, and a model file of more than one chunk of a download."""
    contents = {
        "golden.json": b"{}",
        "labels.txt": b"a\nb\n",
        "model.tflite": random.Random(version).randbytes(70_000),
    }
    for name, data in contents.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    spec = TensorSpec("input", "input", (1, 14, 14, 1), "int8", "NHWC", 0.5, 0)
    logits = TensorSpec("logits", "logits", (1, 2), "int8", "NC", 0.5, 0)
    manifest = Manifest(
        model=MODEL,
        version=version,
        task="classification",
        preprocess=Preprocess.from_json({"resize": [14, 14], "scale": 0.25}),
        postprocess="softmax",
        labels=("a", "b"),
        artefacts=(Artefact("model.tflite", "tflite", (RUNTIME,), "rpi4", "int8", "", spec, (logits,)),),
        golden="golden.json",
        profiles={},
        lineage={"accuracy": {"top1": 1.0, "n": 10}, "parent": ""},
        files=tuple(BundleFile(n, len(d), canonical.digest(d)) for n, d in sorted(contents.items())),
    )
    (folder / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    return manifest


def order_id(number: int) -> str:
    """Return the n-th order's name: their text sorts as they come."""
    return f"j{number:04}"


def order(number: int, manifest: Manifest) -> JobDocument:
    """Return the n-th order."""
    short = Probation(inferences=20, timeout_s=60.0)
    found: JobDocument = device_sim.job(order_id(number), manifest.bundle_id, version=manifest.version, probation=short)
    return found


def envelope(document: JobDocument) -> bytes:
    """Return an order as it lies on its channel."""
    return Signed(document.to_bytes(), "key", "00").to_bytes()


class Signer:
    """Answers as the trust helper does, from the bundles of the test."""

    def __init__(self, manifests: Mapping[str, Manifest]) -> None:
        self.facts: dict[str, SignedBlob] = {}
        for manifest in manifests.values():
            self.facts[manifest.bundle_id] = SignedBlob(len(manifest.to_bytes()), {})
            self.facts.update({f.sha256: SignedBlob(f.size, {}) for f in manifest.files})

    def refresh(self, _url: str, _targets: list[str], **_: Any) -> dict[str, SignedBlob]:
        return dict(self.facts)

    def verify_job(self, payload: bytes, _device: str, **_: Any) -> JobDocument:
        return JobDocument.from_bytes(Signed.from_bytes(payload).payload)


def is_whole(folder: Path) -> bool:
    """True if every file that our runtime needs has the hash that the manifest gives it, and the manifest its name."""
    try:
        manifest = Manifest.from_bytes((folder / MANIFEST_NAME).read_bytes())
        files = [(f, (folder / f.path).read_bytes()) for f in needed_files(manifest, RUNTIME)]
    except (OSError, StropError):
        return False
    return manifest.bundle_id == folder.name and all(canonical.digest(data) == f.sha256 for f, data in files)


class Guest:
    """The runner: holds what it is told to if the files are right, and infers twenty times a second."""

    pid = None

    def __init__(self, post: Callable[[ev.Event], None], now: Callable[[], ev.Instant], bad: frozenset[str]) -> None:
        self._post, self._now, self._bad = post, now, bad
        self.held: dict[str, str] = {}
        self.is_up, self.first, self.compared = False, 0, 0

    def _say(self, **words: Any) -> None:
        self._post(ev.RunnerSaid(self._now(), words))

    def start(self) -> None:
        self.is_up, self.held = True, {}
        self._say(event="ready", runtime=RUNTIME, runtime_version="2.3.0", pid=7)

    def stop(self, _mono: float) -> None:
        if self.is_up:
            self.is_up, self.held = False, {}
            self._post(ev.RunnerExited(self._now(), 0))

    def send(self, words: Mapping[str, Any]) -> None:
        if words["cmd"] == "unload":
            self.held.pop("shadow", None)
        elif words["cmd"] == "source":
            self.held["source"] = words["name"]
            self._say(event="source", name=words["name"])
        elif words["cmd"] == "load":
            self._load(words["role"], Path(words["folder"]))

    def _load(self, role: str, folder: Path) -> None:
        if not is_whole(folder):
            self._say(event="load_failed", role=role, bundle=folder.name, reason="a file is not what it should be")
            return
        self.held[role], self.compared = folder.name, 0
        self._say(event="loaded", role=role, bundle=folder.name, version="", golden="exact")

    def infer(self) -> None:
        active, shadow = self.held.get("active"), self.held.get("shadow")
        if not (active and self.held.get("source")):
            return
        if active in self._bad and not shadow:
            self._say(event="error", bundle=active, reason="NaN")
            return
        rows = [[f"t:{self.first + i}", 1, 0.5] for i in range(20)]
        self._say(event="results", bundle=active, first=self.first, rows=rows)
        self.first += 20
        if shadow:
            self.compared += 20
            agree = 0 if {active, shadow} & self._bad else self.compared
            self._say(event="shadow", bundle=shadow, n=self.compared, agree=agree, errors=0)


@dataclass
class World:
    """What is outside the device.

    Attributes:
        url: Where blobs are.
        manifests: Version → bundle; one whose version begins with ``bad`` disagrees with every other, or errs.
        orders: What the server orders, one after the end of the other: versions.
        said: Called with what the device has told, and what it has on its disk by its own word.
        acks: True if rows are acknowledged, two seconds after they came: they are on the disk by then.
    """

    url: str
    manifests: Mapping[str, Manifest]
    orders: tuple[str, ...]
    said: Callable[[str], None] = lambda _text: None
    acks: bool = True
    heard: dict[str, str] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)

    def order(self, number: int) -> JobDocument:
        return order(number, self.manifests[self.orders[number - 1]])

    @property
    def bad(self) -> frozenset[str]:
        return frozenset(m.bundle_id for v, m in self.manifests.items() if v.startswith("bad"))
