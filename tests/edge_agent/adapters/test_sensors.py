# SPDX-License-Identifier: Apache-2.0
"""Sensors: files as the kernels of a Raspberry Pi and of a PC write them, and those of this machine."""

from pathlib import Path

from edge_agent.adapters.sensors import Sensors

MEMINFO = "MemTotal:        3884356 kB\nMemFree:          123 kB\nMemAvailable:    2000000 kB\n"


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_raspberry_pi_tells_clock_and_throttling(tmp_path: Path) -> None:
    files = {
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "600000\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
        "proc/uptime": "350735.47 234388.90\n",
        "proc/meminfo": MEMINFO,
    }
    found = Sensors(lay(tmp_path, files)).read()
    assert found.pop("throttled") == 1 << 0 | 1 << 2 | 1 << 16 | 1 << 18, (
        "under-voltage and throttled, now and since boot"
    )
    assert found == {"cpu_mhz": 600, "board_uptime_s": 350735, "memory_free_mb": 2048}


def test_without_the_firmware_the_voltage_driver_speaks_and_nonsense_is_left_out(tmp_path: Path) -> None:
    files = {
        "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
        "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
        "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "17\n",
        "proc/uptime": "\n",
        "proc/meminfo": "MemTotal: 5 kB\n",
    }
    assert Sensors(lay(tmp_path, files)).read() == {"throttled": 1, "throttle_count": 17}
    assert Sensors(tmp_path / "nothing").read() == {}


def test_this_machine_is_the_same_as_its_own_files_say() -> None:
    found, uptime = Sensors().read(), float(Path("/proc/uptime").read_text().split()[0])
    assert abs(found["board_uptime_s"] - uptime) < 60
    assert 0 < found["memory_free_mb"] * 1e6 <= 1024 * int(Path("/proc/meminfo").read_text().split()[1])
