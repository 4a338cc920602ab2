# SPDX-License-Identifier: Apache-2.0
"""The control process's half: is there a patch towards a file that we need, from one that we hold? Try it, once.

Standard library only: the patch is applied by ``python -m edge_agent.delta``, which comes and goes. Whatever goes
wrong here costs some bytes and a line in the log: the caller then fetches the full file. A pair whose patch gave
other bytes than it promised is remembered on this device and reported, so that the server offers it to nobody.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from edge_contract import canonical, durable
from edge_contract.deltas import EMPTY, Offer, offers_from
from edge_contract.errors import DownloadError, StropError

__all__ = ["FailedPairs", "Outcome", "Source", "choose", "try_delta"]

WORTH: Final = 0.7
"""A patch larger than this share of the file is left alone."""
MARGIN_BYTES: Final = 16_000_000
APPLY_TIMEOUT_S: Final = 600.0
_KEPT_PAIRS: Final = 256
_MAX_REPLY_BYTES: Final = 10_000
_ROOT: Final = Path(__file__).resolve().parents[2]


class Source(Protocol):
    """Where patches come from: the devices' listener of the server."""

    def offers(self, sha256: str) -> bytes:
        """Return the server's list of patches towards a file; raises DownloadError."""
        ...

    def fetch(self, sha256: str, size: int, path: Path) -> None:
        """Bring a patch, resuming what is there; raises DownloadError, BundleError."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a file came, or why no patch brought it.

    Attributes:
        sha256: Of the file.
        codec: Of the patch; empty if none brought the file.
        base: The SHA-256 of the patch's base; empty if none was tried.
        fetched: Bytes of the patch that was fetched.
        reason: Why no patch brought it; empty if one did.
        blame: ``patch`` if every device would fail with it.
    """

    sha256: str
    codec: str = ""
    base: str = ""
    fetched: int = 0
    reason: str = ""
    blame: str = ""

    @property
    def is_there(self) -> bool:
        """The file is at its place, whole."""
        return bool(self.codec) and not self.reason


