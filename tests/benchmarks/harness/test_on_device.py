# SPDX-License-Identifier: Apache-2.0
"""The job of a device: a plan in, a result out, in a process that has numpy and one runtime and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import on_device
from benchmarks.result import load
from tests.support.tflite_runs import old_python

FORBIDDEN = ("typer", "rich", "torch", "scipy", "matplotlib", "onnx", "click", "sqlite3", "fleet", "compress", "export")

GUARD = """
import sys
FORBIDDEN = {forbidden!r}
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in FORBIDDEN:
            raise ImportError(f"a device has no {{name}}")
sys.meta_path.insert(0, Guard())
"""


def run(python, job, out, **environment):
    command = [python, "-P", "-m", "benchmarks.on_device", str(job), str(out)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **environment}
    )


def write(plan, folder):
    job = folder / "job.json"
    job.write_text(json.dumps(plan.to_json()))
    return job


@pytest.fixture
def bare_device(tmp_path):
    """A folder that, first on PYTHONPATH, refuses what a device does not have; in the child of the job, too."""
    folder = tmp_path / "guard"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(GUARD.format(forbidden=FORBIDDEN))
    return {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("mode", ["bare", "realistic"])
def test_numpy_and_one_runtime_are_enough(short, tmp_path, bare_device, mode):
    done = run(sys.executable, write(short(mode=mode, runs=10), tmp_path), tmp_path / "out", **bare_device)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and done.stdout.splitlines()[-1] == str(tmp_path / "out/result.json")
    found = load(tmp_path / "out/result.json")
    assert found.golden == "same" and found.counts.launches == 1
    assert found.scenario.mode == mode
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["result.json", "samples.bin"]


def test_the_guard_does_refuse(tmp_path, bare_device):
    words = [sys.executable, "-c", "import typer"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **bare_device})
    assert "a device has no typer" in done.stderr


def test_an_old_runtime_measures_in_its_own_python(bundle, short, tmp_path):
    """tflite-runtime 2.14 with numpy 1: what an old board has."""
    plan = short(bundle / "model.tflite", runtime="tflite-runtime", runs=10)
    done = run(str(old_python()), write(plan, tmp_path), tmp_path / "out", PYTHONPATH=str(Path.cwd()))
    assert done.returncode == 0, done.stderr
    found = load(tmp_path / "out/result.json")
    assert (found.runtime.name, found.runtime.version) == ("tflite-runtime", "2.14.0")


def test_a_power_sensor_stands_beside_the_plan(short, tmp_path, capsys):
    job = tmp_path / "job.json"
    job.write_text(json.dumps({**short().to_json(), "energy": "ina3221"}))
    assert on_device.main([str(job), str(tmp_path / "out")]) == 1
    assert "unknown power sensor 'ina3221'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "no job that can be read"),
        ("[]", "a job is an object, not list"),
        ("{}", "field 'sha256' is missing"),
    ],
)
def test_a_job_that_is_none_is_one_line(tmp_path, capsys, content, words):
    job = tmp_path / "job.json"
    job.write_text(content)
    assert on_device.main([str(job), str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and words in said and said.count("\n") == 1


def test_words_that_are_missing_and_a_file_that_is_gone(short, tmp_path, capsys):
    assert on_device.main(["one"]) == 1
    plan = short()
    job = write(type(plan)(**{**vars(plan), "artefact": "/nowhere/model.tflite"}), tmp_path)
    assert on_device.main([str(job), str(tmp_path / "out")]) == 1
    assert "/nowhere/model.tflite: cannot be read" in capsys.readouterr().err
