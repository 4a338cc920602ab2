# SPDX-License-Identifier: Apache-2.0
"""Waves as a form takes them, one a line."""

import pytest

from edge_contract.errors import UsageError
from fleet.core.wave_words import read_waves, wave_of


@pytest.mark.parametrize(
    ("line", "wave"),
    [
        ("1", {"count": 1}),
        (" 25 % ", {"percent": 25.0}),
        ("0.5%", {"percent": 0.5}),
        ("rest", {"rest": True}),
        ("all", {"rest": True}),
        ("restful", {"devices": ["restful"]}),
        ("cam-1", {"devices": ["cam-1"]}),
        ("cam-1,cam-2 , cam-3", {"devices": ["cam-1", "cam-2", "cam-3"]}),
        ("where site:a and not online", {"query": "site:a and not online"}),
        ("query:site:a", {"query": "site:a"}),
        ("10% where board:rpi5", {"percent": 10.0, "query": "board:rpi5"}),
        ("3 where tag:lab", {"count": 3, "query": "tag:lab"}),
        ("shadow 5%", {"percent": 5.0, "kind": "shadow"}),
        ("shadow rest", {"rest": True, "kind": "shadow"}),
    ],
)
def test_a_line_is_a_wave(line, wave):
    assert wave_of(line) == wave


@pytest.mark.parametrize("line", ["", "  ", ",", "a,,b", "ten devices", "10 %%", "cam 1", "<b>", "-5 where"])
def test_nonsense_is_named_or_a_name_that_nobody_has(line):
    try:
        found = wave_of(line)
    except UsageError as error:
        assert "is not a wave" in str(error)
    else:
        assert set(found) == {"devices"}  # the plan then says that nobody is called so


def test_a_text_without_a_wave_is_refused():
    with pytest.raises(UsageError, match="no wave"):
        read_waves("\n \n")
