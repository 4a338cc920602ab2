# SPDX-License-Identifier: Apache-2.0
"""Weights to begin with: a student of its teacher's family takes the teacher's most important channels.

The teacher is cut to the student's widths by the dependency graph of pruning, so that channels that are added up,
concatenated or normalised together are chosen together; what is left has the student's shapes, name by name.
"""

import copy

import torch
from torch import Tensor, nn

from compress.distill.reconstruct import reconstruct
from compress.prune.graph import Group, Member, PruningGraph
from compress.prune.importance import magnitude
from edge_contract.errors import ModelError

__all__ = ["inherit", "start_afresh"]


@torch.no_grad()
def inherit(student: nn.Module, teacher: nn.Module, x: Tensor) -> None:
    """Give the student, in place, the teacher's most important channels, and make it compute what they compute.

    Both must be built of layers of the same names and kinds, the student's at most as wide; strides may differ. The
    channels with the largest L2 norm are taken; then each layer is refitted to the teacher's outputs
    (``compress.distill.reconstruct``), because the channels that are missing leave a gap in every sum.

    Args:
        student: Changed in place; ends in eval mode.
        teacher: Not changed.
        x: Some hundred training inputs, float32 [N,C,H,W].

    Raises:
        ModelError: A layer that only one of them has, or a shape that cutting channels cannot give; by name.
        UnsupportedOperatorError: A layer whose channels cannot be cut.

    Example:
        >>> teacher = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2, bias=False))
        >>> _ = teacher[0].weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 0.1], [0.0, 2.0]]))
        >>> student = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
        >>> inherit(student, teacher, torch.eye(2))
        >>> [[round(value, 3) + 0.0 for value in row] for row in student[0].weight.tolist()]
        [[3.0, 0.0], [0.0, 2.0]]

    Reference:
        Xu et al. 2024, "Initializing models with larger ones" (weight selection), with the L2 norm of coupled
        channels (Fang et al. 2023, "DepGraph", section 3.4) in place of their uniform choice.
    """
    _check_names(student, teacher)
    donor = copy.deepcopy(teacher).requires_grad_(requires_grad=True)
    graph = PruningGraph(donor, x[:1])
    kept: dict[str, tuple[int, ...]] = {}
    for group in graph.groups:
        surplus = group.width - _width(student.get_submodule(group.name), group)
        gone = torch.argsort(magnitude(group), stable=True)[:surplus].tolist()
        kept |= {member.layer: _kept(member, gone) for member in group.members if member.side == "out"}
        if gone:
            graph.remove(group.name, gone)
    _load(student, donor)
    reconstruct(student, teacher, kept, x)


def _kept(member: Member, gone: list[int]) -> tuple[int, ...]:
    return tuple(c for c, root in zip(member.channels, member.roots, strict=True) if root not in gone)


def _load(student: nn.Module, donor: nn.Module) -> None:
    weights = donor.state_dict()
    for name, value in student.state_dict().items():
        if value.shape != weights[name].shape:
            what = f"shape {list(value.shape)}, the teacher's channels give {list(weights[name].shape)}"
            raise _refused(what, name)
    student.load_state_dict(weights)


def _check_names(student: nn.Module, teacher: nn.Module) -> None:
    mine, theirs = student.state_dict(), teacher.state_dict()
    for name in (*mine, *theirs):
        if name not in mine or name not in theirs:
            raise _refused(f"only the {'teacher' if name not in mine else 'student'} has it", name)
        if mine[name].ndim != theirs[name].ndim:
            raise _refused(f"shape {list(mine[name].shape)}, the teacher's {list(theirs[name].shape)}", name)


def _width(layer: nn.Module, group: Group) -> int:
    width = int(getattr(layer, "out_channels", getattr(layer, "out_features", 0)))
    if not 1 <= width <= group.width:
        raise _refused(f"{width} channels, the teacher has {group.width}", group.name)
    return width


def _refused(what: str, name: str) -> ModelError:
    fix = 'build student and teacher by one function of their widths, or leave out init = "teacher"'
    return ModelError(f"cannot take the teacher's weights: {what}", where=name, fix=fix)


def start_afresh(model: nn.Module, seed: int) -> None:
    """Draw new weights for every layer in place, as its class does when it is built.

    Raises:
        ModelError: A module with weights of its own that cannot draw them.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> _ = nn.init.zeros_(layer.weight)
        >>> start_afresh(layer, 0)
        >>> bool(layer.weight.any())
        True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in model.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif next(module.parameters(recurse=False), None) is not None:
                fix = "give the class a method reset_parameters"
                what = f"a {type(module).__name__} does not know how to draw its weights"
                raise ModelError(what, where=name or "the model itself", fix=fix)
