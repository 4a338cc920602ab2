# SPDX-License-Identifier: Apache-2.0
"""Releases on the workstation: which wheels go to which device, what is refused, and what the manifest says."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_contract import canonical
from edge_contract.errors import BundleError, ManifestError, StropError, UsageError
from edge_contract.manifest import Manifest
from edge_contract.messages import SOFTWARE
from edge_contract.software import SoftwareManifest, here, read
from export.cli import app
from export.keys import signing
from export.software.release import Kind, kinds_of, parse_kind, plan, write
from export.software.wheels import read_all
from tests.edge_agent.software import fakes

PI, NEW_PI = Kind("3.11", "aarch64"), Kind("3.13", "aarch64")
NEEDS = ["paho-mqtt>=2; extra == 'agent'", "ai-edge-litert>=2; extra == 'agent-litert'", "typer"]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A wheelhouse for two kinds of device; numpy is compiled, and one wheel is for neither."""
    folder = tmp_path / "house"
    fakes.wheel(folder, "strop", "0.2.0", {"edge_agent/x.py": "1"}, needs=NEEDS)
    fakes.wheel(folder, "paho_mqtt", "2.1.0", {"paho.py": ""})
    fakes.wheel(folder, "typer", "0.15.0", {"typer.py": ""}, needs=["rich; sys_platform == 'win32'"])
    fakes.wheel(folder, "ai_edge_litert", "2.3.0", {"l.py": ""}, needs=["numpy"])
    for tag in ("cp311-cp311", "cp313-cp313"):
        fakes.wheel(folder, "numpy", "2.1.0", {"n.py": tag}, tag=f"{tag}-manylinux_2_28_aarch64")
    fakes.wheel(folder, "pytest", "8.0.0", {"p.py": ""})
    return folder


def test_each_kind_of_device_gets_the_wheels_that_fit_and_common_ones_are_one_file(house: Path, tmp_path: Path) -> None:
    wheels = read_all(house)
    assert kinds_of(wheels) == (PI, NEW_PI)
    made = plan(wheels, (PI, NEW_PI), version="0.2.0")
    names = [w.name for w in made.wheels[PI]]
    assert names == ["ai-edge-litert", "numpy", "paho-mqtt", "strop", "typer"]
    assert [w.name for w in made.left_out] == ["pytest"]
    assert len(made.manifest.files) == 6
    first, second = (made.manifest.wheels_for(kind.python, kind.machine) for kind in (PI, NEW_PI))
    assert {f.sha256 for f in first} ^ {f.sha256 for f in second} == {w.sha256 for w in wheels if w.name == "numpy"}
    release = write(made, tmp_path / "out")
    assert release == made.manifest.bundle_id == write(plan(read_all(house), (PI, NEW_PI)), tmp_path / "again")
    assert read((tmp_path / "out" / "manifest.json").read_bytes()) == made.manifest
    with pytest.raises(BundleError, match="is there already"):
        write(made, tmp_path / "out")


def _numpy_twice(house: Path) -> None:
    fakes.wheel(house, "numpy", "2.2.0", {}, tag="cp311-cp311-manylinux_2_28_aarch64")


def _no_paho(house: Path) -> None:
    next(house.glob("paho*")).unlink()


def _old_paho(house: Path) -> None:
    _no_paho(house)
    fakes.wheel(house, "paho_mqtt", "1.6.1", {})


def _no_strop(house: Path) -> None:
    next(house.glob("strop*")).unlink()


def _flip(house: Path) -> None:
    path = next(house.glob("typer*"))
    data = bytearray(path.read_bytes())
    data[data.index(b"METADATA") + 20] ^= 1
    path.write_bytes(data)


def _liar(house: Path) -> None:
    path = next(house.glob("typer*"))
    path.rename(path.with_name(path.name.replace("0.15.0", "0.16.0")))


