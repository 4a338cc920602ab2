# SPDX-License-Identifier: Apache-2.0
"""RAPL and hwmon in trees of files, the Pi 5's rails from a program, a USB meter behind a terminal of its own."""

import json
import os
import pty
import struct
import threading
from pathlib import Path

import pytest
import typer.testing

from benchmarks.energy import found, open_sensor
from benchmarks.energy.pmic import OFFSET_W, SLOPE, Pmic, rails_w
from benchmarks.energy.sysfs import Hwmon, Rapl, hwmon_channels
from benchmarks.energy.um25c import RECORD_BYTES, Um25c, watts_of
from edge_contract.errors import MeasurementError

RAILS = """ 3V7_WL_SW_A current(0)=0.09466560A
   3V3_SYS_A current(1)=0.06050100A
  DDR_VDD2_A current(4)=0.02244600A
 VDD_CORE_A current(7)=1.53215000A
 3V7_WL_SW_V volt(8)=3.70000000V
   3V3_SYS_V volt(9)=3.31000000V
  DDR_VDD2_V volt(12)=1.10000000V
 VDD_CORE_V volt(15)=0.72000000V
   EXT5V_V volt(24)=5.15030000V
     BATT_V volt(25)=0.00000000V
"""
RAILS_W = 0.0946656 * 3.7 + 0.060501 * 3.31 + 0.022446 * 1.1 + 1.53215 * 0.72


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def rapl_tree(root: Path, *zones: tuple[str, str, int]) -> Path:
    files = {}
    for folder, name, microjoules in zones:
        base = f"sys/class/powercap/{folder}"
        files |= {
            f"{base}/name": name,
            f"{base}/energy_uj": f"{microjoules}\n",
            f"{base}/max_energy_range_uj": "1000000\n",
        }
    return tree(root, files)


def test_rapl_sums_packages_only_and_counts_their_wraps(tmp_path) -> None:
    zones = ("intel-rapl:0", "package-0", 900_000), ("intel-rapl:1", "package-1", 10)
    inner = ("intel-rapl:0:0", "core", 5), ("intel-rapl:2", "psys", 7)
    sensor = Rapl(rapl_tree(tmp_path, *zones, *inner))
    assert sensor.facts.name == "rapl package-0+package-1" and sensor.facts.domain == "package"
    assert sensor.read().joules == 0.0
    rapl_tree(tmp_path, ("intel-rapl:0", "package-0", 950_000), ("intel-rapl:1", "package-1", 110))
    assert sensor.read().joules == pytest.approx(0.0501)
    rapl_tree(tmp_path, ("intel-rapl:0", "package-0", 49_999))  # 1000001 - 950000 + 49999
    assert sensor.read().joules == pytest.approx(0.0501 + 0.1)


def test_rapl_that_is_not_there_or_shut(tmp_path) -> None:
    with pytest.raises(MeasurementError, match="no RAPL counters"):
        Rapl(tmp_path)
    rapl_tree(tmp_path, ("intel-rapl:0", "package-0", 1))
    path = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    path.write_text("many")
    with pytest.raises(MeasurementError, match="'many' is no number"):
        Rapl(tmp_path)
    if os.geteuid():
        path.chmod(0)
        with pytest.raises(MeasurementError, match="chmod a"):
            Rapl(tmp_path)
    path.unlink()
    with pytest.raises(OSError, match="energy_uj"):
        Rapl(tmp_path)


def test_hwmon_reads_power_or_multiplies(tmp_path) -> None:
    chips = {
        "sys/class/hwmon/hwmon0/name": "ina226\n",
        "sys/class/hwmon/hwmon0/power1_input": "3125000\n",
        "sys/class/hwmon/hwmon0/in1_input": "5100\n",
        "sys/class/hwmon/hwmon0/curr1_input": "612\n",
        "sys/class/hwmon/hwmon0/update_interval": "5\n",
        "sys/class/hwmon/hwmon1/name": "ina3221\n",
        "sys/class/hwmon/hwmon1/in1_input": "5000\n",
        "sys/class/hwmon/hwmon1/curr1_input": "400\n",
        "sys/class/hwmon/hwmon1/in2_input": "3300\n",
        "sys/class/hwmon/hwmon1/curr2_input": "100\n",
        "sys/class/hwmon/hwmon2/name": "cpu_thermal\n",
        "sys/class/hwmon/hwmon2/temp1_input": "45000\n",
    }
    tree(tmp_path, chips)
    assert [name for name, _ in hwmon_channels(tmp_path)] == ["ina226/power1", "ina3221/curr1", "ina3221/curr2"]
    sensor = Hwmon("ina226", tmp_path)
    assert (sensor.read().watts, sensor.facts.rate_hz) == (3.125, 200.0)
    assert Hwmon("ina3221/curr1", tmp_path).read().watts == 2.0
    with pytest.raises(MeasurementError, match=r"2 channels of power are called 'ina3221'; there are: ina226/power1"):
        Hwmon("ina3221", tmp_path)
    with pytest.raises(MeasurementError, match="3 channels of power"):
        Hwmon("", tmp_path)
    with open_sensor("hwmon:ina3221/curr2", root=tmp_path) as meter:
        assert meter.rate_hz == 10.0
    names = [spec for spec, _ in found(tmp_path)]
    assert names == ["hwmon:ina226/power1", "hwmon:ina3221/curr1", "hwmon:ina3221/curr2"]


