# SPDX-License-Identifier: Apache-2.0
"""Make an environment from wheels that were verified, and let it examine itself. Runs in the helper process, niced.

The launcher's interpreter does the work: its ``venv`` and ``pip`` are those that were installed on the device, so a
release with a broken pip cannot stand in the way of the next one. Nothing comes from a network: ``--no-index``, every
wheel by its name, version and SHA-256. Bytes are brought to the disk before the mark that says that they are whole.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from edge_agent.software import launch
from edge_contract import durable
from edge_contract.errors import BundleError, SlotError, StropError

__all__ = ["Order", "Wheel", "build", "examine"]

NICE: Final = 10
CHECK_S: Final = 120.0
INSTALL_S: Final = 1500.0
_CLEAN: Final = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "PIP_CONFIG_FILE", "PIP_INDEX_URL")
_NO_ROOM: Final = ("No space left on device", "Disk quota exceeded")


@dataclass(frozen=True)
class Wheel:
    """One wheel on the disk: name and version of its distribution, its SHA-256, its path."""

    name: str
    version: str
    sha256: str
    path: Path


@dataclass(frozen=True)
class Order:
    """What is to be made.

    Attributes:
        data: The data folder.
        release: Id of the release.
        version: What the release must say of itself.
        python: The launcher's interpreter.
        wheels: All that is installed.
    """

    data: Path
    release: str
    version: str
    python: str
    wheels: tuple[Wheel, ...]


def build(order: Order) -> dict[str, Any]:
    """Make the environment, unless it is there, and examine it; return what it says of itself.

    Raises:
        BundleError: The wheels do not fit this device or each other, or the release refuses this device's state.
        SlotError: The disk refuses.
    """
    os.nice(NICE)
    venv = launch.venv_of(order.data, order.release)
    venv.parent.mkdir(parents=True, exist_ok=True)
    with _alone(venv.parent) as lock:
        if not launch.is_whole(order.data, order.release):
            try:
                _make(order, venv, lock)
            except (OSError, StropError) as error:
                shutil.rmtree(venv, ignore_errors=True)
                raise error if isinstance(error, StropError) else _refused(error, venv) from error
        try:
            return examine(order, venv, lock)
        except BundleError:
            (venv / launch.MARK).unlink(missing_ok=True)
            shutil.rmtree(venv, ignore_errors=True)
            raise


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[IO[str]]:
    """Hold the lock that children inherit: of an earlier attempt something may still run."""
    with (folder / "build.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def _make(order: Order, venv: Path, lock: IO[str]) -> None:
    shutil.rmtree(venv, ignore_errors=True)
    _run([order.python, "-I", "-m", "venv", "--without-pip", str(venv)], lock, INSTALL_S)
    links, wanted = venv / "wheels", venv / "requirements.txt"
    links.mkdir()
    for wheel in order.wheels:
        (links / wheel.path.name).symlink_to(wheel.path)
    lines = [f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in order.wheels]
    wanted.write_text("".join(lines))
    python = str(venv / "bin" / "python")
    own = ["-I", "-m", "pip", "--isolated", "--disable-pip-version-check", "--no-input", "--no-cache-dir", "--quiet"]
    what = ["install", "--no-index", "--find-links", str(links), "--require-hashes", "--no-deps", "-r", str(wanted)]
    if _has_pip(order.python, lock):
        _run([order.python, *own, "--python", python, *what], lock, INSTALL_S)
    else:  # a system without pip has its wheel for environments
        _run([python, "-I", "-m", "ensurepip"], lock, INSTALL_S)
        _run([python, *own, *what], lock, INSTALL_S)
    shutil.rmtree(links)
    durable.sync_file_system(venv)
    words = {"release": order.release, "version": order.version}
    durable.write(venv / launch.MARK, json.dumps(words, sort_keys=True).encode())
    durable.sync_folder(venv.parent)
    durable.sync_folder(venv.parent.parent)


def _has_pip(python: str, lock: IO[str]) -> bool:
    try:
        _run([python, "-I", "-c", "import pip"], lock, CHECK_S)
    except BundleError:
        return False
    return True


def _run(words: Sequence[str], lock: IO[str], limit_s: float) -> str:
    """Run a program to its end; return its stdout, raise BundleError with its last words."""
    environ = {key: value for key, value in os.environ.items() if key not in _CLEAN}
    how: Mapping[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "replace"}
    fds = (lock.fileno(),)
    try:
        ended = subprocess.run(words, env=environ, pass_fds=fds, timeout=limit_s, check=False, **how)
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"not done within {limit_s:g} s", where=_short(words)) from error
    if ended.returncode == 0:
        return str(ended.stdout)
    text = f"{ended.stdout}\n{ended.stderr}"
    if any(sign in text for sign in _NO_ROOM):
        raise SlotError("no space left for the environment", where="disk", fix="free some space")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith(("ERROR", "error"))), (lines or ["it wrote nothing"])[-1])
    raise BundleError(f"code {ended.returncode}: {told[:300]}", where=_short(words))


def _short(words: Sequence[str]) -> str:
    """Return what a program does, for people."""
    verb = next((word for word in words if word in ("venv", "pip", "ensurepip", "--check")), Path(words[0]).name)
    return {"--check": "self-test of the new release"}.get(verb, verb)


def _refused(error: OSError, venv: Path) -> SlotError:
    return SlotError(f"cannot make the environment: {error}", where=str(venv), fix="free some space")


def examine(order: Order, venv: Path, lock: IO[str]) -> dict[str, Any]:
    """Let the new release look at this device: imports, configuration, journal, outbox, protocol.

    Raises:
        BundleError: It refuses, or is another version than the manifest says.
    """
    words = [str(venv / "bin" / "python"), "-P", "-m", "edge_agent", "--check", "--data", str(order.data)]
    said = _run(words, lock, CHECK_S)
    try:
        answer = dict(json.loads(said.strip().splitlines()[-1]))
    except (ValueError, IndexError, TypeError) as error:
        raise BundleError("it does not answer in JSON", where="self-test of the new release") from error
    if answer.get("version") != order.version:
        what = f"it is version {answer.get('version')!r}, the manifest says {order.version!r}"
        raise BundleError(what, where="self-test of the new release", fix="make the release again")
    return answer
