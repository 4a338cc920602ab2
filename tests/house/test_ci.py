# SPDX-License-Identifier: Apache-2.0
"""In continuous integration a skip is a failure: our conftest, run on a small suite of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import pytest

def test_that_misses_a_package():
    pytest.importorskip("a_package_that_nobody_has")

@pytest.mark.skipif(True, reason="no board here")
def test_that_is_switched_off(): ...

@pytest.mark.xfail(reason="known", strict=True)
def test_that_is_expected_to_fail():
    assert False

def test_that_passes(): ...
"""
MODULE = 'import pytest\npytest.importorskip("a_package_that_nobody_has")\n'


@pytest.fixture
def suite(tmp_path):
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_some.py").write_text(SUITE)
    (tmp_path / "test_whole_module.py").write_text(MODULE)

    def run(ci):
        environment = {key: value for key, value in os.environ.items() if key != "CI"} | ({"CI": "true"} if ci else {})
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
        return subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)

    return run


def test_at_home_a_missing_package_is_a_skip(suite):
    done = suite(ci=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed, 3 skipped, 1 xfailed" in done.stdout


def test_in_ci_it_is_a_failure_that_says_why(suite):
    done = suite(ci=True)
    assert done.returncode == 1
    assert "1 failed, 1 passed, 1 xfailed, 2 errors" in done.stdout
    assert "in CI nothing may be skipped" in done.stdout
    assert "could not import 'a_package_that_nobody_has'" in done.stdout
    assert "no board here" in done.stdout