class FailedPairs:
    """(base, result) pairs whose patch failed here, in a small file of ours; one that cannot be read is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[tuple[str, str]]:
        try:
            found = canonical.loads(self._path.read_bytes(), where=self._path.name)["pairs"]
            return [(str(base), str(result)) for base, result in found]
        except (OSError, StropError, KeyError, TypeError, ValueError):
            return []

    def add(self, base: str, result: str) -> None:
        """Remember one more; a disk that refuses only makes us forgetful."""
        pairs = [pair for pair in self.read() if pair != (base, result)] + [(base, result)]
        data = canonical.dumps({"pairs": [list(pair) for pair in pairs[-_KEPT_PAIRS:]]})
        try:
            durable.write(self._path, data)
        except OSError:
            return


def choose(
    offers: Iterable[Offer], held: Iterable[str], failed: Iterable[tuple[str, str]], wanted: tuple[str, int]
) -> Offer | None:
    """Return the smallest patch from a file that we hold, None if none is worth it.

    Args:
        offers: What the server has.
        held: SHA-256 of the files that we hold.
        failed: Pairs that failed here before.
        wanted: SHA-256 and size in bytes of the file that we need.

    Example:
        >>> small, large = Offer("ab" * 32, "tensors", "01" * 32, 10), Offer("ab" * 32, "zstd-prefix", "02" * 32, 90)
        >>> choose([large, small], ["ab" * 32], [], ("cd" * 32, 100)).size
        10
        >>> choose([large], ["ab" * 32], [], ("cd" * 32, 100)) is None
        True
    """
    ours, bad = {*held, EMPTY}, set(failed)
    able = [o for o in offers if o.base in ours and (o.base, wanted[0]) not in bad and o.size <= WORTH * wanted[1]]
    return min(able, key=lambda offer: offer.size, default=None)


def try_delta(
    wanted: tuple[str, int],
    path: Path,
    held: Mapping[str, Path],
    source: Source,
    *,
    work: Path,
    failed: FailedPairs,
    python: str = sys.executable,
) -> Outcome:
    """Bring one file by a patch; on ``is_there`` it is at ``path``, whole and fsynced, else nothing is there.

    Args:
        wanted: SHA-256 and size in bytes of the file, from the signed targets.
        path: Where to; its folder exists, on the disk of ``work``.
        held: SHA-256 → path of files on this device that may be bases.
        source: The server.
        work: A folder of ours for the patch and the result under way; emptied at the end, kept for a resume.
        failed: Remembers.
        python: An interpreter with the ``agent`` extra.

    Raises:
        DownloadError: The network failed in the middle of a patch: trying again later goes on from there.
        Exception: What ``source.fetch`` raises for a cancelled order.
    """
    sha256, size = wanted
    if python == sys.executable and importlib.util.find_spec("zstandard") is None:
        return Outcome(sha256, reason="zstandard is not installed")  # seen before a patch is paid for
    try:
        offer = choose(offers_from(source.offers(sha256), sha256), held, failed.read(), wanted)
    except StropError as error:
        return Outcome(sha256, reason=str(error))
    if offer is None:
        return Outcome(sha256, reason="no patch fits what is held here")
    told, is_resumable = Outcome(sha256, offer.codec, offer.base), False
    if _free(path.parent) < size + offer.size + MARGIN_BYTES:
        return _failed(told, "no room for patch and result beside each other", "here")
    try:
        _prepare(work, keep=offer.sha256)
        patch = _fetched(offer, source, work)
        base = held[offer.base] if offer.base != EMPTY else _empty(work)
        told = Outcome(sha256, offer.codec, offer.base, offer.size)
        files = {"base": str(base), "patch": str(patch), "out": str(work / "result")}
        reply = _applied(python, {**files, "base_sha256": offer.base, "sha256": sha256, "size": size})
        if reply.get("ok") is not True:
            return _refused(told, reply, failed)
        (work / "result").replace(path)
        durable.sync_folder(path.parent)
        return told
    except _Unfetched as error:
        return _failed(told, str(error), "here")
    except OSError as error:
        return _failed(told, f"the disk refuses: {error.strerror}", "here")
    except DownloadError:
        is_resumable = True
        raise
    finally:
        if not is_resumable:
            shutil.rmtree(work, ignore_errors=True)


class _Unfetched(Exception):  # noqa: N818 - not an error of the order: the full file is fetched instead
    """The patch did not come, and not a byte of it."""


def _failed(told: Outcome, reason: str, blame: str) -> Outcome:
    return Outcome(told.sha256, told.codec, told.base, told.fetched, reason or "failed", blame)


def _refused(told: Outcome, reply: Mapping[str, Any], failed: FailedPairs) -> Outcome:
    blame = str(reply.get("blame", "here"))
    if blame != "here":  # a base that is damaged stays damaged, a bad patch stays bad
        failed.add(told.base, told.sha256)
    return _failed(told, str(reply.get("what", ""))[:300], blame)


def _free(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _prepare(work: Path, keep: str) -> None:
    """Leave only the patch that is to be resumed."""
    work.mkdir(parents=True, exist_ok=True)
    for entry in work.iterdir():
        if entry.name != keep:
            entry.unlink()


def _fetched(offer: Offer, source: Source, work: Path) -> Path:
    patch = work / offer.sha256
    before = patch.stat().st_size if patch.exists() else 0
    try:
        source.fetch(offer.sha256, offer.size, patch)
    except DownloadError as error:
        if patch.exists() and patch.stat().st_size > before:
            raise
        raise _Unfetched(str(error)) from error  # an offer that leads nowhere must not be asked for for ever
    except StropError as error:
        raise _Unfetched(str(error)) from error
    return patch


def _empty(work: Path) -> Path:
    path = work / "empty"
    path.write_bytes(b"")
    return path


def _applied(python: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the helper's answer; one that says nothing was ended from outside, by too little memory most likely."""
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    try:
        ended = subprocess.run(
            [python, "-P", "-m", "edge_agent.delta"],
            input=canonical.dumps(dict(request)),
            capture_output=True,
            timeout=APPLY_TIMEOUT_S,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
        reply = json.loads(ended.stdout[:_MAX_REPLY_BYTES])
        return reply if isinstance(reply, dict) else {}
    except subprocess.TimeoutExpired:
        return {"blame": "here", "what": f"the helper needed more than {APPLY_TIMEOUT_S:g} s"}
    except OSError as error:
        return {"blame": "here", "what": f"cannot start {python}: {error}"}
    except ValueError:
        return {"blame": "here", "what": f"the helper ended with code {ended.returncode}"}
