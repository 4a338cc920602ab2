# SPDX-License-Identifier: Apache-2.0
"""From a wheelhouse to a release: which wheels each kind of device gets, whether they are all there, the folder."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags

from edge_contract import PROTOCOL_VERSION
from edge_contract.errors import BundleError, UsageError
from edge_contract.manifest import MANIFEST_NAME, BundleFile
from edge_contract.software import Platform, SoftwareManifest
from edge_contract.wheel import platforms as wheel_platforms
from export.software.wheels import Wheel

__all__ = ["Kind", "Release", "kinds_of", "parse_kind", "plan", "write"]

_EXTRAS: Final[Mapping[str, str]] = {
    "ai-edge-litert": "agent-litert",
    "onnxruntime": "agent-onnx",
    "tflite-runtime": "agent-tflite",
}
OUR_NAME: Final = "strop"


@dataclass(frozen=True, order=True)
class Kind:
    """One kind of device: Python version and machine."""

    python: str
    machine: str

    def __str__(self) -> str:
        return f"{self.python}-{self.machine}"

    @property
    def tags(self) -> tuple[Tag, ...]:
        """The tags of wheels that fit, best first."""
        version = tuple(int(part) for part in self.python.split("."))
        platforms = wheel_platforms(self.python, self.machine)
        ours = cpython_tags(python_version=version, platforms=platforms)
        return (*ours, *compatible_tags(python_version=version, platforms=platforms))

    @property
    def environment(self) -> dict[str, str]:
        """What markers of requirements are evaluated in."""
        told = {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "implementation_version": f"{self.python}.0",
            "platform_machine": self.machine,
            "platform_system": "Linux",
            "sys_platform": "linux",
            "os_name": "posix",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }
        return {**{key: str(value) for key, value in default_environment().items()}, **told}


@dataclass(frozen=True)
class Release:
    """What a release will hold: the wheels of each kind, what was left out, and the manifest."""

    wheels: Mapping[Kind, tuple[Wheel, ...]]
    left_out: tuple[Wheel, ...]
    manifest: SoftwareManifest


def parse_kind(text: str) -> Kind:
    """Return the kind that words such as ``3.11-aarch64`` name.

    Raises:
        UsageError: Not of that form.

    Example:
        >>> parse_kind("3.11-aarch64")
        Kind(python='3.11', machine='aarch64')
    """
    python, _, machine = text.partition("-")
    if not machine or python.count(".") != 1 or not python.replace(".", "").isdigit():
        raise UsageError(f"--platform {text} is none", fix="write PYTHON-MACHINE, such as 3.11-aarch64")
    return Kind(python, machine)


def kinds_of(wheels: Iterable[Wheel]) -> tuple[Kind, ...]:
    """Return the kinds that the compiled wheels of a wheelhouse name.

    Raises:
        UsageError: None: all of them are pure Python, which fits everything.
    """
    found = set()
    for wheel in wheels:
        for tag in wheel.tags:
            machine = _machine(tag.platform)
            if machine and tag.interpreter.startswith("cp3") and tag.abi == tag.interpreter:
                found.add(Kind(f"3.{tag.interpreter[3:]}", machine))
    if not found:
        raise UsageError("the wheels do not say for which devices they are", fix="add --platform 3.11-aarch64")
    return tuple(sorted(found))


def _machine(platform: str) -> str:
    if platform.startswith("manylinux_"):
        return platform.split("_", 3)[3]
    return platform.split("_", 1)[1] if platform.startswith(("manylinux", "linux_")) else ""


def plan(wheels: Sequence[Wheel], kinds: Sequence[Kind], *, version: str = "") -> Release:
    """Choose the wheels of each kind, and make the manifest.

    Args:
        wheels: The wheelhouse.
        kinds: For which devices.
        version: What the release is thought to be; it must be the version of the wheel of ``strop``.

    Raises:
        BundleError: No such wheel, two versions of one distribution, or something that is needed is missing.
    """
    ours = {wheel.version for wheel in wheels if wheel.name == OUR_NAME}
    if len(ours) != 1 or version not in ("", *ours):
        has = ", ".join(sorted(ours)) or "none"
        raise BundleError(
            f"wheel of {OUR_NAME} {version or ''}".strip() + f": the wheelhouse has {has}", fix="give one"
        )
    chosen = {kind: _closure(kind, _fitting(kind, wheels)) for kind in kinds}
    used = {wheel.path.name: wheel for found in chosen.values() for wheel in found}
    files = tuple(_entry(used[name]) for name in sorted(used))
    platforms = tuple(Platform(k.python, k.machine, tuple(f"wheels/{w.path.name}" for w in chosen[k])) for k in kinds)
    manifest = SoftwareManifest(ours.pop(), PROTOCOL_VERSION, platforms, {}, files)
    left_out = tuple(wheel for wheel in wheels if wheel.path.name not in used)
    return Release(chosen, left_out, manifest)


def _entry(wheel: Wheel) -> BundleFile:
    said = {"name": wheel.name, "version": wheel.version, "unpacked": wheel.unpacked, "members": wheel.members}
    return BundleFile(f"wheels/{wheel.path.name}", wheel.size, wheel.sha256, said)


def _fitting(kind: Kind, wheels: Sequence[Wheel]) -> dict[str, Wheel]:
    """Return name → the wheel that fits best; two versions are one too many, for nobody would know which."""
    order = {tag: i for i, tag in enumerate(kind.tags)}
    found: dict[str, tuple[int, Wheel]] = {}
    for wheel in wheels:
        rank = min((order[tag] for tag in wheel.tags if tag in order), default=None)
        if rank is None:
            continue
        known = found.get(wheel.name)
        if known is not None and known[1].version != wheel.version:
            what = f"{wheel.name} {known[1].version} and {wheel.version} for {kind}"
            raise BundleError(what, where=str(wheel.path.parent), fix="delete one of them")
        if known is None or rank < known[0]:
            found[wheel.name] = (rank, wheel)
    return {name: wheel for name, (_, wheel) in found.items()}


def _closure(kind: Kind, held: Mapping[str, Wheel]) -> tuple[Wheel, ...]:
    """Return what ``strop[agent, …]`` needs on a kind of device, sorted by name."""
    if OUR_NAME not in held:
        raise BundleError(f"the wheel of {OUR_NAME} does not fit {kind}")
    extras = {"agent", *(extra for package, extra in _EXTRAS.items() if package in held)}
    waiting, done = [(OUR_NAME, frozenset(extras))], dict[str, set[str]]()
    while waiting:
        name, wanted = waiting.pop()
        fresh = {*wanted, ""} - done.get(name, set())
        done.setdefault(name, set()).update(fresh)
        for requirement in held[name].requires:
            if not any(_applies(requirement, kind, extra) for extra in fresh):
                continue
            mate = requirement.name.lower().replace("_", "-").replace(".", "-")
            if mate not in held or not requirement.specifier.contains(held[mate].version, prereleases=True):
                has = f"{held[mate].version} is here" if mate in held else "it is not in the wheelhouse"
                raise BundleError(f"{name} needs {requirement} on {kind}, {has}", fix=f"pip download '{requirement}'")
            if {*requirement.extras, ""} - done.get(mate, set()):
                waiting.append((mate, frozenset(requirement.extras)))
    return tuple(held[name] for name in sorted(done))


def _applies(requirement: Requirement, kind: Kind, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**kind.environment, "extra": extra})


def write(release: Release, out: Path, *, overwrite: bool = False) -> str:
    """Write the folder and return the release's id.

    Raises:
        BundleError: The folder is there already.
    """
    if out.exists() and not overwrite:
        raise BundleError("is there already", where=str(out), fix="choose another folder, or --overwrite")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "wheels").mkdir(parents=True)
    for wheel in {wheel.path: wheel for found in release.wheels.values() for wheel in found}.values():
        shutil.copyfile(wheel.path, partial / "wheels" / wheel.path.name)
    (partial / MANIFEST_NAME).write_bytes(release.manifest.to_bytes())
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return release.manifest.bundle_id
