# SPDX-License-Identifier: Apache-2.0
"""The helper's protocol, the time floor, durable files, and that the control process stays small."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import trust_helper
from edge_agent.adapters.trust import TrustHelper
from edge_contract import durable
from edge_contract.errors import DownloadError, MessageError, StropError

# The helper.


@given(
    st.binary(max_size=200) | st.dictionaries(st.text(max_size=8), st.text(max_size=8)).map(json.dumps).map(str.encode)
)
def test_any_request_gets_an_answer_of_one_form(data):
    reply = trust_helper.answer(data)
    assert reply["ok"] is False
    assert set(reply) == {"ok", "error", "what", "where", "fix"}
    json.dumps(reply)


MALFORMED = {
    "no operation": ({}, "request: field 'op' is missing"),
    "unknown operation": ({"op": "sing"}, "unknown value 'sing'; use one of enrol, refresh, verify_job, care, capture"),
    "targets are no list": (
        {"op": "refresh", "data": "/x", "base_url": "https://h", "targets": "a"},
        "request.targets",
    ),
    "now is no number": (
        {"op": "verify_job", "data": "/x", "device": "d", "envelope": "{}", "now": "x"},
        "request.now",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_request_names_its_field(case):
    request, said = MALFORMED[case]
    reply = trust_helper.answer(json.dumps(request).encode())
    assert reply["error"] == "MessageError"
    assert said in str(MessageError(reply["what"], where=reply["where"], fix=reply["fix"]))


def script(tmp_path: Path, body: str) -> str:
    """An interpreter that is none: a shell script in its place, to see how its failures are told."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_a_helper_that_dies_is_told_with_its_last_words(tmp_path):
    helper = TrustHelper(tmp_path, script(tmp_path, "echo 'Illegal instruction' >&2; exit 132"))
    with pytest.raises(StropError, match="trust helper: ended with code 132 during 'verify_job': Illegal instruction"):
        helper.verify_job(b"{}", "pi")


def test_a_helper_that_hangs_is_ended(tmp_path):
    helper = TrustHelper(tmp_path, script(tmp_path, "exec sleep 60"), timeout_s=0.2)
    started = time.monotonic()
    with pytest.raises(DownloadError, match=r"no answer to 'refresh' within 0\.2 s"):
        helper.refresh("https://h", [])
    assert time.monotonic() - started < 30


def test_a_python_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StropError, match=r"cannot start /nonexistent/python.*strop\[agent\]"):
        TrustHelper(tmp_path, "/nonexistent/python").verify_job(b"{}", "pi")


def test_an_interpreter_without_the_agent_extra_names_the_install_line(tmp_path):
    path = tmp_path / "bare"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # -S: no site-packages
    path.chmod(0o755)
    with pytest.raises(StropError, match=r"is not installed; pip install 'strop\[agent\]'") as caught:
        TrustHelper(tmp_path, str(path)).verify_job(b"{}", "pi")
    assert type(caught.value).__name__ == "MissingDependencyError"


def test_an_error_class_that_is_none_of_ours_is_still_one_of_ours(tmp_path):
    answer = '{"ok": false, "error": "annotations", "what": "w"}'
    with pytest.raises(StropError, match=r"^w$"):
        TrustHelper(tmp_path, script(tmp_path, f"cat >/dev/null; echo '{answer}'")).verify_job(b"{}", "pi")


def test_the_control_process_loads_neither_tuf_nor_cryptography():
    code = "import sys, edge_agent.adapters.trust, edge_agent.adapters.tls; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"tuf", "cryptography", "securesystemslib", "urllib3", "numpy", "typer", "rich"}


# Durable files.


def test_a_file_is_replaced_whole_with_the_mode_asked_for_whatever_the_umask(tmp_path):
    old = os.umask(0o077)
    try:
        durable.write(tmp_path / "f", b"one", mode=0o644)
        durable.write(tmp_path / "f", b"two", mode=0o640)
    finally:
        os.umask(old)
    assert (tmp_path / "f").read_bytes() == b"two"
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "inside").write_bytes(b"x")
    with pytest.raises(OSError, match="directory"):
        durable.write(tmp_path / "d", b"cannot replace a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
