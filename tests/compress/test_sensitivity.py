# SPDX-License-Identifier: Apache-2.0
"""What the verb calls: the sensitivity of a recipe's model or of a finished run, without a look at the test split."""

import pytest

from compress import sensitivity, splits
from edge_contract.errors import UsageError


def test_finished_run_is_measured_on_validation_and_the_test_split_stays_closed(finished, tmp_path, monkeypatch):
    read, made = finished
    made.save(tmp_path / "out")

    def refuse(_):
        raise AssertionError("the test split was opened")

    monkeypatch.setattr(splits.SealedSplit, "open", refuse)
    found = sensitivity.of_path(tmp_path / "out", samples=50)
    assert found.samples == 50
    weighted = [layer.name for layer in made.report.steps[-1].cost.layers if layer.kind in ("Conv2d", "Linear")]
    assert sorted(layer.layer for layer in found.layers) == sorted(weighted)
    assert all(set(layer.effects) == {"4", "8", "float"} for layer in found.layers)
    assert all(layer.effects["8"].change is not None for layer in found.layers)
    assert read.name == "bars"


def test_model_that_is_not_trained_has_no_sensitivity(kitchen):
    fix = "its model is not trained yet; give"
    with pytest.raises(UsageError, match=fix):
        sensitivity.of_path(kitchen())


def test_recipe_with_weights_is_measured_as_it_enters(kitchen):
    text = kitchen.text.replace(
        'source  = "strop_tiny_task:student"', 'source  = "strop_tiny_task:teacher"\nweights = "teacher.pt"'
    )
    found = sensitivity.of_path(kitchen(text), samples=30)
    assert [layer.kind for layer in found.layers] == ["conv2d", "conv2d", "linear"]
    assert found.layers[0].layer == "block0.conv"
