# SPDX-License-Identifier: Apache-2.0
"""What a target computer can do: its runtimes, the meaning of its integers, its memory, its operators.

A target is data (``edge_contract/targets/*.toml``): the quantizer asks which integers to decide, the writers
which operators to use, the pre-flight what fits. Nobody asks which board it is.
"""

import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

from edge_contract import accelerators, integers
from edge_contract.accelerators import Accelerator
from edge_contract.errors import TargetError
from edge_contract.fields import Fields
from edge_contract.integers import Integers
from edge_contract.manifest import FORMATS, RUNTIMES

__all__ = ["SCHEMA", "SCHEMAS", "Accelerator", "Integers", "Memory", "RuntimeRange", "Target", "load", "names", "parse"]

SCHEMA: Final = "strop.target/2"
SCHEMAS: Final = ("strop.target/1", SCHEMA)  # 2 added [accelerator] and [memory] model_kib; what 1 says means the same
_VERSION = re.compile(r"\d+(\.\d+){0,3}\Z")


@dataclass(frozen=True)
class RuntimeRange:
    """A runtime with the versions that the target is known to run: at least ``minimum``, below ``below``."""

    name: str
    minimum: str
    below: str
    formats: tuple[str, ...]
    delegate: str

    def admits(self, version: str) -> bool:
        """Return True if an installed version lies in the range.

        Example:
            >>> RuntimeRange("litert", "2.1", "2.4", ("tflite",), "xnnpack").admits("2.3.0")
            True
        """
        return _numbers(self.minimum) <= _numbers(version) < _numbers(self.below)


@dataclass(frozen=True)
class Memory:
    """Memory in KiB.

    Attributes:
        ram_kib: RAM of the smallest board sold.
        parameter_cache_kib: The accelerator's cache for parameters; 0 without accelerator.
        model_kib: What one model may take while it runs, weights and activations together: half of the RAM where the
            file does not say, because the system, the agent and the slot of the next model live there too.
    """

    ram_kib: int
    parameter_cache_kib: int
    model_kib: int


@dataclass(frozen=True)
class Target:
    """One target.

    Attributes:
        name: As recipes write it, such as ``rpi4``.
        title: For people.
        architecture: ``aarch64`` or ``x86_64``.
        cpu: Core name, such as ``cortex-a72``.
        cores: Number of cores.
        runs_agent: False if models are exported and checked for it, but the agent is not run there.
        memory: What fits.
        runtimes: What runs models, preferred first.
        integers: Meaning of int8, by file format.
        accelerator: What is mapped to the accelerator; None without one.
    """

    name: str
    title: str
    architecture: str
    cpu: str
    cores: int
    runs_agent: bool
    memory: Memory
    runtimes: tuple[RuntimeRange, ...]
    integers: dict[str, Integers]
    accelerator: Accelerator | None

    def runtime(self, name: str) -> RuntimeRange | None:
        """Return the range of a runtime, or None if the target has none."""
        return next((runtime for runtime in self.runtimes if runtime.name == name), None)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    parts = [int(part) for part in found[0].split(".")] if found else []
    return tuple(parts + [0] * (4 - len(parts)))


def _closed(fields: Fields) -> None:
    """Refuse keys that nobody asked for: a person mistyped them."""
    unknown = sorted(fields.rest())
    if unknown:
        raise TargetError(f"unknown key '{unknown[0]}'", where=fields.where, fix="remove it or correct its spelling")


def _version(fields: Fields, key: str) -> str:
    text = fields.text(key)
    if not _VERSION.match(text):
        raise TargetError(f"{text!r} is not a version", where=f"{fields.where}.{key}", fix="write it like '2.3.0'")
    return text


def _runtime(document: Any, where: str) -> RuntimeRange:
    f = Fields(document, where, TargetError)
    formats = f.texts("formats")
    for name in formats:
        if name not in FORMATS:
            raise TargetError(f"unknown format {name!r}", where=f"{where}.formats", fix=f"use {' or '.join(FORMATS)}")
    found = RuntimeRange(
        f.text("name", among=RUNTIMES), _version(f, "minimum"), _version(f, "below"), formats, f.text("delegate")
    )
    if _numbers(found.minimum) >= _numbers(found.below):
        raise TargetError(f"no version lies in [{found.minimum}, {found.below})", where=where)
    _closed(f)
    return found


