# SPDX-License-Identifier: Apache-2.0
"""Recipes: what is read, and the one line that answers each slip."""

from pathlib import Path

import pytest

from compress import recipe
from compress.steps import Distill, Prune, Quantize
from edge_contract.errors import RecipeError

ROOT = Path(__file__).resolve().parents[2]

# DESIGN §4, the normative recipe, without its latency line.
DESIGN = """
name   = "digits-int8"
target = "rpi4"
[model]
source  = "examples.digits.model:student"
teacher = "examples.digits.model:teacher"
[data]
source  = "examples.digits.data:load"
metric  = "top1"
[preprocess]
resize = [28, 28]
scale  = 0.00392156862745098
[[step]]
kind   = "distill"
method = "soft-targets"
epochs = 20
[[step]]
kind   = "prune"
method = "taylor"
target = { macs = 0.5 }
[[step]]
kind   = "quantize"
method = "static-int8"
max_drop = 0.5
[budget]
size_kb = 40
latency_ms = 5.0
max_drop = 1.0
"""


def parse(text):
    return recipe.parse(text, Path("r.toml"))


def test_normative_recipe_of_the_design_is_read():
    read = parse(DESIGN)
    assert [step.kind for step in read.steps] == ["distill", "prune", "quantize"]
    distill, prune, quantize = read.steps
    assert isinstance(distill, Distill) and distill.training.epochs == 20
    assert isinstance(prune, Prune) and (prune.target, prune.method) == ({"macs": 0.5}, "taylor")
    assert isinstance(quantize, Quantize) and quantize.max_drop == 0.5
    assert read.preprocess.resize == (28, 28)
    assert (read.budget.size_kb, read.budget.latency_ms, read.budget.max_drop) == (40, 5.0, 1.0)


@pytest.mark.parametrize("name", ["digits.toml", "digits-v2.toml"])
def test_recipes_of_the_story_are_read(name):
    read = recipe.load(ROOT / "examples" / "digits" / name)
    assert read.target == "rpi4"
    assert read.steps[-1].kind == "quantize"


def test_digest_is_that_of_the_text():
    assert parse(DESIGN).digest == parse(DESIGN).digest
    assert parse(DESIGN).digest != parse(DESIGN + "# a remark\n").digest


