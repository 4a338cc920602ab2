# SPDX-License-Identifier: Apache-2.0
"""What a card carries: files, digests, the line that begins, and what is refused before a card is written."""

import hashlib
import json
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.provision import plan as plans
from edge_contract.errors import BundleError, EnrolmentError, StropError, UsageError
from fleet.flash import payload
from fleet.flash.program import program_of
from tests.edge_agent.provision import card
from tests.edge_agent.runner import bundles

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
DIGEST = hashlib.sha256(bytes(3)).hexdigest()
TOKEN = f"strop1.0a0b.{'c' * 40}.{DIGEST}"


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> payload.Settings:
    folder = tmp_path_factory.mktemp("payload")
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "ca.crt").write_text(PEM)
    (folder / "agent.toml").write_text('device = "pi-01"\n')
    (folder / "libedgetpu1-std_16.0_arm64.deb").write_bytes(b"deb")
    return payload.Settings(
        device="pi-01", server="https://fleet:8444", token=folder / "token", wheelhouse=card.house(folder / "house"),
        factory=bundles.build(folder / "bundle"), agent_toml=folder / "agent.toml", ca=folder / "ca.crt",
        coral_package=folder / "libedgetpu1-std_16.0_arm64.deb",
    )  # fmt: skip


def test_a_payload_is_what_its_plan_says_and_the_plan_keeps_no_secret(settings, tmp_path):
    made = payload.build(settings)
    assert payload.build(settings).files == made.files
    boot = card.write(tmp_path, made)
    plan = plans.read(boot)
    assert list(plan.damaged()) == []
    assert {f"strop/{entry.path}" for entry in plan.files} == set(made.files) - {"strop/plan.json", "strop/token"}
    assert (plan.device, plan.runtime, plan.model, plan.coral) == ("pi-01", "litert", "compass", True)
    assert plan.coral_package == "coral/libedgetpu1-std_16.0_arm64.deb"
    assert plan.token.read_text() == TOKEN + "\n"
    secret = TOKEN.split(".")[2].encode()
    holders = [
        path for path, data in made.files.items() if secret in (data if isinstance(data, bytes) else data.read_bytes())
    ]
    assert holders == ["strop/token"]
    plan.check_machine()


def test_the_line_runs_the_program_only_if_it_is_whole(settings, tmp_path):
    made = payload.build(settings)
    boot = card.write(tmp_path / "boot", made)
    (line,) = made.first_boot
    checks, _, runs = line.replace("{boot}", str(boot)).partition(" && ")
    assert runs == f"/usr/bin/python3 -I {boot}/strop/first-boot.pyz begin --boot {boot}"
    assert subprocess.run(["sh", "-c", checks], check=False).returncode == 0
    (boot / "strop/first-boot.pyz").write_bytes(b"half")
    assert subprocess.run(["sh", "-c", checks], check=False).returncode != 0


def test_the_program_is_the_agent_s_own_and_needs_nothing_but_python(settings, tmp_path):
    data = program_of(card.own_wheel(tmp_path))
    (tmp_path / "first-boot.pyz").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "first-boot.pyz") as archive:
        assert not [name for name in archive.namelist() if "runner" in name.split("/")]
    words = [card.PYTHON, "-I", "-S", str(tmp_path / "first-boot.pyz"), "status", "--root", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no first boot was begun here" in done.stderr
    with pytest.raises(BundleError, match="knows no first boot"):
        program_of(spoilt_wheel(tmp_path))


def spoilt_wheel(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.whl", "w") as archive:
        archive.writestr("edge_agent/__init__.py", "")
    return folder / "a.whl"


REFUSED = {
    "a name that no certificate carries": ({"device": "pi 01"}, "is not a device name"),
    "an address without TLS": ({"server": "http://fleet"}, "is not an https address"),
    "a server without a token": ({"token": None}, "a server without a token"),
    "a token without a server": ({"server": ""}, "a token without a server"),
    "no wheelhouse": ({"wheelhouse": Path("/nowhere")}, "is no wheelhouse"),
    "no bundle": ({"factory": Path("/nowhere")}, "is no bundle"),
    "an agent.toml of another device": ({"device": "pi-02"}, "it is for device 'pi-01'"),
    "a token that is not there": ({"token": Path("/nowhere")}, "/nowhere: cannot be read"),
    "a package that is not there": ({"coral_package": Path("/nowhere.deb")}, "/nowhere.deb: cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_with_its_name(settings, case):
    wishes, words = REFUSED[case]
    with pytest.raises(StropError, match=words):
        payload.build(replace(settings, **wishes))


def test_a_token_of_another_server_and_half_a_token_are_refused(settings, tmp_path):
    (tmp_path / "ca.crt").write_text(PEM.replace("AAAA", "AAAB"))
    with pytest.raises(EnrolmentError, match="the token names another CA"):
        payload.build(replace(settings, ca=tmp_path / "ca.crt"))
    (tmp_path / "ca.crt").write_text("no certificate")
    with pytest.raises(UsageError, match="not a certificate in PEM"):
        payload.build(replace(settings, ca=tmp_path / "ca.crt"))
    (tmp_path / "token").write_text(TOKEN[:40])
    with pytest.raises(EnrolmentError, match="this is not an enrolment token") as refused:
        payload.build(replace(settings, token=tmp_path / "token"))
    assert TOKEN[:40] not in str(refused.value)


def test_a_bundle_whose_bytes_changed_is_refused(settings, tmp_path):
    folder = bundles.build(tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    name = manifest["files"][0]["path"]
    (folder / name).write_bytes(b"other")
    with pytest.raises(BundleError, match="is not what the manifest says"):
        payload.build(replace(settings, factory=folder))
    (folder / name).unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        payload.build(replace(settings, factory=folder))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"wheels/a.whl": b"", "wheels/A.whl": b""}, "are one name on a boot partition"),
        ({"factory/modèle": b""}, "is no name for a boot partition"),
        ({"factory/a:b": b""}, "is no name for a boot partition"),
        ({"factory/dot.": b""}, "is no name for a boot partition"),
    ],
)
def test_names_that_fat_cannot_keep_are_refused(files, words):
    with pytest.raises(BundleError, match=words):
        payload._check_names(files)