def _memory(document: Any, where: str) -> Memory:
    f = Fields(document, where, TargetError)
    ram = f.integer("ram_kib", minimum=1)
    found = Memory(ram, f.integer("parameter_cache_kib", 0, minimum=0), f.integer("model_kib", ram // 2, minimum=1))
    _closed(f)
    if found.model_kib > found.ram_kib:
        raise TargetError(f"model_kib {found.model_kib} is more than ram_kib {ram}", where=where)
    return found


def parse(text: str, *, where: str) -> Target:
    """Return the target in a TOML text.

    Args:
        text: The file's text.
        where: The file's name, for error messages.

    Raises:
        TargetError: Not TOML, another schema, or a key that is missing, unknown or of the wrong type.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f"not TOML: {error}", where=where) from error
    f = Fields(document, where, TargetError)
    schema = f.text("schema")
    if schema not in SCHEMAS:
        raise TargetError(f"schema {schema!r} is not {SCHEMA!r}", where=f"{where}.schema", fix="update Strop")
    described = f.object("integers")
    for name in described:
        if name not in FORMATS:
            fix = f"use {' or '.join(FORMATS)}"
            raise TargetError(f"unknown format {name!r}", where=f"{where}.integers", fix=fix)
    found = Target(
        name=f.text("name"),
        title=f.text("title"),
        architecture=f.text("architecture", among=("aarch64", "x86_64")),
        cpu=f.text("cpu"),
        cores=f.integer("cores", minimum=1),
        runs_agent=f.flag("runs_agent"),
        memory=_memory(f.object("memory"), f"{where}.memory"),
        runtimes=tuple(_runtime(r, f"{where}.runtimes[{i}]") for i, r in enumerate(f.items("runtimes"))),
        integers={n: integers.parse(n, described[n], f"{where}.integers.{n}") for n in described},
        accelerator=_accelerator(f, where, schema),
    )
    _closed(f)
    _check_formats(found, where)
    return found


def _accelerator(fields: Fields, where: str, schema: str) -> Accelerator | None:
    """An ``[accelerator]`` in a file of schema 1 stays unread, so that it is refused as an unknown key."""
    document = None if schema == SCHEMAS[0] else fields.object("accelerator", None)
    return None if document is None else accelerators.parse(document, f"{where}.accelerator")


def _check_formats(target: Target, where: str) -> None:
    needed = {name for runtime in target.runtimes for name in runtime.formats}
    for name in sorted(needed - set(target.integers)):
        raise TargetError(f"a runtime reads {name}, but [integers.{name}] is missing", where=where)


def _folder() -> Traversable:
    return resources.files("edge_contract") / "targets"


def names() -> tuple[str, ...]:
    """Return the names of the targets that come with Strop.

    Example:
        >>> names()
        ('coral-devboard', 'coral-usb', 'generic-x86', 'rpi3', 'rpi4', 'rpi5', 'zero2')
    """
    return tuple(sorted(f.name.removesuffix(".toml") for f in _folder().iterdir() if f.name.endswith(".toml")))


def load(name: str) -> Target:
    """Return a target by its name, or by the path of a TOML file (it ends in ``.toml``).

    Raises:
        TargetError: No such target, a file that cannot be read, or a malformed one.

    Example:
        >>> load("rpi4").integers["tflite"].fully_connected
        'tensor'
    """
    if name.endswith(".toml"):
        try:
            return parse(Path(name).read_text(encoding="utf-8"), where=name)
        except (OSError, UnicodeDecodeError) as error:
            raise TargetError(f"cannot be read: {error}", where=name) from error
    if name not in names():
        raise TargetError(f"unknown target '{name}'", fix=f"use one of {', '.join(names())}")
    return parse((_folder() / f"{name}.toml").read_text(encoding="utf-8"), where=f"{name}.toml")
