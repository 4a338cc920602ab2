# SPDX-License-Identifier: Apache-2.0
"""Conditions of single operators on the Edge TPU; ``edgetpu_rules`` says which operator has which.

Each takes an operator in its place and returns what stands against mapping it, or None. Numbers without a documented
source are named as what they are: seen in a compiler log or in a published pair of files (docs/targets.md).
"""

import math
from typing import Final

from export.edgetpu.site import Site
from export.edgetpu.status import FLAT_OUTPUT, LIMITATION, NOT_SUPPORTED, PRECISION, RANK, VERSION, Finding

__all__ = [
    "channels_in_fours",
    "concatenates_zeros",
    "dilates_equally",
    "fixed_output_scale",
    "flat_output",
    "is_ungrouped",
    "leading_ones",
    "mean_in_reach",
    "no_fused_activation",
    "no_half_pixel_before_14",
    "not_over_batch",
    "one_scale",
    "pads_no_batch",
    "prelu_innermost",
    "resizes_gently",
    "reshapes_little",
    "softmax_is_short",
    "strides_are_one",
    "transposes_little",
]

_KIB: Final = 1024
_SCALES: Final = {"LOGISTIC": 1 / 256, "SOFTMAX": 1 / 256, "TANH": 1 / 128, "L2_NORMALIZATION": 1 / 128}


def no_fused_activation(site: Site) -> Finding | None:
    """Pools and concatenations with an activation inside are refused."""
    fused = site.option("fused_activation_function", "NONE")
    return None if fused == "NONE" else Finding("cpu", NOT_SUPPORTED, f"fused activation {fused}")


def is_ungrouped(site: Site) -> Finding | None:
    """A convolution whose weights see fewer channels than its input has is grouped."""
    source, weights = site.input(0), site.input(1)
    if source is None or weights is None or not source.shape or weights.shape[-1:] == source.shape[-1:]:
        return None
    detail = f"grouped: weights see {weights.shape[-1] if weights.shape else 0} of {source.shape[-1]} channels"
    return Finding("cpu", NOT_SUPPORTED, detail)


def dilates_equally(site: Site) -> Finding | None:
    """Dilation must be the same in x and y; before runtime 13 a depthwise convolution had none (log of #75).

    It counts where the kernel has more than one row or column alone: 3 × 1 kernels with dilation 4 × 1 were mapped.
    """
    weights = site.input(1)
    if weights is None or len(weights.shape) != 4:
        return None
    steps = (site.option("dilation_h_factor", 1), site.option("dilation_w_factor", 1))
    used = {step for step, size in zip(steps, weights.shape[1:3], strict=True) if size > 1}
    if site.operator.kind == "DEPTHWISE_CONV_2D" and max(used, default=1) > 1 and site.runtime < 13:
        return Finding("cpu", RANK, f"dilation {steps[0]} × {steps[1]} needs runtime 13")
    if len(used) < 2:
        return None
    return Finding("cpu", NOT_SUPPORTED, f"dilation {steps[0]} × {steps[1]} is unequal")


def one_scale(site: Site) -> Finding | None:
    """Per-channel fully-connected weights: whether they map was not seen in any log."""
    if site.option("weights_format", "DEFAULT") != "DEFAULT":
        return Finding("cpu", NOT_SUPPORTED, "shuffled weights")
    weights = site.input(1)
    if weights is None or len(weights.scales) <= 1:
        return None
    return Finding("risk", LIMITATION, f"{len(weights.scales)} weight scales: one per tensor is the safe form")


def flat_output(site: Site) -> Finding | None:
    """The result may have one dimension above 1."""
    output = site.output
    if output is None or math.prod(output.shape[:-1]) <= 1:
        return None
    return Finding("cpu", FLAT_OUTPUT, f"output {list(output.shape)} has more than one row")


def softmax_is_short(site: Site) -> Finding | None:
    """Documented for one row of at most 16 000; runtime 14 has mapped several (YOLOv8n, compiled whole)."""
    output = site.output
    if output is None:
        return None
    if output.shape[-1:] and output.shape[-1] > 16_000:
        return Finding("cpu", LIMITATION, f"{output.shape[-1]} elements are more than 16 000")
    if math.prod(output.shape[:-1]) <= 1:
        return None
    detail = f"output {list(output.shape)} has more than one row"
    return Finding("risk", LIMITATION, detail) if site.runtime >= 14 else Finding("cpu", FLAT_OUTPUT, detail)


def fixed_output_scale(site: Site) -> Finding | None:
    """These functions have a known range, and the chip computes in it alone."""
    output, due = site.output, _SCALES[site.operator.kind]
    if output is None or not output.scales or math.isclose(output.scales[0], due, rel_tol=0.02):
        return None
    return Finding("risk", LIMITATION, f"output scale {output.scales[0]:.6g}, not {due:.6g}")


def not_over_batch(site: Site) -> Finding | None:
    """Reductions, packs and splits leave the batch alone."""
    if site.operator.kind == "PACK":
        axes: tuple[int, ...] | None = (site.option("axis", 0),)
    elif site.operator.kind == "SPLIT":
        named, value = site.constant(0), site.input(1)
        axes = None if named is None or value is None else tuple(axis % max(len(value.shape), 1) for axis in named)
    else:
        axes = site.axes(1)
    source = site.output if site.operator.kind == "PACK" else site.input(1 if site.operator.kind == "SPLIT" else 0)
    if axes is None or 0 not in axes or source is None or len(source.shape) < 2:
        return None
    return Finding("cpu", LIMITATION, "works along the batch, dimension 0")


