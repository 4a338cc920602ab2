# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.flash``: how fast ``strop flash image`` is, beside plain ``xz -d | dd`` of the same image.

The image is made here: a partition table, a FAT32 boot partition, and a second partition with programs and libraries
of this machine and a third of zeros, as in a published image; packed by ``xz``. Both sides take turns and end with
an fsync. Ours does more: it takes two SHA-256, leaves holes, finds the first-boot format, writes the board's files
and reads them back; the start of Python is in its time. Memory is the sum of the peaks of all our processes.
"""

import json
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmarks.interleave import interleave
from edge_contract.errors import MeasurementError, MissingDependencyError

__all__ = ["main", "make_base", "measure"]

_BOOT_AT, _BOOT_BYTES = 8192 * 512, 66_600 * 512
_PIECE: Final = 1 << 20
GOAL_SHARE: Final = 0.8
GOAL_MEMORY_MB: Final = 100


def _tool(name: str, package: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/bin")
    if found is None:
        raise MissingDependencyError(f"{name} is missing", fix=f"run: apt-get install {package}")
    return found


def _content(size: int) -> Iterator[bytes]:
    """Yield so many bytes: two thirds of files of this machine, then zeros."""
    left = size * 2 // 3
    for path in sorted(Path("/usr/lib").rglob("*")):
        if left <= 0:
            break
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()[:left]
            left -= len(data)
            yield data
    yield from (bytes(_PIECE) for _ in range((size // 3 + left) // _PIECE))


def make_base(folder: Path, megabytes: int, level: int) -> Path:
    """Return a packed image of about so many megabytes.

    Raises:
        MissingDependencyError: ``xz`` or ``mkfs.vfat`` is missing.
    """
    image = folder / "base.img"
    size = megabytes << 20
    entries = b"".join(
        struct.pack("<B3xB3xII", 0, kind, first // 512, count // 512)
        for kind, first, count in ((0x0C, _BOOT_AT, _BOOT_BYTES), (0x83, _BOOT_AT + _BOOT_BYTES, size))
    )
    with image.open("wb") as file:
        file.write((bytes(446) + entries).ljust(510, b"\0") + b"\x55\xaa")
        file.seek(_BOOT_AT + _BOOT_BYTES)
        for piece in _content(size):
            file.write(piece)
        file.truncate(_BOOT_AT + _BOOT_BYTES + size)
    words = ["-F", "32", "-s", "1", "--offset", str(_BOOT_AT // 512), str(image), str(_BOOT_BYTES // 1024)]
    subprocess.run([_tool("mkfs.vfat", "dosfstools"), *words], check=True, capture_output=True)
    subprocess.run([_tool("xz", "xz-utils"), f"-{level}", "--threads=0", str(image)], check=True)
    return image.with_name("base.img.xz")


def _field(status: str, name: str) -> int:
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:")), 0)


def _peaks(root: int, found: dict[int, int]) -> None:
    """Note the peak memory in KB of a process and of all that it started."""
    family = {root}
    for path in sorted(Path("/proc").glob("[0-9]*"), key=lambda one: int(one.name)):
        try:
            status = (path / "status").read_text()
        except OSError:
            continue
        number = int(path.name)
        if number in family or _field(status, "PPid") in family:
            family.add(number)
            found[number] = max(found.get(number, 0), _field(status, "VmHWM"))


def _run(command: list[str]) -> tuple[str, int]:
    """Run a command; return what it printed, and the sum of the peaks of its processes in KB."""
    found: dict[int, int] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        stop = threading.Event()

        def look() -> None:
            while not stop.is_set():
                _peaks(process.pid, found)
                time.sleep(0.05)

        watcher = threading.Thread(target=look)
        watcher.start()
        said, _ = process.communicate()
        stop.set()
        watcher.join()
    if process.returncode:
        raise MeasurementError(f"{command[0]} ended with {process.returncode}", where=" ".join(command)[:200])
    return said, sum(found.values())


def measure(folder: Path, megabytes: int, pairs: int, level: int) -> dict[str, Any]:
    """Return what was measured: both times of every pair, the ratio with its interval, peaks of memory."""
    base = make_base(folder, megabytes, level)
    plain, ours = folder / "plain.img", folder / "ours.img"
    peaks: list[int] = []
    command = f"python -m benchmarks.flash --megabytes {megabytes} --pairs {pairs} --level {level}"

    def by_dd() -> None:
        plain.unlink(missing_ok=True)
        written = f"dd of='{plain}' bs=1M iflag=fullblock conv=fsync status=none"
        line = f"{_tool('xz', 'xz-utils')} -d -c -T1 '{base}' | {written}"
        subprocess.run(["sh", "-c", line], check=True)

    def by_strop() -> None:
        ours.unlink(missing_ok=True)
        words = ["image", str(base), "--out", str(ours), "--hostname", "bench", "--format", "rpi-preseed", "--json"]
        peaks.append(_run([sys.executable, "-m", "strop", "flash", *words])[1])

    found = interleave(
        by_dd, by_strop, names=("xz -d | dd", "strop flash image"), pairs=pairs, warmup=0, command=command
    )
    size = plain.stat().st_size
    return {
        **found.to_json(),
        "image_bytes": size,
        "published_bytes": base.stat().st_size,
        "throughput_share": {"median": 1 / found.ratio.point, "low": 1 / found.ratio.high, "high": 1 / found.ratio.low},
        "mb_per_s": {"plain": size / found.a.median_ns * 1e3, "ours": size / found.b.median_ns * 1e3},
        "peak_memory_mb": max(peaks) / 1000,
        "text": found.to_text(),
    }


def main(
    megabytes: Annotated[int, typer.Option(help="Size of the second partition.")] = 1500,
    pairs: Annotated[int, typer.Option(help="Turns of both sides.")] = 7,
    folder: Annotated[Path | None, typer.Option(help="Where the images are written; three times their size.")] = None,
    level: Annotated[int, typer.Option(help="How hard xz packs; 6 takes minutes to pack.")] = 3,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure, print, and leave with 1 if a goal is missed."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        found = measure(Path(place), megabytes, pairs, level)
    share, memory, speed = found["throughput_share"], found["peak_memory_mb"], found["mb_per_s"]
    is_kept = share["median"] >= GOAL_SHARE and memory <= GOAL_MEMORY_MB
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print(found["text"])
        print(f"image {found['image_bytes'] / 1e6:.0f} MB, published {found['published_bytes'] / 1e6:.0f} MB")
        print(f"plain {speed['plain']:.0f} MB/s, ours {speed['ours']:.0f} MB/s: {100 * share['median']:.0f} % of it")
        print(f"95 % interval of the share: {100 * share['low']:.0f} to {100 * share['high']:.0f} %; goal 80 %")
        print(f"memory of all processes, peak: {memory:.0f} MB; goal {GOAL_MEMORY_MB} MB")
    raise typer.Exit(0 if is_kept else 1)


if __name__ == "__main__":
    typer.run(main)
