# SPDX-License-Identifier: Apache-2.0
"""What the tests of the house share: the repository's root, and a clean environment with our wheel in it."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("strop", "edge_contract", "compress", "export", "edge_agent", "fleet", "benchmarks")


def _run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, cwd=cwd)


def _checked(*command: str | Path, cwd: Path | None = None) -> str:
    done = _run(*command, cwd=cwd)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command and return what it said."""
    return _run


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel, built from a copy of the sources: a build in place would leave its folders behind."""
    sources = tmp_path_factory.mktemp("sources")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources / name)
    _checked(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", sources / "dist", sources)
    (built,) = (sources / "dist").glob("strop-*.whl")
    return built


@pytest.fixture(scope="session")
def clean_venv(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """An environment with a bare install of the wheel: typer and nothing else that we asked for."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    _checked(sys.executable, "-m", "venv", "--without-pip", folder)
    _install(folder, str(wheel))
    return folder


def _install(venv: Path, *what: str) -> None:
    pip = (sys.executable, "-m", "pip", "--quiet", "--python", venv / "bin/python")
    _checked(*pip, "install", "--constraint", ROOT / "constraints.txt", *what)


@pytest.fixture(scope="session")
def agent_venv(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """An environment with the agent extra alone, as on a device before a runtime is chosen."""
    folder = tmp_path_factory.mktemp("device") / "venv"
    _checked(sys.executable, "-m", "venv", "--without-pip", folder)
    _install(folder, f"strop[agent] @ {wheel.as_uri()}")
    return folder
