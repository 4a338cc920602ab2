# SPDX-License-Identifier: Apache-2.0
"""Who imports whom: the rule of import-linter, and what is really loaded in each process."""

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("strop", "edge_contract", "compress", "export", "edge_agent", "fleet", "benchmarks")
DEVICE = {"edge_agent", "edge_contract"}
HEAVY = {"numpy", "typer", "rich", "tuf", "cryptography", "torch", "onnx", "onnxruntime", "ai_edge_litert"}


def loaded_by(code):
    """Return the top-level names of the modules that a fresh interpreter holds after running code."""
    program = f"{code}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def modules_of(package):
    found = importlib.import_module(package)
    return [package, *(m.name for m in pkgutil.walk_packages(found.__path__, f"{package}."))]


@pytest.mark.slow
def test_the_import_rule_holds(tmp_path):
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--cache-dir", str(tmp_path)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert " 0 broken" in done.stdout


@pytest.mark.slow
def test_no_module_imports_itself_in_a_circle():
    """Imports inside functions count too: a circle that only a lazy import hides is a circle."""
    import grimp

    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    leaves = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    while free := {name for name, imported in leaves.items() if not imported & leaves.keys()}:
        leaves = {name: imported for name, imported in leaves.items() if name not in free}
    assert sorted(leaves) == []


def test_the_control_process_loads_neither_numpy_nor_typer_nor_cryptography():
    loaded = loaded_by("import edge_agent.app, edge_agent.__main__")
    assert {name.split(".")[0] for name in loaded} & HEAVY == set()
    assert "paho" in {name.split(".")[0] for name in loaded}


def test_touching_the_package_alone_loads_no_numpy_and_the_model_does():
    assert "numpy" not in loaded_by("import edge_agent")
    assert "numpy" in loaded_by("import edge_agent\nedge_agent.Model")


def test_the_runner_starts_without_torch_typer_or_network():
    loaded = {name.split(".")[0] for name in loaded_by("import edge_agent.runner.process")}
    assert "numpy" in loaded
    assert not loaded & {"torch", "typer", "paho", "tuf", "cryptography", "onnx", "fastapi"}


@pytest.mark.slow
def test_no_module_of_the_device_loads_torch():
    """Every module of the agent, one after the other in one interpreter."""
    names = [name for package in sorted(DEVICE) for name in modules_of(package) if not name.endswith("__main__")]
    loaded = {name.split(".")[0] for name in loaded_by("\n".join(f"import {name}" for name in names))}
    assert not loaded & {"torch", "torch_pruning", "onnx", "compress", "export", "fleet", "strop", "tensorflow"}


def test_the_contract_needs_the_standard_library_only():
    code = "\n".join(f"import {name}" for name in modules_of("edge_contract"))
    loaded = {name.split(".")[0].lstrip("_") for name in loaded_by(code)}
    known = {name.lstrip("_") for name in sys.stdlib_module_names} | {"edge_contract", "main", "sitecustomize"}
    before = {name.split(".")[0].lstrip("_") for name in loaded_by("")}
    assert loaded - known - before == set()


def test_the_command_line_loads_a_group_only_when_it_is_called():
    """One check for --version, --help and doctor: none of them may load a group or a heavy package."""
    for words in (["--version"], ["--help"], ["doctor"], ["bench", "--help"]):
        code = (
            f"import strop.cli\ntry:\n    strop.cli.main({words!r})\nexcept SystemExit as end:\n    assert not end.code"
        )
        loaded = {name.split(".")[0] for name in loaded_by(code)}
        assert not loaded & {"compress", "export", "fleet", "torch", "numpy", "fastapi", "paho", "tuf"}, words
        assert ("benchmarks" in loaded) == (words[0] == "bench")


def public_names(module):
    """Functions and classes that a module defines itself and does not mark as private."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__name__", "") == name  # a shorter second name for a table is no public name
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    }


OURS = ["edge_contract", "strop", "benchmarks"]


@pytest.mark.parametrize("name", [m for package in OURS for m in modules_of(package) if not m.endswith("__main__")])
def test_public_names_are_listed_in_all(name):
    module = importlib.import_module(name)
    listed = set(getattr(module, "__all__", ()))
    assert {entry for entry in listed if not hasattr(module, entry)} == set()
    if name == "edge_contract.errors" or name.endswith(".cli"):
        return  # the whole tree is public; verbs are called by typer alone
    assert public_names(module) - listed == set()


@pytest.mark.parametrize("package", ["compress", "export", "edge_agent", "fleet"])
def test_what_all_promises_is_there(package):
    wrong = {}
    for name in modules_of(package):
        if not name.endswith("__main__"):
            module = importlib.import_module(name)
            missing = [entry for entry in getattr(module, "__all__", ()) if not hasattr(module, entry)]
            wrong.update({name: missing} if missing else {})
    assert wrong == {}


def test_every_file_begins_with_its_licence():
    folders = ["strop", "edge_contract", "compress", "export", "edge_agent", "fleet", "benchmarks", "examples", "tests"]
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 50
    bare = [
        str(p.relative_to(ROOT)) for p in files if not p.read_text("utf-8").startswith("# SPDX-License-Identifier:")
    ]
    assert bare == []
