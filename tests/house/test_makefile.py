# SPDX-License-Identifier: Apache-2.0
"""What a newcomer and continuous integration call: the targets, the pins, the order of installation."""

import os
import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from strop.requirements import extras_of, satisfies

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def pins(name):
    lines = (ROOT / name).read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def make(*words):
    """Run make as from a shell, also when make itself runs these tests: that one hands its flags down."""
    handed_down = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "KEEP"}
    env = {name: value for name, value in os.environ.items() if name not in handed_down}
    return subprocess.run(["make", *words], capture_output=True, text=True, check=False, cwd=ROOT, env=env)


def plan(*words):
    """Return what make would run, in a check-out where nothing is built."""
    done = make("-n", "-B", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_lists_only_targets_that_exist():
    said = make("help").stdout
    listed = re.findall(r"^make ([a-z0-9-]+)", said, re.MULTILINE)
    assert {"demo", "test", "check", "venv", "clean", "story", "test-fast", "docs"} <= set(listed)
    assert [name for name in listed if not re.search(rf"^{name}:", MAKEFILE, re.MULTILINE)] == []


def test_demo_passes_keep_on():
    assert plan("demo").rstrip().endswith("-m examples.digits.demo")
    assert plan("demo", "KEEP=1").rstrip().endswith("-m examples.digits.demo --keep")


def test_test_builds_checks_and_runs_everything_in_this_order():
    steps = plan("test")
    order = ["torch==2.13.0", "--editable", "ruff format --check", "ruff check", "mypy", "lint-imports", "-m pytest"]
    positions = [steps.index(step) for step in order]
    assert positions == sorted(positions)
    assert "mosquitto" in steps
    assert "chromium" in steps


def test_what_ci_calls_is_make_test_and_says_that_it_is_ci():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "CI=true exec make test" in script.read_text("utf-8")
    subprocess.run(["sh", "-n", script], check=True)


@pytest.mark.parametrize(
    "extra",
    [
        "",
        "workstation",
        "tensorflow",
        "agent",
        "agent-litert",
        "agent-onnx",
        "fleet",
        "postgres",
        "s3",
        "parquet",
        "flash",
        "examples",
        "dev",
    ],
)
def test_every_requirement_has_a_pin_that_satisfies_it(extra):
    pinned = {normal(name): version for name, version in pins("constraints.txt").items()}
    for requirement in extras_of()[extra]:
        assert satisfies(pinned[normal(requirement.name)], requirement.bounds), requirement


@pytest.mark.parametrize("extra", ["", "agent", "agent-tflite"])
def test_the_second_environment_is_pinned_too(extra):
    pinned = {normal(name): version for name, version in pins("constraints-tflite.txt").items()}
    for requirement in extras_of()[extra]:
        assert satisfies(pinned[normal(requirement.name)], requirement.bounds), requirement


def test_both_environments_speak_the_same_versions_on_the_wire():
    first, second = pins("constraints.txt"), pins("constraints-tflite.txt")
    for name in ("paho-mqtt", "tuf", "cryptography", "securesystemslib", "typer"):
        assert first[name] == second[name]


def test_what_is_installed_here_is_what_is_pinned():
    """Else a red or green run would say nothing about the pins."""
    wrong = {}
    for name, version in pins("constraints.txt").items():
        found = metadata.version(name).split("+")[0]
        if found != version:
            wrong[name] = (found, version)
    assert wrong == {}


def test_what_a_pinned_package_needs_is_pinned():
    """A package that came without a pin could change under us."""
    pinned = {normal(name) for name in pins("constraints.txt")}
    installed = {normal(d.name) for d in metadata.distributions()} - {"strop", "pip", "setuptools", "wheel"}
    needed = set()
    for name in pinned:
        for line in metadata.requires(name) or []:
            if "extra ==" not in line:
                needed.add(normal(re.match(r"[A-Za-z0-9._-]+", line)[0]))
    # On a computer whose pip takes torch with CUDA, its libraries come along; which ones is torch's own pin.
    cuda = {name for name in installed if name.startswith(("nvidia-", "cuda-", "triton"))}
    assert (needed & installed) - pinned - cuda == set()


def test_the_wheel_lists_its_packages_and_leaves_tests_out():
    include = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert not any(pattern.startswith(("tests", "docs", "examples")) for pattern in include)
    assert PROJECT["project"]["dependencies"] == ["typer>=0.15"]
