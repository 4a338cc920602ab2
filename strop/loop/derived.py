# SPDX-License-Identifier: Apache-2.0
"""The recipe that heals: a model's own one, from its present student, with captured inputs that the teacher labels.

What changes, and nothing else: the model that enters is the present student, so that steps that cut it are left out;
the first step that trained becomes a distillation from it, on old and new inputs; steps that hold zeros or shared
values, and the quantize step, stay. A budget of points or of time is left out: forgetting is judged on the test split,
and the shape, so the time, is the student's own.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import UsageError

__all__ = ["Healing", "derive", "to_toml"]

_TRAINS: Final = ("train", "distill")
_KEPT: Final = ("sparsify", "cluster", "quantize")
_LEFT_OUT: Final = ("init", "max_drop", "teacher")
_OWN: Final = ("self", "mutual", "labels")  # methods that ask another teacher than the recipe's, or none
_BUDGET: Final = ("size_kb", "macs", "parameters")


@dataclass(frozen=True)
class Healing:
    """How a student is healed.

    Attributes:
        share: Of the new inputs in every training.
        test: Share of the captured inputs that no step sees.
        epochs, learning_rate: Of the distillation; 0 takes the recipe's own.
        most_forgotten: Points that the student may lose on the old test split.
    """

    share: float = 0.5
    test: float = 0.25
    epochs: int = 0
    learning_rate: float = 0.0
    most_forgotten: float = 1.0


def derive(text: str, healing: Healing, *, present: Path, captured: Path, beside: Path, teacher: Path | None) -> str:
    """Return the text of the derived recipe.

    Args:
        text: Of the model's own recipe.
        healing: What is asked for.
        present: Folder of the compressed model that is healed.
        captured: Captured inputs, a folder or an ``.npz``.
        beside: Folder from which the recipe's relative names start.
        teacher: Weights of the teacher in place of the recipe's; None keeps these.

    Raises:
        UsageError: The recipe has no teacher, so that nobody can label.
    """
    own = tomllib.loads(text)
    made = {key: own[key] for key in own if key not in ("model", "data", "step", "budget", "search")}
    made["beside"] = str(beside.resolve())
    made["model"] = _model(own["model"], present, teacher)
    old = {key: value for key, value in own["data"].items() if not key.startswith("unlabelled")}
    new = {"unlabelled": str(captured.resolve()), "unlabelled_share": healing.share, "unlabelled_test": healing.test}
    made["data"] = {**old, **new}
    made["step"] = [_healing_step(own["step"], healing), *(one for one in own["step"] if one.get("kind") in _KEPT)]
    budget = {key: value for key, value in own.get("budget", {}).items() if key in _BUDGET}
    return to_toml({**made, **({"budget": budget} if budget else {})})


def _model(own: Mapping[str, Any], present: Path, teacher: Path | None) -> dict[str, Any]:
    if "teacher" not in own:
        fix = "add teacher and teacher_weights to [model] of the recipe"
        raise UsageError("the recipe has no teacher: nobody labels what was captured", where=str(present), fix=fix)
    made = {"source": str((present / "model.pt2").resolve())}
    made |= {key: own[key] for key in ("teacher", "teacher_weights") if key in own}
    return made if teacher is None else {**made, "teacher_weights": str(teacher.resolve())}


def _healing_step(steps: list[dict[str, Any]], healing: Healing) -> dict[str, Any]:
    own = next((one for one in steps if one.get("kind") in _TRAINS), {})
    step = {key: value for key, value in own.items() if key not in _LEFT_OUT and key != "kind"}
    if step.get("method") in _OWN:
        del step["method"]
    if healing.epochs:
        step["epochs"] = healing.epochs
    if healing.learning_rate:
        step["learning_rate"] = healing.learning_rate
    return {"kind": "distill", **step}


def to_toml(document: Mapping[str, Any]) -> str:
    """Return a recipe's document as TOML: keys first, then tables, then lists of tables; what is within stands inline.

    Example:
        >>> step = {"kind": "prune", "target": {"macs": 0.5}}
        >>> print(to_toml({"seed": 1, "model": {"source": "a:b"}, "step": [step]}))
        seed = 1
        <BLANKLINE>
        [model]
        source = "a:b"
        <BLANKLINE>
        [[step]]
        kind = "prune"
        target = { macs = 0.5 }
        <BLANKLINE>
    """
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    tables = {key: value for key, value in document.items() if isinstance(value, dict) or _is_tables(value)}
    yield from (f"{_key(key)} = {_value(value)}" for key, value in document.items() if key not in tables)
    for name, value in tables.items():
        for table in value if isinstance(value, list) else [value]:
            yield from ("", f"[[{_key(name)}]]" if isinstance(value, list) else f"[{_key(name)}]")
            yield from (f"{_key(key)} = {_value(found)}" for key, found in table.items())


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _key(key: str) -> str:
    is_bare = bool(key) and key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if is_bare else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
