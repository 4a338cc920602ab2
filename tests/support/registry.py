# SPDX-License-Identifier: Apache-2.0
"""The verbs of the registry over a real database and real files; versions are written as if they had been signed."""

import secrets
import time

from edge_contract import canonical
from edge_contract.manifest import Artefact, BundleFile, Manifest, TensorSpec
from edge_contract.messages import DesiredState, ModelState, ReportedState
from edge_contract.preprocess import Preprocess
from fleet.adapters import channels, credentials, tables
from fleet.adapters.blobs import BlobStore
from fleet.adapters.desk import Addresses
from fleet.adapters.operations import Operations
from fleet.adapters.stores import open_store
from fleet.core.inventory import DeviceRecord
from fleet.core.registry import ModelVersion

PAIR = {"first": "litert", "second": "pytorch", "max_steps": 0, "same_class": 1}
PARITY = {"pairs": [{**PAIR, "bound": {"steps": 1, "same_class": 1}}]}


def wilson(correct, n):
    """The 95 % interval of a share as a bundle tells it."""
    z, p = 1.959963984540054, correct / n
    middle, half = (p + z * z / (2 * n)), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    return {"accuracy": p, "low": low, "high": high, "correct": correct, "samples": n}


def contents_of(version, *, size=1000, parity=PARITY, **more):
    """Return the files of a small bundle: path → bytes."""
    files = {"golden.json": b"{}", "model.tflite": f"{version};".encode() * (size // (len(version) + 1))}
    if parity is not None:
        files["parity.json"] = canonical.dumps(parity)
    return files | more


def manifest_of(model, version, contents, lineage=None, *, precision="int8", target="rpi4"):
    """Return the manifest of a bundle with one model file."""
    spec = TensorSpec("input", "input", (1, 14, 14, 1), "int8", "NHWC", 0.5, 0)
    logits = TensorSpec("logits", "logits", (1, 2), "int8", "NC", 0.5, 0)
    artefact = Artefact("model.tflite", "tflite", ("litert",), target, precision, "", spec, (logits,))
    preprocess = Preprocess.from_json({"resize": [14, 14], "scale": 0.25})
    files = tuple(BundleFile(n, len(d), canonical.digest(d)) for n, d in sorted(contents.items()))
    task = ("classification", preprocess, "softmax", ("no", "yes"))
    return Manifest(model, version, *task, (artefact,), "golden.json", {}, lineage or {}, files)


class Registry:
    """Operations with everything real but the broker and the clock."""

    def __init__(self, folder, opened=open_store):
        self.now, self.folder = time.time(), folder
        if not (folder / "operator.token").exists():
            credentials.init(folder, now=self.now)
        (folder / "fleet.db").unlink(missing_ok=True)
        self.store, self.blobs = opened(folder), BlobStore(folder / "blobs")
        self.operations = Operations(
            self.store,
            self.blobs,
            credentials.open_trust(folder),
            addresses=Addresses("default", "localhost", 8883, "https://localhost:8443"),
            clock=lambda: self.now,
            random_bytes=secrets.token_bytes,
            publish=lambda _: None,
        )
        self.releases, self.promotion = self.operations.releases, self.operations.promotion

    def add(self, version, lineage=None, *, model="digits", by="anna", parity=PARITY, size=1000, files=None, **more):
        """Register a version a minute after the last one, as if its bundle had been signed; return its bundle id."""
        self.now += 60
        contents = contents_of(version, size=size, parity=parity, **(files or {}))
        manifest = manifest_of(model, version, contents, lineage, **more)
        for data in [*contents.values(), manifest.to_bytes()]:
            self.blobs.put(canonical.digest(data), [data])
        row = ModelVersion(model, version, manifest.bundle_id, manifest, self.now)

        def job(db):
            tables.put_model(db, row)
            channels.note_version(db, row.bundle, by)

        self.store.write(job)
        return row.bundle

    def rules(self, text):
        """Write the rules file."""
        (self.folder / "rules.toml").write_text(text, encoding="utf-8")

    def read(self, function, *values):
        return self.store.read(lambda db: function(db, *values))

    def device(self, name, running="", wanted="", model="digits"):
        """Put a device into the fleet that runs one bundle and is wanted to run another."""
        slots = {model: ModelState(running, running, "", "", "1")} if running else {}
        reported = ReportedState(name, "b", 0, slots, {}, {}, {}, self.now)
        desired = DesiredState(1, {model: wanted} if wanted else {}, {})
        record = DeviceRecord(name, self.now, boot="b", session=1, reported=reported, desired=desired)
        self.store.write(lambda db: tables.put_device(db, record))
