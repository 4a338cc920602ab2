# SPDX-License-Identifier: Apache-2.0
"""Lines in: which are commands, and what is said about the others."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.runner.commands import MAX_LINE_BYTES, Load, Pause, Resume, Stop, Unload, UseSource, parse
from edge_agent.runner.process import lines
from edge_contract.errors import MessageError

VALID = [
    ({"cmd": "load", "role": "active", "folder": "/m/ab"}, Load("active", Path("/m/ab"))),
    ({"cmd": "load", "role": "shadow", "folder": "b", "later": [1]}, Load("shadow", Path("b"))),
    ({"cmd": "unload", "role": "shadow"}, Unload()),
    ({"cmd": "source", "name": "n", "spec": {"kind": "replay"}}, UseSource("n", {"kind": "replay"})),
    ({"cmd": "pause"}, Pause()),
    ({"cmd": "resume"}, Resume()),
    ({"cmd": "stop"}, Stop()),
]


@pytest.mark.parametrize(("document", "command"), VALID, ids=lambda v: type(v).__name__)
def test_command_is_understood(document, command):
    assert parse(json.dumps(document).encode()) == command


INVALID = [
    (b"", "not JSON"),
    (b"load", "not JSON"),
    (b"\xff\xfe", "not JSON"),
    (b"[1]", "command: expected an object"),
    (b'{"cmd":"dance"}', "use one of load, unload, source, pause, resume, stop"),
    (b'{"role":"active"}', "field 'cmd' is missing"),
    (b'{"cmd":"load","role":"active"}', "field 'folder' is missing"),
    (b'{"cmd":"load","role":"king","folder":"x"}', "command.role: unknown value 'king'"),
    (b'{"cmd":"unload","role":"active"}', "command.role: unknown value 'active'"),
    (b'{"cmd":"source","name":"n","spec":[]}', "command.spec: expected an object"),
    (b'{"cmd":"stop","cmd":"stop"}', "stands twice"),
    (b'{"cmd":' + b"[" * 5000, "nested too deeply"),
    (b" " * (MAX_LINE_BYTES + 1), "65537 bytes, more than 65536"),
]


@pytest.mark.parametrize(("line", "words"), INVALID, ids=[words for _, words in INVALID])
def test_line_that_is_no_command_is_refused_in_one_line(line, words):
    with pytest.raises(MessageError, match=words) as caught:
        parse(line)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail_otherwise(line):
    with contextlib.suppress(MessageError):
        parse(line)


@pytest.mark.parametrize(
    ("name", "expected"), [("ab" * 32, "ab" * 32), ("bundle", ""), ("AB" * 32, ""), ("g" * 64, "")]
)
def test_slot_folder_says_which_bundle_it_must_hold(name, expected):
    assert Load("active", Path("/slots") / name).expected == expected


@given(st.lists(st.binary(max_size=20)), st.data())
def test_lines_are_the_same_however_they_were_cut(rows, data):
    rows = [row.replace(b"\n", b"") for row in rows]
    stream = b"".join(row + b"\n" for row in rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert list(lines(iter(chunks))) == rows


def test_endless_line_takes_no_memory_and_is_refused_once():
    found = list(lines(iter([b"x" * 50_000] * 100 + [b"\n", b'{"cmd":"stop"}\n'])))
    assert len(found) == 2
    assert MAX_LINE_BYTES < len(found[0]) < 200_000
    assert parse(found[1]) == Stop()
