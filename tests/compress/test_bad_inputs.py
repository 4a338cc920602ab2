# SPDX-License-Identifier: Apache-2.0
"""What goes wrong before, and at the end of, a run: one line that says what, where and how to mend it."""

import resource

import numpy as np
import pytest

from compress import compressed, pipeline, recipe, report_files, sources
from compress.dry_run import dry_run
from compress.separation import separate
from compress.sources import DataSplits, Split
from compress.sources.exported import load_exported
from edge_contract.errors import DataError, ModelError, RecipeError, StropError

MORE = """

def nan_weights():
    network = student()
    network.head.weight.data[1, 2] = float("nan")
    return network

def colour():
    return _net(_conv(3, 8), features=8)

def four_outputs():
    network = student()
    network.head = nn.Linear(16, 4)
    return network

def five_names():
    splits = load()
    return DataSplits(splits.train, splits.calibration, splits.validation, splits.test, tuple("abcde"))

def no_names():
    splits = load()
    return DataSplits(splits.train, splits.calibration, splits.validation, splits.test)

def more():
    return bars(90, 9).x

def seen():
    return load().test.x[:5]

def lists():
    return [[1, 2], [3, 4]]
"""
STUDENT, TEACHER, LOAD = (f'"strop_tiny_task:{name}"' for name in ("student", "teacher", "load"))


@pytest.fixture
def read(kitchen):
    """Returns the recipe with texts replaced; its module has more functions under a name of its own."""

    def parse(*changes):
        (kitchen.folder / "strop_bad_task.py").write_text((kitchen.folder / "strop_tiny_task.py").read_text() + MORE)
        text = kitchen.text
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        return recipe.load(kitchen(text.replace("strop_tiny_task:", "strop_bad_task:")))

    return parse


def function(name):
    return f'"strop_bad_task:{name}"'


