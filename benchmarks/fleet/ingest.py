# SPDX-License-Identifier: Apache-2.0
"""Ingest measured in turns: a bare paho subscriber, then real workers on each database, from the same publishers.

::

    python -m benchmarks.fleet.ingest --turns 5 --count 6000
    python -m benchmarks.fleet.ingest --json

One batch is 1 KB on the wire, one metric row of another device each time. A rate is batches by the time from the
first publish to the last message (bare) or to the last ``tm/ack`` at the publisher (workers). Broker, publishers and
subscriber speak TLS as in a fleet. Each turn runs all ways one after the other; quoted is the median of the turns'
ratios to bare. Then the publishers keep half of each way's rate, and the times from publish to ack are taken.
"""

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.fleet import postgres
from benchmarks.machine import describe
from edge_contract.enrolment import SERVER_NAME
from edge_contract.messages import DesiredState
from fleet.adapters import ca, credentials, tables
from fleet.adapters.broker import BrokerFiles, Mosquitto
from fleet.adapters.database import Connection
from fleet.adapters.stores import open_store
from fleet.core.inventory import DeviceRecord

__all__ = ["Bench", "Way", "main", "measure", "table"]

TENANT: Final = "default"
HOST: Final = "127.0.0.1"
PUBLISHERS: Final = 1
_START: Final = "from strop.cli import main; main()"


@dataclass(frozen=True)
class Way:
    """One way of taking batches: bare, or so many workers on a database."""

    name: str
    database: str = ""
    workers: int = 0


