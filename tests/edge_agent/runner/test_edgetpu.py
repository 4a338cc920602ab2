# SPDX-License-Identifier: Apache-2.0
"""The Edge TPU's adapter with a delegate that hangs, crashes or errs: C, loaded by the real ``load_delegate``.

No claim about a real TPU: what is proved is that none of these ends takes longer than its limit, or goes unsaid.
"""

import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.counters import CounterFile
from edge_agent.runner.model import Model
from edge_agent.runner.watchdog import EXIT_HUNG
from edge_contract.errors import MissingDependencyError, RuntimeAdapterError
from tests.edge_agent.runner import bundles, tiny

ROOT = Path(__file__).resolve().parents[3]
GCC = shutil.which("gcc")
pytestmark = pytest.mark.skipif(GCC is None, reason="apt-get install gcc")
INPUTS = 6


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The delegate's library."""
    path = tmp_path_factory.mktemp("trap") / "libtrap.so.1"
    source = Path(__file__).with_name("trap_delegate.c")
    subprocess.run([GCC, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", path, source], check=True, timeout=60)
    return path


@pytest.fixture(scope="module")
def tpu_bundle(tmp_path_factory):
    """The tiny classifier's bundle, whose TFLite file claims to run on an Edge TPU; CPU kernels give its answers."""
    folder = bundles.build(tmp_path_factory.mktemp("tpu") / "v1", exact=False)
    artefacts = [
        replace(a, runtimes=("litert", "tflite-runtime", "edgetpu")) if a.format == "tflite" else a
        for a in bundles.manifest_of(folder).artefacts
    ]
    bundles.write_golden(folder, [], max_steps=255)  # a delegate that computes nothing must get as far as real inputs
    return bundles.seal(folder, artefacts, version="1.0.0")


class Run:
    """One runner process over a delegate, from its start to its end."""

    def __init__(self, folder, bundle, library, mode, python=sys.executable, **options):
        np.save(folder / "frames.npy", tiny.images(INPUTS))
        self.counters = folder / "counters.bin"
        words = [python, "-m", "edge_agent.runner.process", "--runtime", "edgetpu", "--counters", str(self.counters)]
        words += ["--delegate", f"{library}?mode={mode}"]
        words += [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        spec = {"kind": "replay", "path": str(folder / "frames.npy"), "rate_hz": 0}
        commands = [
            {"cmd": "load", "role": "active", "folder": str(bundle)},
            {"cmd": "source", "name": "belt", "spec": spec},
        ]
        with subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as child:
            child.stdin.write(b"".join(json.dumps(command).encode() + b"\n" for command in commands))
            child.stdin.flush()
            self.events = []
            rescue = threading.Timer(60, child.kill)  # of the test, should a guard fail
            rescue.start()
            for line in child.stdout:
                self.events.append(json.loads(line))
                if self.events[-1]["event"] in ("source_ended", "load_failed"):
                    break
            self.rest, self.words = child.communicate(timeout=30)
            rescue.cancel()
        self.code = child.returncode

    def of(self, kind):
        return [event for event in self.events if event["event"] == kind]


def test_a_delegate_that_works_answers_through_the_golden_test(tmp_path, tpu_bundle, library):
    run = Run(tmp_path, tpu_bundle, library, "ok")
    (loaded,) = run.of("loaded")
    assert (loaded["delegate"], loaded["golden"], run.code) == ("edgetpu", "steps", 0)
    assert run.of("ready")[0]["runtime_version"].startswith("litert ")
    assert CounterFile(run.counters).read().counters.n_infer == INPUTS


def test_the_older_interpreter_loads_the_same_delegate(tmp_path, tpu_bundle, library, legacy):
    run = Run(tmp_path, tpu_bundle, library, "ok", python=str(legacy))
    assert run.of("ready")[0]["runtime_version"] == "tflite-runtime 2.14.0"
    assert (run.of("loaded")[0]["delegate"], run.code) == ("edgetpu", 0)


@pytest.mark.parametrize("old", [False, True])
def test_a_hang_is_said_and_ends_the_process(tmp_path, tpu_bundle, library, old, request):
    """It hangs while it answers, after the golden inputs and two real ones: or already in the golden test."""
    python = str(request.getfixturevalue("legacy")) if old else sys.executable
    run = Run(tmp_path, tpu_bundle, library, "hang-later" if not old else "hang", python=python, invoke_timeout=0.4)
    assert run.code == EXIT_HUNG
    assert run.of("hung")[0]["reason"] == "no answer within 0.4 s: the process ends itself"


def test_a_hang_that_keeps_python_s_lock_is_ended_by_the_timer_with_every_stack(tmp_path, tpu_bundle, library):
    run = Run(tmp_path, tpu_bundle, library, "hang-create", invoke_timeout=0.4, stuck_timeout=0.5)
    assert run.code == 1
    assert b"Timeout (0:00:00.5" in run.words
    assert b"load_delegate" in run.words, "the stack says where"


def test_a_crash_ends_the_runner_alone(tmp_path, tpu_bundle, library):
    assert Run(tmp_path, tpu_bundle, library, "crash").code == -6


def test_an_error_is_a_load_that_fails_with_its_reason(tmp_path, tpu_bundle, library):
    run = Run(tmp_path, tpu_bundle, library, "error")
    assert "inference failed: " in run.of("load_failed")[0]["reason"]
    assert run.code == 0


def test_a_device_that_is_gone_ends_the_runner_as_a_hang_does_and_blames_no_model(tmp_path, tpu_bundle, library):
    run = Run(tmp_path, tpu_bundle, library, "absent")
    assert (run.code, run.of("load_failed")) == (EXIT_HUNG, [])
    assert "gives no delegate" in run.of("hung")[0]["reason"]


def test_no_device_and_no_library_are_told_apart(tpu_bundle, library):
    with pytest.raises(RuntimeAdapterError, match=r"gives no delegate: .*no device.*; is the Coral plugged in"):
        Model.open(tpu_bundle, runtime="edgetpu", delegate=f"{library}?mode=absent")
    with pytest.raises(MissingDependencyError, match=r"cannot be loaded .*; install libedgetpu1-std"):
        Model.open(tpu_bundle, runtime="edgetpu", delegate="libnowhere.so.1")
