# SPDX-License-Identifier: Apache-2.0
"""What is to be measured: which bytes, in which runtime, how often, and how the inputs come. Standard library only."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from edge_contract import canonical
from edge_contract.errors import MeasurementError, UsageError
from edge_contract.fields import Fields
from edge_contract.manifest import MANIFEST_NAME, RUNTIMES, Manifest

__all__ = ["MODES", "PROFILES", "SCENARIOS", "BenchPlan", "plan_for", "sha256_of"]

SCENARIOS: Final = ("single", "paced", "offline", "sustained")
MODES: Final = ("bare", "realistic")
INPUTS: Final = ("real", "random")
PROFILES: Final[Mapping[str, Mapping[str, Any]]] = {
    "default": {"launches": 10, "runs": 100, "seconds": 10.0},
    "quick": {"launches": 3, "runs": 50, "seconds": 0.0},
    "mlperf-tiny-like": {"launches": 5, "runs": 5, "seconds": 10.0},
}
"""Windows of MLPerf Tiny last at least 10 s; five of them, and their median counts. Ours is "not an MLPerf result"."""
SUSTAINED_S: Final = 900.0
_FORMATS: Final = {".tflite": "tflite", ".onnx": "onnx"}
_RUNTIMES_OF: Final = {"tflite": ("litert", "tflite-runtime", "edgetpu"), "onnx": ("onnxruntime",)}


@dataclass(frozen=True)
class BenchPlan:
    """One configuration. ``plan_for`` makes it; on a device it comes as JSON.

    Attributes:
        artefact: Path of the model file.
        sha256: Of the file; a file with another one is refused before and after the measurement.
        format: ``tflite`` or ``onnx``.
        bundle: Folder of the bundle that the file lies in; empty for a bare file.
        bundle_digest: The bundle's id.
        runtime: One of ``edge_contract.artefact.RUNTIMES``.
        delegate: As ``open_session`` takes it: ONNX Runtime's provider, the Edge TPU's library.
        threads: Of one inference.
        affinity: Cores to pin to; empty: where the system puts it.
        scenario: ``single`` (the next run begins when the last one ended), ``paced`` (frames come at ``fps``),
            ``offline`` (``batch`` inputs at a time, throughput) or ``sustained`` (``single`` for ``seconds``).
        fps: Frames a second of ``paced``.
        batch: Inputs in one run of ``offline``.
        deadline_ms: A run that ends later than this after its (intended) start is missed; 0: in ``paced`` one period.
        launches: Processes, one after the other.
        runs: Fewest measured runs of a launch.
        seconds: Shortest measured time of a launch; both hold.
        mode: ``bare`` (the runtime's own call) or ``realistic`` (``edge_agent.Model.predict``: checks, preprocessing,
            statistics).
        profile: Where launches, runs and seconds come from.
        input: ``real`` or ``random``.
        data: An .npz or .npy file or a folder of inputs; an .npz with ``x`` and ``y`` gives accuracy, too. Empty: the
            bundle's golden inputs.
        warmup_s, warmup_runs, warmup_cap_s: The warm-up lasts as long as the longer of the first two and until the
            times stand still, and never longer than the third.
        cooldown_s: Longest wait between two launches for the board to cool down; 0: none.
        governor: Set for the cores while it runs where that is permitted, and put back; empty: left as it is.
            ``realistic`` leaves everything as it is.
        timeout_s: A launch that takes longer than this beyond its own times is ended and named.
        label: Says which side of a comparison this is; empty otherwise.
    """

    artefact: str
    sha256: str
    format: str
    bundle: str = ""
    bundle_digest: str = ""
    runtime: str = "litert"
    delegate: str = ""
    threads: int = 1
    affinity: tuple[int, ...] = ()
    scenario: str = "single"
    fps: float = 0.0
    batch: int = 1
    deadline_ms: float = 0.0
    launches: int = 10
    runs: int = 100
    seconds: float = 10.0
    mode: str = "bare"
    profile: str = "default"
    input: str = "real"
    data: str = ""
    warmup_s: float = 2.0
    warmup_runs: int = 10
    warmup_cap_s: float = 30.0
    cooldown_s: float = 120.0
    governor: str = "performance"
    timeout_s: float = 120.0
    label: str = ""

    def __post_init__(self) -> None:
        for name, among in _CHOICES.items():
            if getattr(self, name) not in among:
                what = f"unknown {name} '{getattr(self, name)}'"
                raise UsageError(what, where="bench plan", fix=f"use one of {', '.join(among)}")
        for name, least in _LEAST.items():
            if not getattr(self, name) >= least:
                raise UsageError(f"{name} of {getattr(self, name)}", where="bench plan", fix=f"give {least} or more")
        _refuse_mixtures(self)

    @property
    def deadline_ns(self) -> int:
        """After its intended start a run may take so long; 0: there is no deadline."""
        if self.deadline_ms:
            return round(self.deadline_ms * 1e6)
        return round(1e9 / self.fps) if self.scenario == "paced" else 0

    @property
    def configuration(self) -> str:
        """Names the configuration in one word, for file names: what it is without the bytes and the board.

        Example:
            >>> BenchPlan("m.tflite", "0" * 64, "tflite", threads=4).configuration
            'litert-t4-single-bare'
        """
        rate = {"paced": f"-{self.fps:g}fps", "offline": f"-b{self.batch}"}.get(self.scenario, "")
        kernels = f"-{Path(self.delegate).name.partition('?')[0]}" if self.delegate else ""
        drawn = "-random" if self.input == "random" else ""
        return f"{self.runtime}{kernels}-t{self.threads}-{self.scenario}{rate}-{self.mode}{drawn}"

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        return {**asdict(self), "affinity": list(self.affinity)}

    @classmethod
    def from_json(cls, document: Any, where: str = "bench plan") -> "BenchPlan":
        """Read a plan.

        Raises:
            MeasurementError: A field is missing or of another type.
            UsageError: A value that no plan has; the words say which.
        """
        f = Fields(document, where, MeasurementError)
        f.digest("sha256")
        known = {one.name: one for one in fields(cls)}
        if unknown := sorted(set(document) - set(known)):
            raise MeasurementError(f"unknown field '{unknown[0]}'", where=where, fix="update Strop on this machine")
        readers: dict[Any, Callable[[str], Any]] = {
            str: f.text, int: f.integer, float: f.number, tuple[int, ...]: f.integers,
        }  # fmt: skip
        for name in ("artefact", "format"):
            f.text(name)
        return cls(**{name: readers[known[name].type](name) for name in document})


_CHOICES: Final = {
    "format": tuple(_RUNTIMES_OF), "runtime": RUNTIMES, "scenario": SCENARIOS, "mode": MODES, "input": INPUTS,
    "profile": tuple(PROFILES),
}  # fmt: skip
_LEAST: Final = {
    "threads": 1, "batch": 1, "launches": 1, "runs": 1, "seconds": 0, "fps": 0, "deadline_ms": 0, "warmup_s": 0,
    "warmup_runs": 1, "warmup_cap_s": 0, "cooldown_s": 0, "timeout_s": 1,
}  # fmt: skip


def _refuse_mixtures(plan: BenchPlan) -> None:
    """Raise UsageError for values that do not go together."""
    where = "bench plan"
    if plan.runtime not in _RUNTIMES_OF[plan.format]:
        fix = f"use {' or '.join(_RUNTIMES_OF[plan.format])}"
        raise UsageError(f"{plan.runtime} runs no {plan.format} file", where=plan.artefact, fix=fix)
    if plan.scenario == "paced" and not plan.fps:
        raise UsageError("paced without a rate", where=where, fix="add --fps 30")
    if plan.scenario != "paced" and plan.fps:
        raise UsageError(f"{plan.fps:g} fps in scenario '{plan.scenario}'", where=where, fix="add --scenario paced")
    if plan.scenario != "offline" and plan.batch != 1:
        raise UsageError(f"batch {plan.batch} in '{plan.scenario}'", where=where, fix="add --scenario offline")
    if plan.mode == "realistic" and not plan.bundle:
        what = "a bare file has no preprocessing, so nothing is realistic about it"
        raise UsageError(what, where=plan.artefact, fix="give the bundle's folder, or --mode bare")
    if plan.mode == "realistic" and plan.input == "random":
        raise UsageError("random input in mode 'realistic'", where=where, fix="give --data, or --mode bare")
    if plan.mode == "realistic" and plan.batch != 1:
        what = "the agent answers one input at a time"
        raise UsageError(what, where=where, fix="add --mode bare, or leave --batch out")
    if plan.delegate and plan.runtime not in ("onnxruntime", "edgetpu"):
        raise UsageError(f"{plan.runtime} takes no delegate '{plan.delegate}'", where=where, fix="leave it out")


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256; raises MeasurementError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MeasurementError(f"cannot be read ({error.strerror})", where=str(path)) from error


def plan_for(model: str | Path, **chosen: Any) -> BenchPlan:
    """Return the plan for a model that a person names.

    Args:
        model: A bundle's folder, ``FOLDER@RUNTIME``, a ``.tflite`` or a ``.onnx`` file.
        **chosen: Fields of ``BenchPlan``; ``target`` picks one of a bundle's artefacts. What is left out, or None,
            comes from the profile.

    Raises:
        UsageError: Values that no plan has or that do not go together, or a file of another kind.
        BundleError, ManifestError: The folder is no bundle.
        MeasurementError: The file cannot be read, or is not the one that the manifest lists.
    """
    chosen = {name: value for name, value in chosen.items() if value is not None}
    target = str(chosen.pop("target", ""))
    if unknown := sorted(set(chosen) - {one.name for one in fields(BenchPlan)}):
        raise UsageError(f"a plan has no '{unknown[0]}'", where="bench plan")
    folder, runtime = _named(str(model), str(chosen.pop("runtime", "")))
    base = _of_bundle(folder, runtime, target) if folder.is_dir() else _of_file(folder, runtime)
    return replace(base, **_numbers(chosen), **chosen)


def _named(text: str, runtime: str) -> tuple[Path, str]:
    """Return path and runtime of ``FOLDER@RUNTIME`` or ``PATH``."""
    before, _, after = text.rpartition("@")
    if before and after in RUNTIMES:
        if runtime not in ("", after):
            raise UsageError(f"'{after}' in the name and '{runtime}' beside it", where=text, fix="say it once")
        return Path(before), after
    return Path(text), runtime


def _numbers(chosen: dict[str, Any]) -> dict[str, Any]:
    """Return launches, runs and seconds of the profile, without those that were chosen."""
    profile = chosen.get("profile", "default")
    if profile not in PROFILES:
        raise UsageError(f"unknown profile '{profile}'", where="bench plan", fix=f"use one of {', '.join(PROFILES)}")
    found = dict(PROFILES[profile])
    if chosen.get("scenario") == "sustained":  # one long launch: the heat of the board is what is looked at
        found |= {"launches": 1, "seconds": SUSTAINED_S}
    return {name: value for name, value in found.items() if name not in chosen}


def _of_bundle(folder: Path, runtime: str, target: str) -> BenchPlan:
    path = folder / MANIFEST_NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        what = f"no readable {MANIFEST_NAME} ({error.strerror})"
        raise UsageError(what, where=str(folder), fix="give a bundle's folder or a model file") from error
    manifest = Manifest.from_bytes(data)
    claimed = {name for one in manifest.artefacts for name in one.runtimes}
    runtime = runtime or next(name for name in ("litert", *RUNTIMES) if name in claimed)
    artefact = manifest.artefact_for(runtime, target)
    file, wanted = folder / artefact.path, manifest.file(artefact.path).sha256
    if (found := sha256_of(file)) != wanted:
        what = f"SHA-256 {found[:12]}…, the manifest lists {wanted[:12]}…"
        raise MeasurementError(what, where=str(file), fix="copy the bundle again")
    return BenchPlan(
        str(file), wanted, artefact.format, bundle=str(folder), bundle_digest=canonical.digest(data), runtime=runtime
    )


def _of_file(path: Path, runtime: str) -> BenchPlan:
    if path.suffix not in _FORMATS:
        fix = "give a bundle's folder, a .tflite or a .onnx file"
        raise UsageError("no model that can be measured", where=str(path), fix=fix)
    kind = _FORMATS[path.suffix]
    return BenchPlan(str(path), sha256_of(path), kind, runtime=runtime or _RUNTIMES_OF[kind][0], input="random")
