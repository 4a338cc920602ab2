# SPDX-License-Identifier: Apache-2.0
"""Turn a measurement into a result: figures of the raw samples, and what the validity gates say of them."""

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

from benchmarks.record import Launch, Measurement
from benchmarks.result import schema
from benchmarks.result.artifact import artifact_of
from benchmarks.result.figures import (
    cold_of,
    energy_of,
    latency_of,
    memory_of,
    sustained_of,
    throughput_of,
    variance_of,
)
from benchmarks.result.raw import Packed, pack, record_of, rounded
from benchmarks.result.schema import Quality, Reason, Result
from benchmarks.result.surroundings import device_of, env_of, runtime_of, scenario_of
from edge_contract.errors import ContractError, MeasurementError

__all__ = ["as_correctness", "build", "commit", "figures", "golden_of", "reasons_of", "status_of"]

_RANK: Final = {"valid": 0, "uncontrolled": 1, "invalid": 2}


def build(
    measurement: Measurement,
    quality: Quality | None,
    *,
    artifact: schema.Artifact | None = None,
    emulated: bool = False,
) -> Result:
    """Return the result of a measurement.

    Args:
        measurement: As the harness left it.
        quality: Of the same bytes; without it the result is not valid.
        artifact: Facts about the bytes; default: read from the plan's file and bundle.
        emulated: The machine is an emulator: only the answers count, and every time is left out.

    Raises:
        MeasurementError: No launch came to its end; or the quality is of other bytes.
    """
    if not measurement.launches:
        last = measurement.notes[-1] if measurement.notes else "no launch was made"
        raise MeasurementError(f"no launch came to its end: {last}", where=Path(measurement.plan.artefact).name)
    if quality is not None and quality.sha256 != measurement.plan.sha256:
        what = f"the quality is of {quality.sha256[:12]}, the times are of {measurement.plan.sha256[:12]}"
        raise MeasurementError(
            what, where=Path(measurement.plan.artefact).name, fix="measure the quality of these bytes"
        )
    packed = pack(measurement)
    found = figures(
        rounded(measurement, packed), quality, artifact or artifact_of(measurement.plan), _identity(measurement)
    )
    made = replace(found, raw=_raw(packed))
    return as_correctness(made) if emulated else made


def _raw(packed: Packed) -> schema.Raw:
    import hashlib

    return schema.Raw("samples.bin", hashlib.sha256(packed[0]).hexdigest(), packed[1])


def figures(measurement: Measurement, quality: Quality | None, artifact: schema.Artifact, identity: str) -> Result:
    """Return a result without raw samples: everything that follows from a measurement."""
    launches = measurement.launches
    reasons = reasons_of(measurement, quality)
    several = len(launches) > 1
    return Result(
        schema=schema.SCHEMA,
        id=identity,
        started=launches[0].started,
        status=status_of(reasons),
        reasons=reasons,
        artifact=artifact,
        device=device_of(measurement.preflight),
        runtime=runtime_of(launches[0].runtime),
        env=env_of(measurement),
        scenario=scenario_of(measurement.plan),
        counts=_counts(measurement),
        tool=schema.Tool(_version(), platform.python_version(), commit()),
        record=record_of(measurement),
        quality=quality,
        latency_us={stage: latency_of(launches, stage, measurement.plan.profile) for stage in _stages(launches)},
        throughput_ips=throughput_of(launches),
        cold=cold_of(launches),
        variance=variance_of(launches) if several else None,
        memory=memory_of(launches),
        timer_ns=max(one.timer_ns for one in launches),
        golden=golden_of(launches),
        energy=energy_of(measurement.energy),
        sustained=sustained_of(launches[0]) if measurement.plan.scenario == "sustained" else None,
    )


def _stages(launches: Sequence[Launch]) -> list[str]:
    return [stage for stage in launches[0].stages_ns if all(stage in one.stages_ns for one in launches)]


def _counts(measurement: Measurement) -> schema.Counts:
    launches = measurement.launches
    return schema.Counts(
        len(launches),
        sum(one.warmup for one in launches),
        sum(one.runs for one in launches),
        sum(one.steady for one in launches),
        sum(one.dropped for one in launches),
        sum(one.missed for one in launches),
        measurement.failed,
    )