REFUSED = {
    "NaN in a weight": (
        (STUDENT, function("nan_weights")),
        "bars.toml [model]: weight 'head.weight' holds NaN or Inf; correct strop_bad_task:nan_weights",
    ),
    "colour images wanted": (
        (STUDENT, function("colour")),
        "bars.toml [model]: the model refuses [1, 1, 12, 12]: RuntimeError: Given groups=1, weight of",
    ),
    "an output too many": (
        (STUDENT, function("four_outputs")),
        "bars.toml [model]: 4 outputs for 3 classes (row, column, slope); give the model one output for each class",
    ),
    "a name too many": (
        (LOAD, function("five_names")),
        "bars.toml [model]: 3 outputs for 5 classes (a, b, c, d, e); give the model one output for each class",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_model_that_does_not_fit_is_refused_before_the_first_step(read, tmp_path, name):
    change, message = REFUSED[name]
    wanted = read(change)
    for attempt in (lambda: pipeline.run(wanted, tmp_path / "work"), lambda: dry_run(wanted)):
        with pytest.raises(ModelError) as caught:
            attempt()
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "work").exists()


def test_teacher_of_other_classes_is_refused(read):
    """Its weights are random, but its answers have the wrong length all the same."""
    wanted = read((LOAD, function("no_names")))
    student, other = (sources.load_model(read((STUDENT, function(name)))) for name in ("student", "four_outputs"))
    example = sources.tensors(wanted, sources.load_data(wanted)[0].train.take_first(1)).x
    with pytest.raises(ModelError, match=r"^bars.toml \[model\]: the teacher has 4 outputs, the model 3; take a "):
        sources.check_teacher(wanted, other, student, example)
    sources.check_teacher(wanted, None, student, example)
    assert sources.labels_for(wanted, other, example, ("0", "1", "2")) == ("0", "1", "2", "3")  # nobody named them


WORDS = {
    "itself untrained": (
        ('method = "soft-targets"', 'teacher = "itself"'),
        (
            "bars.toml [step 1]: key 'teacher': 'itself' is untrained and knows nothing; "
            "add weights to [model], or begin with a train step"
        ),
    ),
    "data that are not there": (
        (f"source  = {LOAD}", 'source = "gone"'),
        (
            "bars.toml [data]: key 'source': 'gone' is not there, or nothing that can be read; "
            "write module:callable, a file (.npz, .csv, .csv.gz) or a folder of images"
        ),
    ),
}


@pytest.mark.parametrize("name", WORDS)
def test_recipe_that_cannot_work_is_refused(read, name):
    change, message = WORDS[name]
    with pytest.raises(RecipeError) as caught:
        read(change)
    assert str(caught.value) == message


def test_inputs_without_labels_that_nobody_learns_from_are_refused(read):
    trains = ('kind   = "distill"\nmethod = "soft-targets"', 'kind = "train"')
    with pytest.raises(RecipeError) as caught:
        read(trains, ("augment =", 'unlabelled = "a:b"\naugment ='))
    fix = "add a distill step, or remove it"
    assert str(caught.value) == f"bars.toml [data]: key 'unlabelled': no step learns without labels; {fix}"


def test_distill_learns_from_inputs_without_labels(read, tmp_path):
    """They are mixed into every epoch of the distill step; a part of them is sealed (``test_unlabelled``)."""
    short = ("epochs = 12", "epochs = 3")
    wanted, more = read(short), read(short, ("augment =", f"unlabelled = {function('more')}\naugment ="))
    (plain, _), (data, _) = sources.load_data(wanted), sources.load_data(more)
    assert plain.unlabelled is None and data.unlabelled.shape == (74, 12, 12)
    assert data.digest != plain.digest  # they decide the result too
    drafts = [pipeline.rehearse(one, tmp_path / f"work-{i}") for i, one in enumerate((wanted, more))]
    losses = [draft.steps[1].losses for draft in drafts]
    assert len(losses[0]) == len(losses[1]) == 3 and losses[0] != losses[1]


def test_layer_to_keep_that_is_not_there_is_refused_before_anything_is_trained(read, tmp_path):
    wanted = read(("round_to = 2", 'round_to = 2\nkeep = ["block0.cnv"]'))
    with pytest.raises(RecipeError) as caught:
        pipeline.run(wanted, tmp_path / "work")
    assert str(caught.value) == "bars.toml [step 2]: key 'keep': no layer 'block0.cnv'; write 'block0.conv'"
    assert not (tmp_path / "work").exists()


UNLABELLED = {
    "seen": r"5 inputs of unlabelled are also in test \(the first is number 0\); give each input to one split",
    "lists": r"unlabelled 'strop_bad_task:lists': returned a list; return an array of inputs",
}


@pytest.mark.parametrize("name", UNLABELLED)
def test_inputs_without_labels_are_checked_as_all_others(read, name):
    wanted = read(("augment =", f"unlabelled = {function(name)}\naugment ="))
    with pytest.raises(DataError, match=UNLABELLED[name]):
        sources.load_data(wanted)


def test_inputs_without_labels_come_from_archives_and_folders(read, kitchen):
    from PIL import Image

    images = np.random.default_rng(5).integers(0, 255, (6, 12, 12)).astype(np.uint8)
    np.savez(kitchen.folder / "more.npz", x=images)
    (kitchen.folder / "pictures").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(kitchen.folder / "pictures" / f"{i}.png")
    for name in ("more.npz", "pictures"):
        data, _ = sources.load_data(read(("augment =", f'unlabelled = "{name}"\nunlabelled_test = 0\naugment =')))
        assert np.array_equal(data.unlabelled, images)
    np.savez(kitchen.folder / "more.npz", images=images)
    with pytest.raises(DataError, match=r"more.npz: arrays images; x is missing; write the inputs as x"):
        sources.load_data(read(("augment =", 'unlabelled = "more.npz"\naugment =')))


def some(generator, n, shape=(4, 4)):
    return Split(generator.integers(0, 255, (n, *shape)).astype(np.uint8), (np.arange(n) % 2).astype(np.int64))


def test_inputs_without_labels_have_the_shape_of_the_splits(generator):
    splits = DataSplits(*(some(generator, n) for n in (20, 64, 20, 20)))
    with pytest.raises(DataError, match=r"x \(unlabelled\): inputs \[5, 5\], those of the splits \[4, 4\]"):
        separate(splits, where="x", unlabelled=some(generator, 3, (5, 5)).x)
    with pytest.raises(DataError, match="the split is empty"):
        separate(splits, where="x", unlabelled=splits.train.x[:0])


def test_classes_below_zero_and_single_numbers_are_named(generator, tmp_path):
    splits = DataSplits(*(Split(s.x, s.y - 5) for s in (some(generator, n) for n in (20, 64, 20, 20))))
    with pytest.raises(DataError, match=r"classes -5 to -4; number them from 0"):
        separate(splits, where="x")
    np.savez(tmp_path / "one.npz", x=np.float32(3), y=np.float32(1))
    with pytest.raises(DataError, match=r"one.npz: 'x' is one number; give an array with one row for each input"):
        sources.data.read_archive(tmp_path / "one.npz", seed=0)


def test_damaged_program_is_one_line_without_a_log(tmp_path, kitchen, read, caplog, capfd):
    (kitchen.folder / "net.pt2").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ModelError, match=r"net.pt2: no exported program: "):
        sources.load_model(read((STUDENT, '"net.pt2"')))
    with pytest.raises(Exception, match=r"."):
        load_exported(b"nothing")
    assert caplog.text == "" and "Traceback" not in capfd.readouterr().err


def test_full_disk_ends_in_one_line_and_keeps_the_process(finished, tmp_path):
    """A limit on the size of files refuses a write as a full disk does; PyTorch's own writer would abort."""
    _, made = finished
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(DataError) as caught:
            made.save(tmp_path / "out")
        (tmp_path / "report").mkdir()
        with pytest.raises(StropError) as second:
            report_files.write(made.report, tmp_path / "report")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value).startswith(f"{tmp_path / 'out'}: cannot be written: ")
    assert str(second.value).endswith("cannot be written: File too large; free some space, or name another place")
    assert list((tmp_path / "report").iterdir()) == []
    made.save(tmp_path / "out")  # and with room again it is whole
    assert compressed.load(tmp_path / "out").report == made.report
