# SPDX-License-Identifier: Apache-2.0
"""Sizes, memory and times of patches on real model files, beside bsdiff4's; what ``python -m benchmarks.delta`` runs.

bsdiff4 is asked in a Python that has it (this one, or the one that is named), never imported by our code.
"""

import functools
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.interleave import interleave
from benchmarks.peers.delta_files import CHANGES, NETS, make, scattered
from edge_contract.errors import DeltaError, MissingDependencyError
from export.delta import maker
from export.delta.locate import parts_of

__all__ = ["BSDIFF_INSTALL", "Bsdiff", "measure"]

BSDIFF_INSTALL: Final = "pip install bsdiff4==1.3.2"
ROOT: Final = Path(__file__).parents[2]
SCATTERED: Final = "±1 in 10 % of the int8 weights"
LARGE_BYTES: Final = 20_000_000

_BSDIFF: Final = """
import sys, bsdiff4
verb, base, other, out = sys.argv[1:]
first, second = open(base, "rb").read(), open(other, "rb").read()
open(out, "wb").write(bsdiff4.diff(first, second) if verb == "diff" else bsdiff4.patch(first, second))
"""
# A process's peak begins with that of whoever started it, so a small one stands between.
_LAUNCH: Final = """
import resource, subprocess, sys
words = sys.stdin.buffer.read()
done = subprocess.run(sys.argv[1:], input=words, stdout=subprocess.PIPE)
print(done.stdout.decode())
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


class Bsdiff:
    """bsdiff4 in a Python of its own.

    Args:
        python: The interpreter; empty for this one.

    Raises:
        MissingDependencyError: bsdiff4 is not installed there.
    """

    def __init__(self, python: str = "") -> None:
        self.python = python or sys.executable
        command = [self.python, "-c", "import importlib.metadata as m; print(m.version('bsdiff4'))"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            fix = f"{BSDIFF_INSTALL}, in an environment of its own with --bsdiff-python"
            raise MissingDependencyError("bsdiff4 is not installed", where=self.python, fix=fix)
        self.version = done.stdout.strip()

    def diff(self, base: Path, target: Path, out: Path) -> int:
        """Write bsdiff4's patch and return its size in bytes."""
        self.run("diff", base, target, out)
        return out.stat().st_size

    def run(self, verb: str, base: Path, other: Path, out: Path) -> None:
        """Make (``diff``) or apply (``patch``) one."""
        subprocess.run([self.python, "-c", _BSDIFF, verb, str(base), str(other), str(out)], check=True)


def _request(base: Path, patch: Path, out: Path, target: bytes) -> bytes:
    words = {"base": str(base), "patch": str(patch), "out": str(out), "size": len(target)}
    digests = {"base_sha256": hashlib.sha256(base.read_bytes()).hexdigest(), "sha256": _sha256(target)}
    return json.dumps({**words, **digests}).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _applied(base: Path, patch: Path, target: bytes, folder: Path) -> int:
    """Apply a patch in the device's helper; return its peak memory in bytes, by getrusage.

    Raises:
        DeltaError: It failed, or gave other bytes.
    """
    out = folder / "out"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-c", _LAUNCH, sys.executable, "-m", "edge_agent.delta"]
    done = subprocess.run(command, input=_request(base, patch, out, target), capture_output=True, check=True, cwd=ROOT)
    reply, peak = done.stdout.decode().split("\n")[:2]
    if json.loads(reply)["ok"] is not True or _sha256(out.read_bytes()) != _sha256(target):
        raise DeltaError(f"the patch does not give its file: {reply}", where=str(patch))
    return int(peak) * 1024


