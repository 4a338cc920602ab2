# SPDX-License-Identifier: Apache-2.0
"""Inputs without labels: who sees them, how they are mixed, and what judges at the end."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from compress import pipeline, recipe, report, sources, tables
from compress.report_page import page
from compress.run_state import RunState
from compress.sources.captured import holds_captures, read_captured
from compress.sources.unlabelled import held_out, without_copies
from edge_contract.errors import DataError, RecipeError
from fleet.adapters.unsealing import write_npz

MORE = """

def more():
    dim = bars(120, 9).x
    return (dim // 2 + 60).astype(np.uint8)
"""


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def export(path, images, device="pi-1", why="drifted"):
    """Writes inputs as the server's export does; the newest first, to be put in order."""
    rows = reversed(list(enumerate(images)))
    write_npz(path, (({"device": device, "number": i, "why": why, "time": 100.0 + i}, npy(x)) for i, x in rows))
    return path


@pytest.fixture
def images():
    return np.random.default_rng(5).integers(0, 255, (60, 12, 12)).astype(np.uint8)


@pytest.fixture
def read(kitchen):
    """Returns the recipe of the bars with ``[data]`` lines added and texts replaced."""

    def parse(*lines, changes=(), top=""):
        (kitchen.folder / "strop_more_task.py").write_text((kitchen.folder / "strop_tiny_task.py").read_text() + MORE)
        text = top + kitchen.text.replace("strop_tiny_task:", "strop_more_task:")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        return recipe.load(kitchen(text.replace("[preprocess]", "\n".join([*lines, "[preprocess]"]), 1)))

    return parse


REFUSED = {
    "share of nothing": (
        ["unlabelled_share = 0.5"],
        "key 'unlabelled_share': there are no inputs without labels; add unlabelled = …, or remove it",
    ),
    "test of nothing": (
        ["unlabelled_test = 0.5"],
        "key 'unlabelled_test': there are no inputs without labels; add unlabelled = …, or remove it",
    ),
    "nothing but new": (
        ['unlabelled = "a:b"', "unlabelled_share = 1.0"],
        "key 'unlabelled_share': 1.0 is out of range; give a number from 0 to 0.95",
    ),
    "all held out": (
        ['unlabelled = "a:b"', "unlabelled_test = 0.95"],
        "key 'unlabelled_test': 0.95 is out of range; give a number from 0 to 0.9",
    ),
    "misspelt": (
        ['unlabelled = "a:b"', "unlabeled_share = 0.5"],
        "unknown key 'unlabeled_share' (value 0.5); write 'unlabelled_share'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_recipe_names_key_value_and_fix(read, name):
    lines, words = REFUSED[name]
    with pytest.raises(RecipeError) as caught:
        read(*lines)
    assert str(caught.value) == f"bars.toml [data]: {words}"


@pytest.mark.parametrize("count", [2, 7, 20, 90, 1000])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.6])
def test_stretches_of_successive_inputs_are_held_out(count, share):
    held = held_out(count, share, seed=3)
    assert np.array_equal(held, held_out(count, share, seed=3))
    length = max(1, min(16, count // 20))
    assert 0 < held.sum() < count
    assert abs(held.sum() - share * count) <= length
    for start in range(0, count, length):
        assert len(set(held[start : start + length])) == 1


def test_nothing_is_held_out_where_nobody_asks_or_one_input_is_there():
    assert not held_out(50, 0.0, seed=1).any()
    assert not held_out(1, 0.5, seed=1).any()
    assert (held_out(400, 0.5, seed=1) != held_out(400, 0.5, seed=2)).any()


def test_copies_are_taken_once(images):
    twice = np.concatenate([images, images[10:20]])
    assert np.array_equal(without_copies(twice), images)
    assert without_copies(images) is images


def test_capture_is_read_in_the_order_in_which_each_device_saw_it(tmp_path, images):
    first = export(tmp_path / "a.npz", images[:20], "pi-2")
    export(tmp_path / "b.npz", images[20:50], "pi-1", why="random")
    alone = read_captured(first)
    assert np.array_equal(alone.x, images[:20])
    assert alone.devices == {"pi-2": 20}
    assert alone.facts[3]["why"] == "drifted"
    both = read_captured(tmp_path)
    assert np.array_equal(both.x, images[[*range(20, 50), *range(20)]])
    assert both.devices == {"pi-1": 30, "pi-2": 20}


def test_single_arrays_and_plain_archives_are_captures_of_a_folder(tmp_path, images):
    for i, image in enumerate(images[:12]):
        place = tmp_path / f"pi-{i % 2}"
        place.mkdir(exist_ok=True)
        np.save(place / f"{i}.npy", image)
    assert read_captured(tmp_path).devices == {"pi-0": 6, "pi-1": 6}
    np.savez(tmp_path / "plain.npz", x=images[12:20])
    found = read_captured(tmp_path)
    assert len(found) == 20
    assert found.devices == {"pi-0": 6, "pi-1": 6}
    assert holds_captures(tmp_path)
    assert not holds_captures(tmp_path / "plain.npz")
    assert not holds_captures(tmp_path / "gone.npz")


def test_what_is_no_capture_is_refused_by_name(tmp_path, images):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no captured inputs; write it with strop fleet capture export"):
        read_captured(tmp_path / "empty")
    (tmp_path / "torn.npz").write_bytes(export(tmp_path / "whole.npz", images).read_bytes()[:300])
    with pytest.raises(DataError, match=r"torn.npz: no captured inputs: "):
        read_captured(tmp_path / "torn.npz")
    (tmp_path / "empty" / "1.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"1.npy: no array: "):
        read_captured(tmp_path / "empty")
    mixed = [(({"device": "pi-9", "number": i}), npy(x)) for i, x in enumerate([*images[:3], images[0, :5]])]
    write_npz(tmp_path / "mixed.npz", mixed)
    with pytest.raises(DataError, match=r"'pi-9_3' is uint8 \[5, 12\], most are uint8 \[12, 12\]; capture from"):
        read_captured(tmp_path / "mixed.npz")


@pytest.mark.parametrize("as_folder", [False, True])
def test_recipe_takes_a_capture_and_seals_a_part_of_it(read, kitchen, images, as_folder):
    (kitchen.folder / "seen").mkdir()
    name = "seen/c1.npz"
    export(kitchen.folder / name, np.concatenate([images, images[:5]]))
    wanted = read(f'unlabelled = "{"seen" if as_folder else name}"', "unlabelled_test = 0.3")
    data, sealed = sources.load_data(wanted)
    held = sealed.unlabelled.open().x
    assert len(data.unlabelled) + len(held) == 60
    assert len(held) == 18
    assert len(without_copies(np.concatenate([data.unlabelled, held]))) == 60
    with pytest.raises(DataError, match="was already read"):
        sealed.unlabelled.open()
    whole, open_ = sources.load_data(read(f'unlabelled = "{name}"', "unlabelled_test = 0.0"))
    assert len(whole.unlabelled) == 60
    assert open_.unlabelled is None


def some(n, m):
    labelled = sources.Tensors(torch.arange(n).float()[:, None], torch.arange(n) % 3)
    return labelled, torch.arange(1000, 1000 + m).float()[:, None]


@pytest.mark.parametrize(("n", "m", "share"), [(30, 10, 0.5), (30, 10, 0.2), (10, 30, 0.5), (7, 50, 0.9), (40, 3, 0.1)])
def test_share_is_kept_and_nothing_is_left_out(n, m, share):
    labelled, more = some(n, m)
    found = sources.mixed(labelled, more, share)
    is_new = found.y == -1
    assert abs(float(is_new.float().mean()) - share) < 1 / len(found) + 1e-6
    assert torch.equal(found.x[~is_new].unique(), labelled.x.unique())
    assert torch.equal(found.x[is_new].unique(), more.unique())
    assert bool((found.y[~is_new] == found.x[~is_new, 0].long() % 3).all())


def test_without_new_inputs_or_share_everything_is_as_it_was():
    labelled, more = some(30, 10)
    assert sources.mixed(labelled, None, 0.5) is labelled
    assert sources.calibrated(labelled, more[:0], 0.5) is labelled
    assert len(sources.mixed(labelled, more, 0.0)) == 40


def test_ranges_are_calibrated_on_old_and_new():
    labelled, more = some(20, 400)
    found = sources.calibrated(labelled, more, 0.5)
    assert len(found) == 40
    assert found.x[20:, 0].tolist() == [1000 + 20 * i for i in range(20)]
    assert len(sources.calibrated(labelled, more, 0.75)) == 80
    assert len(sources.calibrated(labelled, more[:4], 0.5)) == 24


def test_whoever_follows_the_teacher_sees_them_and_nobody_sees_the_held_out(read, tmp_path, monkeypatch):
    """One short run: steps get the mixed data, the plan its calibration, and the end opens both sealed parts once."""
    changes = (("epochs = 12", "epochs = 1"), ("epochs   = 2", "epochs   = 1"))
    wanted = read('unlabelled = "strop_more_task:more"', "unlabelled_share = 0.5", changes=changes)
    seen = []

    class Spy(RunState):
        def step(self, number, step):
            shared = self.shared
            if step.kind != "quantize":
                seen.append((step.kind, self._data(step) is shared.mixed))
                assert self._data(replace(step, distill=False) if step.kind == "prune" else step) is (
                    shared.train if step.kind == "prune" else shared.mixed
                )
            return super().step(number, step)

    monkeypatch.setattr(pipeline, "RunState", Spy)
    made = pipeline.run(wanted, tmp_path / "work")
    assert seen == [("distill", True), ("prune", True)]
    assert made.report.steps[-1].note.startswith(f"{66 + 66} calibration samples")
    assert [row.name for row in made.report.new] == ["float", "int8"]
    assert {row.score.samples for row in made.report.new} == {24}
    assert [row.name for row in made.report.test] == ["teacher", "float", "int8"]
    again = report.CompressionReport.from_json(json.loads(json.dumps(made.report.to_json())))
    assert again.new == made.report.new
    assert "On inputs without labels" in page(made.report)
    assert "On inputs without labels" not in page(replace(made.report, new=()))
    assert tables.new_table(made.report).row_count == 2


def test_names_are_looked_for_beside_another_folder_that_a_recipe_names(kitchen, tmp_path):
    path = tmp_path / "elsewhere" / "bars.toml"
    path.parent.mkdir()
    path.write_text(f'beside = "{kitchen.folder}"\n{kitchen.text}')
    read = recipe.load(path)
    assert read.file("teacher.pt").is_file()
    assert read.path == kitchen.folder / "bars.toml"
    path.write_text(f'beside = "gone"\n{kitchen.text}')
    with pytest.raises(RecipeError, match=r"^bars.toml: key 'beside': no folder 'gone'; name the folder that holds"):
        recipe.load(path)
