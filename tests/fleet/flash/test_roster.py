# SPDX-License-Identifier: Apache-2.0
"""Lists of devices: what the fleet's command writes is read, and every fault is named with its line before any card."""

import datetime as dt

import pytest

from edge_contract.errors import UsageError
from fleet.flash.roster import read

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)


def listed(folder, text, mode=0o600):
    path = folder / "devices.csv"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_what_the_fleet_s_command_writes_is_a_list(tmp_path):
    until = "2026-11-22 12:00:00"
    text = f"id,name,labels,expires,token\nt1,cam-001,site=a lab,{until},AAA\nt2,cam-002,,{until},BBB\n"
    rows = read(listed(tmp_path, text), now=NOW)
    assert [(row.name, row.token, row.token_id, row.labels) for row in rows] == [
        ("cam-001", "AAA", "t1", "site=a lab"),
        ("cam-002", "BBB", "t2", ""),
    ]
    assert "AAA" not in repr(rows)


def test_a_spreadsheet_s_file_is_read_and_tokens_may_lie_beside_it(tmp_path):
    (tmp_path / "one.token").write_text("CCC\n")
    rows = read(listed(tmp_path, "\ufeffname,token_file,note\r\ncam-1,one.token,north door\r\n", 0o644), now=NOW)
    assert (rows[0].name, rows[0].token, rows[0].note) == ("cam-1", "CCC", "north door")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name\na\nb\nA\n", r"line 4: name 'a' is already in line 2; give each its own; case does not count"),
        ("name,token\na,X\nb,X\n", r"line 3: token is already in line 2; a token is for one device"),
        ("name\n-a\n", r"line 2: '-a' is not a device name"),
        ("name\na_b\n", r"line 2: 'a_b' is no host name"),  # a device may be called so, a host may not
        ("name\n../a\n", r"line 2: '../a' is not a device name"),
        ("name,wifi\na,b\n", r"line 1: unknown column 'wifi'"),
        ("token\nX\n", "no column 'name'"),
        ("name,name\na,b\n", "no column 'name', or one twice"),
        ("name,note\na\n", "line 2: more or fewer cells"),
        ("name\na,b\n", "line 2: more or fewer cells"),
        ("name\n", "0 devices"),
        ("", "no column 'name'"),
        ('name\n"a\n', "unexpected end of data"),
        ("name,expires\na,2026-11-21 11:59:00\n", r"line 2: the token ended at 2026-11-21 11:59:00; strop fleet"),
        ("name,expires\na,soon\n", "expires = 'soon' is no time"),
        ("name,token_file\na,none\n", "token_file 'none' cannot be read"),
        ("name,token,token_file\na,X,y\n", "a token and a token_file"),
    ],
)  # fmt: skip
def test_every_fault_is_named_with_its_line(tmp_path, text, words):
    with pytest.raises(UsageError, match=words) as caught:
        read(listed(tmp_path, text), now=NOW)
    assert "X" not in str(caught.value), "a token is never shown"


def test_tokens_in_a_file_for_all_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"others than its owner can read it; chmod 600"):
        read(listed(tmp_path, "name,token\na,X\n", 0o644), now=NOW)
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "none.csv", now=NOW)
    path = tmp_path / "latin.csv"
    path.write_bytes(b"name\n\xe4\n")
    with pytest.raises(UsageError, match="cannot be read"):
        read(path, now=NOW)
