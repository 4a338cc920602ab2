# SPDX-License-Identifier: Apache-2.0
"""Take a Keras model apart: ``python -m compress.keras_child FOLDER``.

A process of its own, because TensorFlow takes two seconds and half a gigabyte, and Keras may end the process that
loads a broken file. Only here is TensorFlow imported; ``compress.sources.keras_file`` starts this and builds the
network from the answer.

::

    FOLDER/job.json      model, size (height and width for free dimensions, or null)            in
    FOLDER/layers.json   input and output, and each call of a layer: name, class, configuration  out
    FOLDER/weights.npz   "STEP/NAME" → array                                                    out
    FOLDER/values.npz    "input" and "STEP" → what Keras computes of two random inputs           out
    FOLDER/refusal.json  stage, what, where, fix                                                out, if it was refused
"""

import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_contract.errors import ModelError, StropError

__all__ = ["main"]

_ONE_TENSOR: Final = "make a model of one float32 input and one output"
_FUNCTIONAL: Final = (
    "build it with keras.Sequential or keras.Model(inputs, outputs); or write it with strop export keras"
)


def main(arguments: list[str]) -> int:
    """Do the job in a folder; return 0, or 1 with ``refusal.json`` written."""
    folder = Path(arguments[0])
    stage = "importing TensorFlow"
    try:
        keras: Any = importlib.import_module("keras")
        importlib.import_module("tensorflow")
        stage = "loading the model"
        job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        model = keras.models.load_model(job["model"], compile=False)
        stage = "reading its layers"
        _write(_Walk(keras, model, job["size"]), folder)
    except StropError as error:
        _refuse(folder, stage, error.what, error.where, error.fix)
        return 1
    except Exception as error:  # Keras raises whatever it likes; the parent explains it
        _refuse(folder, stage, f"{type(error).__name__}: {error}", "", "")
        return 1
    return 0


def _refuse(folder: Path, stage: str, what: str, where: str, fix: str) -> None:
    document = {"stage": stage, "what": what, "where": where, "fix": fix}
    (folder / "refusal.json").write_text(json.dumps(document), encoding="utf-8")


def _write(walk: "_Walk", folder: Path) -> None:
    (folder / "layers.json").write_text(json.dumps(walk.document, default=str), encoding="utf-8")
    np.savez(folder / "weights.npz", **walk.weights)
    np.savez(folder / "values.npz", **walk.values)


class _Walk:
    """Calls every layer of a model once, in order and inside nested models too, and notes what it sees."""

    def __init__(self, keras: Any, model: Any, size: list[int] | None) -> None:
        self.keras, self.steps = keras, list[dict[str, Any]]()
        self.weights: dict[str, Any] = {}
        self.values: dict[str, Any] = {}
        inner = self._graph(model)
        if len(inner.inputs) != 1 or len(inner.outputs) != 1:
            raise ModelError(f"{len(inner.inputs)} inputs and {len(inner.outputs)} outputs", fix=_ONE_TENSOR)
        shape = _fixed(tuple(inner.inputs[0].shape), size)
        x = np.random.default_rng(0).standard_normal((2, *shape[1:]), np.float32)
        self.values["input"] = x
        self.found: dict[int, tuple[str, Any]] = {}
        (output,) = self._walk(inner, "", [("input", keras.ops.convert_to_tensor(x))])
        self.document = {"keras": keras.__version__, "input": list(shape[1:]), "output": output[0], "steps": self.steps}

    def _graph(self, model: Any) -> Any:
        """Return the functional model: a sequential one has it inside."""
        inner = getattr(model, "_functional", None) or model
        if not getattr(inner, "_nodes_by_depth", None) or not getattr(inner, "inputs", None):
            what = f"{type(model).__name__} is a class of Python code, not a graph of layers"
            raise ModelError(what, where=f"model '{model.name}'", fix=_FUNCTIONAL)
        return inner

    def _walk(self, model: Any, prefix: str, inputs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Return (step, value) of each output; ``inputs`` are those of the inputs."""
        known = dict(zip((id(tensor) for tensor in model.inputs), inputs, strict=True))
        for node in _nodes(model):
            operation = node.operation
            given = [known[id(tensor)] for tensor in node.input_tensors]
            if hasattr(operation, "_nodes_by_depth") or getattr(operation, "_functional", None):
                made = self._walk(self._graph(operation), f"{prefix}{operation.name}/", given)
            else:
                made = self._step(operation, node, prefix, known)
            known.update(zip((id(tensor) for tensor in node.outputs), made, strict=False))
        return [known[id(tensor)] for tensor in model.outputs]

    def _step(self, operation: Any, node: Any, prefix: str, known: dict[int, Any]) -> list[tuple[str, Any]]:
        name = str(len(self.steps))
        tree = self.keras.tree

        def value(item: Any) -> Any:
            return known[id(item)][1] if id(item) in known else item

        words = {key: item for key, item in node.arguments.kwargs.items() if key not in ("training", "mask")}
        if "training" in inspect.signature(operation.call).parameters:
            words["training"] = False  # augmenting layers train unless they are told not to
        result = operation(*tree.map_structure(value, node.arguments.args), **tree.map_structure(value, words))
        results = tree.flatten(result)
        words.pop("training", None)
        leaves = tree.flatten((node.arguments.args, words))
        self.steps.append(
            {
                "name": f"{prefix}{operation.name}",
                "kind": type(operation).__name__,
                "config": operation.get_config() if hasattr(operation, "get_weights") else {},
                "inputs": [self._argument(name, i, leaf, known) for i, leaf in enumerate(leaves)],
                "outputs": len(results),
            }
        )
        self.values[name] = np.asarray(self.keras.ops.convert_to_numpy(results[0]), np.float32)
        for variable in getattr(operation, "weights", []):
            self.weights[f"{name}/{variable.name}"] = np.asarray(variable, np.float32)
        return [(name, one) for one in results]

    def _argument(self, step: str, place: int, leaf: Any, known: dict[int, Any]) -> Any:
        """Return how an argument is written: a step, a number, an array among the weights, or its text."""
        if id(leaf) in known:
            return {"step": known[id(leaf)][0]}
        if leaf is None or isinstance(leaf, bool | int | float):
            return {"number": leaf}
        try:
            array = np.asarray(leaf, np.float32)
        except (TypeError, ValueError):
            return {"other": str(leaf)[:80]}
        self.weights[f"{step}/argument{place}"] = array
        return {"array": f"argument{place}"}


def _nodes(model: Any) -> Iterator[Any]:
    """Yield the calls of a model's layers in the order of execution."""
    by_depth = model._nodes_by_depth  # noqa: SLF001  # no public way to the calls
    for depth in sorted(by_depth, reverse=True):
        yield from (node for node in by_depth[depth] if not node.is_input)


def _fixed(shape: tuple[int | None, ...], size: list[int] | None) -> tuple[int, ...]:
    """Return the input's shape with the free height and width as the recipe has them."""
    free = [i for i, one in enumerate(shape) if one is None and i]
    if free and not (free == [1, 2] and size and len(shape) == 4):
        what = f"free dimensions: {list(shape)}".replace("None", "?")
        raise ModelError(what, fix="build it with a fixed input shape, or set resize in [preprocess]")
    filled = list(shape)
    for place, one in zip(free, size or (), strict=False):
        filled[place] = one
    return tuple(int(one or 1) for one in filled)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
