# SPDX-License-Identifier: Apache-2.0
"""Accelerators by what a board's file system shows of them."""

import pytest

from edge_agent.adapters.accelerators_found import facts, found


def stick(root, name, vendor, product):
    folder = root / "sys/bus/usb/devices" / name
    folder.mkdir(parents=True)
    (folder / "idVendor").write_text(f"{vendor}\n")
    (folder / "idProduct").write_text(f"{product}\n")


@pytest.mark.parametrize(("vendor", "product"), [("1a6e", "089a"), ("18D1", "9302")])
def test_a_coral_stick_before_and_after_its_firmware(tmp_path, vendor, product):
    stick(tmp_path, "1-1", vendor, product)
    stick(tmp_path, "1-2", "1d6b", "0002")  # a hub
    assert found(tmp_path) == ["edgetpu"]


def test_cards_by_the_files_of_their_drivers(tmp_path):
    (tmp_path / "dev/accel").mkdir(parents=True)
    for name in ("apex_0", "nvidia0", "nvidiactl", "hailo0", "accel/accel0", "video0"):
        (tmp_path / "dev" / name).touch()
    assert found(tmp_path) == ["cuda", "edgetpu", "hailo", "npu"]
    assert facts(tmp_path) == {"accelerators": ["cuda", "edgetpu", "hailo", "npu"]}


def test_a_stick_without_numbers_and_a_board_without_anything(tmp_path):
    (tmp_path / "sys/bus/usb/devices/1-1").mkdir(parents=True)
    (tmp_path / "sys/bus/usb/devices/1-1/idVendor").write_bytes(b"\xff\n")
    assert found(tmp_path) == []
    assert facts(tmp_path) == {}
