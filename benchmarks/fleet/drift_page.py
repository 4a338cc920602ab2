# SPDX-License-Identifier: Apache-2.0
"""What the drift page costs with ten thousand devices: reading their windows, judging cohorts, memory, and the answers.

Run: ``python -m benchmarks.fleet.drift_page --devices 10000``. The devices run one registered bundle at twenty sites
on three boards; each has sent two windows of 200 answers, drawn from forty real ones; one in two hundred is dirty.
"""

import argparse
import asyncio
import json
import resource
import secrets
import socket
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import uvicorn
from numpy.typing import NDArray

from benchmarks.fleet.filled import fill
from benchmarks.fleet.header import header
from edge_agent.runner.observe import Observer
from edge_contract import canonical
from edge_contract.manifest import Artefact, BundleFile, Manifest, TensorSpec
from edge_contract.preprocess import Preprocess
from edge_contract.profile import ReferenceProfile
from edge_contract.summary import DriftSummary, short_hash
from edge_contract.verdict import DriftState, judge
from export.bundle.reference import build_profile
from fleet.adapters import credentials, tables
from fleet.adapters.blobs import BlobStore
from fleet.adapters.database import Connection
from fleet.adapters.desk import Addresses
from fleet.adapters.operations import Operations
from fleet.adapters.sqlite import SqliteStore
from fleet.core.registry import ModelVersion
from fleet.web.operator import operator_app
from fleet.web.site import Site

__all__ = ["PAGES", "main"]

PAGES: Final = (
    "/drift",
    "/drift?by=site",
    "/drift?by=board",
    "/drift/cohort?bundle={bundle}",
    "/drift/cohort?bundle={bundle}&by=site&value=site-7",
    "/devices/cam-00007",
    "/api/v1/drift/cohorts?by=site",
)
_DRAWN: Final = 40
_SITES: Final = 20
_ODD: Final = 200


@dataclass(frozen=True)
class _Answer:
    logits: NDArray[Any]
    embedding: NDArray[Any]


class _Net:
    """Ten prototypes; the logits are similarities."""

    labels = tuple(str(i) for i in range(10))

    def __init__(self) -> None:
        self.random = np.random.default_rng(3)
        self.prototypes = self.random.uniform(0, 255, (10, 196))
        self.projection = self.random.normal(0, 0.01, (12, 196))

    def infer(self, raw: NDArray[Any]) -> _Answer:
        flat = raw.astype(np.float64).reshape(-1)
        return _Answer(-((self.prototypes - flat) ** 2).mean(axis=1) / 420, self.projection @ flat)

    def draw(self, n: int, dirt: float = 0.0) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return n noisy images [n, 14, 14] and their classes."""
        truth = self.random.integers(0, 10, n)
        raw = self.prototypes[truth] * 0.3 * (1 - dirt) + 90 + self.random.normal(0, 92 * (1 - dirt), (n, 196))
        return raw.clip(0, 255).astype(np.uint8).reshape(n, 14, 14), truth


def _windows(net: _Net, profile: ReferenceProfile, dirt: float, count: int) -> list[DriftSummary]:
    found = []
    for number in range(count):
        observer = Observer(profile)
        for image in net.draw(200, dirt)[0]:
            answer = net.infer(image)
            observer.observe(answer.logits, answer.embedding, image, float(net.random.gamma(9, 45)))
        window = (number, int(1000 * (time.time() - 3600)), 3_600_000)
        found.append(DriftSummary("00" * 8, "00" * 16, profile.crc, "00" * 4, *window, observer.counters()))
    return found


def _register(store: SqliteStore, blobs: BlobStore, profile: ReferenceProfile) -> str:
    contents = {"golden.json": b"{}", "model.tflite": b"model", "profile.json": profile.to_bytes()}
    spec = TensorSpec("input", "input", (1, 14, 14, 1), "int8", "NHWC", 0.5, 0)
    logits = TensorSpec("logits", "logits", (1, 10), "int8", "NC", 0.5, 0)
    manifest = Manifest(
        model="vision",
        version="1.0.0",
        task="classification",
        preprocess=Preprocess.from_json({"resize": [14, 14], "scale": 0.25}),
        postprocess="softmax",
        labels=profile.labels,
        artefacts=(Artefact("model.tflite", "tflite", ("litert",), "rpi4", "int8", "", spec, (logits,)),),
        golden="golden.json",
        profiles={"model.tflite": "profile.json"},
        lineage={"accuracy": {"top1": profile.accuracy, "n": profile.size}, "parent": ""},
        files=tuple(BundleFile(n, len(d), canonical.digest(d)) for n, d in sorted(contents.items())),
    )
    for data in contents.values():
        blobs.put(canonical.digest(data), [data])
    made = ModelVersion("vision", "1.0.0", manifest.bundle_id, manifest, time.time())
    store.write(lambda db: tables.put_model(db, made))
    return manifest.bundle_id


def _fill(store: SqliteStore, blobs: BlobStore, devices: int) -> str:
    """Write devices with sites and two judged windows each; return the bundle."""
    net = _Net()
    images, truth = net.draw(1500)
    profile = build_profile(net, images, truth)
    bundle = _register(store, blobs, profile)
    fill(store, devices, time.time(), windows=0)
    drawn = {
        dirt: [(one, judge(profile, one, DriftState())[0]) for one in _windows(net, profile, dirt, count)]
        for dirt, count in ((0.0, _DRAWN), (0.25, 4))
    }

    def job(db: Connection) -> None:
        for number in range(devices):
            name, of = f"cam-{number:05d}", drawn[0.25 if number % _ODD == 7 else 0.0]
            db.execute("INSERT INTO device_labels VALUES (?,?,?)", (name, "site", f"site-{number % _SITES}"))
            for i in range(2):
                summary, verdict = of[(7 * number + i) % len(of)]
                data = replace(summary, device=short_hash(name, 8), bundle=bundle[:32]).encode()
                told = canonical.dumps(verdict.to_json())
                row = (name, bundle, time.time() - 3600 * i, verdict.level.value, data, told)
                statement = "INSERT INTO windows (device, bundle, time, level, summary, verdict) VALUES (?,?,?,?,?,?)"
                db.execute(statement, row)

    store.write(job)
    return bundle


def _caught_up(operations: Operations) -> dict[str, float]:
    """Let the book read and judge everything; return what that took."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    longest = 0.0
    operations.drift.is_driven = True
    while True:
        begun = time.process_time()
        taken = operations.drift.step()
        longest = max(longest, time.process_time() - begun)
        if not taken and not operations.drift.left and not operations.drift.waiting:
            break
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "catch_up_cpu_s": time.process_time() - start,
        "longest_step_cpu_s": longest,
        "grown_mb": (after - before) / 1024,
    }