SLIPS = {
    "unknown key in a step": (
        ("epochs = 20", "epoch = 20"),
        "r.toml [step 1]: unknown key 'epoch' (value 20); write 'epochs'",
    ),
    "unknown key at the top": (
        ('target = "rpi4"', 'targt = "rpi4"'),
        "r.toml: unknown key 'targt' (value 'rpi4'); write 'target'",
    ),
    "unknown table": (
        ("[budget]", "[budgets]"),
        "r.toml: unknown key 'budgets' (value {'size_kb': 40, 'latency_ms': 5.0, 'max_drop': 1.0}); write 'budget'",
    ),
    "unknown kind": (
        ('kind   = "prune"', 'kind = "prunes"'),
        "r.toml [step 2]: key 'kind': unknown value 'prunes'; write 'prune'",
    ),
    "unknown method": (
        ('method = "taylor"', 'method = "tailor"'),
        "r.toml [step 2]: key 'method': unknown value 'tailor'; write 'taylor'",
    ),
    "method unlike any": (
        ('method = "static-int8"', 'method = "zzz"'),
        (
            "r.toml [step 3]: key 'method': unknown value 'zzz'; "
            "write one of 'dynamic-int8', 'float16', 'qat-int8', 'static-int8', 'weight-only-int4', 'weight-only-int8'"
        ),
    ),
    "text in place of a number": (
        ("epochs = 20", 'epochs = "20"'),
        "r.toml [step 1]: key 'epochs': expected a whole number, found '20'; give a whole number",
    ),
    "true in place of a number": (
        ("epochs = 20", "epochs = true"),
        "r.toml [step 1]: key 'epochs': expected a whole number, found true; give a whole number",
    ),
    "negative": (
        ("epochs = 20", "epochs = -1"),
        "r.toml [step 1]: key 'epochs': -1 is too small; give 0 or more",
    ),
    "not finite": (
        ("size_kb = 40", "size_kb = nan"),
        "r.toml [budget]: key 'size_kb': nan is out of range; give 0 or more",
    ),
    "share above 1": (
        ("macs = 0.5", "macs = 1.5"),
        "r.toml [step 2] target: key 'macs': 1.5 is out of range; give a number from 0.01 to 1",
    ),
    "no target": (
        ("{ macs = 0.5 }", "{ }"),
        "r.toml [step 2]: key 'target': no cost; write target = { macs = 0.5 }: the share that stays",
    ),
    "target missing": (
        ("target = { macs = 0.5 }", ""),
        "r.toml [step 2]: table [target] is missing; add [target]",
    ),
    "key missing": (
        ('source  = "examples.digits.model:student"', 'sorce = "examples.digits.model:student"'),
        "r.toml [model]: key 'source' is missing; write 'source' in place of 'sorce'",
    ),
    "name missing": (('name   = "digits-int8"', ""), "r.toml: key 'name' is missing; add name = …"),
    "table missing": (
        ("[data]\n", "[date]\n"),
        "r.toml: table [data] is missing; add [data]",
    ),
    "metric": (
        ('metric  = "top1"', 'metric = "top5"'),
        "r.toml [data]: key 'metric': unknown value 'top5'; write 'top1'",
    ),
    "no callable": (
        ("examples.digits.model:student", "examples.digits.model"),
        (
            "r.toml [model]: key 'source': 'examples.digits.model' is not module:callable; "
            "write it like 'examples.digits.model:student'"
        ),
    ),
    "weights as source": (
        ("examples.digits.model:student", "x.pt"),
        (
            "r.toml [model]: key 'source': 'x.pt' is not module:callable; "
            "name the function that builds the network, and the file under weights"
        ),
    ),
    "missing data file": (
        ("examples.digits.data:load", "gone.npz"),
        "r.toml [data]: key 'source': no file 'gone.npz'; put it at gone.npz",
    ),
    "missing weights": (
        ("[data]\nsource", 'weights = "gone.pt"\n[data]\nsource'),
        "r.toml [model]: key 'weights': no file 'gone.pt'; put it at gone.pt",
    ),
    "unknown preprocessing": (
        ("resize = [28, 28]", "rezise = [28, 28]"),
        "r.toml [preprocess]: unknown key 'rezise' (value [28, 28]); write 'resize'",
    ),
    "wrong preprocessing": (
        ("resize = [28, 28]", "resize = [28]"),
        "r.toml [preprocess].resize: [28] is not [height, width]; see docs/recipe.md",
    ),
    "single brackets": (
        ('[[step]]\nkind   = "distill"', '[step]\nkind   = "distill"'),
        "r.toml: not TOML:",
    ),
    "distill without teacher": (
        ('teacher = "examples.digits.model:teacher"', ""),
        "r.toml [step 1]: distill without a teacher; add teacher to [model]",
    ),
    "layers without features": (
        ("epochs = 20", 'epochs = 20\nlayers = [["a", "b"]]'),
        (
            "r.toml [step 1]: key 'layers': layers with method 'soft-targets'; "
            'use method = "features" with layers = [["of the student", "of the teacher"]]'
        ),
    ),
    "untrained": (
        ("epochs = 20", "epochs = 0"),
        "r.toml [step 1]: distill of an untrained model; add weights to [model], or begin with a train or distill step",
    ),
}


@pytest.mark.parametrize("case", SLIPS, ids=str)
def test_slip_is_answered_in_one_line_with_the_fix(case):
    (old, new), message = SLIPS[case]
    assert old in DESIGN
    with pytest.raises(RecipeError) as caught:
        parse(DESIGN.replace(old, new, 1))
    text = str(caught.value)
    assert text == message or (message.endswith(":") and text.startswith(message))
    assert "\n" not in text
    assert caught.value.exit_code == 2


def test_step_after_quantize_is_refused():
    extra = '[[step]]\nkind = "train"\n[budget]'
    with pytest.raises(RecipeError, match=r"\[step 3\]: a step after quantize; make quantize the last step"):
        parse(DESIGN.replace("[budget]", extra))


def test_recipe_without_steps_is_refused():
    text = DESIGN[: DESIGN.index("[[step]]")]
    with pytest.raises(RecipeError, match=r"r\.toml: no step; add a \[\[step\]\] with a kind"):
        parse(text)


def test_missing_recipe_names_its_neighbours(tmp_path):
    (tmp_path / "digits.toml").write_text(DESIGN)
    with pytest.raises(RecipeError, match=r"digit\.toml: no such recipe; in .* there are digits\.toml"):
        recipe.load(tmp_path / "digit.toml")


def test_binary_file_is_refused(tmp_path):
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read: UnicodeDecodeError; give a TOML file in UTF-8"):
        recipe.load(path)


def test_relative_files_start_from_the_recipe(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"")
    text = DESIGN.replace("[data]\n", 'weights = "w.pt"\n[data]\n', 1)
    path = tmp_path / "r.toml"
    path.write_text(text)
    read = recipe.load(path)
    assert read.file(read.model.weights) == tmp_path / "w.pt"
