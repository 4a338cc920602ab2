# SPDX-License-Identifier: Apache-2.0
"""The real compiler is asked when it is on PATH: a program with its name and its words stands in for it here."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from export.edgetpu import compiler
from export.edgetpu.preflight import check
from export.tflite import reader
from tests.export.edgetpu_cases import MAPPED, PLACE, Net

LOG = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 96 ms.

Input model: model.tflite
Input size: 7.02MiB
Output model: model_edgetpu.tflite
Output size: 7.14MiB
On-chip memory used for caching model parameters: 80.00KiB
On-chip memory remaining for caching model parameters: 6.04MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 3
Operation log: model_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU.
Number of operations that will run on Edge TPU: 1
Number of operations that will run on CPU: 2

Operator                       Count      Status

CONV_2D                        1          Mapped to Edge TPU
HARD_SWISH                     1          Operation not supported
CONV_2D                        1          More than one subgraph is not supported
Compilation child process completed within timeout period.
Compilation succeeded!
"""

PROGRAM = """#!{python}
import json, sys
from pathlib import Path
arguments = sys.argv[1:]
model = Path(arguments[-1]).read_bytes()
assert model[4:8] == b"TFL3", "the model is not there"
Path({seen!r}).write_text(json.dumps({{"arguments": arguments, "size": len(model), "cwd": str(Path.cwd())}}))
Path(arguments[arguments.index("-o") + 1], "model_edgetpu.log").write_text("a log")
print({log!r})
sys.exit({code})
"""


@pytest.fixture
def net():
    return Net((1, 16, 16, 8)).conv(8).add("HARD_SWISH").conv(8).finish()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put an executable ``edgetpu_compiler`` on PATH that prints a log; returns where it notes what it was given."""

    def put(log=LOG, code=0):
        program, seen = tmp_path / "bin" / "edgetpu_compiler", tmp_path / "seen.json"
        program.parent.mkdir()
        program.write_text(PROGRAM.format(python=sys.executable, seen=str(seen), log=log, code=code))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        return seen

    return put


def test_without_the_compiler_nothing_is_asked(net, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compiler.compile_model(net) is None


def test_its_log_is_read_and_compared(net, install):
    seen = install()
    log = compiler.compile_model(net)
    assert (log.version, log.mapped, log.failure) == ("16.0.384591198", 1, "")
    assert (log.cached_bytes, log.streamed_bytes) == (80 * 1024, 0)
    assert log.room_bytes == round(6.04 * 1024 * 1024)
    assert log.rows[("CONV_2D", PLACE)] == 1
    found = compiler.compare(check(reader.read(net, "net")).histogram(), log.rows)
    assert (found.agreeing, found.operators, found.differences) == (3, 3, ())
    given = json.loads(seen.read_text())
    assert given["size"] == len(net)
    assert given["arguments"][0] == "-s"


def test_an_older_runtime_is_asked_for(net, install):
    seen = install()
    compiler.compile_model(net, runtime=13)
    arguments = json.loads(seen.read_text())["arguments"]
    assert arguments[arguments.index("-m") + 1] == "13"


def test_it_leaves_nothing_behind(net, install):
    seen = install()
    compiler.compile_model(net)
    assert not Path(json.loads(seen.read_text())["cwd"]).exists()


FAILURES = [
    ("ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'\n", "Didn't find op for builtin opcode"),
    ("Internal compiler error. Aborting! \n", "Internal compiler error. Aborting!"),
    (
        "Compilation failed: Compilation failed due to large activation tensors in model.\n",
        "Compilation failed due to large activation tensors in model.",
    ),
    ("nothing that we know\n", "exit code 1"),
]


@pytest.mark.parametrize(("text", "words"), FAILURES)
def test_a_failure_is_an_answer_in_its_own_words(text, words, net, install):
    install(f"Edge TPU Compiler version 15.0.340273435\n{text}", code=1)
    log = compiler.compile_model(net)
    assert words in log.failure
    assert log.version == "15.0.340273435"
    assert log.rows == {}


def test_a_program_that_cannot_start_is_an_answer_too(net, tmp_path, monkeypatch):
    program = tmp_path / "edgetpu_compiler"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "cannot be started" in compiler.compile_model(net).failure


def test_a_log_with_the_same_kind_twice_adds_up():
    log = compiler.parse("PAD    1   Mapped to Edge TPU\nPAD    2   Mapped to Edge TPU\n")
    assert log.rows == {("PAD", MAPPED): 3}
    assert log.to_json()["rows"] == [{"operator": "PAD", "status": MAPPED, "count": 3}]