def program(folder: Path, text: str) -> str:
    path = folder / "vcgencmd"
    path.write_text(f'#!/bin/sh\ntest "$1" = pmic_read_adc || exit 9\n{text}\n')
    path.chmod(0o755)
    return str(path)


def test_the_pi_5_is_estimated_and_the_result_says_so(tmp_path) -> None:
    assert rails_w(RAILS) == pytest.approx(RAILS_W, abs=1e-9)
    vcgencmd = program(tmp_path, f"cat <<'X'\n{RAILS}X")
    sensor = Pmic(vcgencmd)
    assert sensor.read().watts == pytest.approx(SLOPE * RAILS_W + OFFSET_W)
    assert sensor.facts.method == "pmic_est" and sensor.facts.accuracy.startswith("10 %")
    with open_sensor(f"pmic:{vcgencmd},slope=1.2,offset=0.4") as meter:
        assert meter.facts.accuracy == "this board's fit" and meter.facts.calibration == "1.2 x sum of rails + 0.4 W"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo 'Command not registered' >&2; exit 255", "exit status 255"),
        ("echo 'error=1 error_msg=\"Command not registered\"'", "no rail with a current"),
        ("echo 'VDD_CORE_A current(7)=2.0A'", "no voltage of VDD_CORE"),
    ],
)
def test_a_board_without_that_chip_is_told(tmp_path, text, words) -> None:
    with pytest.raises(MeasurementError, match=words):
        Pmic(program(tmp_path, text))


def test_no_vcgencmd(tmp_path) -> None:
    with pytest.raises(MeasurementError, match="no program"):
        Pmic(str(tmp_path / "vcgencmd"))


def record(volts: int, amperes: int, milliwatts: int, model: int = 0x09C9) -> bytes:
    return struct.pack(">HHHI", model, volts, amperes, milliwatts) + bytes(RECORD_BYTES - 10)


def test_records_of_the_three_meters() -> None:
    assert watts_of(record(5063, 6124, 3100))[1] == pytest.approx(3.1006, abs=1e-4)
    assert watts_of(record(506, 612, 3096, 0x0963)) == ("UM24C", pytest.approx(3.09672))
    for bad in (b"", record(5063, 6124, 3100)[:-1], record(5063, 6124, 3100, 0x1234), record(5063, 6124, 9100)):
        with pytest.raises(MeasurementError, match="um25c"):
            watts_of(bad)


def test_a_meter_behind_a_terminal(tmp_path) -> None:
    """The line is a pseudo terminal; a thread is the meter: 130 bytes, in two pieces, for each 0xF0."""
    ours, theirs = pty.openpty()
    answers = [record(5063, 6124, 3100), record(5000, 10000, 5000)]

    def meter() -> None:
        for answer in answers:
            assert os.read(ours, 1) == b"\xf0"
            os.write(ours, answer[:50])
            os.write(ours, answer[50:])

    thread = threading.Thread(target=meter)
    thread.start()
    sensor = Um25c(os.ttyname(theirs))
    assert sensor.facts.name.startswith("UM25C at /dev/pts/")
    assert sensor.read().watts == pytest.approx(5.0)
    thread.join()
    sensor.close()
    os.close(ours)
    os.close(theirs)
    plain = tmp_path / "rfcomm0"
    with pytest.raises(MeasurementError, match="rfcomm bind"):
        Um25c(str(plain))
    plain.touch()
    with pytest.raises(MeasurementError, match="no meter answers"):
        Um25c(str(plain))


def test_the_command_lists_and_watches(monkeypatch, tmp_path) -> None:
    from benchmarks.commands.energy_cmd import energy

    app = typer.Typer()
    app.command()(energy)
    runner = typer.testing.CliRunner()
    listed = runner.invoke(app, ["--json"])
    assert listed.exit_code == 0 and "sensors" in json.loads(listed.stdout)
    lying = tree(tmp_path, {"sys/class/hwmon/hwmon0/name": "psu", "sys/class/hwmon/hwmon0/power1_input": "3000000"})
    monkeypatch.setattr(
        "benchmarks.commands.energy_cmd.open_sensor", lambda spec, **k: open_sensor(spec, root=lying, **k)
    )
    watched = runner.invoke(app, ["--sensor", "hwmon:psu,rate=100", "--seconds", "0.5"])
    assert watched.exit_code == 1 and isinstance(watched.exception, MeasurementError)
    assert "times the same 3.0000 W" in str(watched.exception) and "Hz of 100 asked" in watched.stdout