def channels_in_fours(site: Site) -> Finding | None:
    """A mean over channels needs runtime 13 and a multiple of four of them."""
    axes, source = site.axes(1), site.input(0)
    if axes is None or source is None or len(source.shape) < 4 or len(source.shape) - 1 not in axes:
        return None
    if site.runtime < 13:
        return Finding("cpu", LIMITATION, "a mean over channels needs runtime 13")
    if source.shape[-1] % 4:
        return Finding("cpu", LIMITATION, f"a mean over {source.shape[-1]} channels, which four does not divide")
    return None


def mean_in_reach(site: Site) -> Finding | None:
    """A mean over 256 × 128 pixels stayed on the CPU, over 64 × 128 it was mapped (#461)."""
    axes, source = site.axes(1), site.input(0)
    if axes is None or source is None or not source.shape:
        return None
    pixels = math.prod(source.shape[axis] for axis in axes)
    if pixels <= 8192:
        return None
    verdict = "cpu" if pixels >= 32_768 else "risk"
    return Finding(verdict, LIMITATION, f"a mean over {pixels} values: 32 768 were refused and 8 192 mapped")


def pads_no_batch(site: Site) -> Finding | None:
    """Padding goes to height and width; from runtime 13 to channels too; never to the batch."""
    table, source = site.constant(1), site.input(0)
    if table is None or source is None or len(source.shape) < 3:
        return None
    pairs = [sum(table[i : i + 2]) for i in range(0, len(table), 2)]
    if len(pairs) > 3 and pairs[0]:
        return Finding("cpu", LIMITATION, "pads the batch")
    if pairs[-1] and site.runtime < 13:
        return Finding("cpu", LIMITATION, "padding of channels needs runtime 13")
    return None


def prelu_innermost(site: Site) -> Finding | None:
    """The slopes must lie along the channels alone, one for each."""
    slopes = site.input(1)
    if slopes is None or math.prod(slopes.shape[:-1]) <= 1:
        return None
    return Finding("cpu", LIMITATION, f"slopes {list(slopes.shape)}: only the innermost dimension may exceed 1")


def no_half_pixel_before_14(site: Site) -> Finding | None:
    """Version 3 of a resize (half-pixel centres) came with runtime 14 (#396, #420)."""
    if site.runtime >= 14 or site.operator.version < 3:
        return None
    return Finding("cpu", VERSION, f"version {site.operator.version} needs runtime 14")


def resizes_gently(site: Site) -> Finding | None:
    """Large factors and large results stay on the CPU: seen at 33 × and 15 × (DeepLab) and at 8 MiB (#31)."""
    source, output = site.input(0), site.output
    if source is None or output is None or len(source.shape) != 4 or len(output.shape) != 4:
        return None
    factor = max(output.shape[a] / max(source.shape[a], 1) for a in (1, 2))
    if factor > 8:
        return Finding("cpu", PRECISION, f"enlarges {factor:.4g} times; at most 8 times was seen mapped")
    if output.size > 2048 * _KIB:
        return Finding("cpu", LIMITATION, f"result of {output.size} bytes; above 2 MiB none was seen mapped")
    if output.size > 512 * _KIB:
        return Finding("risk", LIMITATION, f"result of {output.size} bytes: large resizes may not map")
    return None


def reshapes_little(site: Site) -> Finding | None:
    """Large reshapes may not fit (#356)."""
    output = site.output
    if output is None or output.size <= 512 * _KIB:
        return None
    return Finding("risk", LIMITATION, f"result of {output.size} bytes: large reshapes may not map")


def transposes_little(site: Site) -> Finding | None:
    """A transpose of a 224 × 224 × 3 image was refused (#433), one of 64 × 1344 mapped (YOLOv8n)."""
    output = site.output
    if output is None:
        return None
    if output.size > 128 * _KIB:
        return Finding("cpu", LIMITATION, f"result of {output.size} bytes; above 128 KiB none was seen mapped")
    return Finding("likely", LIMITATION, f"result of {output.size} bytes; small transposes were seen mapped")


def leading_ones(site: Site) -> Finding | None:
    """Before runtime 13, a squeeze removed leading ones alone."""
    source, output = site.input(0), site.output
    if site.runtime >= 13 or source is None or output is None:
        return None
    if source.shape[len(source.shape) - len(output.shape) :] == output.shape:
        return None
    return Finding("cpu", LIMITATION, "removes a dimension behind another: needs runtime 13")


def strides_are_one(site: Site) -> Finding | None:
    """A strided slice without strides, ellipsis or new dimensions."""
    strides = site.constant(3)
    if strides is not None and any(stride != 1 for stride in strides):
        return Finding("cpu", LIMITATION, f"strides {list(strides)} are not all 1")
    masks = [name for name in ("ellipsis_mask", "new_axis_mask") if site.option(name, 0)]
    return Finding("cpu", LIMITATION, f"{masks[0]} is set") if masks else None


def concatenates_zeros(site: Site) -> Finding | None:
    """A constant operand must be all zeros, and one of two."""
    constants = [tensor for tensor in site.inputs() if tensor.data is not None]
    if not constants:
        return None
    if len(site.operator.inputs) != 2:
        return Finding("cpu", LIMITATION, "a constant among other than two operands")
    tensor = constants[0]
    zero = tensor.zero_points[0] if tensor.zero_points else 0
    if set(tensor.data or b"") <= {zero & 0xFF}:
        return None
    return Finding("cpu", LIMITATION, f"constant operand '{tensor.name[-40:]}' is not all zeros")
