# SPDX-License-Identifier: Apache-2.0
"""``strop agent serve`` as a process: it says where it listens, answers, and ends at SIGTERM."""

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from typer.testing import CliRunner

from edge_agent.cli import app
from edge_contract.errors import BundleError, UsageError
from tests.edge_agent.runner import tiny

ROOT = Path(__file__).resolve().parents[3]


def test_it_says_where_it_listens_answers_and_ends_in_order(built, tmp_path):
    words = ["agent", "serve", str(built), "--port", "0", "--socket", str(tmp_path / "s"), "--runtime", "litert"]
    command = [sys.executable, "-m", "strop", *words, "--json", "--cache", "8"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        facts = json.loads(child.stdout.readline())
        body = json.dumps({"instances": tiny.images(2).tolist()}).encode()
        request = urllib.request.Request(f"{facts['url']}/v1/models/compass:predict", body)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=20) as response:
            found = json.load(response)
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0
    assert found["bundle"] == facts["bundle"]
    assert len(found["predictions"]) == 2
    assert not (tmp_path / "s").exists()


def test_wrong_words_are_errors_of_ours(tmp_path):
    done = CliRunner().invoke(app, ["serve", str(tmp_path)])
    assert (type(done.exception), "no readable manifest.json" in str(done.exception)) == (BundleError, True)
    done = CliRunner().invoke(app, ["serve", "compass", "--data", str(tmp_path / "none")])
    assert (type(done.exception), "no agent's data folder" in str(done.exception)) == (UsageError, True)
