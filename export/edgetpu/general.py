# SPDX-License-Identifier: Apache-2.0
"""Rules that hold for every operator on the Edge TPU: types, ranks, constants, versions.

They come before the conditions of single operators. Reference: Coral's page "TensorFlow models on the Edge TPU",
section on model requirements, and the compiler logs that tests/export/edgetpu_logs cites.
"""

import math
from collections.abc import Callable
from typing import Final

from edge_contract.targets import Target
from export.edgetpu.site import Site
from export.edgetpu.status import LIMITATION, NOT_SUPPORTED, RANK, TYPE, VERSION, Finding

__all__ = ["MAPPED_TYPES", "first_finding", "innermost"]

MAPPED_TYPES: Final = ("int8", "uint8")
# Inputs that must be known when the file is compiled: weights and biases, shapes, axes, paddings.
_CONSTANTS: Final = {
    "CONV_2D": (1, 2),
    "DEPTHWISE_CONV_2D": (1, 2),
    "FULLY_CONNECTED": (1, 2),
    "TRANSPOSE_CONV": (0, 1, 3),
    "PRELU": (1,),
    "PAD": (1,),
    "MEAN": (1,),
    "SUM": (1,),
    "REDUCE_MAX": (1,),
    "REDUCE_MIN": (1,),
    "RESHAPE": (1,),
    "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,),
    "SLICE": (1, 2),
    "SPLIT": (0,),
    "STRIDED_SLICE": (1, 2, 3),
    "TRANSPOSE": (1,),
    "TILE": (1,),
    "EXPAND_DIMS": (1,),
}
_INDICES: Final = "keep arithmetic on indices, shapes and truth values out of the model, or in a second one for the CPU"


def first_finding(site: Site, target: Target) -> Finding | None:
    """Return the first reason why an operator is not mapped, or None."""
    for rule in _RULES:
        found = rule(site, target)
        if found is not None:
            return found
    return None


def innermost(shape: tuple[int, ...]) -> bool:
    """Return True if at most the three innermost dimensions exceed 1.

    Example:
        >>> innermost((1, 128, 128, 3)), innermost((3, 128, 128, 1))
        (True, False)
    """
    return math.prod(shape[:-3]) <= 1


def _listed(site: Site, target: Target) -> Finding | None:
    kind, accelerator = site.operator.kind, target.accelerator
    if site.operator.is_custom:
        return Finding("cpu", TYPE, "a custom operator: the compiler knows TFLite's own ones alone")
    if accelerator is None or kind not in accelerator.operators:
        return None if _floats(site) else Finding("cpu", NOT_SUPPORTED, "not among the operators that Coral lists")
    if not accelerator.runs(kind, site.runtime):
        detail = f"needs Edge TPU runtime {accelerator.operators[kind]}, aimed at {site.runtime}"
        return Finding("cpu", NOT_SUPPORTED, detail)
    return None


def _floats(site: Site) -> bool:
    return any(tensor.dtype not in MAPPED_TYPES for tensor in site.activations())


def _types(site: Site, _: Target) -> Finding | None:
    wrong = next((tensor for tensor in site.activations() if tensor.dtype not in MAPPED_TYPES), None)
    if wrong is None:
        return None
    # Logs say of a QUANTIZE from float that a limitation keeps it on the CPU, of everything else that its type does.
    status = LIMITATION if site.operator.kind == "QUANTIZE" else TYPE
    advice = None if wrong.dtype.startswith(("float", "bfloat")) else _INDICES
    return Finding("cpu", status, f"tensor '{_short(wrong.name)}' is {wrong.dtype}, not int8 or uint8", advice)


def _weights(site: Site, _: Target) -> Finding | None:
    """int4 and float weights in an integer operator (a hybrid one) are refused like their activations."""
    if site.operator.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"):
        return None
    weights = site.input(1)
    if weights is None or weights.dtype in MAPPED_TYPES:
        return None
    return Finding("cpu", TYPE, f"weights are {weights.dtype}, not int8 or uint8")


def _known(site: Site, _: Target) -> Finding | None:
    for position in _CONSTANTS.get(site.operator.kind, ()):
        tensor = site.input(position)
        if tensor is not None and tensor.data is None:
            detail = f"input {position} '{_short(tensor.name)}' is computed, not a constant"
            return Finding("cpu", LIMITATION, detail, "fold it into a constant before the export")
    return None


def _static(site: Site, _: Target) -> Finding | None:
    free = next((t for t in site.activations() if any(size < 0 for size in t.shape_signature)), None)
    if free is None:
        return None
    shape = [size if size >= 0 else "?" for size in free.shape_signature]
    return Finding(
        "cpu", LIMITATION, f"tensor '{_short(free.name)}' has a free size {shape}", "fix every size, batch 1"
    )


def _ranks(site: Site, _: Target) -> Finding | None:
    wide = next((tensor for tensor in site.activations() if not innermost(tensor.shape)), None)
    if wide is None:
        return None
    detail = f"tensor '{_short(wide.name)}' {list(wide.shape)}: only the three innermost sizes may exceed 1"
    return Finding("cpu", RANK, detail)


def _versions(site: Site, target: Target) -> Finding | None:
    most = target.integers["tflite"].operators.get(site.operator.kind)
    if site.operator.kind == "DEQUANTIZE":
        return None  # it stays on the CPU in any version
    if most is None or site.operator.version <= most:
        return None
    return Finding("cpu", VERSION, f"version {site.operator.version} is newer than {most}, the compiler's newest")


def _short(name: str, most: int = 40) -> str:
    return name if len(name) <= most else f"…{name[-most:]}"


_RULES: Final[tuple[Callable[[Site, Target], Finding | None], ...]] = (
    _listed, _versions, _types, _weights, _static, _ranks, _known
)  # fmt: skip
