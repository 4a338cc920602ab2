# SPDX-License-Identifier: Apache-2.0
"""How long the pages of a large fleet take: a filled database behind the real application over loopback HTTP.

Run: ``python -m benchmarks.fleet.page --devices 10000``.
"""

import argparse
import asyncio
import contextlib
import json
import secrets
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn

from benchmarks.fleet.filled import fill, fill_rollout
from benchmarks.fleet.header import header
from fleet.adapters import credentials
from fleet.adapters.blobs import BlobStore
from fleet.adapters.desk import Addresses
from fleet.adapters.operations import Operations
from fleet.adapters.sqlite import SqliteStore
from fleet.web.operator import operator_app
from fleet.web.site import Site

__all__ = ["PAGES", "main", "measured"]

PAGES: Final = (
    "/",
    "/devices",
    "/devices?page=200",
    "/devices?sort=-drift",
    "/devices?q=cam-09",
    "/devices?q=board:rpi5+and+drift:ALARM",
    "/devices?q=not+online&sort=-seen",
    "/devices?q=model:vision%3D1.1.0&page=3",
    "/devices/cam-00001",
    "/drift",
    "/models",
    "/rollouts",
    "/rollouts/r1",
    "/rollouts/r1?wave=5&bucket=succeeded&page=7",
    "/alerts",
    "/audit",
)


@contextlib.contextmanager
def _served(folder: Path, devices: int) -> Iterator[str]:
    """Serve a filled fleet's pages on a free port; give the address."""
    credentials.init(folder, now=time.time())
    store = SqliteStore(folder / "fleet.db")
    fill(store, devices, time.time())
    fill_rollout(store, devices, time.time())
    addresses = Addresses("default", "localhost", 8883, "https://localhost:8443")
    operations = Operations(
        store,
        BlobStore(folder / "blobs"),
        credentials.open_trust(folder),
        addresses=addresses,
        clock=time.time,
        random_bytes=secrets.token_bytes,
        publish=lambda _message: None,
    )
    app = operator_app(operations, Site("0" * 64))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off"))
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as bound:  # as the server binds
        bound.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
            store.close()


def measured(folder: Path, devices: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return page → (milliseconds, milliseconds of CPU of client and server) of each round.

    The pages are asked for in turn; the first round, which warms up, is left out.
    """
    found: dict[str, list[tuple[float, float]]] = {page: [] for page in PAGES}
    with _served(folder, devices) as address, httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        for turn in range(rounds + 1):
            for page in PAGES:
                start, cpu = time.perf_counter(), time.process_time()
                client.get(page).raise_for_status()
                if turn:
                    found[page].append((1000 * (time.perf_counter() - start), 1000 * (time.process_time() - cpu)))
    return found


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


def _row(values: Sequence[tuple[float, float]]) -> dict[str, float]:
    wall, cpu = [one[0] for one in values], [one[1] for one in values]
    return {"p50_ms": statistics.median(wall), "p95_ms": _p95(wall), "cpu_ms": statistics.median(cpu)}


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    machine, command = header("benchmarks.fleet.page")
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), asked.devices, asked.rounds)
    found["all pages"] = [value for values in found.values() for value in values]
    table: dict[str, Any] = {page: _row(values) for page, values in found.items()}
    if asked.json:
        document = {"machine": machine, "command": command, "devices": asked.devices, "rounds": asked.rounds}
        print(json.dumps({**document, "pages": table}, indent=1))
        return
    print(f"{machine}\n{command}\n{asked.devices} devices, {asked.rounds} rounds")
    print(f"{'page':44} {'p50 ms':>8} {'p95 ms':>8} {'CPU ms':>8}")
    for page, row in table.items():
        print(f"{page:44} {row['p50_ms']:8.1f} {row['p95_ms']:8.1f} {row['cpu_ms']:8.1f}")


if __name__ == "__main__":
    main()
