# SPDX-License-Identifier: Apache-2.0
"""Re-enumeration: a folder that looks as sysfs does, and commands that really run."""

import pytest

from edge_agent.adapters import accelerator
from edge_contract.errors import RuntimeAdapterError, UsageError


def plug(devices, port, vendor, product):
    folder = devices / port
    folder.mkdir(parents=True)
    for name, text in (("idVendor", vendor), ("idProduct", product), ("authorized", "1")):
        (folder / name).write_text(f"{text}\n")
    return folder / "authorized"


def test_only_corals_are_switched_off_and_on(tmp_path):
    coral, fresh = plug(tmp_path, "2-1", "18d1", "9302"), plug(tmp_path, "1-1.4", "1A6E", "089a")
    mouse = plug(tmp_path, "1-2", "046d", "c077")
    seen = []
    assert accelerator.by_sysfs(tmp_path, pause=lambda s: seen.append((fresh.read_text(), coral.read_text()))) == 2
    assert seen == [("0", "1\n"), ("1", "0"), ("1", "1")]
    assert mouse.read_text() == "1\n"


def test_no_stick_and_no_right_are_told_apart(tmp_path):
    with pytest.raises(RuntimeAdapterError, match="no such device on USB; is it plugged in"):
        accelerator.by_sysfs(tmp_path / "none")
    switch = plug(tmp_path, "1-1", "18d1", "9302")
    switch.unlink()
    switch.mkdir()  # what cannot be written, for root too
    with pytest.raises(RuntimeAdapterError, match=r"cannot be written: .*; let the agent write it: a udev rule"):
        accelerator.by_sysfs(tmp_path, pause=lambda s: None)


def test_a_command_runs_without_a_shell_and_its_failure_has_a_reason(tmp_path):
    accelerator.by_command(f"touch '{tmp_path}/a b'")
    assert (tmp_path / "a b").exists()
    for command, words in (
        ("/nowhere/uhubctl -a cycle", "No such file"),
        ("sh -c 'echo no hub >&2; exit 3'", "exit code 3: no hub"),
        ("false", "it said nothing"),
    ):
        with pytest.raises(RuntimeAdapterError, match=words):
            accelerator.by_command(command)
    with pytest.raises(RuntimeAdapterError, match="timed out"):
        accelerator.by_command("sleep 60", timeout_s=0.1)
    for command in ("", "'"):
        with pytest.raises(UsageError):
            accelerator.by_command(command)
