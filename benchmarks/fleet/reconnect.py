# SPDX-License-Identifier: Apache-2.0
"""A broker that dies under a whole fleet: how many connect in the worst second, and when all are back.

::

    python -m benchmarks.fleet.reconnect --devices 5000 --times 3
    python -m benchmarks.fleet.reconnect --json

Server, broker and connections are real; devices are simulated and wait as the agent does (``reconnect_pause``). Each
time the broker is killed after every connection has stood for more than a minute, which is when the design spreads the
fleet over ``SPREAD_S``; the server starts the broker again. All have to be back within the spread, or, where the broker
was away for long, within the longest pause after a failed attempt.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.fleet.header import header
from benchmarks.fleet.stage import Stage
from benchmarks.fleet.swarm.device import TEMPERS, SimDevice
from benchmarks.fleet.swarm.links import Seen, Swarm, Where
from edge_agent.adapters.mqtt import SPREAD_S, STABLE_S, full_jitter
from fleet.adapters.broker import raise_file_limit

__all__ = ["Storm", "design_s", "main", "measured", "table"]

_SLACK_S: Final = 2.0
"""For the handshakes of the last ones."""
_PATIENCE_S: Final = 300.0


@dataclass(frozen=True)
class Storm:
    """One death of the broker; seconds from the kill.

    Attributes:
        away_s: When the first connection stood again.
        most_s, all_s: When 95 % and all were back.
        design_s: When the design has all of them back.
        connects, attempts: In the worst second.
        tried: Attempts of all devices together.
        late_s: How late the simulation made its latest attempt: time that is its own, and not the server's.
    """

    devices: int
    away_s: float
    most_s: float
    all_s: float
    design_s: float
    connects: int
    attempts: int
    tried: int
    late_s: float

    @property
    def is_good(self) -> bool:
        """All came back in the design's time, as far as the simulation itself was not late."""
        return self.all_s <= self.design_s + self.late_s


def design_s(away_s: float, tries: int) -> float:
    """Return until when all are back.

    A device tries once within the spread. Who tries while there is no broker waits again, each time up to twice as
    long; the last such pause begins before the broker is there.

    Args:
        away_s: Seconds without a broker.
        tries: Most attempts in a row that failed for any device.

    Example:
        >>> design_s(1.0, 1), design_s(9.0, 3)
        (12.0, 15.0)
    """
    again = away_s + full_jitter(tries - 1, 1.0) if tries else 0.0
    return max(SPREAD_S, again) + _SLACK_S


def _storm(stage: Stage, links: Swarm, devices: int) -> Storm:
    """Kill the broker and watch all come back.

    Raises:
        TimeoutError: They did not within five minutes.
    """
    links.seen = Seen()
    begun = time.time()
    stage.kill_broker()
    marks: dict[str, float] = {}
    while links.online > devices // 2 and time.time() - begun < _SLACK_S:
        time.sleep(0.01)
    while "all" not in marks:
        now, online = time.time() - begun, links.online
        if links.seen.connects:
            marks.setdefault("away", links.seen.connects[0] - begun)
        if online >= 0.95 * devices:
            marks.setdefault("most", now)
        if online >= devices:
            marks["all"] = now
        if now > _PATIENCE_S:
            raise TimeoutError(f"{online} of {devices} devices are back after {now:.0f} s")
        time.sleep(0.05)
    seen = links.seen
    return Storm(
        devices,
        marks["away"],
        marks["most"],
        marks["all"],
        design_s(marks["away"], seen.tries),
        _worst(seen.connects),
        _worst(seen.attempts),
        len(seen.attempts),
        seen.late_s,
    )


def _worst(times: Sequence[float]) -> int:
    return max(Counter(int(at) for at in times).values(), default=0)


def measured(devices: int, times: int, *, stable_s: float = STABLE_S + 5.0) -> list[Storm]:
    """Return what each death of the broker was like.

    Args:
        devices: On the plain listener.
        times: How often the broker is killed.
        stable_s: How long all are connected before each.
    """
    raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="strop-reconnect-") as folder:
        stage = Stage(Path(folder))
        names = [f"dev{i:05}" for i in range(devices)]
        stage.take_in(names)
        stage.start()
        where = Where("127.0.0.1", stage.plain_port)
        links = Swarm([(SimDevice(n, TEMPERS["good"], 60.0), where) for n in names], ramp_s=max(1.0, devices / 500))
        links.start()
        try:
            return [_one(stage, links, devices, stable_s) for _ in range(times)]
        finally:
            links.stop()
            stage.stop()


def _one(stage: Stage, links: Swarm, devices: int, stable_s: float) -> Storm:
    deadline = time.monotonic() + _PATIENCE_S
    while links.online < devices:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{links.online} of {devices} devices are connected")
        time.sleep(0.2)
    time.sleep(stable_s)
    return _storm(stage, links, devices)


def table(found: Sequence[Storm]) -> str:
    """Return the answer for people: each time, and the medians."""
    head = (
        f"{'':8}{'away s':>8}{'95 % s':>8}{'all s':>8}{'design s':>10}{'connects/s':>12}{'attempts/s':>12}{'tried':>8}"
    )
    lines = [f"{found[0].devices} devices, the broker killed {len(found)} times", f"{head}{'late s':>8}"]
    for number, one in enumerate(found, 1):
        lines.append(_row(str(number), asdict(one)))
    middle = {name: median(asdict(one)[name] for one in found) for name in asdict(found[0])}
    lines.append(_row("median", middle))
    even = found[0].devices / SPREAD_S
    held = all(one.is_good for one in found)
    worst = max(one.connects for one in found)
    lines.append(f"worst second: {worst} connections, {worst / even:.1f} times an even spread over {SPREAD_S:.0f} s")
    lines.append(f"{'held' if held else 'MISSED'}: all were back within the design's time")
    return "\n".join(lines)


def _row(name: str, one: dict[str, Any]) -> str:
    words = f"{name:8}{one['away_s']:8.1f}{one['most_s']:8.1f}{one['all_s']:8.1f}{one['design_s']:10.1f}"
    return f"{words}{one['connects']:12.0f}{one['attempts']:12.0f}{one['tried']:8.0f}{one['late_s']:8.1f}"


def main(words: Sequence[str] | None = None) -> int:
    """Print machine, command and table, or JSON; 0 if the design held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--devices", type=int, default=5000)
    parser.add_argument("--times", type=int, default=3, help="how often the broker is killed")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(words)
    machine, command = header("benchmarks.fleet.reconnect", words)
    found = measured(asked.devices, asked.times)
    is_good = all(one.is_good for one in found)
    if asked.json:
        document = {"machine": machine, "command": command, "held": is_good, "storms": [asdict(one) for one in found]}
        print(json.dumps(document, indent=1))
    else:
        print(f"{machine}\n{command}\n{table(found)}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