def _asked(operations: Operations, bundle: str, rounds: int) -> dict[str, list[float]]:
    server = uvicorn.Server(
        uvicorn.Config(operator_app(operations, Site("0" * 64)), log_level="error", access_log=False, lifespan="off")
    )
    found: dict[str, list[float]] = {page: [] for page in PAGES}
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as bound:
        bound.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        with httpx.Client(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}", trust_env=False, timeout=60) as client:
            for turn in range(rounds + 1):
                for page in PAGES:
                    start = time.perf_counter()
                    client.get(page.format(bundle=bundle[:16])).raise_for_status()
                    if turn:
                        found[page].append(1000 * (time.perf_counter() - start))
        server.should_exit = True
        thread.join()
    return found


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        credentials.init(folder, now=time.time())
        store, blobs = SqliteStore(folder / "fleet.db"), BlobStore(folder / "blobs")
        bundle = _fill(store, blobs, asked.devices)
        addresses = Addresses("default", "localhost", 8883, "https://localhost:8443")
        operations = Operations(
            store, blobs, credentials.open_trust(folder), addresses=addresses, clock=time.time,
            random_bytes=secrets.token_bytes, publish=lambda _message: None,
        )  # fmt: skip
        book = _caught_up(operations)
        pages = _asked(operations, bundle, asked.rounds)
        odd = sum(len(one.odd) for one in operations.drift.cohorts())
        store.close()
    rows = {
        page: {"p50_ms": statistics.median(v), "p95_ms": statistics.quantiles(v, n=20, method="inclusive")[-1]}
        for page, v in pages.items()
    }
    if asked.json:
        print(json.dumps({"devices": asked.devices, "book": book, "odd": odd, "pages": rows}, indent=1))
        return
    print(*header("benchmarks.fleet.drift_page"), sep="\n")
    print(", ".join(f"{key} {value:.2f}" for key, value in book.items()) + f"; {odd} devices differ")
    print(f"{'page':54} {'p50 ms':>8} {'p95 ms':>8}")
    for page, row in rows.items():
        print(f"{page:54} {row['p50_ms']:8.1f} {row['p95_ms']:8.1f}")


if __name__ == "__main__":
    main()
