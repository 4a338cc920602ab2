# SPDX-License-Identifier: Apache-2.0
"""The agent's own tests on emulated ARM64, Python 3.11 and 3.13 side by side: ``python -m tests.machines.agent_tests``.

What needs torch, SciPy, Pillow or a compiler for ARM64 is left out, with the reason beside it. ``--few`` runs the share
that stands in ``make test``.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.machines import arm64
from tests.machines.unpacked import ROOT

__all__ = ["ALL", "CPU", "FEW", "LEFT_OUT", "Outcome", "main", "run", "start"]

CPU = "cortex-a72"
ALL = (
    *(f"tests/edge_agent/{name}" for name in ("adapters", "delta", "runner", "serve")),
    *(f"tests/edge_agent/test_{name}.py" for name in ("counters", "lanes_config")),
    *("tests/trust", "tests/edge_agent/core"),
)
FEW = (
    "tests/edge_agent/adapters/test_download.py",
    "tests/edge_agent/core/test_probation.py",
    "tests/edge_agent/core/test_telemetry.py",
    "tests/edge_agent/runner/test_boxes.py",
    "tests/edge_agent/runner/test_guard.py",
)
"""Of each part something, and nothing that imports onnx, which takes half a minute there; runtimes: test_arm64.py."""
LEFT_OUT: dict[str, str] = {
    "tests/edge_agent/runner/test_tasks.py": "scikit-image",
    "tests/edge_agent/runner/test_audio.py": "SciPy",
    "tests/edge_agent/runner/test_resample.py": "Pillow",
    "tests/edge_agent/runner/test_observe.py": "mlxtend",
    "tests/edge_agent/runner/test_fast_ways.py": "mlxtend",
    "tests/edge_agent/runner/test_camera_example.py": "OpenCV",
    "tests/edge_agent/runner/test_preprocess.py::test_resize_is_the_bilinear_one_of_torch": "torch",
    "tests/edge_agent/runner/test_kinds.py::test_new_files_in_a_folder_come_oldest_first_whole_and_once": "Pillow",
    "tests/edge_agent/runner/test_edgetpu.py": "a compiler for ARM64",
    "tests/edge_agent/serve/test_endpoint.py::test_plain_bytes_npy_and_pictures_mean_the_same": "Pillow",
    "tests/edge_agent/serve/test_endpoint.py::test_other_bodies_are_415_and_broken_ones_400": "Pillow",
    "tests/trust/test_cut_off.py": "the fleet server",
    "tests/trust/test_helper.py::test_an_interpreter_without_the_agent_extra_names_the_install_line": "a bare Python",
    "tests/edge_agent/delta/test_apply.py::test_twenty_megabytes_are_patched_in_sixty_four": "QEMU's own memory",
}
"""A file or a test → what it needs and an emulated Python has not."""
FEW_LEAST = 80
"""So many tests are in ``FEW``, or more."""
OPTIONS = (
    "-q",
    "--continue-on-collection-errors",
    "-p",
    "no:cacheprovider",
    "-p",
    "tests.machines.emulated",
    "--hypothesis-profile=emulated",
    # Tests that play a killed process leave the outbox open; from Python 3.13 on sqlite3 warns of that: an error here.
    *("-W", "ignore:unclosed database:ResourceWarning"),
)
TIMEOUT_S = 900
"""For one test: a property that takes ten seconds here takes minutes there."""


@dataclass(frozen=True)
class Outcome:
    """What pytest said at its end.

    Attributes:
        code: Its exit code.
        text: All that it printed.
    """

    code: int
    text: str

    def count(self, word: str) -> int:
        """Return how many tests were, such as ``passed``.

        Example:
            >>> Outcome(0, "....\\n12 passed, 1 skipped in 3.14s").count("passed")
            12
        """
        found = re.findall(rf"(\d+) {word}\b", self.text.strip().rpartition("\n")[2])
        return int(found[-1]) if found else 0


def start(version: str, tests: Sequence[str], output: Path, temporary: Path) -> "subprocess.Popen[bytes]":
    """Start the emulated pytest; what it prints goes to a file, what its tests write to a folder of its own."""
    left_out = [
        option for name in LEFT_OUT for option in (("--deselect", name) if "::" in name else ("--ignore", name))
    ]
    options = [*OPTIONS, f"--timeout={TIMEOUT_S}", f"--basetemp={temporary}", *left_out]
    words = [str(arm64.python(CPU, version)), "-m", "pytest", *options, *tests]
    environment = {name: value for name, value in os.environ.items() if name != "CI"}  # it lacks more on purpose
    with output.open("wb") as file:
        return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)


def run(tests: Sequence[str], folder: Path, versions: Sequence[str] = tuple(arm64.PYTHONS)) -> dict[str, Outcome]:
    """Run tests on each Python at the same time; return Python → outcome."""
    outputs = {version: folder / f"{version}.log" for version in versions}
    with tempfile.TemporaryDirectory(prefix="strop-", ignore_cleanup_errors=True) as place:
        running = {version: start(version, tests, output, Path(place, version)) for version, output in outputs.items()}
        return {v: Outcome(process.wait(), outputs[v].read_text("utf-8")) for v, process in running.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them and say how many passed; return 1 if any failed."""
    parser = argparse.ArgumentParser(prog="tests.machines.agent_tests", description=__doc__.partition("\n")[0])
    parser.add_argument("--few", action="store_true", help="the share that stands in make test")
    parser.add_argument("--python", choices=arm64.PYTHONS, help="this Python alone")
    parser.add_argument("tests", nargs="*", help="other files than all")
    chosen = parser.parse_args(arguments)
    if reason := arm64.missing():
        print(f"error: {reason}", file=sys.stderr)
        return 1
    folder, begin = ROOT / "build/arm64-tests", time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    versions = (chosen.python,) if chosen.python else tuple(arm64.PYTHONS)
    outcomes = run(chosen.tests or (FEW if chosen.few else ALL), folder, versions)
    for version, outcome in outcomes.items():
        print(outcome.text if outcome.code else "", end="")
        figures = ", ".join(f"{outcome.count(word)} {word}" for word in ("passed", "failed", "skipped"))
        print(f"ARM64, Python {version}: {figures} ({folder / version}.log)")
    print(f"{time.monotonic() - begin:.0f} s")
    return int(any(outcome.code for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
