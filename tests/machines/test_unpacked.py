# SPDX-License-Identifier: Apache-2.0
"""Folders of unpacked packages appear whole or not at all, and an interrupted build goes on where it stopped."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.machines import arm64, old_runtimes, unpacked
from tests.machines.unpacked import CannotBuildError, Place


def place_in(folder, **recipe):
    return Place(folder / ".board", "tests.machines.arm64", "make board", recipe)


def write(text):
    return lambda path: path.write_text(text)


def fail(path):
    path.write_text("half")
    raise CannotBuildError("the archive does not answer")


def no_check(draft):
    assert draft.is_dir()


def test_whole_folder_appears_at_once_and_nothing_is_left_behind(tmp_path):
    place = place_in(tmp_path, suite="a")
    assert place.missing() == ".board is missing: make board"
    place.build({"one": write("1"), "two": write("2")}, no_check)
    assert place.missing() == ""
    assert sorted(path.name for path in place.folder.iterdir()) == ["made-of.json", "one", "two"]
    assert json.loads((place.folder / "made-of.json").read_text())["suite"] == "a"
    assert [path.name for path in (tmp_path / "build").iterdir()] == ["board.lock"]


def test_interrupted_build_goes_on_where_it_stopped(tmp_path):
    place, made = place_in(tmp_path), []
    first = {"one": lambda path: (made.append("one"), path.write_text("1"))[1], "two": fail}
    with pytest.raises(CannotBuildError, match="does not answer"):
        place.build(first, no_check)
    assert not place.folder.exists()
    place.build({**first, "two": write("2")}, no_check)
    assert made == ["one"]
    assert (place.folder / "two").read_text() == "2"


def test_draft_that_fails_its_check_is_not_put_in_place(tmp_path):
    place = place_in(tmp_path)
    place.build({"one": write("1")}, no_check)
    newer = place_in(tmp_path, suite="b")

    def refuse(draft):
        raise CannotBuildError(f"{(draft / 'one').read_text()} does not work")

    with pytest.raises(CannotBuildError, match="2 does not work"):
        newer.build({"one": write("2")}, refuse)
    assert (place.folder / "one").read_text() == "1"
    assert place.missing() == ""


def test_other_recipe_is_another_build_that_replaces_the_folder(tmp_path):
    place_in(tmp_path, suite="a").build({"one": write("1"), "old": write("")}, no_check)
    place = place_in(tmp_path, suite="b")
    assert place.missing() == ".board is of another version: make board"
    place.build({"one": write("2")}, no_check)
    assert place.missing() == ""
    assert (place.folder / "one").read_text() == "2"
    assert not (place.folder / "old").exists()


def test_build_that_waited_for_another_one_does_nothing(tmp_path):
    place = place_in(tmp_path)
    place.build({"one": write("1")}, no_check)
    place.build({"one": fail}, no_check)
    assert (place.folder / "one").read_text() == "1"


@pytest.mark.parametrize("builder", [arm64, old_runtimes])
def test_without_mmdebstrap_the_line_to_run_is_said(builder, monkeypatch, tmp_path):
    monkeypatch.setattr(type(builder.PLACE), "missing", lambda self: "gone")
    monkeypatch.setattr(unpacked.shutil, "which", lambda name: None)
    with pytest.raises(CannotBuildError, match=r"^mmdebstrap is missing; run: apt-get install .*mmdebstrap$"):
        builder.build()


def test_without_root_the_line_to_run_is_said(monkeypatch):
    monkeypatch.setattr(unpacked.shutil, "which", lambda name: "/usr/bin/mmdebstrap")
    monkeypatch.setattr(unpacked.os, "geteuid", lambda: 1000)
    with pytest.raises(CannotBuildError, match=r"needs root; run: sudo .*python.* -m tests\.machines\.arm64$"):
        unpacked.require_tools("tests.machines.arm64")


def test_failed_download_repeats_the_tools_own_complaint(tmp_path):
    with pytest.raises(CannotBuildError, match=r"^wheels for Python 3\.9 could not be had: ERROR: .*no-such-file"):
        unpacked.wheels([str(tmp_path / "no-such-file.whl")], tmp_path / "site", "3.9", ("manylinux2014_x86_64",))


def test_script_finds_its_neighbours_wherever_it_is_moved(tmp_path):
    (tmp_path / "a folder").mkdir()
    unpacked.script(tmp_path / "a folder/run", 'cat "$here/word"')
    (tmp_path / "a folder/word").write_text("found")
    shutil.move(tmp_path / "a folder", tmp_path / "elsewhere")
    done = subprocess.run([tmp_path / "elsewhere/run"], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == "found"


def test_boards_run_the_versions_that_are_pinned_here():
    assert {line.split("==")[0] for line in arm64.WHEELS} == {"numpy", "ai-edge-litert", "onnxruntime"}
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" == arm64.PYTHON
