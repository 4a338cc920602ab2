# SPDX-License-Identifier: Apache-2.0
"""The loss of a distillation: a weighted sum of terms, for which both networks run once a batch."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from compress.distill.contrastive import Heads
from compress.distill.features import Adapters, Tap, as_map, features
from compress.distill.remember import Remembering
from compress.distill.terms import TERMS, Seen, Settings
from compress.losses import Objective
from compress.steps.training import EMBEDDED, LAYERED
from edge_contract.errors import ModelError

__all__ = ["Distillation", "last_linear"]


class Distillation(Objective):
    """Σ weight · term, over the terms of ``compress.distill.terms``.

    The teacher sees the same augmented inputs as the student, so that it is consistent (Beyer et al. 2022, "A good
    teacher is patient and consistent"). Where only its logits are needed they are remembered.

    Args:
        teacher: Not trained; set to eval mode.
        student: The model that will be trained; it is only looked at.
        weights: Term → weight.
        settings: Temperature, label smoothing.
        layers: Pairs (layer of the student, layer of the teacher) for terms that compare feature maps.
        example: One input, float32 [1,C,H,W].

    Attributes:
        adapters: Of feature maps; None where no term needs them.
        heads: Of embeddings, for the contrastive term.

    Raises:
        ModelError: A layer that is not there, or that gives no feature map; no linear layer at the end, or one that
            sees more than one vector of an input.

    Example:
        >>> teacher, student, x = nn.Linear(2, 3), nn.Linear(2, 3), torch.ones(4, 2)
        >>> loss = Distillation(
        ...     teacher, student, {"soft-targets": 1.0}, settings=Settings(), layers=(), example=x[:1]
        ... )
        >>> student.load_state_dict(teacher.state_dict())
        <All keys matched successfully>
        >>> round(float(loss(student, x, torch.tensor([0, 1, 2, -1])).detach()), 6)
        0.0
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        weights: Mapping[str, float],
        *,
        settings: Settings,
        layers: Sequence[tuple[str, str]],
        example: Tensor,
    ) -> None:
        super().__init__()
        self.weights, self.settings = dict(weights), settings
        self.layers = tuple(layers) if weights.keys() & LAYERED else ()
        self._heads: tuple[str, str] | None = None
        self.heads: Heads | None = None
        if weights.keys() & EMBEDDED:
            self._heads = last_linear(student, example), last_linear(teacher, example)
            both = zip((student, teacher), self._heads, strict=True)
            widths = [_embedding_width(model, head, example) for model, head in both]
            self.heads = Heads(*widths) if "contrastive" in weights else None
        self.adapters: Adapters | None = None
        if self.layers:
            adapters, _ = features(student, teacher, self.layers, example)
            self.adapters = adapters if "features" in weights else None
        is_tapped = bool(self.layers) or self._heads is not None or isinstance(teacher, Remembering)
        self.teacher = teacher.eval() if is_tapped else Remembering(teacher)

    @property
    def trained(self) -> nn.Module | None:
        """What is trained along with the student; None where no term needs it."""
        found = [module for module in (self.adapters, self.heads) if module is not None]
        return nn.ModuleList(found) if len(found) > 1 else next(iter(found), None)

    def forward(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the weighted sum for a batch."""
        seen = self._look(model, x, y)
        terms = [weight * TERMS[name](seen, self.settings) for name, weight in self.weights.items()]
        return torch.stack(terms).sum()

    def _look(self, model: nn.Module, x: Tensor, y: Tensor) -> Seen:
        head, teacher_head = self._heads or ("", "")
        with ExitStack() as taps:
            mine = taps.enter_context(Tap(model, [a for a, _ in self.layers], head))
            theirs = taps.enter_context(Tap(self.teacher, [b for _, b in self.layers], teacher_head))
            with torch.no_grad():
                target = self.teacher(x)
            answer = model(x)
        maps = tuple((as_map(mine.outputs[a]), as_map(theirs.outputs[b])) for a, b in self.layers)
        embeddings = (mine.inputs[head], theirs.inputs[teacher_head]) if self._heads else None
        adapters = () if self.adapters is None else tuple(self.adapters.convs)
        return Seen(y, answer, target, maps, embeddings, adapters, self.heads)

    def kept(self) -> dict[str, Any]:
        """Return the teacher's remembered answers."""
        return self.teacher.kept() if isinstance(self.teacher, Remembering) else {}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take the teacher's answers back."""
        if isinstance(self.teacher, Remembering):
            self.teacher.restore(kept)


@torch.no_grad()
def last_linear(model: nn.Module, example: Tensor) -> str:
    """Return the name of the linear layer that is called last; what enters it is the embedding of an input.

    Raises:
        ModelError: There is none.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
        >>> last_linear(net, torch.zeros(1, 2))
        '2'
    """
    called: list[str] = []
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    hooks = [m.register_forward_hook(lambda *_, name=n: called.append(name)) for n, m in linear]
    try:
        model.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
    if not called:
        fix = "leave the relational and contrastive terms out, or end the network with a linear layer"
        raise ModelError("no linear layer is called, so there is no embedding to compare", fix=fix)
    return called[-1]


@torch.no_grad()
def _embedding_width(model: nn.Module, head: str, example: Tensor) -> int:
    with Tap(model, [], head) as tap:
        model.eval()(example)
    found = tap.inputs[head]
    if found.ndim != 2:
        fix = "leave the relational and contrastive terms out, or pool before this layer"
        raise ModelError(f"its input {list(found.shape)} is no embedding [N,D]", where=head, fix=fix)
    return int(found.shape[1])
