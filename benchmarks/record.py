# SPDX-License-Identifier: Apache-2.0
"""What a measurement leaves: the board before it, and every launch with all of its times. Standard library only.

A launch is one process. Times are nanoseconds of the monotonic clock, which all processes of a machine share, so that
a reading of the board by the parent stands on the same axis as the starts of the runs in the child.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.plan import BenchPlan
from edge_contract.errors import MeasurementError
from edge_contract.fields import Fields

__all__ = ["STAGES", "ColdStart", "Launch", "Measurement", "Preflight", "Reading", "RuntimeFacts"]

STAGES = ("capture", "preprocess", "invoke", "postprocess", "total")


@dataclass(frozen=True)
class ColdStart:
    """The way from nothing to the first answer, milliseconds, each part by itself.

    Attributes:
        process_ms: From the parent's start of the process to the first line of our code in it.
        import_ms: numpy and the runtime.
        load_ms: The model file, up to where it can run.
        first_ms: The first inference.
    """

    process_ms: float
    import_ms: float
    load_ms: float
    first_ms: float

    @property
    def total_ms(self) -> float:
        """All four together."""
        return self.process_ms + self.import_ms + self.load_ms + self.first_ms


@dataclass(frozen=True)
class Reading:
    """One look at the board from outside of the timed loop; what the board cannot tell is None or empty.

    Attributes:
        at_ns: Monotonic clock.
        temp_c: Of the SoC.
        clock_khz: Of each core; measured where the firmware tells it (``vcgencmd measure_clock arm``), else what the
            governor asked for.
        throttled: Bits of the Raspberry Pi's firmware: 0 under-voltage, 1 capped, 2 throttled, 3 soft limit, now;
            16 to 19 the same since boot.
        power_mw: Of the sensor that was given.
        throttle_count: Of an x86 core's thermal driver, since boot.
    """

    at_ns: int
    temp_c: float | None = None
    clock_khz: tuple[int, ...] = ()
    throttled: int | None = None
    power_mw: float | None = None
    throttle_count: int | None = None


@dataclass(frozen=True)
class RuntimeFacts:
    """What ran the model, asked of the runtime and not assumed.

    Attributes:
        name, version: Of the runtime.
        providers: Execution providers or delegates that took part, the first one first: ``("XNNPACK",)``, ``("CPU",)``.
        delegated: Share of the operators that a delegate or another provider than the CPU's has taken.
        threads: Asked of the runtime.
        affinity: Cores that the process may use.
        flags: Everything else that is known, such as the options of the session.
    """

    name: str
    version: str
    providers: tuple[str, ...] = ()
    delegated: float = 0.0
    threads: int = 1
    affinity: tuple[int, ...] = ()
    flags: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Launch:
    """One process: cold start, warm-up, and every measured run in its order.

    Attributes:
        number: From 0, in the order of the launches.
        label: Of the plan: says which side of a comparison this is.
        started: UTC, ``2026-11-21T02:00:00Z``.
        cold: The cold start.
        warmup: Runs before the first one that counts.
        steady: The warm-up ended because the times stood still, and not because its cap was reached.
        stages_ns: Stage → nanoseconds of each run; always ``invoke`` and ``total``; all of one length.
        starts_ns: Start of each run on the monotonic clock; in ``paced`` the intended start.
        missed: Runs that ended after their deadline.
        dropped: Frames that were never begun, because a newer one stood ready.
        readings: Looks at the board while it ran, by the parent.
        faults: During the measured runs: ``major`` and ``minor`` page faults and ``switches`` (involuntary) of the
            process, ``swap_kb`` that the whole machine moved to or from its swap.
        memory: ``rss_peak_kb`` (of a launch of its own), ``arena_kb``; empty where it was not measured.
        runtime: What ran it.
        timer_ns: What timing a call of one stage adds to it: clock reads and the storing of the result.
        golden: ``same``, ``differs`` or ``none``: the bundle's golden inputs in this very process, before the warm-up.
        samples: How many different inputs were cycled.
        batch: Inputs in one run.
        every: One of so many runs was kept: of a fast model that runs for long.
    """

    number: int
    label: str
    started: str
    cold: ColdStart
    warmup: int
    steady: bool
    stages_ns: Mapping[str, tuple[int, ...]]
    starts_ns: tuple[int, ...]
    missed: int
    dropped: int
    readings: tuple[Reading, ...]
    faults: Mapping[str, int]
    memory: Mapping[str, int]
    runtime: RuntimeFacts
    timer_ns: float
    golden: str = "none"
    samples: int = 1
    batch: int = 1
    every: int = 1

    def __post_init__(self) -> None:
        lengths = {len(times) for times in (*self.stages_ns.values(), self.starts_ns)}
        if len(lengths) > 1 or "total" not in self.stages_ns or "invoke" not in self.stages_ns:
            what = f"stages {', '.join(self.stages_ns) or 'none'} of lengths {sorted(lengths)}"
            raise MeasurementError(what, where=f"launch {self.number}")

    @property
    def runs(self) -> int:
        """How many runs count."""
        return len(self.starts_ns)

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, document: Any, where: str = "launch") -> "Launch":
        """Read what ``to_json`` wrote; raises MeasurementError with the field that is wrong."""
        f = Fields(document, where, MeasurementError)
        return cls(
            number=f.integer("number", minimum=0),
            label=f.text("label"),
            started=f.text("started"),
            cold=_cold(f.object("cold"), f"{where}.cold"),
            warmup=f.integer("warmup", minimum=0),
            steady=f.flag("steady"),
            stages_ns=_stages(f.object("stages_ns"), f"{where}.stages_ns"),
            starts_ns=f.integers("starts_ns"),
            missed=f.integer("missed", minimum=0),
            dropped=f.integer("dropped", minimum=0),
            readings=tuple(_reading(one, f"{where}.readings[{i}]") for i, one in enumerate(f.items("readings"))),
            faults=_counts(f.object("faults"), f"{where}.faults"),
            memory=_counts(f.object("memory"), f"{where}.memory"),
            runtime=_runtime(f.object("runtime"), f"{where}.runtime"),
            timer_ns=f.number("timer_ns"),
            golden=f.text("golden", "none", among=("same", "differs", "none")),
            samples=f.integer("samples", 1, minimum=1),
            batch=f.integer("batch", 1, minimum=1),
            every=f.integer("every", 1, minimum=1),
        )


@dataclass(frozen=True)
class Preflight:
    """The board as it stood before the first launch; what it cannot tell is empty, None or 0.

    Attributes:
        board: Such as ``Raspberry Pi 5 Model B Rev 1.0``; of a PC its processor.
        soc: Such as ``bcm2712``.
        arch: Such as ``aarch64``: of the kernel.
        bits: 32 or 64: of this program, which may be 32 on a kernel of 64.
        ram_kb, swap_kb: Installed memory, and swap in use.
        os, kernel, python: By name and version.
        governor: Of the cores, joined by a comma where they differ.
        clocks: Core → (minimum, maximum, current) in kHz.
        cores: Cores that this process may use.
        temp_c, throttled: As in ``Reading``.
        load1: Load average of the last minute.
        busy: (name, share of one core) of other processes above 5 %.
        power_supply: What is known of it, such as ``5000 mA negotiated``.
        accelerators: Each with ``kind``, ``bus`` and ``speed_mbps`` where the bus tells it.
        isolated: Cores that the kernel was told to leave alone.
        serial: Digest of the board's serial number: tells two boards of one kind apart.
    """

    board: str
    soc: str = ""
    arch: str = ""
    bits: int = 64
    ram_kb: int = 0
    swap_kb: int = 0
    os: str = ""
    kernel: str = ""
    python: str = ""
    governor: str = ""
    clocks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    cores: tuple[int, ...] = ()
    temp_c: float | None = None
    throttled: int | None = None
    load1: float = 0.0
    busy: tuple[tuple[str, float], ...] = ()
    power_supply: str = ""
    accelerators: tuple[Mapping[str, Any], ...] = ()
    isolated: str = ""
    serial: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, document: Any, where: str = "preflight") -> "Preflight":
        """Read what ``to_json`` wrote; raises MeasurementError with the field that is wrong."""
        f = Fields(document, where, MeasurementError)
        clocks = Fields(f.object("clocks", {}), f"{where}.clocks", MeasurementError)
        return cls(
            board=f.text("board"),
            soc=f.text("soc", ""),
            arch=f.text("arch", ""),
            bits=f.integer("bits", 64),
            ram_kb=f.integer("ram_kb", 0),
            swap_kb=f.integer("swap_kb", 0),
            os=f.text("os", ""),
            kernel=f.text("kernel", ""),
            python=f.text("python", ""),
            governor=f.text("governor", ""),
            clocks={core: clocks.integers(core) for core in f.object("clocks", {})},
            cores=f.integers("cores", []),
            temp_c=_maybe(document, "temp_c", f.number),
            throttled=_maybe(document, "throttled", f.integer),
            load1=f.number("load1", 0.0),
            busy=tuple((str(name), float(share)) for name, share in f.items("busy", [])),
            power_supply=f.text("power_supply", ""),
            accelerators=tuple(f.items("accelerators", [])),
            isolated=f.text("isolated", ""),
            serial=f.text("serial", ""),
        )


@dataclass(frozen=True)
class Measurement:
    """A plan that was carried out.

    Attributes:
        plan: What was asked.
        preflight: The board before it.
        launches: Those that came to their end, in their order.
        notes: What a reader must know: launches that failed with their reason, an interruption, what could not be set.
        failed: How many launches failed; each stands in the notes.
        energy: What the power sensor gave (``benchmarks.energy``), None without one.
    """

    plan: BenchPlan
    preflight: Preflight
    launches: tuple[Launch, ...]
    notes: tuple[str, ...] = ()
    failed: int = 0
    energy: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return {
            "plan": self.plan.to_json(),
            "preflight": self.preflight.to_json(),
            "launches": [one.to_json() for one in self.launches],
            "notes": list(self.notes),
            "failed": self.failed,
            "energy": None if self.energy is None else dict(self.energy),
        }

    @classmethod
    def from_json(cls, document: Any, where: str = "measurement") -> "Measurement":
        """Read what ``to_json`` wrote; raises MeasurementError with the field that is wrong."""
        f = Fields(document, where, MeasurementError)
        return cls(
            BenchPlan.from_json(f.object("plan"), f"{where}.plan"),
            Preflight.from_json(f.object("preflight"), f"{where}.preflight"),
            tuple(Launch.from_json(one, f"{where}.launches[{i}]") for i, one in enumerate(f.items("launches"))),
            f.texts("notes", []),
            f.integer("failed", 0, minimum=0),
            None if document.get("energy") is None else f.object("energy"),
        )


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back: lists for tuples."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value] if value and not isinstance(value[0], int | float) else list(value)
    return value


def _stages(document: Mapping[str, Any], where: str) -> dict[str, tuple[int, ...]]:
    f = Fields(document, where, MeasurementError)
    return {stage: f.integers(stage) for stage in document}


def _cold(document: Any, where: str) -> ColdStart:
    f = Fields(document, where, MeasurementError)
    return ColdStart(*(f.number(name) for name in ("process_ms", "import_ms", "load_ms", "first_ms")))


def _reading(document: Any, where: str) -> Reading:
    f = Fields(document, where, MeasurementError)
    return Reading(
        f.integer("at_ns"),
        _maybe(document, "temp_c", f.number),
        f.integers("clock_khz", []),
        _maybe(document, "throttled", f.integer),
        _maybe(document, "power_mw", f.number),
        _maybe(document, "throttle_count", f.integer),
    )


def _runtime(document: Any, where: str) -> RuntimeFacts:
    f = Fields(document, where, MeasurementError)
    return RuntimeFacts(
        f.text("name"),
        f.text("version"),
        f.texts("providers", []),
        f.number("delegated", 0.0),
        f.integer("threads", 1, minimum=1),
        f.integers("affinity", []),
        f.object("flags", {}),
    )


def _counts(document: Mapping[str, Any], where: str) -> dict[str, int]:
    f = Fields(document, where, MeasurementError)
    return {name: f.integer(name) for name in document}


def _maybe(document: Mapping[str, Any], name: str, read: Callable[[str], Any]) -> Any:
    """Return a field that may be null or missing."""
    return None if document.get(name) is None else read(name)
