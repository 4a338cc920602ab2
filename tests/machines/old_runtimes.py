# SPDX-License-Identifier: Apache-2.0
"""tflite-runtime 2.7 to 2.13 on Debian 11's Python 3.9, into ``.venv-old/``: ``python -m tests.machines.old_runtimes``.

They are what a Coral board or a Raspberry Pi that nobody dares to update runs. Their wheels end at Python 3.9 (2.7 to
2.9) and want numpy below 2. The Python and its C library (2.31) are unpacked, not installed; each runtime has a folder
of its own. ``.venv-old/runtimes.json`` maps a runtime's name to the command line that starts a Python with it.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.machines.unpacked import (
    ROOT,
    CannotBuildError,
    Place,
    debian,
    host_architecture,
    require_tools,
    script,
    tell,
    wheels,
)

__all__ = ["VERSIONS", "build", "missing", "runtimes"]

VERSIONS = ("2.7.0", "2.8.0", "2.9.1", "2.10.0", "2.11.0", "2.12.0", "2.13.0")
SYSTEM, PYTHON, NUMPY = "bullseye", "3.9", "numpy==1.26.4"
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64")
PLACE = Place(
    ROOT / ".venv-old",
    "tests.machines.old_runtimes",
    "make test-old-runtimes",
    {"system": SYSTEM, "python": PYTHON, "numpy": NUMPY, "versions": VERSIONS, "place": str(ROOT)},
)


def missing() -> str:
    """Return why the old runtimes are not here, with the line to run; empty if they are."""
    return PLACE.missing()


def runtimes() -> Mapping[str, list[str]]:
    """Return runtime, such as ``tflite-runtime 2.7.0``, → command line of a Python that has it; empty if none is."""
    if missing():
        return {}
    found: dict[str, list[str]] = json.loads((PLACE.folder / "runtimes.json").read_text("utf-8"))
    return found


def _python(draft: Path, version: str) -> None:
    """A Python with its own C library, told where it lies, because nothing of it is where it was built for."""
    libraries = "x86_64-linux-gnu"
    script(
        draft / f"python-{version}",
        "unset PYTHONDONTWRITEBYTECODE VIRTUAL_ENV LD_PRELOAD LD_LIBRARY_PATH",
        'export PYTHONHOME="$here/root/usr" PYTHONPYCACHEPREFIX="$here/cache"',
        f'export PYTHONPATH="$here/site-{version}:$here/numpy${{PYTHONPATH:+:$PYTHONPATH}}"',
        f'libraries="$here/root/lib/{libraries}:$here/root/usr/lib/{libraries}"',
        f'exec "$here/root/lib/{libraries}/ld-2.31.so" --library-path "$libraries" \\',
        f'  "$here/root/usr/bin/python{PYTHON}" "$@"',
    )


def _check(draft: Path) -> None:
    for version in VERSIONS:
        _python(draft, version)
        code = "import tflite_runtime.interpreter, tflite_runtime; print(tflite_runtime.__version__)"
        done = subprocess.run([draft / f"python-{version}", "-c", code], capture_output=True, text=True, check=False)
        if done.stdout.strip() != version:
            raise CannotBuildError(f"tflite-runtime {version} does not work: {done.stderr.strip()[-300:]}")
    found = {f"tflite-runtime {version}": [str(PLACE.folder / f"python-{version}")] for version in VERSIONS}
    (draft / "runtimes.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def build() -> None:
    """Build ``.venv-old/`` if it is missing or of other versions; raises CannotBuildError."""
    if not missing():
        return tell(".venv-old is there")
    if host_architecture() != "amd64":
        raise CannotBuildError("the old runtimes are tested on x86-64 only")
    parts = {
        "root": lambda folder: debian(SYSTEM, "amd64", [f"python{PYTHON}"], folder),
        "numpy": lambda folder: wheels([NUMPY], folder, PYTHON, PLATFORMS),
    }
    for version in VERSIONS:
        line = f"tflite-runtime=={version}"
        parts[f"site-{version}"] = lambda folder, line=line: wheels([line], folder, PYTHON, PLATFORMS)
    require_tools(PLACE.module)
    return PLACE.build(parts, _check)


if __name__ == "__main__":
    try:
        build()
    except CannotBuildError as error:
        sys.exit(f"error: {error}")
