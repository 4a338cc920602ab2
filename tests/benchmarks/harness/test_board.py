# SPDX-License-Identifier: Apache-2.0
"""What is read of a board: made Raspberry Pis with known contents, and the machine that this runs on."""

import os
import platform
import stat
import subprocess
import sys
import time

import pytest

from benchmarks.harness import preflight
from benchmarks.harness.board import Board
from benchmarks.harness.governor import governed
from benchmarks.harness.preflight import busy, look
from tests.benchmarks.harness.boards import pi4, pi5, put


def nothing():
    """No pause."""


def test_a_pi_4_tells_what_its_kernel_knows(tmp_path):
    found = look(pi4(tmp_path), pause=nothing)
    assert (found.board, found.soc) == ("Raspberry Pi 4 Model B Rev 1.4", "bcm2711")
    assert (found.ram_kb, found.swap_kb, found.load1) == (3884396, 512, 0.12)
    assert (found.arch, found.kernel, found.os) == ("aarch64", "6.12.25+rpt-rpi-v8", "Debian GNU/Linux 12 (bookworm)")
    assert found.governor == "ondemand"
    assert found.clocks == {f"cpu{core}": (600000, 1800000, 1800000) for core in range(4)}
    assert (found.temp_c, found.throttled) == (45.277, 0x50000)
    assert found.accelerators == ({"kind": "edgetpu", "bus": "usb2", "speed_mbps": 480},)
    assert len(found.serial) == 12 and "abcdef01" not in found.serial


def test_a_pi_5_tells_its_power_supply_and_its_measured_clock(tmp_path):
    root = pi5(tmp_path, hz=1500345728, throttled="0xe0008")
    found, reading = look(root, pause=nothing), Board(root).read(power_mw=2.5)
    assert (found.board, found.soc, found.power_supply) == (
        "Raspberry Pi 5 Model B Rev 1.0",
        "bcm2712",
        "5000 mA agreed",
    )
    assert found.isolated == "3"
    assert found.accelerators == (
        {"kind": "hailo", "bus": "pcie"},
        {"kind": "edgetpu", "bus": "usb3", "speed_mbps": 5000},
    )
    # sysfs says 2.4 GHz, which was asked for; the firmware says what the core really has
    assert (reading.clock_khz, reading.throttled, reading.power_mw) == ((1500345,), 0xE0008, 2.5)
    assert reading.temp_c == 52.35


def test_a_program_that_fails_is_not_believed(tmp_path):
    root = pi5(tmp_path)
    (root / "usr/bin/vcgencmd").write_text("#!/bin/sh\necho VCHI initialization failed >&2\nexit 1\n")
    reading = Board(root).read()
    assert reading.throttled is None
    assert reading.clock_khz == (2400000,) * 4


def test_a_board_that_tells_nothing_is_no_error(tmp_path):
    found = look(tmp_path, pause=nothing)
    assert (found.governor, found.clocks, found.temp_c, found.throttled) == ("", {}, None, None)
    assert found.accelerators == ()
    assert Board(tmp_path).read().clock_khz == ()


@pytest.mark.parametrize("content", ["", "nonsense\n", "\xff\xfe"])
def test_a_sensor_that_answers_nonsense_is_none(tmp_path, content):
    root = put(tmp_path, {"sys/class/thermal/thermal_zone0/temp": content})
    assert Board(root).read().temp_c is None


def test_the_processor_zone_is_taken_and_not_the_first_one(tmp_path):
    zones = {0: ("acpitz", 20000), 1: ("x86_pkg_temp", 61000)}
    for number, (kind, milli) in zones.items():
        folder = f"sys/class/thermal/thermal_zone{number}"
        put(tmp_path, {f"{folder}/type": kind, f"{folder}/temp": str(milli)})
    assert Board(tmp_path).temperature() == 61.0


def test_this_machine(tmp_path):
    found = look(pause=nothing)
    assert (found.kernel, found.arch) == (os.uname().release, platform.machine())
    assert found.ram_kb > 100_000 and found.board
    assert found.cores == tuple(sorted(os.sched_getaffinity(0)))
    before = time.monotonic_ns()
    assert before <= Board().read().at_ns <= time.monotonic_ns()


def test_a_busy_neighbour_is_named_and_we_are_not():
    worker = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        for _ in range(20):  # a machine under load may give it too little of one pause
            found = busy(preflight.Path("/"), lambda: time.sleep(0.3))
            if any(name.startswith("python") and share > preflight.BUSY for name, share in found):
                return
        pytest.fail(f"not among {found}")
    finally:
        worker.kill()
        worker.wait()


def test_names_with_brackets_and_spaces(tmp_path):
    line = "77 (a) b (c) S 1 77 77 0 -1 0 0 0 0 0 {} 0 0 0 20 0 1 0"
    put(tmp_path, {"proc/77/stat": line.format(0)})

    def pause():
        put(tmp_path, {"proc/77/stat": line.format(100000)})

    ((name, share),) = busy(tmp_path, pause)
    assert name == "a) b (c"
    assert share > 1


def test_the_governor_is_set_and_put_back(tmp_path):
    root = pi4(tmp_path)
    files = sorted(root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"))
    with governed("performance", root) as unset:
        assert unset == ""
        assert {path.read_text() for path in files} == {"performance"}
        assert look(root, pause=nothing).governor == "performance"
    assert {path.read_text().strip() for path in files} == {"ondemand"}


def test_it_is_put_back_after_an_error(tmp_path):
    root = pi4(tmp_path)
    with pytest.raises(ZeroDivisionError), governed("performance", root):
        _ = 1 / 0
    assert look(root, pause=nothing).governor == "ondemand"


def test_a_governor_that_cannot_be_set_is_said(tmp_path, monkeypatch):
    root = pi4(tmp_path)

    def refuse(path, text):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("benchmarks.harness.governor.Path.write_text", refuse)
    with governed("performance", root) as unset:
        assert unset == "the governor could not be set to performance (Permission denied): it is ondemand"


def test_a_system_without_cpufreq_is_said_and_an_empty_wish_changes_nothing(tmp_path):
    with governed("performance", tmp_path) as unset:
        assert "has no cpufreq" in unset
    root = pi4(tmp_path / "pi")
    with governed("", root) as unset:
        assert unset == ""
        assert look(root, pause=nothing).governor == "ondemand"


def test_the_program_of_a_board_is_not_looked_for_on_this_machine(tmp_path):
    root = pi5(tmp_path)
    assert stat.S_IMODE((root / "usr/bin/vcgencmd").stat().st_mode) == 0o755
    (root / "usr/bin/vcgencmd").unlink()
    assert Board(root).read().throttled is None
