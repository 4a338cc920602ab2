# SPDX-License-Identifier: Apache-2.0
"""Folders that look like ``/proc`` and ``/sys`` of a Raspberry Pi, with what its kernel and firmware write there."""

from pathlib import Path
from typing import Final

__all__ = ["VCGENCMD", "pi4", "pi5", "put"]

VCGENCMD: Final = """#!/bin/sh
case "$1" in
  measure_clock) echo "frequency(0)={hz}" ;;
  measure_temp) echo "temp={temp}'C" ;;
  get_throttled) echo "throttled={throttled}" ;;
  *) exit 255 ;;
esac
"""


def put(root: Path, files: dict[str, str | bytes]) -> Path:
    """Write files below a root."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def _cores(count: int, least: int, most: int, now: int, governor: str) -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {}
    for core in range(count):
        folder = f"sys/devices/system/cpu/cpu{core}/cpufreq"
        files |= {f"{folder}/scaling_governor": f"{governor}\n", f"{folder}/scaling_cur_freq": f"{now}\n"}
        files |= {f"{folder}/scaling_min_freq": f"{least}\n", f"{folder}/scaling_max_freq": f"{most}\n"}
    return files


def pi4(root: Path, *, governor: str = "ondemand", milli: int = 45277) -> Path:
    """Make a Raspberry Pi 4 whose kernel tells the firmware's bits, with a Coral stick on USB 2."""
    return put(
        root,
        {
            "proc/device-tree/model": b"Raspberry Pi 4 Model B Rev 1.4\0",
            "proc/device-tree/compatible": b"raspberrypi,4-model-b\0brcm,bcm2711\0",
            "proc/device-tree/serial-number": b"10000000abcdef01\0",
            "proc/meminfo": "MemTotal:        3884396 kB\nSwapTotal:        102396 kB\nSwapFree:         101884 kB\n",
            "proc/loadavg": "0.12 0.10 0.09 1/181 2034\n",
            "proc/sys/kernel/osrelease": "6.12.25+rpt-rpi-v8\n",
            "proc/sys/kernel/arch": "aarch64\n",
            "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": f"{milli}\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
            "sys/devices/system/cpu/isolated": "\n",
            "sys/bus/usb/devices/1-1.3/idVendor": "18d1\n",
            "sys/bus/usb/devices/1-1.3/idProduct": "9302\n",
            "sys/bus/usb/devices/1-1.3/speed": "480\n",
            **_cores(4, 600000, 1800000, 1800000, governor),
        },
    )


def pi5(root: Path, *, hz: int = 2400024064, throttled: str = "0x0") -> Path:
    """Make a Raspberry Pi 5 that tells clock and bits by vcgencmd only, with a Coral stick on USB 3 and a Hailo."""
    put(
        root,
        {
            "proc/device-tree/model": b"Raspberry Pi 5 Model B Rev 1.0\0",
            "proc/device-tree/compatible": b"raspberrypi,5-model-b\0brcm,bcm2712\0",
            "proc/device-tree/chosen/power/max_current": (5000).to_bytes(4, "big"),
            "proc/meminfo": "MemTotal:        8256000 kB\nSwapTotal:        204784 kB\nSwapFree:         204784 kB\n",
            "proc/loadavg": "0.00 0.01 0.00 1/201 911\n",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "52350\n",
            "sys/bus/usb/devices/2-1/idVendor": "1a6e\n",
            "sys/bus/usb/devices/2-1/idProduct": "089a\n",
            "sys/bus/usb/devices/2-1/speed": "5000\n",
            "dev/hailo0": b"",
            "sys/devices/system/cpu/isolated": "3\n",
            "usr/bin/vcgencmd": VCGENCMD.format(hz=hz, temp="52.3", throttled=throttled),
            **_cores(4, 1500000, 2400000, 2400000, "performance"),
        },
    )
    (root / "usr/bin/vcgencmd").chmod(0o755)
    return root