def _no_wheel(house: Path) -> None:
    (house / "typer-0.99.0-py3-none-any.whl").write_text("<html>login</html>")


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "two versions": (_numpy_twice, "numpy 2.1.0 and 2.2.0 for 3.11-aarch64"),
    "missing": (_no_paho, r"strop needs paho-mqtt>=2; extra == \"agent\" on 3.11-aarch64, it is not in the wheelhouse"),
    "too old": (_old_paho, "1.6.1 is here"),
    "no strop": (_no_strop, "wheel of strop.*the wheelhouse has none"),
    "a flipped bit": (_flip, "typer.*(cannot be read|not what the record says)"),
    "another version inside": (_liar, "holds typer 0.15.0"),
    "no wheel": (_no_wheel, "cannot be read"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_wheelhouse_that_would_not_install_is_refused(house: Path, what: str) -> None:
    spoil, words = REFUSED[what]
    spoil(house)
    with pytest.raises(BundleError, match=words):
        plan(read_all(house), (PI,))


def test_a_wheel_for_another_python_is_missing_for_this_one(house: Path) -> None:
    with pytest.raises(BundleError, match=r"needs numpy.* on 3.12-aarch64, it is not"):
        plan(read_all(house), (Kind("3.12", "aarch64"),))
    with pytest.raises(BundleError, match=r"the wheelhouse has 0\.2\.0"):
        plan(read_all(house), (PI,), version="0.3.0")
    with pytest.raises(UsageError, match="--platform 3-x is none"):
        parse_kind("3-x")


def test_the_command_makes_signs_and_says(house: Path, tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, ["software", str(house), "--out", str(tmp_path / "out"), "--json"])
    said = json.loads(ended.stdout)
    assert (said["version"], said["signed"], len(said["files"])) == ("0.2.0", False, 6)
    ended = CliRunner().invoke(
        app, ["software", str(house), "--out", str(tmp_path / "two"), "--platform", "3.11-aarch64"]
    )
    assert "Python 3.11 on aarch64: 5 wheels, 0.0 MB, 0.0 MB unpacked" in ended.stdout
    assert "left out: pytest-8.0.0-py3-none-any.whl" in ended.stdout
    assert ended.stdout.endswith("not signed: give --keys\n")
    manifest, size = signing.checked_bundle(tmp_path / "two")
    assert (manifest.model, size) == (SOFTWARE, len(manifest.to_bytes()))


def manifest() -> SoftwareManifest:
    entry = {"path": "wheels/a.whl", "size": 3, "sha256": "a" * 64, "name": "strop", "colour": "red"}
    document = {
        "schema": "strop.software/1",
        "model": SOFTWARE,
        "version": "0.2.0",
        "minimum_protocol": 1,
        "platforms": [{"python": here()[0], "machine": here()[1], "wheels": ["wheels/a.whl"]}],
        "lineage": {},
        "files": [entry],
    }
    return SoftwareManifest.from_json(document)


def test_unknown_words_are_kept_and_the_bytes_are_the_id() -> None:
    found = manifest()
    assert found.files[0].to_json()["colour"] == "red"
    assert SoftwareManifest.from_bytes(found.to_bytes()) == found
    assert found.bundle_id == canonical.digest(found.to_bytes())
    assert found.wheels_for(*here()) == found.files


CHANGES = {
    "another schema": ({"schema": "strop.bundle/1"}, "schema"),
    "another name": ({"model": "digits"}, "unknown value 'digits'"),
    "no platform": ({"platforms": []}, "no platform"),
    "a platform twice": ({"platforms": [{"python": "3.11", "machine": "x", "wheels": ["wheels/a.whl"]}] * 2}, "twice"),
    "no wheels": ({"platforms": [{"python": "3.11", "machine": "x", "wheels": []}]}, "no wheels"),
    "an unlisted wheel": ({"platforms": [{"python": "3", "machine": "x", "wheels": ["b"]}]}, "named but not listed"),
    "out of the folder": ({"files": [{"path": "../a.whl", "size": 1, "sha256": "a" * 64}]}, "leaves the bundle"),
    "a file twice": (
        {"files": [{"path": f"{f}/a.whl", "size": 1, "sha256": "a" * 64} for f in "xy"]},
        "a file stands twice",
    ),
    "no number": ({"minimum_protocol": 0}, "below 1"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_manifest_that_is_wrong_is_refused(what: str) -> None:
    change, words = CHANGES[what]
    with pytest.raises(ManifestError, match=words):
        SoftwareManifest.from_json({**manifest().to_json(), **change})


def test_a_release_is_no_model_and_no_model_may_have_its_name() -> None:
    data = manifest().to_bytes()
    with pytest.raises(StropError):
        Manifest.from_bytes(data)
    with pytest.raises(ManifestError, match="not canonical"):
        read(data.replace(b'{"files"', b'{ "files"'))
    with pytest.raises(ManifestError, match=r"no wheels for Python 2\.7 on vax; it has them for Python 3"):
        manifest().wheels_for("2.7", "vax")
    later = SoftwareManifest.from_json({**manifest().to_json(), "minimum_protocol": 9})
    with pytest.raises(ManifestError, match="protocol 9 or newer, this side speaks 1"):
        later.check_protocol()