def _pair(base: Path, target: bytes, bsdiff: Bsdiff | None, folder: Path) -> dict[str, Any]:
    """Return the bytes of every codec for one pair, and the memory of the one that is chosen."""
    held = base.read_bytes()
    patch = maker.make(held, target)
    (folder / "patch").write_bytes(patch.data)
    (folder / "target").write_bytes(target)
    empty = folder / "empty"
    empty.write_bytes(b"")
    peak = _applied(empty if patch.codec == "zstd" else base, folder / "patch", target, folder)
    kinds: dict[str, int] = {}
    for row in patch.rows:
        kinds[row.kind] = kinds.get(row.kind, 0) + 1
    return {
        "file_bytes": len(target),
        "codec": patch.codec,
        "worth_it": patch.is_worth_it,
        "bytes": {patch.codec: len(patch.data), **patch.others},
        "bsdiff4": bsdiff.diff(base, folder / "target", folder / "bs") if bsdiff else None,
        "peak_bytes": peak,
        "tensors": kinds,
    }


def _scattered(base: bytes) -> bytes:
    return scattered(base, [(part.offset, part.length) for part in parts_of(base, "base") if part.width == 1], 0.1)


def _times(base: Path, target: bytes, bsdiff: Bsdiff, folder: Path, pairs: int) -> dict[str, Any]:
    """Time whole processes in turns: our helper, with its hashes and fsync, and bsdiff4's patch with neither."""
    out, theirs = folder / "timed", folder / "timed-bs"
    (folder / "target").write_bytes(target)
    (folder / "patch").write_bytes(maker.make(base.read_bytes(), target).data)
    bsdiff.diff(base, folder / "target", folder / "bs")
    words = _request(base, folder / "patch", out, target)

    def ours() -> None:
        out.unlink(missing_ok=True)
        command = [sys.executable, "-m", "edge_agent.delta"]
        subprocess.run(command, input=words, stdout=subprocess.DEVNULL, check=True, cwd=ROOT)

    found = interleave(
        functools.partial(bsdiff.run, "patch", base, folder / "bs", theirs),
        ours,
        names=("bsdiff4, process", "python -m edge_agent.delta"),
        pairs=pairs,
        warmup=1,
        command="python -m benchmarks.delta",
    )
    return found.to_json()


def _large(folder: Path) -> dict[str, Any]:
    """Return the peak of both codecs on a file of 20 MB of int8 numbers, half of which are nudged in every tenth."""
    draw = np.random.default_rng(0)
    base = np.clip(np.rint(draw.normal(0, 25, LARGE_BYTES)), -127, 127).astype(np.int8).tobytes()
    target = scattered(base, [(0, LARGE_BYTES // 2)], 0.1)
    (folder / "large").write_bytes(base)
    ways: dict[str, Callable[[], bytes]] = {
        "tensors": lambda: maker.with_tensors(base, target)[0],
        "zstd-prefix": lambda: maker.with_prefix(base, target),
    }
    found = {}
    for codec, way in ways.items():
        (folder / "patch").write_bytes(way())
        size = (folder / "patch").stat().st_size
        found[codec] = {"bytes": size, "peak_bytes": _applied(folder / "large", folder / "patch", target, folder)}
    return {"file_bytes": LARGE_BYTES, **found}


def measure(files: Path, bsdiff: Bsdiff | None, say: Callable[[str], None], *, pairs: int = 12) -> dict[str, Any]:
    """Return every figure of the page.

    Args:
        files: Where the model files are, or are made.
        bsdiff: The peer, None without it.
        say: Progress for people.
        pairs: Turns of the timed applications.

    Raises:
        DeltaError: A patch did not give its file.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for net in NETS:
            make(net, files, say)
            for form in ("tflite", "onnx"):
                base = files / net / f"base.{form}"
                targets = {change: (files / net / f"{change}.{form}").read_bytes() for change in CHANGES}
                for change, target in {**targets, SCATTERED: _scattered(base.read_bytes())}.items():
                    say(f"{net}, {form}: {change}")
                    pair = _pair(base, target, bsdiff, folder)
                    rows.append({"net": net, "format": form, "change": change, **pair})
        say("memory on 20 MB")
        large = _large(folder)
        times = None
        if bsdiff is not None:
            say(f"{pairs} turns of applying")
            base = files / NETS[-1] / "base.tflite"
            times = _times(base, (files / NETS[-1] / "tuned, frozen.tflite").read_bytes(), bsdiff, folder, pairs)
    return {"rows": rows, "large": large, "times": times, "bsdiff4": bsdiff.version if bsdiff else ""}
