# SPDX-License-Identifier: Apache-2.0
"""The soak's own parts, and a short one: seconds of what ``make soak`` does for half an hour."""

import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests.edge_agent.soak.__main__ import STEADY, VICTIM, soak, table
from tests.edge_agent.soak.cable import Cable
from tests.edge_agent.soak.clock import Clock, build
from tests.edge_agent.soak.faults import plan
from tests.edge_agent.soak.measure import Series, slope


def test_a_seed_gives_one_plan_and_another_seed_another() -> None:
    assert plan(5, 600, "a", "b") == plan(5, 600, "a", "b") != plan(6, 600, "a", "b")
    faults = plan(5, 3600, "a", "b")
    assert {fault.kind for fault in faults} == {"cut", "hole", "slow", "broker", "server", "agent", "runner", "clock"}
    assert {fault.board for fault in faults if fault.kind in ("agent", "runner")} == {"b"}
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)


def test_the_slope_is_that_of_a_line_whatever_a_third_of_the_points_say() -> None:
    line = [(float(t), 3.0 * t + 1) for t in range(60)]
    assert slope(line) == pytest.approx(3.0)
    wild = [(t, 1e6 if i % 4 == 0 else v) for i, (t, v) in enumerate(line)]
    assert slope(wild) == pytest.approx(3.0, abs=0.5)
    assert slope([]) == slope([(1.0, 5.0)]) == 0.0


@pytest.mark.parametrize(("kb_a_minute", "is_flat"), [(0.0, True), (40.0, True), (400.0, False)])
def test_a_leak_is_found_and_noise_is_none(kb_a_minute: float, is_flat: bool) -> None:
    points = [(t * 2.0, 30_000 + kb_a_minute * t * 2.0 / 60 + (t * 7919 % 13) * 50) for t in range(900)]
    found = Series(points).judge("rss_kb")
    assert found["is_flat"] is is_flat
    assert found["rise"] == pytest.approx(kb_a_minute * 24, abs=60)  # the last four fifths of half an hour


class Echo:
    """A server that says everything back."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(end,), daemon=True).start()

    @staticmethod
    def _serve(end: socket.socket) -> None:
        with end:
            while data := end.recv(100):
                end.sendall(data)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def is_over(end: socket.socket) -> bool:
    """A reset, or an end, as the kernel likes."""
    try:
        return end.recv(10) == b""
    except ConnectionError:
        return True


def test_a_cable_carries_delays_swallows_and_cuts() -> None:
    echo = Echo()
    cable = Cable(lambda: echo.address)
    with socket.create_connection(("127.0.0.1", cable.port), 10) as end:
        end.sendall(b"good")
        assert end.recv(10) == b"good"
        cable.be("slow", 0.2)
        started = time.monotonic()
        end.sendall(b"slow")
        assert end.recv(10) == b"slow"
        assert time.monotonic() - started >= 0.2
        cable.be("hole")
        end.settimeout(0.3)
        end.sendall(b"hole")
        with pytest.raises(TimeoutError):
            end.recv(10)
        cable.be("good")
        end.settimeout(10)
        assert end.recv(10) == b"hole", "TCP sends again what was lost on the way"
        cable.be("cut")
        assert is_over(end)
    with socket.create_connection(("127.0.0.1", cable.port), 10) as end:
        end.settimeout(10)
        assert is_over(end)
    cable.close()
    echo.close()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="apt-get install gcc")
def test_a_clock_jumps_for_the_processes_that_run_by_it_and_nothing_else_does(tmp_path) -> None:
    clock = Clock(tmp_path / "clock", build(tmp_path))
    clocks = "time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.gmtime().tm_year"
    program = f"import time; print({clocks})"

    def told() -> list[float]:
        words = [sys.executable, "-S", "-c", program]
        done = subprocess.run(words, env=clock.environment(), capture_output=True, text=True, check=True)
        return [float(word) for word in done.stdout.split()]

    assert told()[0] == pytest.approx(time.time(), abs=60)
    clock.jump(10 * 365 * 86400)
    wall, mono, boot, year = told()
    assert wall - time.time() == pytest.approx(10 * 365 * 86400, abs=60)
    assert year >= time.gmtime().tm_year + 9
    assert mono == pytest.approx(time.monotonic(), abs=60)
    assert boot == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=60)
    clock.jump(0)
    assert told()[0] == pytest.approx(time.time(), abs=60)


@pytest.mark.crash_long
@pytest.mark.broker
@pytest.mark.timeout(600)
def test_a_short_soak_loses_and_doubles_nothing(tmp_path) -> None:
    facts = soak(tmp_path, 8, seed=3, rate_hz=25)
    assert facts["violations"] == [], table(facts)
    assert set(facts["boards"]) == {STEADY, VICTIM}
    assert sum(facts["faults"].values()) >= 1
    assert all(counts["produced"] > 100 for counts in facts["boards"].values())
