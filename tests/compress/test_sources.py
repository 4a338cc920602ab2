# SPDX-License-Identifier: Apache-2.0
"""Models and data by name, and the one line for each that is not there."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from compress import recipe, sources
from edge_contract.errors import DataError, ModelError, RecipeError

FAULTS = {
    "module": (
        ("strop_tiny_task:load", "strop_tinny:load"),
        RecipeError,
        (
            "bars.toml [data]: key 'source': no module 'strop_tinny' for 'strop_tinny:load'; "
            "check the spelling, or run in the folder that holds it"
        ),
    ),
    "name": (
        ("strop_tiny_task:load", "strop_tiny_task:lod"),
        RecipeError,
        "bars.toml [data]: key 'source': 'strop_tiny_task' has no 'lod'; write 'load'",
    ),
    "not callable": (
        ("strop_tiny_task:load", "strop_tiny_task:not_callable"),
        RecipeError,
        "bars.toml [data]: key 'source': 'strop_tiny_task:not_callable' cannot be called; name a function",
    ),
    "failing": (
        ("strop_tiny_task:load", "strop_tiny_task:fails"),
        DataError,
        (
            "bars.toml [data] source 'strop_tiny_task:fails': strop_tiny_task:fails() failed: OSError: "
            "the disk is elsewhere; correct the function; it is called without arguments"
        ),
    ),
    "no splits": (
        ("strop_tiny_task:load", "strop_tiny_task:no_splits"),
        DataError,
        (
            "bars.toml [data] source 'strop_tiny_task:no_splits': returned a list; "
            "return compress.sources.DataSplits(train, calibration, validation, test)"
        ),
    ),
    "overlap": (
        ("strop_tiny_task:load", "strop_tiny_task:overlapping"),
        DataError,
        (
            "bars.toml [data] source 'strop_tiny_task:overlapping': 240 inputs of test are also in train "
            "(the first is number 0); give each input to one split"
        ),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_data_that_is_not_there_is_one_line(kitchen, name):
    (old, new), kind, message = FAULTS[name]
    read = recipe.load(kitchen(kitchen.text.replace(old, new)))
    with pytest.raises(kind) as caught:
        sources.load_data(read)
    assert str(caught.value) == message


def test_model_that_is_no_module_is_refused(kitchen):
    read = recipe.load(kitchen(kitchen.text.replace("strop_tiny_task:student", "strop_tiny_task:no_splits")))
    with pytest.raises(ModelError, match=r"strop_tiny_task:no_splits returned a list; return an nn\.Module"):
        sources.load_model(read)


def test_search_path_is_as_before(kitchen):
    before = list(sys.path)
    sources.load_data(recipe.load(kitchen()))
    assert sys.path == before


def test_untrained_weights_belong_to_the_recipes_seed(kitchen):
    state = torch.random.get_rng_state()
    first, again = (sources.load_model(recipe.load(kitchen())) for _ in range(2))
    other = sources.load_model(recipe.load(kitchen(kitchen.text.replace("seed   = 3", "seed = 4"))))
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_teacher_without_weights_is_refused(kitchen):
    read = recipe.load(kitchen(kitchen.text.replace('teacher_weights = "teacher.pt"', "")))
    with pytest.raises(RecipeError, match="the teacher has no weights; train it and give --teacher-weights FILE"):
        sources.load_teacher(read)


def test_missing_teacher_weights_are_named(kitchen):
    read = recipe.load(kitchen())
    with pytest.raises(RecipeError, match=r"key 'teacher_weights': no file '.*gone\.pt'"):
        sources.load_teacher(read, kitchen.folder / "gone.pt")


def test_teacher_is_frozen(kitchen):
    teacher = sources.load_teacher(recipe.load(kitchen()))
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


WEIGHTS = {
    "of another network": (lambda path: torch.save(nn.Linear(2, 3).state_dict(), path), "the weights do not fit"),
    "not a state dict": (lambda path: torch.save([1, 2], path), "holds no state dict"),
    "not torch's": (lambda path: path.write_bytes(b"hello"), "cannot be loaded"),
    "of code": (lambda path: torch.save(nn.Linear(2, 3), path), "cannot be loaded"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_cannot_be_used_are_refused(kitchen, name):
    write, message = WEIGHTS[name]
    write(kitchen.folder / "teacher.pt")
    with pytest.raises(ModelError, match=message) as caught:
        sources.load_teacher(recipe.load(kitchen()))
    assert "teacher.pt" in str(caught.value)


def test_weights_with_nan_are_refused(kitchen):
    read = recipe.load(kitchen())
    net = sources.load_teacher(read)
    net.head.bias.data[1] = float("nan")
    torch.save(net.state_dict(), kitchen.folder / "teacher.pt")
    with pytest.raises(ModelError, match=r"weight 'head\.bias' holds NaN or Inf"):
        sources.load_teacher(read)


def npz(kitchen, **arrays):
    np.savez(kitchen.folder / "bars.npz", **arrays)
    return recipe.load(kitchen(kitchen.text.replace("strop_tiny_task:load", "bars.npz")))


def test_archive_of_inputs_and_labels_is_split_by_class(kitchen):
    y = np.arange(200) % 4
    x = np.random.default_rng(1).integers(0, 256, (200, 5, 5)).astype(np.uint8)
    work, sealed = sources.load_data(npz(kitchen, x=x, y=y))
    assert (len(work.train), len(work.calibration), len(work.validation), len(sealed)) == (120, 10, 30, 40)
    assert np.bincount(work.train.y).tolist() == [30] * 4


def test_archive_of_four_splits_is_taken_as_it_is(kitchen):
    arrays = {}
    for seed, name in enumerate(("train", "calibration", "validation", "test")):
        arrays[f"{name}_x"] = np.random.default_rng(seed).integers(0, 256, (9, 5, 5)).astype(np.uint8)
        arrays[f"{name}_y"] = np.arange(9) % 3
    work, sealed = sources.load_data(npz(kitchen, **arrays))
    assert (work.validation.x == arrays["validation_x"]).all()
    assert (sealed.open().x == arrays["test_x"]).all()


def test_faulty_archives_are_refused(kitchen):
    with pytest.raises(DataError, match=r"bars\.npz: arrays images; train_x is missing; give x and y"):
        sources.load_data(npz(kitchen, images=np.zeros(3)))
    with pytest.raises(DataError, match="3 inputs and 2 labels"):
        sources.load_data(npz(kitchen, x=np.zeros((3, 2, 2)), y=np.zeros(2)))
    read = npz(kitchen, x=np.zeros((3, 2, 2)), y=np.zeros(3))
    (kitchen.folder / "bars.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"bars\.npz: no \.npz archive"):
        sources.load_data(read)


def test_tensors_are_channels_first_and_scaled(kitchen):
    read = recipe.load(kitchen())
    work, _ = sources.load_data(read)
    found = sources.tensors(read, work.train)
    assert found.x.shape == (240, 1, 12, 12) and found.x.dtype == torch.float32
    assert torch.allclose(found.x[7, 0], torch.from_numpy(work.train.x[7].astype(np.float32)) / 255, atol=1e-7)
