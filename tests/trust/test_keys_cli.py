# SPDX-License-Identifier: Apache-2.0
"""``strop export keys``: the verbs, their two forms of output, their refusals."""

import json

import pytest
from typer.testing import CliRunner

from edge_contract.errors import SignatureError, UsageError
from export.keys.cli import app
from fleet.adapters.tuf_repo import TufRepository


@pytest.fixture
def run(tmp_path):
    TufRepository.create(tmp_path / "tuf")

    def invoke(*words, fails=None):
        result = CliRunner().invoke(app, [str(word) for word in words])
        if fails is not None:
            assert isinstance(result.exception, fails), result.output
            return str(result.exception)
        assert result.exit_code == 0, result.output or result.exception
        return result.output

    return invoke


def test_the_life_of_a_keys_folder(run, tmp_path, bundle):
    keys, online = tmp_path / "keys", tmp_path / "tuf" / "online.pub"
    made = json.loads(run("init", keys, "--online", online, "--json"))
    assert (made["root"]["version"], made["targets"]["version"], made["bundles"]) == (1, 1, [])
    assert "bundle        " + bundle[1][:16] + "  digits 1.0.0" in run("sign", keys, bundle[0])
    rotated = json.loads(run("rotate", keys, "--targets", "--root", "--online", online, "--json"))
    assert (rotated["root"]["version"], rotated["targets"]["version"]) == (2, 3)
    assert made["roles"]["targets"]["keys"].keys() != rotated["roles"]["targets"]["keys"].keys()
    assert made["roles"]["timestamp"] == rotated["roles"]["timestamp"]
    assert "targets       1 of 1 keys must sign, 1 here" in run("show", keys)
    assert "timestamp     1 of 1 keys must sign, 0 here" in run("show", keys)
    run("withdraw", keys, bundle[1])
    assert json.loads(run("show", keys, "--json"))["bundles"] == []


def test_several_root_keys_can_be_asked_for(run, tmp_path):
    online = tmp_path / "tuf" / "online.pub"
    made = json.loads(run("init", tmp_path / "k", "--online", online, "--root-keys", 3, "--threshold", 2, "--json"))
    assert (made["roles"]["root"]["threshold"], len(made["roles"]["root"]["keys"])) == (2, 3)


def test_refusals_say_what_where_and_how_to_go_on(run, tmp_path):
    assert "give the server's <data>/tuf/online.pub" in run("init", tmp_path / "k", fails=UsageError)
    assert "nowhere: cannot be read" in run("init", tmp_path / "k", "--online", tmp_path / "nowhere", fails=UsageError)
    assert "make keys with 'strop export keys init'" in run("show", tmp_path / "k", fails=SignatureError)


def test_a_pip_line_is_named_when_the_signing_libraries_are_missing():
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['tuf'] = None\n"
        "from export.keys.cli import _signing\n"
        "try: _signing()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().startswith("MissingDependencyError")
    assert "pip install 'strop[workstation]'" in done.stdout
