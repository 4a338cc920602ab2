# SPDX-License-Identifier: Apache-2.0
"""What documents beside a model prove: a bundle's ``parity.json`` and measurements of the form ``edgebench/1``.

Both come from outside and are bounded and read with care: what cannot be read is an error, never a zero.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from edge_contract.canonical import as_float
from edge_contract.errors import ContractError, RegistryError
from edge_contract.fields import Fields
from edge_contract.topics import is_name
from fleet.core.promotion import Latency, Parity
from fleet.core.rules import QUANTILES

__all__ = ["BENCH_SCHEMA", "latency_of", "parity_of", "target_of"]

BENCH_SCHEMA: Final = "edgebench/1"
_STAGES: Final = ("total", "invoke")
_BOARDS: Final = ((re.compile(r"raspberry pi zero 2", re.IGNORECASE), "zero2"),)
_PI: Final = re.compile(r"raspberry pi (\d)", re.IGNORECASE)


def parity_of(document: Any) -> Parity:
    """Return what a ``parity.json`` says.

    A pair is within its bound where its steps and its share of equal classes are, or where no single operation was
    off by more than one step (roundings of right kernels that added up): the rule of the export's own gate.

    Raises:
        RegistryError: It has another form.

    Example:
        >>> bound = {"steps": 1, "same_class": 1}
        >>> pair = {"first": "a", "second": "b", "max_steps": 2, "same_class": 1, "bound": bound}
        >>> parity_of({"pairs": [pair]}).beyond
        ('a / b: 2 steps',)
    """
    try:
        pairs = [_pair(Fields(row, f"parity.pairs[{i}]")) for i, row in enumerate(document["pairs"])]
        errors = [_error(Fields(row, f"parity.fidelity[{i}]")) for i, row in enumerate(document.get("fidelity", []))]
    except (ContractError, KeyError, TypeError, AttributeError) as error:
        raise RegistryError(
            f"is not a parity table: {error}", where="parity.json", fix="build the bundle again"
        ) from error
    worst = max((one for one in errors if one is not None), default=(None, ""))
    beyond = tuple(words for _, words in pairs if words)
    return Parity(len(pairs), beyond, max((steps for steps, _ in pairs), default=0), *worst)


def _pair(f: Fields) -> tuple[int, str]:
    bound = Fields(f.object("bound"), f"{f.where}.bound")
    steps, alone = f.integer("max_steps", minimum=0), f.integer("alone_steps", 99)
    same, least = f.number("same_class"), bound.number("same_class")
    names = f"{f.text('first')} / {f.text('second')}"
    if steps > bound.integer("steps") and alone > 1:
        return steps, f"{names}: {steps} steps"
    return steps, f"{names}: {100 * same:.2f} % same class" if same < least else ""


def _error(f: Fields) -> tuple[float, str] | None:
    found = f.number("relative_error", -1.0)
    return None if found < 0 else (found, f"{f.text('runtime')} against {f.text('against')}, {f.text('output')}")


def target_of(document: Mapping[str, Any]) -> str:
    """Return the target that a measurement's board stands for; empty if none is known for it.

    Example:
        >>> target_of({"device": {"board": "Raspberry Pi 5 8GB rev 1.0", "arch": "aarch64"}})
        'rpi5'
    """
    device = document.get("device")
    device = device if isinstance(device, Mapping) else {}
    board, arch = str(device.get("board", "")), str(device.get("arch", ""))
    for form, name in _BOARDS:
        if form.search(board):
            return name
    if found := _PI.search(board):
        return f"rpi{found[1]}"
    return "generic-x86" if arch in ("x86_64", "AMD64") else ""


def latency_of(document: Any, target: str, files: Mapping[str, str]) -> Latency:
    """Return the latency that a measurement of one of a bundle's files tells.

    Args:
        document: Of the form ``edgebench/1``: ``latency_us`` by stage, ``total`` before ``invoke``.
        target: Name of the target; empty to tell it by the board.
        files: SHA-256 → path, of the bundle's files.

    Raises:
        RegistryError: Another form, of another model file, without latencies, or of an unknown target.
    """
    where = "measurement"
    f = Fields(document, where, RegistryError)
    f.text("schema", among=(BENCH_SCHEMA,))
    artefact = Fields(f.object("artifact"), f"{where}.artifact", RegistryError).digest("sha256")
    if artefact not in files:
        fix = "measure a model file of this bundle"
        raise RegistryError(f"is of file {artefact[:12]}, which the bundle does not hold", where=where, fix=fix)
    named = target or target_of(document)
    if not is_name(named):
        raise RegistryError("does not tell the target", where=where, fix="give --target, such as rpi4")
    stages = f.object("latency_us")
    stage = next((name for name in _STAGES if stages.get(name)), "")
    numbers = _milliseconds(stages.get(stage), f"{where}.latency_us.{stage or 'total'}")
    return Latency(named, files[artefact], stage, numbers, f.text("status", among=("valid", "invalid", "uncontrolled")))


def _milliseconds(row: Any, where: str) -> dict[str, float]:
    if not isinstance(row, Mapping) or not row.keys() & set(QUANTILES):
        raise RegistryError("holds no latency", where=where, fix="measure with 'strop bench'")
    try:
        found = {key: as_float(row[key], where=f"{where}.{key}") / 1000 for key in QUANTILES if key in row}
    except ContractError as error:
        raise RegistryError(error.what, where=error.where) from error
    if any(value <= 0 for value in found.values()):
        raise RegistryError("a latency that is not positive", where=where, fix="measure again")
    return found
