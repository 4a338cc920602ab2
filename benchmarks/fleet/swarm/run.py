# SPDX-License-Identifier: Apache-2.0
"""``strop bench swarm``: thousands of devices, a rollout of five waves, a broker that dies; then the books.

What is checked at the end: the rollout has ended, every device's order is at an end, and each row that any device made
stands in the database once.
"""

import contextlib
import json
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from benchmarks.fleet.stage import Stage
from benchmarks.fleet.swarm.books import Books, balance
from benchmarks.fleet.swarm.device import TEMPERS, SimDevice
from benchmarks.fleet.swarm.links import Swarm, Where
from benchmarks.machine import describe
from fleet.adapters.broker import raise_file_limit

__all__ = ["Plan", "Result", "swarm", "to_json", "to_text"]

_ENDED: Final = ("COMPLETED", "ABORTED", "ROLLED_BACK")
_OVER: Final = ("PASSED", "FAILED")
_TERMINAL: Final = ("SUCCEEDED", "FAILED", "TIMED_OUT", "REJECTED", "CANCELED", "REMOVED", "SUPERSEDED")
_SHARES: Final = (("failing", 0.01), ("lying", 0.002), ("slow", 0.05))


@dataclass(frozen=True)
class Plan:
    """What is simulated.

    Attributes:
        devices: On the plain listener.
        secure: More devices, enrolled, over mTLS.
        moving: Share of the devices that go on and off.
        every_s: Pause between a device's batches.
        warm_s: Telemetry before the rollout.
        with_restart: Kill the broker after the rollout and watch all come back.
        look_s: Pause between two looks at the rollout.
        soak_s: Of each wave.
        pages: How often each page is asked for.
    """

    devices: int = 1000
    secure: int = 50
    moving: float = 0.2
    every_s: float = 60.0
    warm_s: float = 30.0
    timeout_s: float = 600.0
    with_restart: bool = True
    seed: int = 1
    look_s: float = 2.0
    soak_s: float = 1.0
    pages: int = 20

    def command(self) -> str:
        """Return the command that does this again."""
        words = f"strop bench swarm --devices {self.devices} --secure {self.secure} --moving {self.moving:g}"
        words += f" --every {self.every_s:g} --warm {self.warm_s:g} --timeout {self.timeout_s:g} --seed {self.seed}"
        return words if self.with_restart else f"{words} --no-restart"


@dataclass
class Result:
    """Everything that was seen; seconds and megabytes."""

    plan: Plan
    connected_s: float = 0.0
    rollout: str = ""
    rollout_s: float = 0.0
    waves_s: list[float] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)
    open_executions: int = 0
    server_mb: float = 0.0
    broker_mb: float = 0.0
    server_cpu_share: float = 0.0
    pages_ms: dict[str, float] = field(default_factory=dict)
    back_s: float = 0.0
    peak_connects: int = 0
    losses: int = 0
    failures: int = 0
    books: Books = field(default_factory=Books)
    machine: str = ""

    @property
    def is_good(self) -> bool:
        """All that must hold holds."""
        books = self.books
        return self.rollout == "COMPLETED" and not (self.open_executions or books.lost or books.doubled)


def _temper(i: int, plan: Plan) -> str:
    """Shares by number, so that every wave has some of each."""
    at, place = ((i + 0.5) * 0.6180339887) % 1.0, 0.0
    for name, share in (*_SHARES, ("coming and going", plan.moving)):
        place += share
        if at < place:
            return name
    return "good"


def _sims(names: list[str], plan: Plan) -> list[SimDevice]:
    return [SimDevice(n, TEMPERS[_temper(i, plan)], plan.every_s, seed=plan.seed) for i, n in enumerate(names)]


