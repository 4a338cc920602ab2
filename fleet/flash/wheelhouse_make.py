# SPDX-License-Identifier: Apache-2.0
"""Make a wheelhouse: build our own wheel, download the others with pip, slim them, and let pip resolve what is left.

Pip is asked twice: for the original wheels of another Python and processor, and, offline, for ``strop[agent]`` out of
the slimmed ones. The second answer is what the wheelhouse holds; it also proves that pip takes them. Originals stay in
a folder beside (``.DIR.originals``), so what was interrupted goes on with what was had.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from edge_contract import wheel
from edge_contract.errors import BundleError, DownloadError, MissingDependencyError, UsageError
from fleet.flash.wheelhouse import INDEX, OUR_NAME, REQUIREMENTS, RUNTIMES, Wheelhouse, WheelhouseFile, read
from fleet.flash.wheelhouse_slim import slim

__all__ = ["MACHINES", "PYTHONS", "Order", "make", "own_wheel"]

PYTHONS: Final = ("3.11", "3.12", "3.13")
MACHINES: Final = ("aarch64", "armv7l", "x86_64")
PACKAGES: Final = ("strop", "edge_contract", "compress", "export", "edge_agent", "fleet", "benchmarks")
BOARD: Final = {"typer": "typer<0.29"}  # from there on it brings pydantic: 6 MB, which the board's commands do not use
"""Versions for boards, by name; they win over ``constraints``."""
_CLEAN: Final = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
_DATED: Final = "315532800"
"""1980, the first year that a zip archive knows: a wheel that is built twice has the same bytes."""


@dataclass(frozen=True)
class Order:
    """What is wanted.

    Attributes:
        python, machine, runtime: For which boards.
        out: The folder to be made.
        source: Folder of wheels to take instead of the network; None: pip's own indexes.
        ours: Our own wheel; None: it is built from the sources of this very program.
        is_slim: Leave unused parts out.
        constraints: File of versions for pip; None: the newest that fit.
    """

    python: str
    machine: str
    runtime: str
    out: Path
    source: Path | None = None
    ours: Path | None = None
    is_slim: bool = True
    constraints: Path | None = None

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{OUR_NAME}[agent,{RUNTIMES[self.runtime]}]"

    def check(self) -> None:
        """Raise UsageError for boards that we know no wheels for."""
        if self.python not in PYTHONS or self.machine not in MACHINES or self.runtime not in RUNTIMES:
            what = f"Python {self.python}, {self.machine}, {self.runtime}: unknown"
            known = f"Python {', '.join(PYTHONS)}; {', '.join(MACHINES)}; {', '.join(RUNTIMES)}"
            raise UsageError(what, fix=f"it may be {known}")
        if self.runtime == "tflite-runtime" and self.python != "3.11":
            fix = "take litert, or an image with Python 3.11"
            raise UsageError(f"no wheel of tflite-runtime for Python {self.python} exists", fix=fix)
        if self.machine == "armv7l" and self.runtime != "tflite-runtime":
            fix = "use a 64-bit image (aarch64); 32-bit boards are best effort, with --runtime tflite-runtime alone"
            raise UsageError(f"no wheel of {self.runtime} for 32-bit ARM exists", fix=fix)


def make(order: Order, tell: Callable[[str], None]) -> Wheelhouse:
    """Make a wheelhouse and return it, checked.

    Raises:
        UsageError: Boards without wheels, or a folder that is something else.
        DownloadError: pip could not have a wheel; names which.
        BundleError: A wheel is damaged.
        MissingDependencyError: pip or setuptools is not there.
    """
    order.check()
    if order.out.exists() and not (order.out / INDEX).exists() and any(order.out.iterdir()):
        raise UsageError("is a folder of something else", where=str(order.out), fix="choose another folder")
    originals = order.out.with_name(f".{order.out.name}.originals")
    originals.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="strop-wheelhouse-") as made:
        work = Path(made)
        tell("our own wheel")
        ours = order.ours or own_wheel(work / "own")
        tell(f"wheels for Python {order.python} on {order.machine}")
        found = _download(order, ours, originals, work / "chosen")
        house = _assemble(order, found, work, tell)
    shutil.rmtree(originals, ignore_errors=True)
    return house


def own_wheel(folder: Path, sources: Path | None = None) -> Path:
    """Build our wheel from a copy of the sources, for a build in place would leave its folders behind.

    Raises:
        UsageError: This program was not started from its sources.
        BundleError: The build failed.
    """
    root = sources or Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        fix = "give the wheel of this version: --own-wheel strop-….whl"
        raise UsageError("the sources of strop are not here", where=str(root), fix=fix)
    copy = folder / "sources"
    for name in PACKAGES:
        if (root / name).is_dir():
            shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, copy / name)
    # Setuptools that are here are taken: then no network is needed for the build.
    alone = ["--no-build-isolation"] if find_spec("setuptools") else []
    failed = _pip(["wheel", "--no-deps", "--wheel-dir", str(folder), *alone], [str(copy)])
    found = sorted(folder.glob(f"{OUR_NAME}-*.whl"))
    if failed or len(found) != 1:
        raise BundleError(f"our own wheel cannot be built: {failed or 'nothing was made'}", where=str(root))
    shutil.rmtree(copy)
    return found[0]


def _pip(words: Sequence[str], rest: Iterable[str] = ()) -> str:
    """Run pip; return what went wrong in one line, empty if nothing."""
    environ = {key: value for key, value in os.environ.items() if key not in _CLEAN}
    command = [sys.executable, "-m", "pip", *words, "--quiet", "--disable-pip-version-check", "--no-input", *rest]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        env={**environ, "SOURCE_DATE_EPOCH": _DATED},
    )  # fmt: skip
    if done.returncode == 0:
        return ""
    if "No module named pip" in done.stderr:
        raise MissingDependencyError("pip is not installed", fix=f"{sys.executable} -m ensurepip")
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    return (errors or lines or [f"exit code {done.returncode}"])[0][:400]


def _download(order: Order, ours: Path, originals: Path, chosen: Path) -> list[Path]:
    """Return the original wheels that the requirement needs."""
    sources = ["--find-links", str(ours.parent)]
    if order.source is not None:
        if not order.source.is_dir():
            raise UsageError("is no folder", where=str(order.source))
        sources += ["--no-index", "--find-links", str(order.source)]
    kept = originals.with_name(f"{originals.name}.constraints")
    kept.write_text("".join(f"{line}\n" for line in _constraints(order)))
    try:
        _ask(order, [*sources, "--constraint", str(kept)], originals)
    finally:
        kept.unlink()
    _ask(order, ["--no-index", "--find-links", str(originals), "--find-links", str(ours.parent)], chosen)
    return sorted(chosen.glob("*.whl"))


def _constraints(order: Order) -> list[str]:
    """Return the lines of the given constraints, and what holds for boards; a given folder is a choice already made."""
    try:
        given = order.constraints.read_text().splitlines() if order.constraints else []
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(order.constraints)) from error
    if order.source is not None:
        return given
    named = re.compile(r"\s*([A-Za-z0-9._-]+)")
    kept = [line for line in given if not ((found := named.match(line)) and wheel.normalised(found[1]) in BOARD)]
    return [*kept, *BOARD.values()]


def _ask(order: Order, sources: Sequence[str], out: Path) -> None:
    """Let pip choose for another Python and processor; raises DownloadError that names what is missing."""
    tags = [f"--platform={tag}" for tag in wheel.platforms(order.python, order.machine)]
    kind = ["--only-binary=:all:", "--implementation=cp", f"--python-version={order.python}", *tags]
    failed = _pip(["download", "--dest", str(out), *kind, *sources], [order.requirement])
    if failed:
        named = re.search(r"(?:distribution found for|satisfies the requirement) ([^\s;(]+)", failed)
        what = f"no wheel of {named[1]}" if named else failed
        fix = "another --python, --arch or --runtime may have one"
        if order.source is not None:
            fix = f"put it into {order.source}; or leave --from out"
        raise DownloadError(f"{what} for Python {order.python} on {order.machine}", where="pip download", fix=fix)


def _assemble(order: Order, found: Sequence[Path], work: Path, tell: Callable[[str], None]) -> Wheelhouse:
    """Slim the wheels, let pip choose among them, write the index, and put the folder in place."""
    slimmed, draft = work / "slimmed", order.out.with_name(f".{order.out.name}.new")
    slimmed.mkdir()
    told: dict[str, tuple[int, str]] = {}
    for path in found:
        tell(path.name.split("-")[0])
        original = wheel.read(path)
        out = slim(path, slimmed).path if order.is_slim else Path(shutil.copy(path, slimmed))
        told[out.name] = original.unpacked, original.sha256
    shutil.rmtree(draft, ignore_errors=True)
    _ask(order, ["--no-index", "--find-links", str(slimmed)], draft)
    wheels = tuple(_file(path, *told[path.name]) for path in sorted(draft.glob("*.whl")))
    house = Wheelhouse(draft, order.python, order.machine, order.runtime, wheels)
    (draft / REQUIREMENTS).write_bytes(house.requirements())
    (draft / INDEX).write_bytes(house.index())
    shutil.rmtree(order.out, ignore_errors=True)
    draft.rename(order.out)
    return read(order.out)


def _file(path: Path, unpacked: int, digest: str) -> WheelhouseFile:
    found = wheel.read(path)
    facts = (found.name, found.version, found.sha256, found.size, found.unpacked)
    return WheelhouseFile(path.name, *facts, unpacked, digest)
