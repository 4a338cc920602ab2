# SPDX-License-Identifier: Apache-2.0
"""Ingest measured in turns: a bare paho subscriber, then real workers on each database, from the same publishers.

::

    python -m benchmarks.fleet.ingest --turns 5 --count 6000
    python -m benchmarks.fleet.ingest --json

One batch is 1 KB on the wire, one metric row of another device each time. A rate is batches by the time from the
first publish to the last message (bare) or to the last ``tm/ack`` at the publisher (workers). Broker, publishers and
subscriber speak TLS as in a fleet. Each turn runs all ways one after the other; quoted is the median of the turns'
ratios to bare with its 95 % interval. In each turn the publishers then keep half of each way's rate (its median so far)
for a while, and the times from publish to ack are taken: quoted are the medians of the turns' quantiles. CPU is what
receiver and broker took for a batch, which other work on the machine changes less than it changes rates.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.fleet import postgres
from benchmarks.fleet.header import header
from benchmarks.quantiles import median_interval
from edge_contract.enrolment import SERVER_NAME
from edge_contract.messages import DesiredState
from fleet.adapters import ca, credentials, tables
from fleet.adapters.broker import BrokerFiles, Mosquitto
from fleet.adapters.database import Connection
from fleet.adapters.stores import open_store
from fleet.core.inventory import DeviceRecord

__all__ = ["Bench", "Run", "Seen", "Way", "main", "measure", "table"]

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


@dataclass(frozen=True)
class Run:
    """One run: batches a second, and microseconds of processor for a batch in receiver and broker."""

    rate: float
    receiver_us: float
    broker_us: float


@dataclass
class Seen:
    """All runs of one way, and of each run at half the rate the median and the 99th percentile in ms."""

    runs: list[Run] = field(default_factory=list)
    waits: list[tuple[float, float]] = field(default_factory=list)
    acked: int = 0

    @property
    def rate(self) -> float:
        """Median of the runs' rates."""
        return median(run.rate for run in self.runs)

    def to_json(self, bare: "Seen") -> dict[str, Any]:
        """Return the figures; the ratio is of each run to the bare one of its turn."""
        pairs = zip(self.runs, bare.runs, strict=True)
        found: dict[str, Any] = {
            "rates": [run.rate for run in self.runs],
            "rate": self.rate,
            "ratio": median_interval([mine.rate / its.rate for mine, its in pairs]).to_json("median"),
            "receiver_us": median(run.receiver_us for run in self.runs),
            "broker_us": median(run.broker_us for run in self.runs),
        }
        if self.waits:
            p50, p99 = zip(*self.waits, strict=True)
            found |= {"p50_ms": median(p50), "p99_ms": median(p99), "worst_p99_ms": max(p99), "acked": self.acked}
        return found


def _cpu_s(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


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

    def rate(self, way: Way, count: int, seq: int) -> Run:
        """Return one run's figures."""
        with self._receiver(way, count) as receiver, self._publishers(count, seq, acks=way.workers > 0) as publishers:
            theirs, brokers = [one.pid for one in receiver], [self.broker.pid]
            before = _cpu_s(theirs), _cpu_s(brokers)
            found = _go(publishers)
            ended: float = max(one["ended"] for one in found)
            began: float = min(one["began"] for one in found)
            if not way.workers:
                told = _line(receiver[0])
                ended = told["ended"] if told["count"] == count else float("inf")
            elif sum(len(one["waits"]) for one in found) < count:
                raise RuntimeError(f"{way.name}: not every batch was acknowledged")
            spent = _cpu_s(theirs) - before[0], _cpu_s(brokers) - before[1]
        return Run(count / (ended - began), 1e6 * spent[0] / count, 1e6 * spent[1] / count)

    def waits(self, way: Way, count: int, seq: int, rate: float) -> list[float]:
        """Return the seconds from publish to ack at a rate."""
        with self._receiver(way, count), self._publishers(count, seq, acks=True, rate=rate) as publishers:
            return sorted(wait for one in _go(publishers) for wait in one["waits"])

    def _settings(self) -> dict[str, Any]:
        folder = self.data / "ca"
        pair = {"certificate": str(folder / f"{SERVER_NAME}.crt"), "key": str(folder / f"{SERVER_NAME}.key")}
        return {"ca": str(folder / "ca.crt"), "host": HOST, "port": self.broker.port, "tenant": TENANT, **pair}

    @contextlib.contextmanager
    def _receiver(self, way: Way, count: int) -> Iterator[list[subprocess.Popen[str]]]:
        if not way.workers:
            with _process(["-m", "benchmarks.fleet.subscriber"], {**self._settings(), "count": count}) as process:
                yield [process]
            return
        words = ["fleet", "worker", "--data", str(self.data), "--broker", f"{HOST}:{self.broker.port}"]
        words += ["--database", way.database] if way.database else []
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(_process(["-c", _START, *words], None)) for _ in range(way.workers)]

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
    """Return what ``Seen.to_json`` says of each way."""
    seen, seq = {way.name: Seen() for way in ways}, 1
    per_run = -(-count // bench.devices)
    for _ in range(turns):
        for way in ways:
            one = seen[way.name]
            one.runs.append(bench.rate(way, count, seq))
            seq += per_run  # every run has rows of its own: rows that are there already cost less
            if way.workers:
                waits = bench.waits(way, count, seq, one.rate / 2)
                one.waits.append((_quantile_ms(waits, 0.5), _quantile_ms(waits, 0.99)))
                one.acked += len(waits)
                seq += per_run
    return {name: one.to_json(seen[ways[0].name]) for name, one in seen.items()}


def _quantile_ms(ordered: list[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))] * 1000


def table(found: dict[str, Any]) -> str:
    """Return the answer for people."""
    lines = [
        "                                  of bare                CPU µs a batch    publish to ack at half the rate",
        "way                    batches/s  median [95 %]      receiver  broker    p50 ms   p99 ms  worst p99  acks",
    ]
    for name, one in found.items():
        ratio = one["ratio"]
        words = f"{100 * ratio['median']:5.1f} % [{100 * ratio['low']:.0f}, {100 * ratio['high']:.0f}]"
        cpu = f"{one['receiver_us']:8.0f} {one['broker_us']:7.0f}"
        waits = (
            "p50_ms" in one and f"{one['p50_ms']:8.1f} {one['p99_ms']:8.1f} {one['worst_p99_ms']:10.1f} {one['acked']}"
        )
        lines.append(f"{name:20s} {one['rate']:11.0f}  {words:19s} {cpu}  {waits or ''}".rstrip())
    turns = len(next(iter(found.values()))["rates"])
    lines.append(f"medians of {turns} turns; the interval holds the median with {100 * ratio['coverage']:.0f} %")
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
    machine, command = header("benchmarks.fleet.ingest")
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