@contextlib.contextmanager
def _staged(
    plan: Plan, database: str, say: Callable[[str], None]
) -> Iterator[tuple[Stage, list[tuple[SimDevice, Where]]]]:
    with tempfile.TemporaryDirectory(prefix="strop-swarm-") as folder:
        stage = Stage(Path(folder), database)
        names = [f"dev{i:05}" for i in range(plan.devices)]
        stage.take_in(names)
        stage.start()
        try:
            secured = [f"tls{i:04}" for i in range(plan.secure)]
            folders = {name: stage.enrol(name) for name in secured}
            say(f"{len(names)} devices in the inventory, {len(secured)} enrolled over HTTPS")

            @cache
            def context(name: str) -> ssl.SSLContext:
                identity = folders[name] / "identity"
                made = ssl.create_default_context(cafile=str(identity / "ca.crt"))
                made.load_cert_chain(identity / "device.crt", identity / "device.key")
                return made

            broker = stage.endpoints["broker"]
            plain, secure = Where("127.0.0.1", stage.plain_port), Where(broker["host"], broker["port"], context)
            sims = [(one, plain) for one in _sims(names, plan)] + [(one, secure) for one in _sims(secured, plan)]
            yield stage, sims
        finally:
            stage.stop()


def swarm(plan: Plan, database: str = "", say: Callable[[str], None] = lambda _: None) -> Result:
    """Run the whole and return what was seen.

    Raises:
        StropError: The server did not start, or refused.
    """
    raise_file_limit()
    result = Result(plan, machine=str(describe()))
    with _staged(plan, database, say) as (stage, sims):
        old, new = stage.register("1.0.0"), stage.register("2.0.0")
        for device, _ in sims:
            device.running, device.version = old, "1.0.0"
        links = Swarm(sims, ramp_s=len(sims) / 500)
        links.start()
        try:
            _connect(links, sims, result, say)
            time.sleep(plan.warm_s)
            _roll_out(stage, links, new, result, say)
            result.pages_ms = _pages(stage, plan.pages)
            if plan.with_restart:
                _restart(stage, links, result, say)
            _settle(links, say)
        finally:
            links.stop()
        result.losses, result.failures = links.seen.losses, links.seen.failures
        result.books = balance(stage, [device for device, _ in sims])
    return result


def _connect(links: Swarm, sims: list[Any], result: Result, say: Callable[[str], None]) -> None:
    begun = time.monotonic()
    while links.online < 0.75 * len(sims) and time.monotonic() - begun < 300:
        time.sleep(0.2)
    result.connected_s = time.monotonic() - begun
    say(f"{links.online} of {len(sims)} online after {result.connected_s:.0f} s")


def _roll_out(stage: Stage, links: Swarm, bundle: str, result: Result, say: Callable[[str], None]) -> None:
    plan, begun, busy = result.plan, time.monotonic(), stage.cpu_s(stage.pid)
    waves: list[dict[str, Any]] = [{"percent": 1}, {"percent": 5}, {"percent": 20}, {"percent": 40}, {"rest": True}]
    document = {
        "model": "digits",
        "bundle": bundle,
        "waves": waves,
        "soak_s": plan.soak_s,
        "timeout_s": 120.0,
        "grace_s": 5.0,
        "max_failures": plan.devices + plan.secure,
    }
    name = stage.client.call("POST", "/rollouts", document)["id"]
    while True:
        time.sleep(plan.look_s)
        found = stage.waves(name)
        over = sum(wave["state"] in _OVER for wave in found["waves"])
        result.waves_s += [time.monotonic() - begun] * (over - len(result.waves_s))
        result.server_mb = max(result.server_mb, stage.rss_mb(stage.pid))
        result.broker_mb = max(result.broker_mb, stage.rss_mb(stage.broker_pid()))
        states = " ".join(wave["state"] for wave in found["waves"])
        say(f"{found['state']}: {states}; {links.online} online, {result.server_mb:.0f} MB")
        if found["state"] in _ENDED or time.monotonic() - begun > plan.timeout_s:
            break
    result.rollout, result.rollout_s = found["state"], time.monotonic() - begun
    ends = Counter(e["status"] for e in stage.rollout(name)["executions"])
    result.ends = dict(ends)
    result.open_executions = sum(count for status, count in ends.items() if status not in _TERMINAL)
    result.server_cpu_share = (stage.cpu_s(stage.pid) - busy) / result.rollout_s


