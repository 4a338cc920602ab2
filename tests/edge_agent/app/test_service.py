# SPDX-License-Identifier: Apache-2.0
"""As a service: what systemd is told by a real process over a real datagram socket, and what the unit promises."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.adapters.notify import Notifier
from tests.support.agent_process import AgentProcess

UNIT = Path(__file__).resolve().parents[3] / "deploy/systemd/strop-agent.service"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(30.0)
        yield sock


def heard(manager: socket.socket, wanted: str) -> list[str]:
    """Return the messages up to the one that begins with a text."""
    found = [manager.recv(4096).decode()]
    while not found[-1].startswith(wanted):
        found.append(manager.recv(4096).decode())
    return found


def test_a_real_agent_is_ready_alive_and_says_good_bye(
    bench, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    agent: AgentProcess = bench.agent()
    assert heard(manager, "READY=1")[-1].startswith("READY=1\nSTATUS=")
    heard(manager, "WATCHDOG=1")
    heard(manager, "STATUS=offline: no way to 127.0.0.1")
    os.kill(agent.child.pid, signal.SIGSTOP)  # it lives, but the loop does not turn
    manager.settimeout(1.5)
    with pytest.raises(TimeoutError):
        for _ in range(1000):
            manager.recv(4096)
    os.kill(agent.child.pid, signal.SIGCONT)
    manager.settimeout(30.0)
    heard(manager, "WATCHDOG=1")
    agent.child.send_signal(signal.SIGTERM)
    heard(manager, "STOPPING=1")
    assert agent.child.wait(30) == 0


def test_signs_of_life_are_paced_and_another_process_s_watchdog_is_not_fed(manager: socket.socket) -> None:
    words = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "2000000"}
    ours = Notifier({**words, "WATCHDOG_PID": str(os.getpid())})
    for mono in (10.0, 10.5, 10.9, 11.0, 11.5, 12.1):
        ours.alive(mono)
    ours.status("online")
    ours.status("online")
    Notifier({**words, "WATCHDOG_PID": "1"}).alive(50.0)
    Notifier({"WATCHDOG_USEC": "2000000"}).alive(50.0)
    ours.stopping()
    assert heard(manager, "STOPPING") == [*["WATCHDOG=1"] * 3, "STATUS=online", "STOPPING=1"]


def test_nobody_listening_costs_the_message_only(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("x")
    name = f"@strop-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name[1:])
        Notifier({"NOTIFY_SOCKET": name}).ready("abstract")
        sock.settimeout(5.0)
        assert sock.recv(100) == b"READY=1\nSTATUS=abstract"


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


PROMISES = {
    "Type": "notify",
    "NotifyAccess": "main",
    "Restart": "always",
    "OOMPolicy": "continue",
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "PrivateTmp": "yes",
    "ProtectHome": "yes",
    "CapabilityBoundingSet": "",
    "ReadWritePaths": "/var/lib/strop",
    "ProcSubset": "all",
}


def test_the_unit_keeps_its_promises() -> None:
    found = unit()
    assert {key: found[key] for key in PROMISES} == {key: [value] for key, value in PROMISES.items()}
    assert int(found["WatchdogSec"][0]) > 0
    assert int(found["StartLimitBurst"][0]) * int(found["RestartSec"][0]) < int(found["StartLimitIntervalSec"][0])
    assert found["ExecStart"][0].endswith("-P -m edge_agent.launcher --data /var/lib/strop --quiet")


def test_the_unit_leaves_litert_its_look_at_the_processor() -> None:
    """Without /proc/cpuinfo or /sys/devices/system/cpu LiteRT silently runs without XNNPACK."""
    found = unit()
    for key in ("InaccessiblePaths", "TemporaryFileSystem", "RootDirectory", "RootImage", "BindReadOnlyPaths"):
        assert key not in found
    assert "MemoryDenyWriteExecute" not in found, "XNNPACK writes machine code"
    assert "PrivateDevices" not in found, "a camera is a device"
    assert found["ProtectKernelTunables"] == ["yes"], "makes /sys read-only, and leaves it readable"
