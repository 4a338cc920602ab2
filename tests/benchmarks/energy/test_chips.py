# SPDX-License-Identifier: Apache-2.0
"""The INA drivers against chips that behave as their data sheets say, and the data sheets' own numbers."""

import os

import pytest

from benchmarks.energy import ina219, ina226, ina228, open_sensor
from benchmarks.energy.bus import LinuxBus, buses
from benchmarks.energy.ina219 import Ina219
from benchmarks.energy.ina226 import Ina226
from benchmarks.energy.ina228 import Ina228
from edge_contract.errors import MeasurementError, UsageError
from tests.benchmarks.energy.chips import Chip219, Chip226, Chip228, Gone, kernel_of, signed


class Clock:
    """Nanoseconds that the test moves."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def test_the_simulated_chips_give_the_numbers_of_the_data_sheets() -> None:
    clock = Clock()
    # SBOS448, the 12 V, 10 A design with 2 milliohm: 20 mV are 2000 steps, current 10000, power 5990.
    chip = Chip219(11.98, 10.0, 0.002, clock)
    chip.write(ina219.CALIBRATION, (20480).to_bytes(2, "big"))
    assert [signed(chip, register) for register in (1, 4, 3)] == [2000, 10000, 5990]
    assert chip.registers[ina219.BUS] >> 3 == 2995
    # SBOS547, the same design: 8000, 9584, 10000 and 4792 (25 mW each).
    chip6 = Chip226(11.98, 10.0, 0.002, clock)
    chip6.write(ina226.CALIBRATION, (2560).to_bytes(2, "big"))
    assert [signed(chip6, register) for register in (1, 2, 4, 3)] == [8000, 9584, 10000, 4792]
    # SLYS021, 48 V and 6 A through 16.2 milliohm, SHUNT_CAL 4050: 311040, 245760, 6 A, 288 W, 288 J a second.
    chip8 = Chip228(48.0, 6.0, 0.0162, clock)
    chip8.write(ina228.SHUNT_CAL, (4050).to_bytes(2, "big"))
    chip8.convert()
    assert [chip8.registers[register] >> 4 for register in (4, 5)] == [311040, 245760]
    lsb = 4050 / (13107.2e6 * 0.0162)
    assert (chip8.registers[7] >> 4) * lsb == pytest.approx(6.0, rel=1e-6)
    assert chip8.registers[8] * 3.2 * lsb == pytest.approx(288.0, rel=1e-6)
    clock.now = 2_000_000_000
    chip8.convert()
    assert chip8.registers[9] * 16 * 3.2 * lsb == pytest.approx(576.0, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "chip", "setup", "rel"),
    [
        (Ina219, Chip219, ina219.Setup(shunt_ohm=0.1, max_a=2.0), 2e-3),
        (Ina219, Chip219, ina219.Setup(shunt_ohm=0.01, max_a=3.0, average=16), 1e-2),
        (Ina226, Chip226, ina226.Setup(shunt_ohm=0.02, max_a=4.0), 1e-3),
        (Ina226, Chip226, ina226.Setup(shunt_ohm=0.01, max_a=8.0, average=16, time_us=1100), 2e-3),
        (Ina228, Chip228, ina228.Setup(shunt_ohm=0.015, max_a=10.0), 1e-5),
        (Ina228, Chip228, ina228.Setup(shunt_ohm=0.01, max_a=4.0), 1e-5),
    ],
)
def test_power_is_read_as_it_is(kind, chip, setup, rel) -> None:
    for volts, amperes in ((5.1, 0.61), (5.0, 1.337), (4.9, 1.9)):
        wired = chip(volts, amperes, setup.shunt_ohm, Clock())
        sensor = kind(wired, setup, Clock())
        assert sensor.read().watts == pytest.approx(volts * amperes, rel=rel, abs=sensor.facts.lsb_w)


def test_configuration_registers_are_those_of_the_data_sheets() -> None:
    assert ina226.Setup(average=1, time_us=1100).configuration == 0x4127  # its value after a reset
    # 219: 32 V, 320 mV, 12 bits without averaging are 0x399F; 128 samples of both are codes 1111.
    assert ina219.Setup(average=128).configuration == 0x3FFF
    assert ina219.Setup(average=1).configuration & ~(0xF << 7 | 0xF << 3) == 0x399F & ~(0xF << 7 | 0xF << 3)
    # 228: mode 1011, 1052 µs are code 5, 64 averages are code 3.
    assert ina228.Setup(average=64, time_us=1052).adc == 0xB000 | 5 << 9 | 5 << 6 | 5 << 3 | 3


def test_a_current_backwards_is_negative_in_all_three() -> None:
    for kind, chip, shunt in ((Ina219, Chip219, 0.1), (Ina226, Chip226, 0.1), (Ina228, Chip228, 0.015)):
        assert kind(chip(5.0, -0.5, shunt, Clock()), clock=Clock()).read().watts == pytest.approx(-2.5, rel=1e-2)


@pytest.mark.parametrize(
    ("kind", "chip", "setup", "amperes"),
    [
        (Ina219, Chip219, ina219.Setup(0.1, 0.4), 1.0),
        (Ina226, Chip226, ina226.Setup(0.1, 0.4), 0.6),
        (Ina226, Chip226, ina226.Setup(0.1, 0.8), 3.0),
        (Ina228, Chip228, ina228.Setup(0.015, 2.0), 5.0),
    ],
)
def test_more_current_than_was_planned_is_no_number(kind, chip, setup, amperes) -> None:
    with pytest.raises(MeasurementError, match=r"overflow|full|end"):
        kind(chip(5.0, amperes, setup.shunt_ohm, Clock()), setup, Clock()).read()


def test_the_energy_accumulator_sums_a_curve_exactly_and_survives_its_wrap() -> None:
    class Nearly(Chip228):
        start_energy = (1 << 40) - 1000

    clock = Clock()
    chip = Nearly(5.0, lambda t: 0.5 + 0.4 * t, 0.015, clock)  # 5·(0.5·10 + 0.2·100) = 125 J in 10 s
    sensor = Ina228(chip, clock=clock)
    first = sensor.read().joules
    clock.now = 10_000_000_000
    second = sensor.read().joules
    assert chip.registers[9] < 1 << 30  # it has wrapped
    assert second - first == pytest.approx(125.0, rel=1e-5)


def test_another_chip_at_the_address_is_told() -> None:
    with pytest.raises(MeasurementError, match="no INA219: after a reset its configuration is 0x4127"):
        Ina219(Chip226(5, 1, 0.1, Clock()))
    with pytest.raises(MeasurementError, match="no INA226: manufacturer 0x0000"):
        wrong = Chip226(5, 1, 0.1, Clock())
        wrong.registers[0xFE] = 0
        Ina226(wrong)
    with pytest.raises(MeasurementError, match="no INA228: manufacturer 0x5449 and device 0x2380"):
        wrong8 = Chip228(5, 1, 0.1, Clock())
        wrong8.registers[0x3F] = 0x2380
        Ina228(wrong8)


@pytest.mark.parametrize("spec", ["ina219:shunt=1,max=1", "ina226:shunt=0.1,max=2", "ina228:shunt=1,max=1"])
def test_a_shunt_that_does_not_fit_is_refused_with_the_millivolts(spec) -> None:
    with pytest.raises(UsageError, match=r"through .* ohm is \d+.* mV"):
        open_sensor(spec, bus_of=lambda *_: Chip219(5, 1, 0.1, Clock()))


def test_the_linux_bus_speaks_the_kernels_structures(tmp_path) -> None:
    device = tmp_path / "i2c-1"
    device.touch()
    chip = Chip226(5.1, 0.4, 0.1, Clock())
    bus = LinuxBus(1, 0x40, ioctl=kernel_of({0x40: chip}), device=str(device))
    sensor = Ina226(bus)
    assert sensor.read().watts == pytest.approx(2.04, rel=2e-3)
    assert chip.registers[ina226.CALIBRATION] == sensor.setup.calibration
    chip.is_gone = True
    with pytest.raises(Gone):
        sensor.read()
    sensor.close()
    nobody = LinuxBus(1, 0x41, ioctl=kernel_of({0x40: chip}), device=str(device))
    with pytest.raises(OSError, match="Remote"):
        nobody.read(0, 2)
    nobody.close()


def test_a_bus_that_is_not_there_says_how_to_switch_it_on(tmp_path) -> None:
    with pytest.raises(MeasurementError, match="raspi-config"):
        LinuxBus(7, 0x40, device=str(tmp_path / "i2c-7"))
    if os.geteuid():
        shut = tmp_path / "i2c-8"
        shut.touch(mode=0)
        with pytest.raises(MeasurementError, match="usermod"):
            LinuxBus(8, 0x40, device=str(shut))
    (tmp_path / "dev").mkdir()
    for name in ("i2c-1", "i2c-20", "i2c-x"):
        (tmp_path / "dev" / name).touch()
    assert buses(tmp_path) == (1, 20)


def test_a_chip_that_is_refused_lets_go_of_its_bus() -> None:
    made: list[Chip226] = []

    def bus_of(number: int, address: int) -> Chip226:
        assert (number, address) == (3, 0x45)
        made.append(Chip226(5, 1, 0.1, Clock()))
        return made[-1]

    with pytest.raises(MeasurementError):
        open_sensor("ina219:bus=3,address=0x45", bus_of=bus_of)
    assert made[0].is_closed
    with open_sensor(
        "ina226:bus=3,address=0x45,shunt=0.02,max=3,average=16,time=1100,factor=1.01", bus_of=bus_of
    ) as meter:
        assert meter.facts.calibration.startswith("shunt 0.02 ohm") and meter.facts.calibration.endswith("factor 1.01")
        assert meter.rate_hz == pytest.approx(28.4, abs=0.1)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("ina226:busy=1", "unknown word 'busy'"),
        ("ina226:bus=one", "'one' is no number"),
        ("ina226:bus=1,bus=2", "twice"),
        ("ina226:address=0x20", "0x40 to 0x4f"),
        ("ina219:time=1100", "leave 'time' out"),
        ("ina219:average=3", "average of 3"),
        ("ina226:average=3", "average 3"),
        ("ina228:time=1", "time_us 1"),
        ("watts", "unknown power sensor"),
        ("rapl:rate=fast", "no number"),
    ],
)
def test_wrong_words_are_usage_errors(spec, words) -> None:
    with pytest.raises(UsageError, match=words):
        open_sensor(spec, bus_of=lambda *_: Chip226(5, 1, 0.1, Clock()))
