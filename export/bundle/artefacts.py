# SPDX-License-Identifier: Apache-2.0
"""The model files of a bundle: one for each target, all of one plan, each checked against its own target.

Files whose bytes are equal are stored once: two artefacts then name one path. A lone file of a format is
``model.onnx`` or ``model.tflite``; where bytes differ, each is ``model-<target>.<format>`` after its first target.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from compress.quantize.plan import QuantizationPlan
from edge_contract import canonical, targets
from edge_contract.errors import MissingDependencyError, UnsupportedOperatorError, UsageError
from edge_contract.manifest import FORMATS, Artefact
from edge_contract.targets import RuntimeRange, Target
from export.inspection import inspect
from export.onnx import writer as onnx_writer
from export.parity import gate
from export.runtimes.execution import Execution, available
from export.runtimes.matrix import Installed, matrix
from export.tflite import writer as tflite_writer

__all__ = ["Request", "by_path", "claimed", "execute", "requests", "share", "told_apart", "write_all", "write_one"]

_DEFAULT: Final = {"onnx": "generic-x86", "tflite": "rpi4"}
Pythons = Mapping[str, Path] | None

_PLAIN = re.compile(r"[A-Za-z0-9._-]+\Z")


@dataclass(frozen=True)
class Request:
    """A target with the file format that is written for it."""

    target: Target
    format: str

    @classmethod
    def parse(cls, text: str) -> "Request":
        """Return the request in ``NAME`` or ``NAME:FORMAT``; alone, a target gets what its first runtime reads.

        Raises:
            TargetError: No such target.
            UsageError: The target reads no such format.

        Example:
            >>> Request.parse("rpi4").format, Request.parse("rpi4:onnx").format, Request.parse("generic-x86").format
            ('tflite', 'onnx', 'onnx')
        """
        name, _, wanted = text.rpartition(":") if text.rpartition(":")[2] in FORMATS else (text, "", "")
        target = targets.load(name)
        chosen = wanted or target.runtimes[0].formats[0]
        if chosen not in target.integers:
            fix = f"write {target.name}:{next(iter(target.integers))}"
            raise UsageError(f"target '{target.name}' does not read {chosen}", where="--target", fix=fix)
        return cls(target, chosen)

    def refuse_unread(self, where: str) -> None:
        """Raise UnsupportedOperatorError where the target does not read the format."""
        if self.format not in self.target.integers:
            what = f"target '{self.target.name}' reads {', '.join(self.target.integers)}"
            raise UnsupportedOperatorError(what, where=where, fix="export that format")


def requests(names: Sequence[str], recipe_target: str = "") -> tuple[Request, ...]:
    """Return what is to be written: for the named targets, else ONNX for a PC and TFLite for the recipe's target.

    Args:
        names: As ``Request.parse`` takes them.
        recipe_target: The recipe's; one that reads no TFLite is replaced by ``rpi4``.

    Raises:
        TargetError: No such target.
        UsageError: A target twice, or one that does not read the format.
    """
    if not names:
        target = targets.load(recipe_target or _DEFAULT["tflite"])
        usual = target if "tflite" in target.integers else targets.load(_DEFAULT["tflite"])
        return Request(targets.load(_DEFAULT["onnx"]), "onnx"), Request(usual, "tflite")
    found = tuple(map(Request.parse, names))
    spelled = [(request.target.name, request.format) for request in found]
    doubled = next((name for name in spelled if spelled.count(name) > 1), None)
    if doubled is not None:
        raise UsageError(f"target '{doubled[0]}' stands twice", where="--target", fix="name it once")
    return found


def write_one(plan: QuantizationPlan, path: Path, request: Request, *, where: str = "") -> Artefact:
    """Write the file of one request and check its operators, versions and memory against the target.

    Args:
        plan: What to write.
        path: The file.
        request: For which target, in which format.
        where: What errors call the file; its path by default.

    Raises:
        UnsupportedOperatorError: The target does not read the format, or lacks an operator.
        BudgetError: The model needs more memory than the target has.
    """
    request.refuse_unread(where or str(path))
    target = request.target
    integers = target.integers[request.format]
    packed = bool(integers.packed)
    if request.format == "onnx":
        made = onnx_writer.write(plan, path, target=target.name, activation=integers.activation, packed=packed)
    else:
        made = tflite_writer.write(plan, path, target=target.name, packed=packed)
    inspect.check(path, target, where=where or str(path))
    return made


def write_all(plan: QuantizationPlan, folder: Path, asked: Sequence[Request]) -> list[Artefact]:
    """Write the files of all requests into a folder, equal ones once; raises as ``write_one`` does."""
    made = []
    for number, request in enumerate(asked):
        draft = folder / f".{number}.draft"
        artefact = write_one(plan, draft, request, where=f"model.{request.format} for {request.target.name}")
        made.append((artefact, draft.read_bytes()))
        draft.unlink()
    return share(made, folder)


def share(made: Sequence[tuple[Artefact, bytes]], folder: Path) -> list[Artefact]:
    """Write the bytes of artefacts into a folder, equal ones once, and return the artefacts with their paths."""
    digests = [(artefact.format, canonical.digest(data)) for artefact, data in made]
    paths: dict[tuple[str, str], str] = {}
    for key, (artefact, data) in zip(digests, made, strict=True):
        if key not in paths:
            several = len({other for other in digests if other[0] == artefact.format}) > 1
            paths[key] = f"model-{_plain(artefact.target)}.{artefact.format}" if several else f"model.{artefact.format}"
            (folder / paths[key]).write_bytes(data)
    return [replace(artefact, path=paths[key]) for key, (artefact, _) in zip(digests, made, strict=True)]


def _plain(target: str) -> str:
    if not _PLAIN.match(target):
        fix = "use letters, digits, '.', '_' and '-'"
        raise UsageError(f"target name {target!r} cannot be part of a file name", where="--target", fix=fix)
    return target


def claimed(made: Sequence[Artefact], asked: Sequence[Request], pythons: Pythons = None) -> tuple[Artefact, ...]:
    """Return the artefacts with those runtimes that their target has and that can be run from here; no others.

    Raises:
        MissingDependencyError: An artefact has none.
    """
    return tuple(_claiming(artefact, request.target, pythons) for artefact, request in zip(made, asked, strict=True))


def _reads(runtime: RuntimeRange, artefact: Artefact) -> bool:
    """Packed 4-bit weights are refused by tflite-runtime 2.14 and older."""
    return artefact.format in runtime.formats and (artefact.precision != "int4" or runtime.name != "tflite-runtime")


def _claiming(artefact: Artefact, target: Target, pythons: Pythons) -> Artefact:
    wanted = [runtime.name for runtime in target.runtimes if _reads(runtime, artefact)]
    found = tuple(name for name in available(artefact.format, pythons) if name in wanted)
    if not found:
        what = f"target '{target.name}' runs {artefact.format} in {', '.join(wanted)}, and none of them is here"
        fix = f"give --runtime-python {wanted[-1]}=PATH to a Python that has it"
        raise MissingDependencyError(what, where=artefact.path, fix=fix)
    return replace(artefact, runtimes=found)


def by_path(artefacts: Sequence[Artefact]) -> dict[str, Artefact]:
    """Return each file once, with every runtime that any of its targets claims."""
    found: dict[str, Artefact] = {}
    for artefact in artefacts:
        known = found.get(artefact.path, artefact)
        runtimes = tuple(dict.fromkeys((*known.runtimes, *artefact.runtimes)))
        found[artefact.path] = replace(known, runtimes=runtimes)
    return found


def execute(
    folder: Path,
    artefacts: Sequence[Artefact],
    inputs: NDArray[Any],
    pythons: Pythons = None,
    *,
    old_of: Sequence[Request] = (),
) -> dict[str, list[Execution]]:
    """Run every file once in every runtime that it claims; raises as ``parity.execute`` does.

    Args:
        folder: Where the files lie.
        artefacts: With their runtimes.
        inputs: float32 [N, ...].
        pythons: Runtime → interpreter, for those that are not installed here.
        old_of: What the artefacts were written for: each then runs in the old versions too that are at hand and that
            its target claims (``runtime_matrix``).

    Returns:
        path → executions, in the artefacts' order.
    """
    old: dict[str, list[Installed]] = {}
    for request, artefact in zip(old_of, artefacts, strict=False):
        found = [one for one in matrix(artefact.format, pythons, request.target) if one.command]
        old[artefact.path] = list(dict.fromkeys([*old.get(artefact.path, []), *found]))
    return {
        path: gate.execute([(folder / path, one)], one.runtimes, inputs, pythons, old=old.get(path, ()))
        for path, one in by_path(artefacts).items()
    }


def told_apart(executions: Mapping[str, Sequence[Execution]]) -> list[Execution]:
    """Return all executions, each under a name of its own: ``litert``, or ``litert rpi4`` where it ran more files."""
    names = [execution.name for found in executions.values() for execution in found]
    return [
        execution if names.count(execution.name) == 1 else replace(execution, label=f"{execution.name} {_short(path)}")
        for path, found in executions.items()
        for execution in found
    ]


def _short(path: str) -> str:
    return Path(path).stem.removeprefix("model-")
