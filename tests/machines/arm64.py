# SPDX-License-Identifier: Apache-2.0
"""Debian 12 for ARM64 on an emulated Cortex processor, unpacked into ``.arm64/``: ``python -m tests.machines.arm64``.

``.arm64/python-cortex-a53`` and its siblings are Pythons with numpy, LiteRT and ONNX Runtime in the versions of
constraints.txt. The emulator comes from Debian 13, because the one of Debian 12 (QEMU 7.2) crashes in both runtimes.
It obeys the instruction set, so integers are those of a real board; its speed says nothing about one.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.machines.unpacked import (
    ROOT,
    CannotBuildError,
    Place,
    debian,
    host_architecture,
    pins,
    require_tools,
    script,
    tell,
    wheels,
)

__all__ = ["CPUS", "build", "missing", "python"]

CPUS = {
    "cortex-a53": "Raspberry Pi 3 and Zero 2 W",
    "cortex-a72": "Raspberry Pi 4",
    "cortex-a76": "Raspberry Pi 5",
}
SYSTEM, EMULATOR = "bookworm", "trixie"
PYTHON = "3.11"
PLATFORMS = (*(f"manylinux_2_{minor}_aarch64" for minor in (28, 27, 17)), "manylinux2014_aarch64")
WHEELS = pins("numpy", "ai-edge-litert", "onnxruntime")
PLACE = Place(
    ROOT / ".arm64",
    "tests.machines.arm64",
    "make machines",
    {"system": SYSTEM, "emulator": EMULATOR, "python": PYTHON, "wheels": WHEELS},
)


def missing() -> str:
    """Return why there is no ARM64 here, with the line to run; empty if there is."""
    return PLACE.missing()


def python(cpu: str) -> Path:
    """Return the Python of an emulated processor of ``CPUS``."""
    return PLACE.folder / f"python-{cpu}"


def _emulator(place: Path) -> None:
    """Keep the one static program out of a package of eighty."""
    folder = place.with_name("qemu.unpacked")
    shutil.rmtree(folder, ignore_errors=True)
    debian(EMULATOR, host_architecture(), ["qemu-user"], folder, only="/usr/bin/qemu-aarch64")
    (folder / "usr/bin/qemu-aarch64").rename(place)
    shutil.rmtree(folder)


def _pythons(draft: Path) -> None:
    """Byte code goes to a folder of its own: without any, importing the two runtimes takes 5 s instead of 2."""
    for cpu in CPUS:
        script(
            draft / f"python-{cpu}",
            "unset PYTHONDONTWRITEBYTECODE PYTHONHOME LD_PRELOAD LD_LIBRARY_PATH",
            'export PYTHONPATH="$here/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONPYCACHEPREFIX="$here/cache"',
            f'exec "$here/qemu-aarch64" -cpu {cpu} -L "$here/root" "$here/root/usr/bin/python{PYTHON}" "$@"',
        )


def _check(draft: Path) -> None:
    _pythons(draft)
    code = "import numpy, ai_edge_litert.interpreter, onnxruntime, platform; print(platform.machine())"
    done = subprocess.run([draft / "python-cortex-a72", "-c", code], capture_output=True, text=True, check=False)
    if done.stdout.strip() != "aarch64":
        raise CannotBuildError(f"the emulated Python does not work: {done.stderr.strip()[-300:]}")
    shutil.rmtree(draft / "cache", ignore_errors=True)  # byte code is kept by its source's place, which changes now


def build() -> None:
    """Build ``.arm64/`` if it is missing or of other versions; raises CannotBuildError."""
    if not missing():
        return tell(".arm64 is there")
    packages = [f"python{PYTHON}", "libstdc++6"]
    parts = {
        "qemu-aarch64": _emulator,
        "root": lambda folder: debian(SYSTEM, "arm64", packages, folder),
        "site": lambda folder: wheels(WHEELS, folder, PYTHON, PLATFORMS),
    }
    require_tools(PLACE.module)
    return PLACE.build(parts, _check)


if __name__ == "__main__":
    try:
        build()
    except CannotBuildError as error:
        sys.exit(f"error: {error}")