class Bench:
    """A broker with the server's own settings, a data folder, and enrolled devices.

    Args:
        folder: Scratch.
        devices: How many devices speak; each sends as many batches as it takes.
    """

    def __init__(self, folder: Path, devices: int) -> None:
        self.data, self.devices, self._turn = folder / "data", devices, 0
        credentials.init(self.data, now=time.time())
        certificate, key = ca.issue_server(self.data / "ca", HOST, now=time.time())
        ca.issue_client(self.data / "ca", now=time.time())
        files = BrokerFiles((self.data / "ca" / "ca.crt").resolve(), certificate.resolve(), key.resolve())
        self.broker = Mosquitto(self.data / "broker", TENANT, HOST, 0, files=files)
        self.broker.start()

    def close(self) -> None:
        """Stop the broker."""
        self.broker.stop()

    def enrol(self, database: str) -> None:
        """Put the devices into a database."""
        store = open_store(self.data, database)
        names = [f"p{p}-{i}" for p in range(PUBLISHERS) for i in range(self.devices // PUBLISHERS)]
        records = [DeviceRecord(name, 1.0, desired=DesiredState(0, {}, {})) for name in names]

        def job(db: Connection) -> None:
            for record in records:
                tables.put_device(db, record)

        store.write(job)
        store.close()

    def rate(self, way: Way, count: int, seq: int) -> float:
        """Return batches a second."""
        with self._receiver(way, count) as receiver, self._publishers(count, seq, acks=way.workers > 0) as publishers:
            found = _go(publishers)
            ended: float = max(one["ended"] for one in found)
            began: float = min(one["began"] for one in found)
            if receiver is not None:
                told = _line(receiver)
                ended = told["ended"] if told["count"] == count else float("inf")
            elif sum(len(one["waits"]) for one in found) < count:
                raise RuntimeError(f"{way.name}: not every batch was acknowledged")
        return count / (ended - began)

    def waits(self, way: Way, count: int, seq: int, rate: float) -> list[float]:
        """Return the seconds from publish to ack at a rate."""
        with self._receiver(way, count), self._publishers(count, seq, acks=True, rate=rate) as publishers:
            return sorted(wait for one in _go(publishers) for wait in one["waits"])

    def _settings(self) -> dict[str, Any]:
        folder = self.data / "ca"
        pair = {"certificate": str(folder / f"{SERVER_NAME}.crt"), "key": str(folder / f"{SERVER_NAME}.key")}
        return {"ca": str(folder / "ca.crt"), "host": HOST, "port": self.broker.port, "tenant": TENANT, **pair}

    @contextlib.contextmanager
    def _receiver(self, way: Way, count: int) -> Iterator[subprocess.Popen[str] | None]:
        if not way.workers:
            with _process(["-m", "benchmarks.fleet.subscriber"], {**self._settings(), "count": count}) as process:
                yield process
            return
        words = ["fleet", "worker", "--data", str(self.data), "--broker", f"{HOST}:{self.broker.port}"]
        words += ["--database", way.database] if way.database else []
        with contextlib.ExitStack() as stack:
            for _ in range(way.workers):
                stack.enter_context(_process(["-c", _START, *words], None))
            yield None

    @contextlib.contextmanager
    def _publishers(
        self, count: int, seq: int, *, acks: bool, rate: float = 0.0
    ) -> Iterator[list[subprocess.Popen[str]]]:
        share, every = count // PUBLISHERS, self.devices // PUBLISHERS
        with contextlib.ExitStack() as stack:
            made = []
            for p in range(PUBLISHERS):
                more = {"name": f"publisher-{p}", "devices": f"p{p}", "every": every, "first": 0, "count": share}
                settings = {**self._settings(), **more, "seq": seq, "acks": acks, "rate": rate / PUBLISHERS}
                made.append(stack.enter_context(_process(["-m", "benchmarks.fleet.publisher"], settings)))
            yield made


@contextlib.contextmanager
def _process(words: list[str], settings: dict[str, Any] | None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if settings is not None:
            process.stdin.write(json.dumps(settings) + "\n")
            process.stdin.flush()
        while "ready" not in (line := process.stdout.readline()):
            if not line:
                raise RuntimeError(f"{words} ended at its start")
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _go(publishers: list[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    for process in publishers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [_line(process) for process in publishers]


def _line(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def measure(bench: Bench, ways: list[Way], turns: int, count: int) -> dict[str, Any]:
    """Return rates of all turns, ratios to bare, and times to the ack at half of each rate."""
    rates: dict[str, list[float]] = {way.name: [] for way in ways}
    per_turn = -(-count // bench.devices)
    for turn in range(turns):
        for way in ways:
            rates[way.name].append(bench.rate(way, count, 1 + turn * per_turn))
    bare, found, seq = rates[ways[0].name], {}, 1 + turns * per_turn
    for way in ways:
        ratios = [mine / its for mine, its in zip(rates[way.name], bare, strict=True)]
        found[way.name] = {"rates": rates[way.name], "ratio": median(ratios)}
        if way.workers:
            waits = bench.waits(way, count, seq, median(rates[way.name]) / 2)
            at = [waits[min(len(waits) - 1, int(len(waits) * q))] * 1000 for q in (0.5, 0.99)]
            found[way.name] |= {"p50_ms": at[0], "p99_ms": at[1], "acked": len(waits)}
    return found


def table(found: dict[str, Any]) -> str:
    """Return the answer for people."""
    lines = ["way                    batches/s   of bare   p50 ms   p99 ms (publish to ack at half the rate)"]
    for name, one in found.items():
        waits = f"{one['p50_ms']:8.1f} {one['p99_ms']:8.1f}" if "p50_ms" in one else ""
        lines.append(f"{name:20s} {median(one['rates']):11.0f} {100 * one['ratio']:8.1f} % {waits}".rstrip())
    return "\n".join(lines)


def main() -> None:
    """Run the measurement by the command line."""
    parser = argparse.ArgumentParser(description="ingest against a bare subscriber")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--count", type=int, default=6000, help="batches in each run")
    parser.add_argument("--devices", type=int, default=2000)
    parser.add_argument("--only", default="", help="sqlite or postgres")
    parser.add_argument("--workers", type=int, default=2, help="most workers")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    command, machine = " ".join(["python -m benchmarks.fleet.ingest", *sys.argv[1:]]), str(describe())
    folder = Path(tempfile.mkdtemp(prefix="strop-ingest-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback((bench := Bench(folder, options.devices)).close)
        found = measure(bench, _ways(stack, bench, options), options.turns, options.count)
    if options.json:
        print(json.dumps({"machine": machine, "command": command, "ways": found}))
        return
    print(f"{machine}\n{command}\n{table(found)}")


def _ways(stack: contextlib.ExitStack, bench: Bench, options: argparse.Namespace) -> list[Way]:
    databases = {"sqlite": ""}
    if options.only != "sqlite" and postgres.find("initdb"):
        server = postgres.Postgres(fsync=True)
        stack.callback(server.close)
        databases["postgres"] = server.url()
    ways = [Way("bare paho subscriber")]
    for name, url in databases.items():
        if options.only in {"", name}:
            bench.enrol(url)
            ways += [Way(f"{name}, {n} worker{'s' * (n > 1)}", url, n) for n in range(1, options.workers + 1)]
    return ways


if __name__ == "__main__":
    main()
