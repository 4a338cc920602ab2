# SPDX-License-Identifier: Apache-2.0
"""Debian 12 and 13 for ARM64 on an emulated Cortex processor, in ``.arm64/``: ``python -m tests.machines.arm64``.

``.arm64/python-cortex-a53`` and its siblings are Debian 12's Python 3.11 with numpy, LiteRT and ONNX Runtime in the
versions of constraints.txt, and what the agent and its tests import. ``.arm64/python3.13-cortex-a53`` and its siblings
are Debian 13's with the same. The emulator comes from Debian 13, because the one of Debian 12 (QEMU 7.2) crashes in
both runtimes. It obeys the instruction set, so integers are those of a real board; its speed says nothing about one.
"""

import shutil
import subprocess
import sys
from functools import partial
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

__all__ = ["CPUS", "PYTHONS", "build", "missing", "python"]

CPUS = {
    "cortex-a53": "Raspberry Pi 3 and Zero 2 W",
    "cortex-a72": "Raspberry Pi 4",
    "cortex-a76": "Raspberry Pi 5",
}
PYTHONS = {"3.11": "bookworm", "3.13": "trixie"}
"""Python → the Debian that has it; the first one is that of the workstation."""
PYTHON, EMULATOR = "3.11", "trixie"
PLATFORMS = (*(f"manylinux_2_{minor}_aarch64" for minor in (34, 28, 27, 17)), "manylinux2014_aarch64")
WHEELS = pins("numpy", "ai-edge-litert", "onnxruntime")
AGENT = pins("paho-mqtt", "tuf", "securesystemslib", "urllib3", "cryptography", "cffi", "pycparser", "zstandard")
COMMANDS = pins("typer", "click", "rich", "shellingham", "markdown-it-py", "mdurl", "Pygments", "annotated-doc")
PARSING = pins("pydantic", "pydantic_core", "annotated-types", "typing-inspection")  # what typer reads options with
TESTS = pins(
    *("pytest", "pluggy", "iniconfig", "packaging", "pytest-timeout", "hypothesis", "sortedcontainers"),
    *("onnx", "protobuf", "ml_dtypes", "typing_extensions", "flatbuffers"),
)
# An emulated Python cannot be started by its own path, for the kernel knows no ARM64: it is told of the script.
CUSTOM = 'import os, sys\n\nsys.executable = os.environ.get("STROP_EMULATED_PYTHON", sys.executable)\n'
PLACE = Place(
    ROOT / ".arm64",
    "tests.machines.arm64",
    "make machines",
    {"systems": PYTHONS, "emulator": EMULATOR, "wheels": (*WHEELS, *AGENT, *COMMANDS, *PARSING, *TESTS)},
)


def missing() -> str:
    """Return why there is no ARM64 here, with the line to run; empty if there is."""
    return PLACE.missing()


def python(cpu: str, version: str = PYTHON) -> Path:
    """Return the Python of an emulated processor of ``CPUS``; ``version`` is one of ``PYTHONS``."""
    return PLACE.folder / _name(cpu, version)


def _name(cpu: str, version: str) -> str:
    return f"python{'' if version == PYTHON else version}-{cpu}"


def _emulator(place: Path) -> None:
    """Keep the one static program out of a package of eighty."""
    folder = place.with_name("qemu.unpacked")
    shutil.rmtree(folder, ignore_errors=True)
    debian(EMULATOR, host_architecture(), ["qemu-user"], folder, only="/usr/bin/qemu-aarch64")
    (folder / "usr/bin/qemu-aarch64").rename(place)
    shutil.rmtree(folder)


def _pythons(draft: Path) -> None:
    """Byte code goes to a folder of its own: without any, importing the two runtimes takes 5 s instead of 2."""
    for version in PYTHONS:
        for cpu in CPUS:
            name, root = _name(cpu, version), f"$here/root-{version}"
            script(
                draft / name,
                "unset PYTHONDONTWRITEBYTECODE PYTHONHOME LD_PRELOAD LD_LIBRARY_PATH",
                f'export STROP_EMULATED_PYTHON="$here/{name}" PYTHONPYCACHEPREFIX="$here/cache"',
                f'export PYTHONPATH="$here/site-{version}${{PYTHONPATH:+:$PYTHONPATH}}"',
                f'exec "$here/qemu-aarch64" -cpu {cpu} -L "{root}" "{root}/usr/bin/python{version}" "$@"',
            )


def _root(version: str, folder: Path) -> None:
    debian(PYTHONS[version], "arm64", [f"python{version}", "libstdc++6"], folder)
    if not (folder / "lib").exists():
        (folder / "lib").symlink_to("usr/lib")  # from Debian 13 on a script of a package makes it, and none is run


def _site(version: str, folder: Path) -> None:
    wheels([*WHEELS, *AGENT, *COMMANDS, *PARSING, *TESTS], folder, version, PLATFORMS)
    (folder / "sitecustomize.py").write_text(CUSTOM)


def _check(draft: Path) -> None:
    _pythons(draft)
    code = "import numpy, ai_edge_litert.interpreter, onnxruntime, platform, sys; print(platform.machine())"
    code = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {code!r}]).returncode)"
    for version in PYTHONS:
        words = [draft / _name("cortex-a72", version), "-c", code]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.stdout.strip() != "aarch64":
            raise CannotBuildError(f"the emulated Python {version} does not work: {done.stderr.strip()[-300:]}")
    shutil.rmtree(draft / "cache", ignore_errors=True)  # byte code is kept by its source's place, which changes now


def build() -> None:
    """Build ``.arm64/`` if it is missing or of other versions; raises CannotBuildError."""
    if not missing():
        return tell(".arm64 is there")
    parts = {"qemu-aarch64": _emulator}
    for version in PYTHONS:
        parts[f"root-{version}"] = partial(_root, version)
        parts[f"site-{version}"] = partial(_site, version)
    require_tools(PLACE.module)
    return PLACE.build(parts, _check)


if __name__ == "__main__":
    try:
        build()
    except CannotBuildError as error:
        sys.exit(f"error: {error}")
