# SPDX-License-Identifier: Apache-2.0
"""Environments made by pip from wheels: whole, or not there at all."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_agent.software import install, launch
from edge_agent.software.build import build
from edge_agent.software.install import room
from edge_agent.storage_config import Limits
from edge_contract import canonical
from edge_contract.errors import BundleError, SlotError
from tests.edge_agent.software import fakes
from tests.edge_agent.software.conftest import bare, order_of

House = tuple[Path, Path, Path, Path]
HOME = Path(__file__).resolve().parents[3]


def is_clean(data: Path) -> bool:
    return all(path.name == "build.lock" for path in (data / "software" / "venvs").iterdir())


def test_an_environment_is_whole_and_not_made_twice(built: Path, house: House) -> None:
    order = order_of(built, house[0], house[1])
    venv = launch.venv_of(built, order.release)
    assert launch.is_whole(built, order.release)
    assert not (venv / "wheels").exists()
    before = (venv / launch.MARK).stat().st_mtime_ns
    assert build(order) == {"device": "pi", "journal": 2, "protocol": 1, "version": "0.2.0"}
    assert (venv / launch.MARK).stat().st_mtime_ns == before


@pytest.mark.crash_long
def test_one_flipped_bit_of_a_wheel_leaves_no_environment(tmp_path: Path, house: House) -> None:
    release = shutil.copytree(house[1], tmp_path / "release")
    wheel = next(release.glob("wheels/*.whl"))
    data = bytearray(wheel.read_bytes())
    data[len(data) // 2] ^= 1
    wheel.write_bytes(data)
    with pytest.raises(BundleError, match=r"HASHES|hash|digest"):
        build(order_of(bare(tmp_path / "data"), house[0], release))
    assert is_clean(tmp_path / "data")


@pytest.mark.crash_long
def test_a_wheel_for_another_python_is_refused_by_pip_if_the_manifest_lied(tmp_path: Path, house: House) -> None:
    wheel = fakes.wheel(tmp_path / "house", "strop", "0.2.0", fakes.program("0.2.0"))
    foreign = wheel.rename(wheel.with_name("strop-0.2.0-cp39-cp39-win_amd64.whl"))
    order = order_of(bare(tmp_path / "data"), house[0], house[1])
    lying = replace(order, wheels=(replace(order.wheels[0], path=foreign),))
    with pytest.raises(BundleError, match=r"No matching distribution|not a supported wheel|satisfies"):
        build(lying)
    assert is_clean(tmp_path / "data")


@pytest.mark.crash_long
@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("", "version 'x' is '0.3.0'|the manifest says '0.3.0'"),
        ("raise SystemExit('no such key')\n", "self-test of the new release.*no such key"),
        ("print('ready')\nraise SystemExit(0)\n", "does not answer in JSON"),
    ],
)
def test_a_release_that_fails_its_self_test_leaves_nothing(
    tmp_path: Path, house: House, program: str, words: str
) -> None:
    data = bare(tmp_path / "data")
    wheel = {"edge_agent/__init__.py": "", "edge_agent/__main__.py": program or 'print(\'{"version": "x"}\')\n'}
    release = fakes.bundle(tmp_path, [fakes.wheel(tmp_path / "house", "strop", "0.3.0", wheel)])
    with pytest.raises(BundleError, match=words):
        build(order_of(data, house[0], release))
    assert is_clean(data)


FULL = """
import sys
from pathlib import Path
from edge_agent.software.build import Order, Wheel, build
from edge_contract.errors import SlotError
data, python, name, sha256, path = sys.argv[1:]
try:
    build(Order(Path(data), "b" * 64, "0.2.0", python, (Wheel("strop", "0.2.0", sha256, Path(path)),)))
except SlotError as error:
    print(error)
    print(sorted(p.name for p in Path(data, "software/venvs").iterdir()))
"""


@pytest.mark.crash_long
def test_a_disk_that_fills_up_while_it_is_made_leaves_nothing(tmp_path: Path, house: House) -> None:
    """On a real file system of 200 KB, in a mount name space of its own."""
    order = order_of(bare(tmp_path / "data"), house[0], house[1])
    venvs = tmp_path / "data" / "software" / "venvs"
    venvs.mkdir(parents=True)
    files = {**fakes.program("0.2.0"), "big.txt": "".join(map(str, range(200_000)))}
    wheel = fakes.wheel(tmp_path / "house", "strop", "0.2.0", files)
    mount = 'mount -t tmpfs -o size=200k none "$0" && exec "$@"'
    words = [sys.executable, "-c", FULL, str(order.data), order.python, "strop"]
    words += [canonical.digest(wheel.read_bytes()), str(wheel)]
    probe = subprocess.run(["unshare", "-m", "sh", "-c", mount, str(venvs), "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("no mount name spaces here")
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, str(venvs), *words],
        env={**os.environ, "PYTHONPATH": str(HOME)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "no space left" in ended.stdout.lower(), ended.stdout + ended.stderr
    assert "['build.lock']" in ended.stdout


@pytest.mark.parametrize(
    ("disk", "limits", "words"),
    [
        ({"f_bavail": 20_000}, Limits(), "30 MB are needed and 64 MB have to stay free, 81 MB are free"),
        ({"f_favail": 900}, Limits(), "600 files and a margin of 500 are needed, 900 inodes are free"),
        ({}, Limits(most_own_mb=10), r"30 MB are needed, the data folder takes \d+ of 10 MB"),
    ],
)
def test_each_of_the_three_limits_is_asked_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: dict[str, int], limits: Limits, words: str
) -> None:
    whole = {"f_bavail": 10**6, "f_frsize": 4096, "f_favail": 10**6, "f_files": 10**6, **disk}
    monkeypatch.setattr(install.os, "statvfs", lambda _path: SimpleNamespace(**whole))
    with pytest.raises(SlotError, match=words):
        room(tmp_path, limits, 30_000_000, 600)
    room(tmp_path, limits, 1_000_000, 10)
