# SPDX-License-Identifier: Apache-2.0
"""Open a Keras file or a SavedModel folder as one function of one tensor; TensorFlow comes as an argument.

Keras 3 hides a layer's variables from TensorFlow's tracking. They are therefore kept by hand: without them the
converter writes READ_VARIABLE operators that no runtime can run, without a word.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_contract.errors import ModelError

__all__ = ["Loaded", "fixed", "load"]

_SAVED_MODEL: Final = "load the model and write it with model.export(FOLDER): a SavedModel needs no Python classes"
_ONE_TENSOR: Final = "make a model of one float32 input, and leave the rest to the application"


@dataclass(frozen=True)
class Loaded:
    """A model as one function of one tensor.

    Attributes:
        call: Tensor → dictionary of output tensors.
        shape: Of the input, batch first; None where a dimension is free.
        kept: What must stay referenced while the function is used: the model and its variables.
        layers: Class names of Keras layers with their counts; empty for a SavedModel.
    """

    call: Callable[[Any], dict[str, Any]]
    shape: tuple[int | None, ...]
    kept: list[Any]
    layers: dict[str, int]


def load(tf: Any, path: Path) -> Loaded:
    """Return the model at a path.

    Raises:
        ModelError: Several inputs, another type than float32, parameters that are not finite, 16-bit layers, no
            signature or several. What Keras and TensorFlow raise themselves passes through.
    """
    return _saved_model(tf, path) if path.is_dir() else _keras(tf, path)


def _keras(tf: Any, path: Path) -> Loaded:
    model = tf.keras.models.load_model(path, compile=False)
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise ModelError("the model was never called, so its input has no shape", fix=_SAVED_MODEL)
    if len(inputs) != 1:
        raise ModelError(f"{len(inputs)} inputs", fix=_ONE_TENSOR)
    for variable in model.variables:
        if not np.isfinite(np.asarray(variable, np.float64)).all():
            raise ModelError("holds NaN or an infinity", where=f"variable '{variable.path}'", fix="train it again")
    _check_dtype(str(inputs[0].dtype))
    every = list(model._flatten_layers())  # noqa: SLF001  # nested ones too
    halves = [layer.name for layer in every if "16" in str(layer.compute_dtype)]
    if halves:
        fix = "build it under the policy float32 and load the weights: keras.config.set_dtype_policy('float32')"
        raise ModelError(
            "computes in 16 bits, which TFLite has no operators for", where=f"layer '{halves[0]}'", fix=fix
        )
    names = [str(name) for name in getattr(model, "output_names", [])]

    def call(x: Any) -> dict[str, Any]:
        found = tf.nest.flatten(model(x, training=False))
        return dict(zip(_named(names, len(found)), found, strict=True))

    # The layers' own variables: what Keras tracks, TensorFlow does not see.
    kept = [model, *(variable.value for variable in model.variables)]
    return Loaded(call, tuple(inputs[0].shape), kept, dict(Counter(type(layer).__name__ for layer in every)))


def _named(names: list[str], count: int) -> list[str]:
    """Return one name per output: ``output`` for a single one."""
    if count == 1:
        return ["output"]
    return names if len(set(names)) == count else [f"output_{i}" for i in range(count)]


def _saved_model(tf: Any, path: Path) -> Loaded:
    module = tf.saved_model.load(str(path))
    signatures = dict(module.signatures)
    if not signatures:
        raise ModelError("the SavedModel has no signature", fix="write it with model.export(FOLDER)")
    wanted = [name for name in ("serving_default", "serve") if name in signatures] or list(signatures)
    if len(wanted) > 1 and "serving_default" not in signatures and "serve" not in signatures:
        fix = "name the one for inference 'serving_default'"
        raise ModelError(f"signatures {', '.join(sorted(wanted))}: which one is meant?", fix=fix)
    signature = signatures[wanted[0]]
    specs = signature.structured_input_signature[1]
    if len(specs) != 1:
        raise ModelError(f"{len(specs)} inputs", fix=_ONE_TENSOR)
    key, spec = next(iter(specs.items()))
    _check_dtype(spec.dtype.name)
    if spec.shape.rank is None:
        raise ModelError("the input's rank is free", fix="give the signature's TensorSpec a shape")

    def call(x: Any) -> dict[str, Any]:
        found = dict(sorted(signature(**{key: x}).items()))
        return dict(zip(_named(list(found), len(found)), found.values(), strict=True))

    return Loaded(call, tuple(spec.shape.as_list()), [module], {})


def _check_dtype(dtype: str) -> None:
    if dtype != "float32":
        raise ModelError(f"the input is {dtype}, not float32", fix=_ONE_TENSOR)


def fixed(shape: tuple[int | None, ...], given: list[int] | None) -> tuple[int, ...]:
    """Return the input's shape with batch 1 and every other free dimension as the data have it.

    Raises:
        ModelError: The data do not fit, or there are none and a dimension is free.

    Example:
        >>> fixed((None, None, 8), [5, 8])
        (1, 5, 8)
    """
    if given is not None:
        fits = len(given) == len(shape) - 1 and all(a in {None, b} for a, b in zip(shape[1:], given, strict=True))
        if not fits:
            text = [0 if size is None else size for size in shape[1:]]
            what = f"the inputs have shape {given}, the model wants {text}"
            raise ModelError(what, fix="give the model's own inputs, preprocessed, batch first (0: any size)")
        return (1, *given)
    if None in shape[1:]:
        what = f"free dimensions: {list(shape)}".replace("None", "?")
        raise ModelError(what, fix="give inputs of the size to run with: --calibration data.npz")
    return (1, *(int(size or 0) for size in shape[1:]))
