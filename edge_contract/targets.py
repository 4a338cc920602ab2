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

from edge_contract.errors import TargetError
from edge_contract.fields import Fields
from edge_contract.manifest import FORMATS, RUNTIMES

__all__ = ["SCHEMA", "Integers", "Memory", "RuntimeRange", "Target", "load", "names", "parse"]

SCHEMA: Final = "strop.target/1"
GRANULARITIES: Final = ("channel", "tensor")
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
class Integers:
    """What int8 means in one file format on this target.

    Attributes:
        format: ``onnx`` or ``tflite``.
        activation: Type of activations, ``int8`` or ``uint8``; asymmetric, one scale per tensor.
        weight: Type of weights; symmetric, zero point 0, range [-127, 127].
        bias: Type of biases; scale = input scale × weight scale, zero point 0.
        convolution: Scales of convolution weights: one per output ``channel`` or one per ``tensor``.
        fully_connected: The same for fully-connected weights.
        operators: Operators that the writers may use, in the format's own spelling; the highest version is
            the value (TFLite's operator version, ONNX's opset).
        max_rank: Largest tensor rank.
    """

    format: str
    activation: str
    weight: str
    bias: str
    convolution: str
    fully_connected: str
    operators: dict[str, int]
    max_rank: int


@dataclass(frozen=True)
class Memory:
    """Memory in KiB: RAM of the smallest board sold, and the accelerator's parameter cache (0: no accelerator)."""

    ram_kib: int
    parameter_cache_kib: int


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


def _operators(document: dict[str, Any], where: str) -> dict[str, int]:
    f = Fields(document, where, TargetError)
    if not document:
        raise TargetError("no operator", where=where)
    return {name: f.integer(name, minimum=1) for name in document}


def _integers(format_name: str, document: Any, where: str) -> Integers:
    f = Fields(document, where, TargetError)
    found = Integers(
        format_name,
        f.text("activation", among=("int8", "uint8")),
        f.text("weight", among=("int8",)),
        f.text("bias", among=("int32",)),
        f.text("convolution", among=GRANULARITIES),
        f.text("fully_connected", among=GRANULARITIES),
        _operators(f.object("operators"), f"{where}.operators"),
        f.integer("max_rank", minimum=1),
    )
    _closed(f)
    return found


def _memory(document: Any, where: str) -> Memory:
    f = Fields(document, where, TargetError)
    found = Memory(f.integer("ram_kib", minimum=1), f.integer("parameter_cache_kib", 0, minimum=0))
    _closed(f)
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
    if schema != SCHEMA:
        raise TargetError(f"schema {schema!r} is not {SCHEMA!r}", where=f"{where}.schema", fix="update Strop")
    integers = f.object("integers")
    for name in integers:
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
        integers={name: _integers(name, integers[name], f"{where}.integers.{name}") for name in integers},
    )
    _closed(f)
    _check_formats(found, where)
    return found


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
