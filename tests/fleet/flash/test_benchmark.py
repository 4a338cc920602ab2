# SPDX-License-Identifier: Apache-2.0
"""The benchmark runs both sides on a small image, sees every process's memory, and makes the same image twice."""

import json
import lzma
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import flash
from tests.fleet.flash.fake_image import tool

ROOT = Path(__file__).parents[3]


@pytest.mark.long
def test_it_measures_in_turns_and_says_what(tmp_path):
    for name in ("mkfs.vfat", "xz"):
        tool(name)
    words = ["--megabytes", "4", "--pairs", "1", "--level", "0", "--folder", str(tmp_path), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.flash", *words], capture_output=True, text=True, check=False, cwd=ROOT
    )
    found = json.loads(done.stdout)
    assert done.returncode in {0, 1}  # the goals are for a quiet machine and a real size
    assert found["a"]["name"] == "xz -d | dd"
    assert found["image_bytes"] == 8192 * 512 + 66_600 * 512 + (4 << 20)
    assert 20 < found["peak_memory_mb"] < 100
    assert found["command"].startswith("python -m benchmarks.flash --megabytes 4")
    assert list(tmp_path.iterdir()) == []


def test_its_image_is_one_of_a_card(tmp_path):
    from fleet.flash.partitions import boot_of, read_table

    base = flash.make_base(tmp_path, 2, 0)
    image = tmp_path / "base.img"
    image.write_bytes(lzma.decompress(base.read_bytes()))
    with image.open("rb") as file:
        table = read_table(file)
        assert [p.kind for p in table.partitions] == ["0x0c", "0x83"]
        assert boot_of(table, file)[0].number == 1
