# SPDX-License-Identifier: Apache-2.0
"""The folder of a run under way: what each finished step left, so that a resumed run starts where it stopped.

A step's state is tied to a key: the digest of everything that decides it (seed, model, data, teacher, and the
steps up to this one). Changing a later step, the budget or an allowed drop keeps the work before it.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compress.checkpoint import read_checkpoint, write_checkpoint
from compress.edits import Edit, Edits
from compress.recipe import Recipe
from compress.replay import replay
from edge_contract import canonical

__all__ = ["Progressed", "WorkFolder", "digest_of"]


def digest_of(model: nn.Module | None) -> str:
    """Return the SHA-256 over names, shapes and values of a model's state, empty for no model.

    Example:
        >>> digest_of(None), len(digest_of(nn.Linear(2, 1)))
        ('', 64)
    """
    if model is None:
        return ""
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


@dataclass(frozen=True)
class Progressed:
    """A model after some steps: its weights, and how the factory's network was restructured on the way.

    Attributes:
        model: In eval mode.
        edits: In order.
    """

    model: nn.Module
    edits: Edits = ()


@dataclass(frozen=True)
class WorkFolder:
    """Where a run keeps its state.

    Attributes:
        path: The folder.
        recipe: What is run.
        given: Digests of what the recipe only names: data, weights, teacher.
    """

    path: Path
    recipe: Recipe
    given: Sequence[str] = field(default=())

    def key(self, number: int) -> str:
        """Return the digest of everything that decides the result of the first ``number`` steps."""
        recipe = self.recipe
        steps = [{**asdict(step), "kind": step.kind, "max_drop": None} for step in recipe.steps[:number]]
        decides = {
            "seed": recipe.seed,
            "model": asdict(recipe.model),
            "data": asdict(recipe.data),
            "preprocess": recipe.preprocess.to_json(),
            "steps": steps,
            "given": list(self.given),
        }
        return canonical.digest(canonical.dumps(decides))

    def training(self, number: int, stage: int = 0) -> Path:
        """Return the path of the checkpoint of the step's training; the name tells which run it belongs to."""
        part = f"-{stage}" if stage else ""
        return self.path / f"step-{number}{part}.{self.key(number)[:16]}.training.pt"

    def _file(self, number: int, part: str) -> Path:
        return self.path / f"step-{number}.{self.key(number)[:16]}.{part}.pt"

    def keep(self, number: int, part: str, after: Progressed, facts: Mapping[str, Any]) -> None:
        """Write what a step has reached: part ``cut-0``, ``cut-1``, … before each fine-tuning, ``done`` at its end."""
        state = {
            "model": after.model.state_dict(),
            "edits": [edit.to_state() for edit in after.edits],
            "facts": dict(facts),
        }
        write_checkpoint(self._file(number, part), self.key(number), state)
        if part == "done":
            ours = f"{self.key(number)[:16]}"
            for old in (*self.path.glob(f"step-{number}*.{ours}.training.pt"), *self.path.glob(f"*.{ours}.cut-*.pt")):
                old.unlink(missing_ok=True)

    def find(self, number: int, part: str, fresh: nn.Module, example: Tensor) -> tuple[Progressed, Any] | None:
        """Return the model and the facts that a step left, or None.

        Args:
            number: Of the step.
            part: As in ``keep``.
            fresh: A new network of the factory; it is restructured and filled.
            example: One input, float32 [1,C,H,W].
        """
        state = read_checkpoint(self._file(number, part), self.key(number))
        if state is None:
            return None
        edits = tuple(Edit.from_state(one) for one in state["edits"])
        model = replay(fresh, example, edits)
        model.load_state_dict(state["model"])
        return Progressed(model.eval(), edits), state["facts"]

    def clear(self) -> None:
        """Forget the run."""
        shutil.rmtree(self.path, ignore_errors=True)
