# SPDX-License-Identifier: Apache-2.0
"""``strop bench energy``: which power sensors are there, and whether one can be believed."""

import json
from typing import Annotated, Any

import typer

from benchmarks.energy import EnergyReading, check, found, open_sensor
from edge_contract.errors import MeasurementError, StropError

__all__ = ["energy"]


def energy(
    sensor: Annotated[
        str, typer.Option("--sensor", help="Such as ina226:bus=1,address=0x40,shunt=0.1; default: list what is there.")
    ] = "",
    seconds: Annotated[float, typer.Option(min=0.5, help="How long to watch.")] = 5.0,
    idle: Annotated[bool, typer.Option("--idle", help="The board is idle: print its power as such.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the power sensors of this machine, or watch one and say whether it can be believed.

    Exit code 1: the sensor of --sensor is not there, or is not believed.
    """
    if not sensor:
        rows = [_row(spec, words) for spec, words in found()]
        typer.echo(json.dumps({"sensors": rows}) if as_json else _table(rows))
        return
    with open_sensor(sensor, least_s=0.4) as meter:
        reading, rate = check(meter, seconds), meter.rate_hz
    if as_json:
        typer.echo(json.dumps({"reading": reading.to_json(), "asked_hz": rate}))
    else:
        typer.echo(_watched(reading, rate, "idle power" if idle else "mean power"))
    if reading.faults:
        raise MeasurementError(reading.faults[0], where=reading.sensor, fix="see docs/benchmarking-energy.md")


def _row(spec: str, words: str) -> dict[str, Any]:
    """Try what can be tried without knowing what is wired; a chip on a bus is not touched."""
    if spec.partition(":")[0] not in ("rapl", "hwmon", "pmic"):
        return {"sensor": spec, "what": words, "state": "not tried: name it with --sensor"}
    try:
        with open_sensor(spec, least_s=0.4) as meter:
            reading = check(meter, 1.0)
    except StropError as error:
        return {"sensor": spec, "what": words, "state": str(error)}
    state = reading.faults[0] if reading.faults else f"{reading.mean_w:.2f} W, {reading.rate_hz:.0f} Hz"
    return {"sensor": spec, "what": words, "state": state}


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "no power sensor was found: no RAPL, no hwmon channel of power, no I2C bus, no meter at /dev/rfcomm*"
    width = max(len(row["sensor"]) for row in rows)
    return "\n".join(f"{row['sensor']:<{width}}  {row['state']}  ({row['what']})" for row in rows)


def _watched(reading: EnergyReading, rate: float, title: str) -> str:
    lines = [f"{reading.sensor} ({reading.domain}), accuracy {reading.accuracy}, calibration: {reading.calibration}"]
    lines.append(f"{reading.samples} samples in {reading.seconds:.2f} s: {reading.rate_hz:.1f} Hz of {rate:g} asked")
    lines.append(f"missed slots: {reading.missed}")
    if reading.mean_w is not None:
        lines.append(f"{title}: {reading.mean_w:.4f} W")
    return "\n".join(lines)
