# SPDX-License-Identifier: Apache-2.0
"""The doctor: sees what is there, names what is missing, and gives the line that installs it."""

import json
import subprocess
import sys
from importlib import metadata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from edge_contract.errors import UsageError
from strop import doctor
from strop.requirements import extras_of, installed_version, satisfies

ROLES = (
    "workstation", "search", "ray", "tensorflow", "agent", "agent-litert", "agent-onnx", "agent-tflite",
    "agent-camera", "agent-microphone", "fleet", "flash", "postgres", "s3", "parquet", "examples", "dev",
)  # fmt: skip
releases = st.lists(st.integers(0, 30), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
bounds = st.lists(st.tuples(st.sampled_from(["==", ">=", "<=", "<", ">", "!="]), releases), max_size=3)


@given(releases, bounds)
def test_bounds_are_read_as_packaging_reads_them(version, terms):
    text = ",".join(operator + bound for operator, bound in terms)
    assert satisfies(version, text) == SpecifierSet(text).contains(Version(version))


def test_a_build_of_a_version_satisfies_the_version():
    assert satisfies("2.13.0+cpu", "==2.13.0")
    assert not satisfies("", "")


def test_every_extra_of_the_distribution_is_a_role():
    assert set(extras_of()) == {"", *ROLES}
    assert {r.name for r in extras_of()["agent"]} == {"paho-mqtt", "tuf", "cryptography", "zstandard"}


def test_installed_versions_are_the_metadata():
    assert installed_version("typer") == metadata.version("typer")
    assert installed_version("a-package-that-nobody-has") == ""


def role(name, *packages, judged=True, state="incomplete"):
    found = tuple(doctor.Package(*package) for package in packages)
    return doctor.Role(name, state, judged, found, f"pip install 'strop[{name}]'")


def diagnosis(*roles, programs=()):
    return doctor.Diagnosis("0.1.0", "3.11.7", "Linux x86_64", roles, programs)


def test_an_incomplete_role_is_named_with_its_line():
    found = diagnosis(role("fleet", ("fastapi", ">=0.115", "0.100", False), ("jinja2", ">=3.1", "3.1.6", True)))
    assert not found.is_healthy
    assert found.install_lines == ("pip install 'strop[fleet]'",)
    assert "✗ fastapi            0.100          >=0.115" in found.to_text()
    assert found.to_text().endswith("run: pip install 'strop[fleet]'")


def test_an_absent_role_that_nobody_asked_for_is_no_fault():
    found = diagnosis(role("fleet", ("fastapi", ">=0.115", "", False), judged=False, state="absent"))
    assert found.is_healthy
    assert "fastapi" not in found.to_text()
    assert found.to_text().endswith("healthy")


@pytest.mark.parametrize(("needed", "healthy"), [(True, False), (False, True)])
def test_a_missing_program_counts_if_a_role_needs_it(needed, healthy):
    broker = doctor.Program("mosquitto", "the broker", "", needed, "apt-get install mosquitto")
    found = diagnosis(programs=(broker,))
    assert found.is_healthy is healthy
    assert ("run: apt-get install mosquitto" in found.to_text()) is needed


def test_the_object_for_machines_holds_everything():
    document = json.loads(doctor.examine(("dev",)).to_json())
    assert document["healthy"] is (document["install"] == [])
    assert [entry["name"] for entry in document["roles"]] == list(ROLES)
    assert {entry["name"] for entry in document["programs"]} == {
        "mosquitto", "chromium", "tflite-runtime", "edgetpu_compiler",
    }  # fmt: skip
    assert [entry["name"] for entry in document["roles"] if entry["is_judged"]] == ["dev"]


def test_an_unknown_role_lists_the_known_ones():
    with pytest.raises(
        UsageError, match="unknown role 'cook'; use one of workstation, search, ray, tensorflow, "
    ) as caught:
        doctor.examine(("cook",))
    assert caught.value.exit_code == 2


def test_this_environment_is_healthy():
    """What `make venv` builds is what the doctor asks for: packages, broker, browser and the second environment."""
    done = subprocess.run([sys.executable, "-m", "strop", "doctor"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("healthy\n")


def test_a_role_that_cannot_be_here_fails_with_its_line():
    """tflite-runtime needs numpy < 2, so it is never in this environment."""
    done = subprocess.run(
        [sys.executable, "-m", "strop", "doctor", "--role", "agent-tflite", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert json.loads(done.stdout)["install"] == ["pip install 'strop[agent-tflite]'"]


def test_without_a_path_the_programs_are_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "_PROGRAM_FOLDERS", ())
    monkeypatch.setenv("STROP_TFLITE_PYTHON", str(tmp_path / "python"))
    found = doctor.examine(("fleet", "dev"))
    assert [p.name for p in found.programs if p.is_needed and not p.found] == [
        "mosquitto",
        "chromium",
        "tflite-runtime",
    ]
    assert found.install_lines[:3] == ("apt-get install mosquitto", "apt-get install chromium", "make venv")
