# SPDX-License-Identifier: Apache-2.0
"""Every runtime that can be run from here, by name and version, and which of them a target claims.

One version of a runtime lives in this process or in an interpreter of its own (``runtimes.python_for``). Older ones are
listed in ``.venv-old/runtimes.json``, or the file that ``$STROP_OLD_RUNTIMES`` names::

    {"tflite-runtime 2.7.0": ["/opt/old/python-2.7.0"], "tflite-runtime 2.11.0": ["env", "X=1", "/opt/py39"]}

Each value starts a Python that can import that runtime and numpy; nothing else of Strop has to work there.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from edge_agent.runner.runtimes import runtime_version
from edge_contract.errors import MissingDependencyError, UsageError
from edge_contract.manifest import Artefact
from edge_contract.targets import RuntimeRange, Target
from export.runtimes.execution import FORMATS, MODULES, Execution, available, python_for, run, run_old
from export.runtimes.probes import ask, environment

__all__ = ["OLD_RUNTIMES", "Claim", "Installed", "claims", "matrix", "old_runtimes", "run_in"]

OLD_RUNTIMES: Final = "STROP_OLD_RUNTIMES"
_ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Installed:
    """One version of one runtime.

    Attributes:
        runtime: ``litert``, ``onnxruntime`` or ``tflite-runtime``.
        version: Such as ``2.14.0``.
        python: The interpreter that it lives in; None for this process.
        command: Starts the Python of an old version; empty for the one that ``python_for`` gives.
    """

    runtime: str
    version: str
    python: Path | None = None
    command: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What tables call it: old versions carry theirs."""
        return f"{self.runtime} {self.version}" if self.command else self.runtime

    @property
    def format(self) -> str:
        """The file format that it reads."""
        return FORMATS[self.runtime]

    def to_json(self) -> dict[str, Any]:
        place = list(self.command) or [str(self.python) if self.python else "this process"]
        return {"runtime": self.runtime, "version": self.version, "python": place}


@dataclass(frozen=True)
class Claim:
    """A runtime of a target, and which of its versions were run.

    Attributes:
        runtime, minimum, below: The range that the target claims.
        ran: Versions in it that were run, sorted as numbers.
    """

    runtime: str
    minimum: str
    below: str
    ran: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"runtime": self.runtime, "minimum": self.minimum, "below": self.below, "ran": list(self.ran)}


def matrix(
    format_name: str = "", pythons: Mapping[str, Path] | None = None, target: Target | None = None
) -> tuple[Installed, ...]:
    """Return what can be run from here: the usual version of each runtime first, then old ones by version.

    Args:
        format_name: ``onnx`` or ``tflite``; both by default.
        pythons: Runtime → interpreter, the caller's choice.
        target: Leave out old versions that this target does not claim.

    Raises:
        UsageError: The file of old runtimes is malformed.
        MissingDependencyError: An interpreter that was named does not have its runtime.
    """
    formats = (format_name,) if format_name else tuple(dict.fromkeys(FORMATS.values()))
    usual = [_usual(runtime, pythons) for kind in formats for runtime in available(kind, pythons)]
    wanted = [
        old
        for old in old_runtimes()
        if old.format in formats and (old.runtime, old.version) not in [(u.runtime, u.version) for u in usual]
    ]
    return (*usual, *(old for old in wanted if target is None or _claims(target, old.runtime, old.version)))


def _usual(runtime: str, pythons: Mapping[str, Path] | None) -> Installed:
    python = python_for(runtime, pythons)
    version = runtime_version(runtime) if python is None else _version_in(str(python), MODULES[runtime], runtime)
    return Installed(runtime, version, python)


@lru_cache(maxsize=32)
def _version_in(python: str, module: str, runtime: str) -> str:
    code = f"import json, {module}; print(json.dumps({{'version': {module}.__version__}}))"
    return str(ask([python, "-c", code], environment(), where=f"runtime '{runtime}' in {python}")["version"])


def old_runtimes() -> tuple[Installed, ...]:
    """Return the runtimes of ``$STROP_OLD_RUNTIMES`` or ``.venv-old/runtimes.json``, by version; none without a file.

    Raises:
        UsageError: The file is not what it must be, or ``$STROP_OLD_RUNTIMES`` names none.
    """
    named = os.environ.get(OLD_RUNTIMES)
    places = [Path(named)] if named else [base / ".venv-old/runtimes.json" for base in (Path.cwd(), _ROOT)]
    place = next((place for place in places if place.is_file()), None)
    if place is None:
        if named:
            raise UsageError(
                f"no such file: {named}", where=f"${OLD_RUNTIMES}", fix="name a runtimes.json, or unset it"
            )
        return ()
    try:
        document = json.loads(place.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(place)) from error
    if not isinstance(document, dict):
        raise UsageError("no JSON object", where=str(place), fix=_FIX)
    return tuple(sorted((_old(key, value, place) for key, value in document.items()), key=_order))


_FIX: Final = 'write it like {"tflite-runtime 2.7.0": ["/opt/old/python"]}'


def _old(key: str, command: Any, place: Path) -> Installed:
    runtime, _, version = key.partition(" ")
    is_command = isinstance(command, list) and command and all(isinstance(word, str) for word in command)
    if FORMATS.get(runtime) != "tflite" or not version[:1].isdigit() or not is_command:
        raise UsageError(f"entry '{key}' is no old runtime", where=str(place), fix=_FIX)
    return Installed(runtime, version, command=tuple(command))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


def _order(found: Installed) -> tuple[str, tuple[int, ...]]:
    return found.runtime, _numbers(found.version)


def run_in(installed: Installed, path: Path, artefact: Artefact, inputs: NDArray[Any]) -> Execution:
    """Return what a runtime of the matrix computes; raises as ``runtimes.run`` and ``runtimes.run_old`` do.

    Raises:
        MissingDependencyError: What runs there is not the version that the matrix says.
    """
    if not installed.command:
        return run(path, artefact, installed.runtime, inputs, installed.python)
    found = run_old(path, artefact, inputs, installed.command)
    if (found.runtime, found.version) != (installed.runtime, installed.version):
        what = f"it is {found.runtime} {found.version}"
        raise MissingDependencyError(what, where=installed.name, fix="correct the file of old runtimes")
    return replace(found, label=installed.name)


def claims(target: Target, format_name: str, executions: Sequence[Execution]) -> tuple[Claim, ...]:
    """Return each runtime of a target that reads a format, with its versions that were run; none may have been.

    Example:
        >>> from edge_contract import targets
        >>> claims(targets.load("rpi4"), "tflite", [Execution("litert", "2.3.0", "xnnpack", {})])[0].ran
        ('2.3.0',)
    """
    return tuple(_claim(wanted, executions) for wanted in target.runtimes if format_name in wanted.formats)


def _claim(wanted: RuntimeRange, executions: Sequence[Execution]) -> Claim:
    ran = {e.version for e in executions if e.runtime == wanted.name and wanted.admits(e.version)}
    return Claim(wanted.name, wanted.minimum, wanted.below, tuple(sorted(ran, key=_numbers)))


def _claims(target: Target, runtime: str, version: str) -> bool:
    wanted = target.runtime(runtime)
    return wanted is not None and wanted.admits(version)
