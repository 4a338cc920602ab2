# SPDX-License-Identifier: Apache-2.0
"""Raw samples as one file of 4-byte integers, and the measurement back from it: every figure can be computed again.

Columns stand one after the other: of each launch its stages, the starts of its runs, and its readings of the board.
Times are in the finest unit whose largest value fits; a result's figures are computed after this rounding.
"""

import hashlib
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks.plan import BenchPlan
from benchmarks.record import Launch, Measurement, Preflight
from benchmarks.result.schema import Column, Raw, Record
from edge_contract.errors import ContractError

__all__ = ["Packed", "measurement_of", "pack", "record_of", "rounded"]

NONE: Final = 0xFFFFFFFF
_UNITS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000}
_APART: Final = ("stages_ns", "starts_ns", "readings")
Packed = tuple[bytes, tuple[Column, ...]]


def pack(measurement: Measurement) -> Packed:
    """Return the bytes of the raw file and what stands in them.

    Raises:
        ContractError: A value that 4 bytes cannot hold, such as a run of seven weeks.
    """
    columns, data = [], array("I")
    for position, launch in enumerate(measurement.launches):
        for name, unit, values in _columns(launch):
            if values and not 0 <= min(values) <= max(values) <= NONE:
                raise ContractError(f"{max(values)} {unit} does not fit 4 bytes", where=f"launch {position}, {name}")
            columns.append(Column(name, unit, position, len(values)))
            data.extend(values)
    if sys.byteorder == "big":
        data.byteswap()
    return data.tobytes(), tuple(columns)


def _columns(launch: Launch) -> Iterator[tuple[str, str, list[int]]]:
    origin = _origin(launch)
    for stage, times in launch.stages_ns.items():
        yield stage, *_times(times)
    yield "start", *_times([at - origin for at in launch.starts_ns])
    if not launch.readings:
        return
    yield "reading.at", *_times([one.at_ns - origin for one in launch.readings])
    for core in range(max(len(one.clock_khz) for one in launch.readings)):
        clocks = [one.clock_khz[core] if core < len(one.clock_khz) else None for one in launch.readings]
        yield f"reading.clock{core}", "kHz", [NONE if value is None else value for value in clocks]
    for name, unit, scale in (
        ("temp_c", "mC", 1000),
        ("power_mw", "uW", 1000),
        ("throttled", "bits", 1),
        ("throttle_count", "count", 1),
    ):
        values = [getattr(one, name) for one in launch.readings]
        if any(value is not None for value in values):
            yield f"reading.{name}", unit, [NONE if value is None else round(scale * value) for value in values]


def _origin(launch: Launch) -> int:
    """The earliest time of a launch: the others are counted from it."""
    return min([*launch.starts_ns, *(one.at_ns for one in launch.readings)], default=0)


def _times(values: Sequence[int]) -> tuple[str, list[int]]:
    """Return unit and values in it; the finest that 4 bytes can hold."""
    largest = max(values, default=0)
    unit, size = next(((u, s) for u, s in _UNITS.items() if largest < s * NONE), ("ms", _UNITS["ms"]))
    return unit, [(value + size // 2) // size for value in values] if size > 1 else list(values)


def record_of(measurement: Measurement) -> Record:
    """Return what the figures come from besides the samples; of paths only the last part, which others can read too."""
    plan = measurement.plan.to_json()
    for name in ("artefact", "bundle", "data"):
        plan[name] = Path(plan[name]).name if plan[name] else ""
    launches = []
    for launch in measurement.launches:
        document = {key: value for key, value in launch.to_json().items() if key not in _APART}
        launches.append({**document, "origin_ns": _origin(launch)})
    board = measurement.preflight.to_json()
    return Record(plan, board, tuple(launches), measurement.notes, measurement.failed, measurement.energy)


def measurement_of(record: Record, raw: Raw, data: bytes, where: str) -> Measurement:
    """Return the measurement that a record and its raw samples hold.

    Raises:
        ContractError: The bytes are not those of the result, or too few or too many.
    """
    if (found := hashlib.sha256(data).hexdigest()) != raw.sha256:
        raise ContractError(f"SHA-256 {found[:12]}…, the result says {raw.sha256[:12]}…", where=where)
    values = array("I", data[: len(data) - len(data) % 4])
    if sys.byteorder == "big":
        values.byteswap()
    if sum(column.count for column in raw.columns) * 4 != len(data):
        raise ContractError(f"{len(data)} bytes, the columns need {4 * sum(c.count for c in raw.columns)}", where=where)
    launches, at = [dict[str, tuple[str, list[int]]]() for _ in record.launches], 0
    for column in raw.columns:
        if not 0 <= column.launch < len(launches):
            raise ContractError(f"column '{column.name}' is of launch {column.launch}, which is not there", where=where)
        launches[column.launch][column.name] = column.unit, list(values[at : at + column.count])
        at += column.count
    pairs = zip(record.launches, launches, strict=True)
    return Measurement(
        BenchPlan.from_json({**record.plan}, f"{where}: record.plan"),
        Preflight.from_json({**record.preflight}, f"{where}: record.preflight"),
        tuple(_launch(facts, own, f"{where}: record.launches[{i}]") for i, (facts, own) in enumerate(pairs)),
        record.notes,
        record.failed,
        record.energy,
    )


def _launch(document: Mapping[str, Any], columns: Mapping[str, tuple[str, list[int]]], where: str) -> Launch:
    origin = int(document.get("origin_ns", 0))
    times = {
        name: [_UNITS[unit] * value for value in values] for name, (unit, values) in columns.items() if unit in _UNITS
    }
    stages = {name: found for name, found in times.items() if not name.startswith(("start", "reading."))}
    readings = [_reading(columns, i, origin + at) for i, at in enumerate(times.get("reading.at", []))]
    whole = {key: value for key, value in document.items() if key != "origin_ns"}
    starts = [origin + at for at in times.get("start", [])]
    return Launch.from_json({**whole, "stages_ns": stages, "starts_ns": starts, "readings": readings}, where)


def _reading(columns: Mapping[str, tuple[str, list[int]]], number: int, at_ns: int) -> dict[str, Any]:
    found: dict[str, Any] = {"at_ns": at_ns, "clock_khz": []}
    for name, (unit, values) in columns.items():
        value = values[number] if name.startswith("reading.") and name != "reading.at" else NONE
        if value == NONE:
            continue
        if unit == "kHz":
            found["clock_khz"].append(value)
        else:
            found[name.removeprefix("reading.")] = value / 1000 if unit in ("mC", "uW") else value
    return found


def rounded(measurement: Measurement, packed: Packed) -> Measurement:
    """Return a measurement as it will be read back from its raw file, with its own plan."""
    data, columns = packed
    raw = Raw("", hashlib.sha256(data).hexdigest(), columns)
    return replace(measurement_of(record_of(measurement), raw, data, "samples"), plan=measurement.plan)
