# SPDX-License-Identifier: Apache-2.0
"""The words of ``edgebench/1``: what one configuration on one board was found to be. Standard library only.

Each section is a frozen dataclass; what a field means stands in its annotation, and the tables of docs/edgebench.md are
written from there. A section keeps the keys that it does not know in ``more``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

__all__ = [
    "SCHEMA",
    "STATUS",
    "Artifact",
    "Cold",
    "Column",
    "Counts",
    "Device",
    "Energy",
    "Env",
    "Latency",
    "Prediction",
    "Quality",
    "Raw",
    "Reason",
    "Record",
    "Result",
    "Runtime",
    "Scenario",
    "Sustained",
    "Tool",
    "Variance",
]

SCHEMA: Final = "edgebench/1"
STATUS: Final = ("valid", "uncontrolled", "invalid", "correctness")


@dataclass(frozen=True)
class Reason:
    """Why the status is not ``valid``, or what a reader must know of a valid one (``flag``)."""

    kind: Annotated[str, "One word, such as `throttled`, `trend`, `quality`, `governor`."]
    status: Annotated[str, "`invalid`, `uncontrolled`, or `flag`, which leaves the status as it is."]
    words: Annotated[str, "A sentence with the values, and what to do."]


@dataclass(frozen=True)
class Artifact:
    """The bytes that were timed."""

    sha256: Annotated[str, "Of the model file. Two results with different ones are never compared as the same model."]
    format: Annotated[str, "`tflite` or `onnx`."]
    bytes: Annotated[int, "Size of the file."]
    name: Annotated[str, "For people: `mobilenet-v2-int8`."] = ""
    bundle: Annotated[str, "Bundle id, if it lay in a bundle."] = ""
    precision: Annotated[str, "`int8`, `float32` or `mixed`: of the input of a file, or of its bundle's words."] = ""
    params: Annotated[int | None, "Parameters, where the bundle tells them."] = None
    macs: Annotated[int | None, "Multiply-accumulates of one inference, where the bundle tells them."] = None
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Quality:
    """How good the answers of exactly these bytes are."""

    metric: Annotated[str, "`top1`, `mae`, or what the bundle calls it."]
    value: Annotated[float, "A share in 0 .. 1 for `top1`; in the unit of the answer for `mae`."]
    n: Annotated[int, "Labelled samples."]
    ci95: Annotated[tuple[float, float], "Wilson's interval for shares; of a mean, ± 1.96 standard errors."]
    runtime_same_as_perf: Annotated[
        bool, "The same runtime answered and was timed; of a bundle's word: its golden integers came out here."
    ]
    source: Annotated[str, "`samples`: measured by this program; `bundle`: said by the bundle of exactly these bytes."]
    sha256: Annotated[str, "The artefact that answered; a result refuses a quality of another one."]
    data: Annotated[str, "SHA-256 of the labelled samples' file."] = ""
    runtime: Annotated[str, "Runtime and version that answered."] = ""
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Device:
    """The board."""

    key: Annotated[str, "Board key: names the folder in benchmarks/results and the noise floor of the board."]
    board: Annotated[str, "As the board calls itself."]
    soc: Annotated[str, "Chip."] = ""
    arch: Annotated[str, "As `uname -m` says."] = ""
    bits: Annotated[int, "32 or 64, of the process."] = 64
    ram_kb: Annotated[int, "Memory."] = 0
    os: Annotated[str, "Operating system."] = ""
    kernel: Annotated[str, "Kernel release."] = ""
    accel: Annotated[tuple[Mapping[str, Any], ...], "Accelerators: `kind`, `bus`, `speed_mbps`."] = ()
    emulated: Annotated[bool, "An emulator ran it: answers are checked, times mean nothing and are left out."] = False
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Runtime:
    """What executed the model."""

    name: Annotated[str, "`litert`, `onnxruntime` or `tflite-runtime`."]
    version: Annotated[str, "Its version."]
    provider: Annotated[tuple[str, ...], "Execution providers or delegates that were really used."] = ()
    delegated_ops: Annotated[float, "Share of the operators that a delegate took, 0 .. 1."] = 0.0
    threads: Annotated[int, "Threads of the runtime."] = 1
    affinity: Annotated[tuple[int, ...], "Cores that the process was bound to; empty: all."] = ()
    flags: Annotated[Mapping[str, Any], "Session options that were set."] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Env:
    """The surroundings, from the look before the first launch to the last one."""

    governor: Annotated[str, "Of the frequency; empty where the machine has none to read."] = ""
    clock_khz: Annotated[Mapping[str, int], "`min` and `max` over all cores and readings; empty: not readable."] = (
        field(default_factory=dict)
    )
    temp_c: Annotated[Mapping[str, float], "`start` and `max`; empty: no sensor."] = field(default_factory=dict)
    throttled: Annotated[
        str, "Bits of get_throttled that were seen, all together, in hexadecimal; empty: not a Pi."
    ] = ""
    load1: Annotated[float, "Load average of the minute before."] = 0.0
    swap_kb: Annotated[int, "Swap in use before."] = 0
    power_supply: Annotated[str, "What is known of it."] = ""
    busy: Annotated[tuple[str, ...], "Other processes above 5 % of a core, before."] = ()
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Scenario:
    """What was asked of the model."""

    name: Annotated[
        str,
        "`single` (one after the other), `paced` (a camera's rhythm), `offline` (batches) or `sustained`.",
    ]
    mode: Annotated[str, "`bare`: the model alone; `realistic`: with everything the agent does around it."] = "bare"
    profile: Annotated[str, "`default`, `quick` or `mlperf-tiny-like` (which is not an MLPerf result)."] = "default"
    batch: Annotated[int, "Samples per inference."] = 1
    input: Annotated[str, "`real` or `random` samples."] = "real"
    fps: Annotated[float | None, "Of `paced`."] = None
    deadline_ms: Annotated[float | None, "After which an answer is late."] = None
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Counts:
    """How much was measured."""

    launches: Annotated[int, "Processes, each with its own cold start."]
    warmup: Annotated[int, "Runs before the measured ones, all launches together."]
    measured: Annotated[int, "Timed runs that are kept, all launches together."]
    steady: Annotated[int, "Launches whose warm-up reached a steady state before its limit."] = 0
    dropped: Annotated[int, "Frames that were never begun, as the one before still ran (`paced`)."] = 0
    deadline_miss: Annotated[int, "Answers after the deadline."] = 0
    failed: Annotated[int, "Launches that failed and are not in the figures; the notes say why."] = 0
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Latency:
    """One stage, microseconds. A bound that the number of runs cannot support is absent."""

    n: Annotated[int, "Runs."]
    min: Annotated[float, "Shortest."]
    p50: Annotated[float, "Median."]
    p50_ci95: Annotated[
        tuple[float, float] | None, "95 % interval of the median over launches and runs; absent with one launch."
    ] = None
    p90: Annotated[float | None, "90 % of the runs took at most this."] = None
    p90_ub99: Annotated[float | None, "The true p90 is at most this, with 99 % confidence; from 44 runs on."] = None
    p99: Annotated[float | None, "99 % of the runs took at most this."] = None
    p99_ub99: Annotated[float | None, "The true p99 is at most this, with 99 % confidence; from 459 runs on."] = None
    max: Annotated[float, "Longest."] = 0.0
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Cold:
    """From nothing to the first answer, milliseconds, medians over launches."""

    process_ms: Annotated[float, "The interpreter, up to the first line of ours."]
    import_ms: Annotated[float, "numpy and the runtime."]
    load_ms: Annotated[float, "The model file."]
    first_infer_ms: Annotated[float, "The first inference."]
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Variance:
    """Where the spread of `total` comes from."""

    between_launch: Annotated[float, "Relative standard deviation of the launches' medians."]
    within: Annotated[float, "Relative spread of the runs inside a launch."]
    acf1: Annotated[float, "Correlation of a run with the one before it; near 0: independent."]
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Energy:
    """Energy per inference, millijoules; docs/benchmarking-energy.md says how."""

    method: Annotated[str, "Sensor, such as `ina226`, `rapl`, `pmic_est`."]
    gross_mj: Annotated[float | None, "Of all that was drawn while it ran; absent: refused, see `faults`."] = None
    net_mj: Annotated[float | None, "Above idle."] = None
    idle_w: Annotated[float | None, "Power of the idle board."] = None
    rate_hz: Annotated[float | None, "Readings per second."] = None
    faults: Annotated[tuple[str, ...], "Why no energy is told."] = ()
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Sustained:
    """Minutes at full load."""

    minute1_ips: Annotated[float, "Inferences per second in the first whole minute."]
    last_minute_ips: Annotated[float, "In the last whole minute."]
    minutes: Annotated[tuple[float, ...], "In every whole minute."]
    t_first_throttle_s: Annotated[float | None, "When a throttling bit was first seen; absent: never."] = None
    temp_end_c: Annotated[float | None, "Median temperature of the last minute."] = None
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Prediction:
    """What a predictor of the board said before it was measured; never a result."""

    p50_us: Annotated[float, "Predicted median of `invoke`."]
    low_us: Annotated[float | None, "Lower end of its interval."] = None
    high_us: Annotated[float | None, "Upper end."] = None
    coverage: Annotated[float | None, "Nominal coverage of the interval."] = None
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Column:
    """One column of the raw file."""

    name: Annotated[str, "A stage, `start`, or `reading.…`."]
    unit: Annotated[str, "`ns`, `us`, `ms`, `mC` (thousandths of a degree), `kHz`, `uW` or `bits`."]
    launch: Annotated[int, "Launch that it belongs to, by position in `record.launches`."]
    count: Annotated[int, "Values."]


@dataclass(frozen=True)
class Raw:
    """The raw samples beside this file: every run of every stage and launch, and every reading of the board."""

    file: Annotated[str, "Its name."]
    sha256: Annotated[str, "Of its bytes."]
    columns: Annotated[tuple[Column, ...], "What stands in it, one column after the other."]
    dtype: Annotated[str, "Little-endian, 4 bytes; 4294967295 stands for: no value."] = "u32"
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Record:
    """What the figures were computed from, besides the samples."""

    plan: Annotated[Mapping[str, Any], "What was asked; `strop bench run` repeats it."]
    preflight: Annotated[Mapping[str, Any], "The look at the board before the first launch."]
    launches: Annotated[tuple[Mapping[str, Any], ...], "What each launch left, without its samples and readings."]
    notes: Annotated[tuple[str, ...], "Remarks of the harness."] = ()
    failed: Annotated[int, "Launches that failed; the notes say why."] = 0
    energy: Annotated[Mapping[str, Any] | None, "What the power sensor gave."] = None


@dataclass(frozen=True)
class Tool:
    """What measured."""

    version: Annotated[str, "Of this program."]
    python: Annotated[str, "Of the interpreter."] = ""
    commit: Annotated[str, "Of its source, where it ran from a check-out."] = ""
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Result:
    """One configuration on one board."""

    schema: Annotated[str, "`edgebench/1`."]
    id: Annotated[str, "UUID, version 7: sorts by time."]
    started: Annotated[str, "First launch, UTC."]
    status: Annotated[str, "`valid`, `uncontrolled`, `invalid` or `correctness`; see docs/benchmarking.md."]
    reasons: Annotated[tuple[Reason, ...], "Why."]
    artifact: Annotated[Artifact, "The bytes."]
    device: Annotated[Device, "The board."]
    runtime: Annotated[Runtime, "What ran them."]
    env: Annotated[Env, "Clock, temperature, company."]
    scenario: Annotated[Scenario, "What was asked."]
    counts: Annotated[Counts, "How much."]
    tool: Annotated[Tool, "What measured."]
    record: Annotated[Record, "Everything else that the figures come from."]
    quality: Annotated[Quality | None, "How good; absent: never `valid`."] = None
    latency_us: Annotated[Mapping[str, Latency], "Stage → times. `invoke` is the model, `total` the whole way."] = (
        field(default_factory=dict)
    )
    throughput_ips: Annotated[float | None, "Samples per second while measuring, all launches together."] = None
    cold: Annotated[Cold | None, "Cold start."] = None
    variance: Annotated[Variance | None, "Spread; absent with one launch."] = None
    memory: Annotated[Mapping[str, int], "`rss_peak_kb`, `arena_kb`: the largest of all launches."] = field(
        default_factory=dict
    )
    timer_ns: Annotated[float, "What timing one call costs."] = 0.0
    golden: Annotated[
        str, "`same`: golden inputs gave the bundle's answers in every launch; `differs`; `none`: no golden inputs."
    ] = "none"
    energy: Annotated[Energy | None, "Energy."] = None
    sustained: Annotated[Sustained | None, "Of `sustained`."] = None
    prediction: Annotated[Prediction | None, "Of a predictor."] = None
    ops: Annotated[Mapping[str, Any] | None, "Per-operator profile of a run of its own, `strop.ops/1`."] = None
    raw: Annotated[Raw | None, "The samples."] = None
    more: Mapping[str, Any] = field(default_factory=dict, compare=False)
