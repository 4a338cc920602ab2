# SPDX-License-Identifier: Apache-2.0
"""Lines of compiler logs quoted in public threads: each has its source, and the rules answer them alike."""

from pathlib import Path

import pytest

from edge_contract import targets
from edge_contract.accelerators import Accelerator
from edge_contract.errors import DataError
from export.edgetpu import agreement, logs
from export.edgetpu.cache import cache_of
from export.edgetpu.status import STATUSES

FOLDER = Path(__file__).parent / "edgetpu_logs"
FILES = sorted(FOLDER.glob("*.toml"))
CORAL = targets.load("coral-usb")

each_log = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@each_log
def test_a_fixture_cites_its_thread_and_speaks_the_compilers_words(path):
    log = logs.load(path)
    assert log.thread
    assert log.rows or log.failure or "memory" in path.stem
    assert {row.status for row in log.rows} <= set(STATUSES)
    assert log.runtime in range(10, 15)


@each_log
def test_no_line_is_answered_otherwise_by_the_rules(path):
    log = logs.load(path)
    assert [line for answer, line in logs.answer(log, CORAL) if answer == logs.DIFFERS] == []


def test_the_rate_is_printed_quoted_and_inferred_lines_apart(capsys):
    agreement.main([str(FOLDER)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("line inferred from a thread: ")
    assert lines[1].startswith("log line: ")
    agreeing, counted = (int(lines[1].split()[i]) for i in (2, 4))
    assert counted >= 140  # of what sources quote; what they only tell is counted apart
    assert agreeing / counted >= 0.95


def test_a_wrong_rule_is_counted_as_a_difference(tmp_path, capsys):
    text = 'thread = "a/b#1"\ncompiler = "16.0"\n'
    rows = 'rows = [{ operator = "HARD_SWISH", count = 2, status = "Mapped to Edge TPU" }]\n'
    (tmp_path / "one.toml").write_text(text + rows)
    agreement.main([str(tmp_path)])
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "one (a/b#1): HARD_SWISH 2: Mapped to Edge TPU"
    assert "log line: 0 of 1 agree (0.0 %)" in printed


@pytest.mark.parametrize("operator", ["CONV_2D", "RESIZE_BILINEAR", "EXP"])
def test_a_failure_that_our_tables_do_not_foresee_is_a_difference(operator, tmp_path):
    text = f'thread = "a/b#1"\ncompiler = "16.0"\nfailed_operator = "{operator}"\nfailed_version = 1\n'
    (tmp_path / "one.toml").write_text(text + 'failure = "Didn\'t find op"\n')
    log = logs.load(tmp_path / "one.toml")
    assert [answer for answer, _ in logs.answer(log, CORAL)] == [logs.DIFFERS]


def test_a_damaged_fixture_is_one_line(tmp_path):
    (tmp_path / "bad.toml").write_text("thread = 3\n")
    with pytest.raises(DataError, match=r"bad\.toml.*compiler' is missing|bad\.toml\.thread: expected text"):
        logs.load(tmp_path / "bad.toml")


MIB = 1 << 20


@pytest.mark.parametrize(
    ("parameters", "colour"), [(0, "green"), (6 * MIB, "green"), (6 * MIB + 1, "amber"), (8 * MIB + 1, "red")]
)
def test_parameters_have_a_colour(parameters, colour):
    cache = cache_of(parameters, MIB, CORAL.accelerator)
    assert cache.colour == colour
    assert cache.cached_bytes + cache.streamed_bytes == parameters


def test_what_is_cached_lies_within_what_logs_show():
    # ResNet-18 at 224: activations of 1.2 MiB at once; FaceNet at 160: 0.8 MiB.
    accelerator: Accelerator = CORAL.accelerator
    resnet = cache_of(round(13.35 * MIB), round(1.2 * MIB), accelerator)
    facenet = cache_of(round(22.1 * MIB), round(0.8 * MIB), accelerator)
    assert abs(resnet.cached_bytes / MIB - 6.15) < 0.8
    assert abs(facenet.cached_bytes / MIB - 7.04) < 0.8
    assert {resnet.colour, facenet.colour} == {"red"}


def test_activations_take_room_but_never_all_of_it():
    accelerator = CORAL.accelerator
    assert cache_of(7 * MIB, 0, accelerator).streamed_bytes == 0
    assert cache_of(7 * MIB, 5 * MIB, accelerator).cached_bytes == 6 * MIB
