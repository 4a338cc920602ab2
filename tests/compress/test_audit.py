# SPDX-License-Identifier: Apache-2.0
"""Algorithms that nothing else compares, against independent libraries; every loss and criterion shows an example."""

import copy
import inspect

import pytest
import torch
from torch import nn
from torch.optim import swa_utils

from compress import losses
from compress.distill import attention, contrastive, features, mutual, relational, soft_targets
from compress.ema import Average
from compress.prune import gates
from compress.prune.graph import PruningGraph
from compress.prune.importance import CRITERIA, bn_scale, magnitude
from compress.steps import training
from compress.trainer import cosine

EXAMPLES = {
    "labels": losses.label_loss,
    "cross-entropy": losses.cross_entropy,
    "soft-targets": soft_targets.soft_target_loss,
    "soft targets and labels": soft_targets.combined,
    "features": features.feature_loss,
    "attention": attention.attention_loss,
    "relational": relational.relational_loss,
    "distances": relational.distance_loss,
    "angles": relational.angle_loss,
    "contrastive": contrastive.contrastive_loss,
    "mutual": mutual.Mutual,
    "own answers": gates.own_answer_loss,
    **{f"criterion {name}": criterion.score for name, criterion in CRITERIA.items()},
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_loss_or_criterion_has_a_doctest_and_says_where_it_comes_from(name):
    text = inspect.getdoc(EXAMPLES[name])
    assert ">>>" in text
    if name not in ("labels", "cross-entropy", "soft targets and labels", "own answers"):
        assert "Reference:" in text


def test_no_loss_is_left_out_of_the_examples():
    assert set(training.TERMS) <= set(EXAMPLES)


def net():
    torch.manual_seed(0)
    body = [nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
    made = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1.5, 1.5)
    return made


@pytest.mark.filterwarnings("ignore")  # torch-pruning's own, while it imports and traces
def test_magnitude_and_bn_scale_are_torch_prunings():
    from torch_pruning.pruner import importance

    made, example = net(), torch.zeros(1, 1, 8, 8)
    graph = PruningGraph(made, example)
    layers = [nn.Conv2d, nn.Linear]
    theirs = importance.GroupMagnitudeImportance(2, group_reduction="sum", normalizer=None, target_types=layers)
    scales = importance.BNScaleImportance(group_reduction="sum", normalizer=None)
    for group in graph.groups:
        raw = graph._raw(made.get_submodule(group.name), range(group.width))  # their own group
        assert torch.allclose(magnitude(group).square(), theirs(raw), rtol=1e-4)
        assert torch.allclose(bn_scale(group), scales(raw).abs(), rtol=1e-5)


def test_average_of_weights_is_torchs_once_its_start_is_past():
    """The decay grows from small numbers at first; with a decay below that of the first steps both are the same."""
    model, decay = nn.Linear(3, 2), 0.1
    ours = Average(model, decay)
    theirs = swa_utils.AveragedModel(copy.deepcopy(model), multi_avg_fn=swa_utils.get_ema_multi_avg_fn(decay))
    theirs.update_parameters(model)  # their first update takes the weights as they are
    for step in range(6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step)))
        ours.update(model)
        theirs.update_parameters(model)
    found = nn.Linear(3, 2)
    ours.write_to(found)
    for mine, other in zip(found.parameters(), theirs.module.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


@pytest.mark.parametrize("steps", [7, 40])
def test_annealing_is_torchs_cosine_behind_the_warm_up(steps):
    ramp = max(1, round(0.05 * steps))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - ramp)
    for step in range(ramp, steps):
        assert cosine(step, steps) == pytest.approx(schedule.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        schedule.step()
