# SPDX-License-Identifier: Apache-2.0
"""Slimmed wheels on emulated boards: golden hashes as everywhere, and a whole first boot by Debian's bare Python."""

import json
import shutil
import subprocess
import time
from importlib import metadata
from pathlib import Path

import pytest

from fleet.flash import payload
from fleet.flash.wheelhouse_elf import stripped
from fleet.flash.wheelhouse_make import Order, make
from fleet.flash.wheelhouse_slim import goes
from tests.edge_agent.provision import card
from tests.edge_agent.runner import bundles
from tests.edge_agent.software import fakes, repack
from tests.machines import arm64
from tests.machines.unpacked import ROOT, script

pytestmark = [
    pytest.mark.machines,
    pytest.mark.skipif(bool(arm64.missing()), reason=arm64.missing() or "ARM64 is here"),
]
PARTS = ("numpy", "ai-edge-litert", "onnxruntime", "flatbuffers", "zstandard", "cryptography", "cffi")
PLACE = arm64.PLACE.folder


def distribution(version: str, name: str) -> metadata.Distribution:
    site = [str(PLACE / f"site-{version}")]
    return next(iter(metadata.Distribution.discover(name=name, path=site)))


@pytest.fixture(scope="module")
def slim(tmp_path_factory):
    """Python → a folder of packages as they lie on a board: unused parts are left out, libraries are stripped."""
    made = {}
    for version in arm64.PYTHONS:
        made[version] = tmp_path_factory.mktemp(f"site-{version}")
        for name in PARTS:
            for file in distribution(version, name).files or ():
                path = Path(str(file.locate()))
                if not goes(name, str(file)) and path.is_file() and not str(file).startswith(".."):
                    target = made[version] / str(file)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(stripped(path.read_bytes()))
    return made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return bundles.build(tmp_path_factory.mktemp("bundle") / "v1")


def board(folder: Path, cpu: str, version: str, *path: Path) -> Path:
    """Return a Python that is at home in a folder as Debian's is in ``/``, on an emulated processor."""
    root = PLACE / f"root-{version}"
    (folder / "usr/bin").mkdir(parents=True, exist_ok=True)
    if not (folder / "usr/lib").exists():
        (folder / "usr/lib").symlink_to(root / "usr/lib")
    python = folder / f"usr/bin/python{version}"
    packages = f'export PYTHONPATH="{":".join(map(str, path))}"' if path else "unset PYTHONPATH"
    lines = ["unset PYTHONHOME LD_PRELOAD LD_LIBRARY_PATH", packages]
    script(
        python, *lines, f'exec {PLACE}/qemu-aarch64 -cpu {cpu} -0 "$0" -L {root} {root}/usr/bin/python{version} "$@"'
    )
    return python


def proof(python: Path, bundle: Path, runtime: str) -> dict[str, object]:
    words = [python, "-P", "-m", "edge_agent.provision.proof", bundle, runtime]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


EVERYWHERE = [
    (cpu, version, runtime) for cpu in arm64.CPUS for version in arm64.PYTHONS for runtime in ("litert", "onnxruntime")
]
HERE = [("cortex-a72", "3.11", "litert")]


@pytest.mark.parametrize(
    ("cpu", "version", "runtime"),
    [*HERE, *(pytest.param(*one, marks=pytest.mark.long) for one in EVERYWHERE if one not in HERE)],
)
def test_slimmed_packages_give_the_golden_hashes(slim, bundle, tmp_path, cpu, version, runtime):
    found = proof(board(tmp_path, cpu, version, slim[version], ROOT), bundle, runtime)
    assert found["golden"] == "exact", found
    assert found["delegate"] == ("xnnpack" if runtime == "litert" else "cpu")


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("version", arm64.PYTHONS)
def test_a_bare_board_installs_a_real_wheelhouse_and_its_factory_model_answers(bundle, tmp_path, version):
    house = tmp_path / "from"
    house.mkdir()
    for found in metadata.distributions(path=[str(PLACE / f"site-{version}")]):
        repack.pack(found, house)
    for name in ("backports_strenum", "tqdm"):  # LiteRT asks for them, and a slimmed one does not
        fakes.wheel(house, name, "1.0", {f"{name}.py": ""})
    order = Order(version, "aarch64", "litert", tmp_path / "house", source=house)
    made = make(order, lambda _: None)
    shutil.rmtree(house)
    root, boot = tmp_path / "root", tmp_path / "boot"
    python = board(root, "cortex-a72", version)
    card.write(boot, payload.build(payload.Settings("pi-01", wheelhouse=made.folder, factory=bundle)))
    start = time.monotonic()
    words = [python, "-I", boot / "strop/first-boot.pyz", "run", "--once", "--boot", boot, "--root", root]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "golden exact, xnnpack" in done.stdout
    assert "pi-01 is set up" in done.stdout
    said = subprocess.run(
        [root / "opt/strop/bin/python", "-P", "-m", "strop", "agent", "status", "--data", root / "var/lib/strop"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.stdout.startswith("pi-01: stopped, runtime litert"), said.stderr
    size = sum(path.lstat().st_size for path in (root / "opt/strop").rglob("*") if path.is_file())
    print(f"Python {version}: {size / 1e6:.1f} MB installed, {time.monotonic() - start:.0f} s emulated")
