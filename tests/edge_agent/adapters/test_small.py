# SPDX-License-Identifier: Apache-2.0
"""Clock, board, log and back-off."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.adapters import board, clock, log
from edge_agent.adapters.mqtt import _Receipts, full_jitter, parse_address
from edge_contract.errors import BrokerError


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_never_longer_than_the_cap(attempt: int, share: float) -> None:
    assert 0.0 <= full_jitter(attempt, share, cap_s=300.0) <= 300.0


def test_a_thousand_devices_do_not_come_back_together() -> None:
    """After a broker's restart the attempts of a fleet spread evenly over the cap."""
    rng = random.Random(1)
    pauses = sorted(full_jitter(9, rng.random(), cap_s=300.0) for _ in range(1000))
    in_each_tenth = [sum(1 for p in pauses if 30 * i <= p < 30 * (i + 1)) for i in range(10)]
    assert min(in_each_tenth) > 60
    assert max(in_each_tenth) < 140


@pytest.mark.parametrize("text", ["host", ":1883", "host:", "host:0", "host:70000", "host:x"])
def test_a_broken_address_is_refused(text: str) -> None:
    with pytest.raises(BrokerError, match=r'is no address; write "HOST:PORT"'):
        parse_address(text)


def test_a_puback_finds_its_token_whichever_comes_first() -> None:
    told: list[str] = []
    receipts = _Receipts(told.append)
    receipts.expect(1, "late")
    receipts.confirmed(1)
    receipts.confirmed(2)
    receipts.expect(2, "early")
    receipts.confirmed(3)
    receipts.clear()
    receipts.expect(3, "another connection's number")
    assert told == ["late", "early"]


def test_health_has_plain_numbers(tmp_path: Path) -> None:
    found = board.health(tmp_path)
    assert found["rss_kb"] > 1000
    assert found["disk_free_mb"] > 0
    assert all(isinstance(value, (int, float)) for value in found.values())
    assert board.rss_kb(1 << 22) == 0, "a process that is gone"


def test_both_clocks_go_on() -> None:
    first, second = clock.now(), clock.now()
    assert second.mono >= first.mono
    assert second.wall > 1.7e9


def test_the_log_is_bounded_and_one_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MAX_BYTES", 2000)
    file = log.LogFile(tmp_path / "logs" / "agent.log", is_quiet=True)
    for i in range(200):
        file.write("info", f"line {i}\nand more")
    lines = (tmp_path / "logs" / "agent.log").read_text().splitlines()
    assert lines[-1].endswith("info line 199 and more")
    assert sum(path.stat().st_size for path in (tmp_path / "logs").iterdir()) < 5000


def test_a_log_on_a_disk_that_refuses_costs_only_the_line(tmp_path: Path) -> None:
    file = log.LogFile(tmp_path / "agent.log", is_quiet=True)
    (tmp_path / "agent.log").mkdir()
    file.write("info", "lost")
