# SPDX-License-Identifier: Apache-2.0
import shutil
from pathlib import Path

import pytest

from tests.edge_agent.runner import bundles

LEGACY = Path(__file__).resolve().parents[3] / ".venv-tflite" / "bin" / "python"


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """One bundle with profiles, built once; do not change it."""
    return bundles.build(tmp_path_factory.mktemp("bundle") / "v1", profile=True)


@pytest.fixture
def bundle(built, tmp_path):
    """A copy of the bundle that a test may spoil."""
    return Path(shutil.copytree(built, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def legacy():
    """Python with tflite-runtime 2.14 and numpy 1.26."""
    if not LEGACY.exists():
        pytest.skip("no .venv-tflite: make venv")
    return LEGACY
