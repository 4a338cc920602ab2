# SPDX-License-Identifier: Apache-2.0
"""Board, runtime, surroundings and scenario of a measurement in the words of ``edgebench/1``."""

import re

from benchmarks.plan import BenchPlan
from benchmarks.record import Measurement, Preflight, RuntimeFacts
from benchmarks.result.schema import Device, Env, Runtime, Scenario

__all__ = ["board_key", "device_of", "env_of", "runtime_of", "scenario_of"]


def board_key(preflight: Preflight) -> str:
    """Return a short name of a kind of board, for folders and for its noise floor.

    Example:
        >>> board_key(Preflight("Raspberry Pi 5 Model B Rev 1.0", arch="aarch64"))
        'raspberry-pi-5-model-b-rev-1-0-aarch64'
        >>> board_key(Preflight("Raspberry Pi 4 Model B Rev 1.4", arch="aarch64", bits=32))
        'raspberry-pi-4-model-b-rev-1-4-aarch64-32bit'
    """
    words = re.sub(r"\((r|tm)\)|\bprocessor\b|\bcpu\b", " ", preflight.board.lower())
    name = "-".join(re.findall(r"[a-z0-9]+", words))[:48].strip("-") or "board"
    narrow = "-32bit" if preflight.bits == 32 and "64" in preflight.arch else ""
    return f"{name}-{preflight.arch}{narrow}" if preflight.arch else name


def device_of(preflight: Preflight) -> Device:
    """Return the board."""
    return Device(
        key=board_key(preflight),
        board=preflight.board,
        soc=preflight.soc,
        arch=preflight.arch,
        bits=preflight.bits,
        ram_kb=preflight.ram_kb,
        os=preflight.os,
        kernel=preflight.kernel,
        accel=preflight.accelerators,
    )


def runtime_of(facts: RuntimeFacts) -> Runtime:
    """Return what ran the model."""
    return Runtime(
        facts.name, facts.version, facts.providers, facts.delegated, facts.threads, facts.affinity, dict(facts.flags)
    )


def env_of(measurement: Measurement) -> Env:
    """Return clock, temperature and throttling over all readings, and the company before the first launch."""
    before = measurement.preflight
    readings = [one for launch in measurement.launches for one in launch.readings]
    clocks = [clock for one in readings for clock in one.clock_khz]
    temperatures = [one.temp_c for one in readings if one.temp_c is not None]
    first = [before.temp_c] if before.temp_c is not None else temperatures[:1]
    bits = [one for one in (before.throttled, *(one.throttled for one in readings)) if one is not None]
    seen = 0
    for one in bits:
        seen |= one
    return Env(
        governor=before.governor,
        clock_khz={"min": min(clocks), "max": max(clocks)} if clocks else {},
        temp_c={"start": first[0], "max": max([*first, *temperatures])} if first else {},
        throttled=f"{seen:#x}" if bits else "",
        load1=before.load1,
        swap_kb=before.swap_kb,
        power_supply=before.power_supply,
        busy=tuple(f"{name} {100 * share:.0f} %" for name, share in before.busy),
    )


def scenario_of(plan: BenchPlan) -> Scenario:
    """Return what was asked."""
    return Scenario(
        name=plan.scenario,
        mode=plan.mode,
        profile=plan.profile,
        batch=plan.batch,
        input=plan.input,
        fps=plan.fps or None,
        deadline_ms=plan.deadline_ns / 1e6 or None,
    )