def _pages(stage: Stage, count: int) -> dict[str, float]:
    """Return the p95 of a few pages' answers, in milliseconds."""
    import httpx

    found = {}
    for path in ("/", "/devices", "/healthz"):
        times = []
        for _ in range(count):
            begun = time.perf_counter()
            answer = httpx.get(stage.endpoints["http"] + path, timeout=60, trust_env=False, follow_redirects=True)
            times.append(1000 * (time.perf_counter() - begun))
        if answer.is_success:
            found[path] = sorted(times)[(19 * count) // 20 - (count >= 20)]
    return found


def _restart(stage: Stage, links: Swarm, result: Result, say: Callable[[str], None]) -> None:
    """Kill the broker and watch the reconnects: how many in the worst second, and until all are back."""
    wanted, before, begun = links.online, len(links.seen.connects), time.monotonic()
    stage.kill_broker()
    while links.online > wanted // 2 and time.monotonic() - begun < 60:
        time.sleep(0.05)
    while links.online < 0.95 * wanted and time.monotonic() - begun < 600:
        time.sleep(0.2)
    result.back_s = time.monotonic() - begun
    seconds = Counter(int(at) for at in links.seen.connects[before:])
    result.peak_connects = max(seconds.values(), default=0)
    say(f"the broker was killed: {links.online} of {wanted} back after {result.back_s:.0f} s")


def _settle(links: Swarm, say: Callable[[str], None], patience_s: float = 180.0) -> None:
    """Let everything that was made arrive and be acknowledged."""
    links.settle()
    deadline = time.monotonic() + patience_s
    while (left := links.unacknowledged) and time.monotonic() < deadline:
        time.sleep(0.5)
    say(f"{left} rows without an acknowledgement")


def to_text(result: Result) -> str:
    """Return the table for people."""
    plan, books = result.plan, result.books
    total = plan.devices + plan.secure
    ends = ", ".join(f"{count} {status}" for status, count in sorted(result.ends.items()))
    pages = ", ".join(f"{path} {ms:.0f} ms" for path, ms in result.pages_ms.items())
    lines = [
        ("devices", f"{plan.devices} plain, {plan.secure} over mTLS, {plan.moving:.0%} coming and going"),
        ("telemetry", f"a batch every {plan.every_s:g} s each"),
        ("connected", f"three quarters after {result.connected_s:.0f} s"),
        ("rollout", f"{result.rollout} after {result.rollout_s:.0f} s: {ends}; {result.open_executions} still open"),
        ("waves", "ended after " + ", ".join(f"{at:.0f} s" for at in result.waves_s)),
        ("rows", f"{books.made} made, {books.stored} stored, {books.lost} lost, {books.doubled} doubled"),
        ("server", f"{result.server_mb:.0f} MB at most, {result.server_cpu_share:.0%} of a core during the rollout"),
        ("broker", f"{result.broker_mb:.0f} MB at most"),
        ("pages", f"p95 of {plan.pages}: {pages}"),
    ]
    if plan.with_restart:
        lines.append(
            (
                "broker killed",
                f"95 % of {total} back after {result.back_s:.0f} s, at most {result.peak_connects} connects a second",
            )
        )
    lines.append(("connections", f"{result.losses} lost, {result.failures} refused or failed"))
    verdict = "held" if result.is_good else "MISSED"
    lines.append(("verdict", f"{verdict}: the rollout ended, no order is open, no row is lost or doubled"))
    lines += [("command", plan.command()), ("machine", result.machine or str(describe()))]
    return "\n".join(f"{name:14} {words}" for name, words in lines)


def to_json(result: Result) -> str:
    """Return the figures for machines."""
    return json.dumps({**asdict(result), "held": result.is_good, "command": result.plan.command()}, indent=1)
