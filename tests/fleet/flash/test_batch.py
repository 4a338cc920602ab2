# SPDX-License-Identifier: Apache-2.0
"""A list of devices becomes images and cards: each its own, none with anything of another, and all of them once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_contract.errors import ImageError, UsageError
from fleet.flash import batch as batches
from fleet.flash.batch import Journal, copy_sparse
from fleet.flash.verify import look
from strop import cli
from tests.fleet.flash.fake_image import fsck, mtype
from tests.fleet.flash.test_card import loop  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parents[3]
SITE = '[board]\nuser = "ops"\nssh_keys = ["ops.pub"]\ntimezone = "Europe/Berlin"\n'
NAMES = ["cam-1", "cam-2", "cam-3"]


@pytest.fixture
def shop(tmp_path, bases):
    """A folder with a list of three devices, a site's settings and a base image."""
    (tmp_path / "ops.pub").write_text(
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh ops\n"
    )
    (tmp_path / "site.toml").write_text(SITE)
    (tmp_path / "devices.csv").write_text("name,note\n" + "".join(f"{name},door {name[-1]}\n" for name in NAMES))
    return tmp_path, bases("cloudinit-rpi")


def words(shop, *more):
    folder, base = shop
    return ["flash", "batch", str(folder / "devices.csv"), "--base", str(base), "--settings", str(folder / "site.toml"),
            "--out", str(folder / "out"), *more]  # fmt: skip


def strop(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in arguments])
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


def test_each_device_gets_its_image_and_the_base_stays_as_it_was(shop, capsys):
    folder, base = shop
    before = base.read_bytes()
    code, said, _ = strop(capsys, *words(shop, "--json"))
    assert code == 0
    found = json.loads(said)
    assert (found["devices"], found["made"], list(found["done"])) == (3, 3, NAMES)
    assert len({one["instance"] for one in found["done"].values()}) == 3
    for name in NAMES:
        image = folder / "out" / f"{name}.img"
        report = look(image)
        assert not report.faults, name
        assert name in report.to_text()
        user_data = mtype(image, "user-data").decode()
        assert f'"hostname": "{name}"' in user_data
        assert not [other for other in NAMES if other != name and other in user_data]
        fsck(image)
    assert base.read_bytes() == before
    labels = (folder / "out" / "labels.html").read_text()
    assert all(f"<h2>{name}</h2><p>door {name[-1]}</p>" in labels for name in NAMES)


def test_an_interrupted_batch_goes_on_and_leaves_no_half_image(shop, capsys):
    folder, _ = shop
    script = (
        "import os, sys\nfrom fleet.flash import batch\nfrom strop import cli\nreal = batch.customise\n"
        "def once(path, made, **more):\n"
        "    found = real(path, made, **more)\n"
        "    if made.customisation.hostname == 'cam-2': os.kill(os.getpid(), 9)\n"
        "    return found\n"
        "batch.customise = once\ncli.main(sys.argv[1:])\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, *words(shop)], cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    out = folder / "out"
    assert sorted(path.name for path in out.glob("*.img")) == ["cam-1.img"]
    first = (out / "cam-1.img").stat().st_mtime_ns
    code, said, _ = strop(capsys, *words(shop))
    assert code == 0
    assert "3 devices, 2 of them made now" in said
    assert (out / "cam-1.img").stat().st_mtime_ns == first, "what is done is left alone"
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["batch.json", "labels.html", *(f"{n}.img" for n in NAMES)]
    )
    code, said, _ = strop(capsys, *words(shop))
    assert "0 of them made now" in said


def test_another_list_in_the_same_folder_is_refused(shop, capsys):
    folder, _ = shop
    strop(capsys, *words(shop))
    (folder / "devices.csv").write_text("name\ncam-9\n")
    code, _, said = strop(capsys, *words(shop))
    assert (code, said.count("\n")) == (2, 1)
    assert "is of another list, base image or settings" in said


def test_nothing_is_begun_where_one_line_of_the_list_is_wrong(shop, capsys):
    folder, _ = shop
    (folder / "devices.csv").write_text("name\ncam-1\nCAM-1\n")
    code, _, said = strop(capsys, *words(shop))
    assert code == 2
    assert "name 'cam-1' is already in line 2" in said
    assert not (folder / "out").exists()


def test_cards_are_written_one_after_the_other(shop, loop, capsys):  # noqa: F811
    folder, base = shop
    device, backing = loop
    os.truncate(backing, base.stat().st_size + (1 << 20))
    subprocess.run(["losetup", "--set-capacity", device], check=True)
    (folder / "devices.csv").write_text("name\ncam-2\n")
    more = ["--card", device, "--allow-loop", "--yes"]
    code, _, said = strop(capsys, *words(shop, *more))
    assert code == 2
    assert f"add --erase {device.name}" in said
    code, said, _ = strop(capsys, *words(shop, *more, "--erase", device.name, "--json"))
    assert code == 0
    done = json.loads(said)["done"]["cam-2"]
    assert done["device"] == str(device)
    assert done["written"] == done["size"] == base.stat().st_size
    assert not list((folder / "out").glob("*.img*")), "a working copy holds a token"
    assert not look(device).faults


def test_holes_stay_holes_and_data_is_copied(tmp_path):
    source, out = tmp_path / "a", tmp_path / "b"
    with source.open("wb") as file:
        for at in (0, 3 << 20, (9 << 20) - 4096):
            file.seek(at)
            file.write(os.urandom(4096))
        file.truncate(16 << 20)
    copy_sparse(source, out)
    assert out.read_bytes() == source.read_bytes()
    assert out.stat().st_blocks * 512 < 1 << 20
    (tmp_path / "empty").touch()
    copy_sparse(tmp_path / "empty", out)
    assert out.stat().st_size == 0


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(4096))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(batches.os, "copy_file_range", full)
    with pytest.raises(ImageError, match=r"cannot be copied to .*No space left"):
        copy_sparse(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"made_from": "x", "done": 3}'])
def test_a_spoiled_record_is_refused(tmp_path, text):
    (tmp_path / "batch.json").write_text(text)
    with pytest.raises(UsageError, match="is no record of a batch"):
        Journal(tmp_path / "batch.json", "x")