def golden_of(launches: Sequence[Launch]) -> str:
    """Return ``differs`` if golden answers differed in one launch, ``same`` if they were checked in all of them."""
    seen = {one.golden for one in launches}
    return "differs" if "differs" in seen else "same" if seen == {"same"} else "none"


def reasons_of(measurement: Measurement, quality: Quality | None) -> tuple[Reason, ...]:
    """Return what the gates found, and what the answers say."""
    from benchmarks.gates import check

    found = [Reason(one.kind, one.status, one.words) for one in check(measurement)]
    known = {one.kind for one in found}
    if golden_of(measurement.launches) == "differs" and "golden" not in known:
        words = "the golden inputs gave other answers than the bundle says; build the bundle again for this runtime"
        found.append(Reason("golden", "invalid", words))
    if quality is None and "quality" not in known:
        words = (
            "nobody knows whether these bytes answer rightly; give labelled samples: --data samples.npz with x and y"
        )
        found.append(Reason("quality", "invalid", words))
    elif quality is not None and not quality.runtime_same_as_perf:
        how = "the bundle's word; its golden answers come out here within the bound, but not the same"
        found_in = how if quality.source == "bundle" else f"found in {quality.runtime or 'another runtime'}"
        words = f"the quality is {found_in}; give --data to measure it in this runtime"
        found.append(Reason("quality-runtime", "flag", words))
    return tuple(found)


def status_of(reasons: Sequence[Reason]) -> str:
    """Return the worst status; a flag leaves it as it is.

    Example:
        >>> status_of([Reason("bimodal", "flag", ""), Reason("governor", "uncontrolled", "")]), status_of([])
        ('uncontrolled', 'valid')
    """
    return max((one.status for one in reasons if one.status in _RANK), key=_RANK.__getitem__, default="valid")


def as_correctness(result: Result, board: str = "") -> Result:
    """Return what stays of a result that an emulator made: the answers, and no time, memory or fact about its host.

    Args:
        result: As it was built on the emulated machine.
        board: What is emulated, such as ``cortex-a72``: an emulator shows the host's own processor.

    Raises:
        ContractError: The golden answers were not checked, so nothing stays.
    """
    if result.golden == "none" and result.quality is None:
        raise ContractError("neither golden answers nor labels: nothing was checked", where="correctness")
    words = "an emulated machine: its answers are checked, its times mean nothing and are left out"
    kept = tuple(one for one in result.reasons if one.kind in ("golden", "quality"))
    status = "correctness" if result.golden != "differs" else "invalid"
    return replace(
        result,
        status=status,
        reasons=(Reason("emulated", "flag", words), *kept),
        device=replace(
            result.device,
            emulated=True,
            key=f"emulated-{board or result.device.arch or result.device.key}",
            board=f"emulated {board or result.device.arch}".strip(),
            ram_kb=0,
            kernel="",
        ),
        latency_us={},
        throughput_ips=None,
        cold=None,
        variance=None,
        memory={},
        timer_ns=0.0,
        energy=None,
        sustained=None,
        raw=None,
        env=schema.Env(),
        record=replace(result.record, launches=(), preflight={}),
    )


def _identity(measurement: Measurement) -> str:
    """A UUID of version 7 (RFC 9562): 48 bits of milliseconds, then chance; ids sort by time."""
    chance = int.from_bytes(os.urandom(10), "big")
    value = (time.time_ns() // 1_000_000) << 80 | chance
    value = value & ~(0xF << 76) & ~(0x3 << 62) | (7 << 76) | (2 << 62)
    digits = f"{value:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


@cache
def _version() -> str:
    try:
        return metadata.version("strop")
    except metadata.PackageNotFoundError:
        return "0"


@cache
def commit() -> str:
    """Return the commit of the check-out that this file lies in, twelve digits; empty where there is none."""
    git = Path(__file__).parents[2] / ".git"
    try:
        head = (git / "HEAD").read_text("ascii").strip()
        if not head.startswith("ref: "):
            return head[:12]
        name = head.removeprefix("ref: ")
        if (git / name).is_file():
            return (git / name).read_text("ascii")[:12]
        packed = (git / "packed-refs").read_text("ascii").splitlines()
        return next((line[:12] for line in packed if line.endswith(f" {name}")), "")
    except OSError:
        return ""
