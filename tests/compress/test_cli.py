# SPDX-License-Identifier: Apache-2.0
"""``strop compress`` as a person types it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from compress import compressed
from compress.checkpoint import read_weights
from strop.cli import main

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Done:
    stdout: str
    stderr: str


@pytest.fixture
def strop(capsys, monkeypatch):
    """Types a command into this process, as ``main`` gets it from the shell; the interruption below uses a real one."""

    def type_in(*words, cwd, code=0):
        monkeypatch.chdir(cwd)
        with pytest.raises(SystemExit) as left:
            main(["compress", *map(str, words)])
        out, err = capsys.readouterr()
        assert left.value.code == code, err
        return Done(out, err)

    return type_in


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in str(path))


def test_run_then_report_then_compare(strop, kitchen):
    folder, recipe = kitchen.folder, kitchen()
    done = strop("run", recipe.name, "--out", "out", "--threads", 1, "--json", cwd=folder)
    document = json.loads(done.stdout)  # nothing but JSON on stdout; progress went elsewhere
    assert [step["kind"] for step in document["steps"]] == ["enter", "distill", "prune", "quantize"]
    assert "3. quantize (static-int8)" in done.stderr
    assert compressed.load(folder / "out").report.to_json() == document
    assert not (folder / "out" / ".work").exists()

    (folder / "out" / "report.html").unlink()
    done = strop("report", "out", cwd=folder)
    assert "page: out/report.html" in done.stdout and (folder / "out" / "report.html").exists()

    done = strop("compare", "out", "out", "--json", cwd=folder)
    assert [row["name"] for row in json.loads(done.stdout)["models"]] == ["teacher", "float", "int8"]


def test_plan_trains_nothing_and_writes_nothing(strop, kitchen):
    recipe = kitchen()
    before = listing(kitchen.folder)
    done = strop("plan", recipe.name, "--json", cwd=kitchen.folder)
    steps = json.loads(done.stdout)["steps"]
    assert [step["kind"] for step in steps] == ["enter", "distill", "prune", "quantize"]
    assert steps[2]["macs"] <= 0.6 * steps[1]["macs"]
    assert steps[3]["size_kb"] < steps[2]["size_kb"]
    assert listing(kitchen.folder) == before


REFUSALS = {
    "wrong key": (
        ("epochs = 12", "epoch = 12"),
        2,
        "bars.toml [step 1]: unknown key 'epoch' (value 12); write 'epochs'",
    ),
    "missing data": (
        ("strop_tiny_task:load", "strop_gone:load"),
        2,
        (
            "bars.toml [data]: key 'source': no module 'strop_gone' for 'strop_gone:load'; "
            "check the spelling, or run in the folder that holds it"
        ),
    ),
    "teacher": (
        ('teacher_weights = "teacher.pt"', ""),
        2,
        (
            "bars.toml [model]: the teacher has no weights; "
            "train it and give --teacher-weights FILE, or set teacher_weights in [model]"
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_recipe_is_one_line_and_leaves_everything_as_it_was(strop, kitchen, name):
    (old, new), code, message = REFUSALS[name]
    recipe = kitchen(kitchen.text.replace(old, new))
    before = listing(kitchen.folder)
    done = strop("run", recipe.name, "--out", "out", cwd=kitchen.folder, code=code)
    assert done.stderr.strip().splitlines()[-1] == f"error: {message}"
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert listing(kitchen.folder) == before


def test_folder_of_something_else_is_not_touched(strop, kitchen):
    (kitchen.folder / "out").mkdir()
    (kitchen.folder / "out" / "thesis.tex").write_text("precious")
    done = strop("run", kitchen().name, "--out", "out", cwd=kitchen.folder, code=2)
    assert done.stderr.strip() == "error: out: the folder holds something else; name a new one with --out"
    done = strop("run", "bars.toml", "--out", "out", "--overwrite", cwd=kitchen.folder, code=2)
    assert listing(kitchen.folder / "out") == ["thesis.tex"]


def test_missed_budget_keeps_its_steps_and_can_be_relaxed(strop, kitchen):
    recipe = kitchen(kitchen.text + "[budget]\nsize_kb = 0.1\n")
    done = strop("run", recipe.name, "--out", "out", cwd=kitchen.folder, code=1)
    assert "error: bars.toml [budget]: size_kb is 0." in done.stderr
    assert json.loads(strop("report", "out", "--json", cwd=kitchen.folder).stdout)["test"] == []
    kitchen(kitchen.text + "[budget]\nsize_kb = 10\n")
    done = strop("run", recipe.name, "--out", "out", cwd=kitchen.folder, code=2)
    assert "the folder holds a run; go on with 'strop compress resume out'" in done.stderr
    done = strop("resume", "out", cwd=kitchen.folder)
    assert done.stderr.count(", kept") == 2
    assert compressed.load(kitchen.folder / "out").report.is_kept


def test_resume_without_a_run_is_refused(strop, tmp_path):
    done = strop("resume", "out", cwd=tmp_path, code=2)
    fix = "start one with strop compress run RECIPE --out FOLDER"
    assert done.stderr.strip() == f"error: out: no interrupted run is here; {fix}"


def heeds_interrupts():
    """A shell starts its background jobs deaf to Ctrl-C, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupted_run_says_how_to_go_on_and_does(strop, kitchen):
    # So many epochs that the signal surely comes in the middle; resumed with the same file, it would take as long,
    # so the second act only looks at what was kept.
    recipe = kitchen(kitchen.text.replace("epochs = 12", "epochs = 2000"))
    words = [sys.executable, "-m", "strop", "compress", "run", recipe.name, "--out", "out", "--threads", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    place = {"cwd": kitchen.folder, "env": environment, "preexec_fn": heeds_interrupts}
    process = subprocess.Popen(words, **place, stderr=subprocess.PIPE, text=True)
    work, deadline = kitchen.folder / "out" / ".work", time.monotonic() + 200
    while not list(work.glob("step-1.*.training.pt")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "no epoch was finished in 200 s"
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "interrupted; go on with: strop compress resume out" in errors
    assert "Traceback" not in errors
    assert [path.name for path in work.glob("*.part")] == []

    (checkpoint,) = work.glob("step-1.*.training.pt")
    assert read_weights(checkpoint)
    recipe.write_text(kitchen.text)  # a shorter recipe: the first step starts again, the run ends
    strop("resume", "out", "--json", cwd=kitchen.folder)
    assert compressed.load(kitchen.folder / "out").name == "bars"
