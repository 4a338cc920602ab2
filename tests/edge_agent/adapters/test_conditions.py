# SPDX-License-Identifier: Apache-2.0
"""Lock, metered mark, memory and battery as real files and a real process have them; and a pace that changes."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_agent.adapters import conditions
from edge_agent.adapters.conditions import Watched, is_flocked, read
from edge_agent.adapters.download import Throttle
from edge_agent.config import load
from edge_contract.errors import UsageError

HOLD = """
import fcntl, sys
handle = open(sys.argv[1], "w")
fcntl.flock(handle, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_that_another_process_holds_is_seen_until_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "camera.lock"
    watched = Watched(lock_file=str(path))
    assert read(watched, 0.0).locked_by == "", "there is no such file"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=-1, stdout=-1) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert read(watched, 0.0).locked_by == str(path)
        child.kill()
        child.wait()
    assert path.exists()
    assert not is_flocked(path), "the kernel let go"
    assert read(Watched(str(path), "present"), 0.0).locked_by == str(path)


def test_a_mark_says_that_the_link_is_metered(tmp_path: Path) -> None:
    watched = Watched(metered_file=str(tmp_path / "lte"))
    assert not read(watched, 0.0).is_metered
    (tmp_path / "lte").touch()
    assert read(watched, 0.0).is_metered


def test_the_clock_and_the_memory_are_the_kernels() -> None:
    found = read(Watched(), time.time())
    assert found.utc_offset_s == time.localtime().tm_gmtoff
    assert 10_000 < found.memory_kb < 1 << 40


SUPPLIES = {
    "on a battery": ({"BAT0": ("Discharging", "40"), "BAT1": ("Discharging", "35")}, 35),
    "charging": ({"BAT0": ("Charging", "10")}, None),
    "mains alone": ({"AC": ("", "")}, None),
    "a sensor that talks nonsense": ({"BAT0": ("Discharging", "?")}, None),
}


@pytest.mark.parametrize("name", SUPPLIES)
def test_the_charge_counts_while_a_battery_is_being_emptied(tmp_path: Path, name: str) -> None:
    supplies, expected = SUPPLIES[name]
    for supply, (status, capacity) in supplies.items():
        (tmp_path / supply).mkdir()
        (tmp_path / supply / "status").write_text(f"{status}\n")
        (tmp_path / supply / "capacity").write_text(f"{capacity}\n")
    assert conditions._battery(tmp_path) == expected
    assert conditions._battery(tmp_path / "nowhere") is None


def test_a_limit_that_changes_under_way_holds_from_the_next_chunk() -> None:
    throttle = Throttle()
    assert throttle.took(10_000, 1.0) == 0.0
    throttle.limit_bps = 1000
    assert throttle.took(500, 2.0) == 0.5
    throttle.limit_bps = 0
    assert throttle.took(10_000, 2.0) == 0.0


def configured(folder: Path, text: str):
    (folder / "agent.toml").write_text(f'device = "pi"\n[updates]\n{text}\n')
    return load(folder)


def test_the_updates_table_becomes_settings_and_watched_files(tmp_path: Path) -> None:
    text = 'windows = ["Sat 01:00-05:00"]\nclock = "utc"\nmetered = true\nlock_file = "update.lock"\nlock = "present"'
    config = configured(tmp_path, text)
    assert config.settings.update_windows == ("Sat 01:00-05:00",)
    assert (config.settings.update_clock, config.settings.metered) == ("utc", True)
    assert config.watched == Watched(str(tmp_path / "update.lock"), "present")


TOML = {
    "unknown key": ("window = 1", r"\[updates\]: unknown key 'window'; use one of windows, clock"),
    "no window": ('windows = ["late"]', r"\[updates\]: update_windows: 'late' is not a window"),
    "unknown lock": ('lock = "semaphore"', "lock = 'semaphore' is unknown; use one of flock, present"),
    "no list": ('windows = "22:00-05:00"', "is not a list of at most 20 windows"),
}


@pytest.mark.parametrize("name", TOML)
def test_a_faulty_updates_table_names_key_and_fix(tmp_path: Path, name: str) -> None:
    text, message = TOML[name]
    with pytest.raises(UsageError, match=message):
        configured(tmp_path, text)
