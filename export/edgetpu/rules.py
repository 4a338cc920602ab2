# SPDX-License-Identifier: Apache-2.0
"""The operators of the Edge TPU: which conditions each has, and how well that is known.

Which runtime first maps an operator, and the newest version of it, are numbers of the target
(``edge_contract/targets/coral-usb.toml``).

Reference: Coral's page "TensorFlow models on the Edge TPU" (its table of operators, also as Axis mirrors it for
ARTPEC-7) for what is ``documented``; published compiles (google-coral/test_data at 104342d) and logs for ``seen``;
the rest is ``recalled`` from the page as it was and not confirmed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from export.edgetpu import conditions as c
from export.edgetpu.site import Site
from export.edgetpu.status import Finding

__all__ = ["RULES", "SOURCES", "Rule", "findings"]

SOURCES: Final = ("documented", "seen", "recalled")
Condition = Callable[[Site], Finding | None]


@dataclass(frozen=True)
class Rule:
    """One operator's conditions, and where they come from (one of SOURCES)."""

    conditions: tuple[Condition, ...] = ()
    source: str = "documented"


RULES: Final[dict[str, Rule]] = {
    "ADD": Rule(),
    "AVERAGE_POOL_2D": Rule((c.no_fused_activation,)),
    "CONCATENATION": Rule((c.no_fused_activation, c.concatenates_zeros)),
    "CONV_2D": Rule((c.is_ungrouped, c.dilates_equally)),
    "DEPTHWISE_CONV_2D": Rule((c.dilates_equally,)),
    "EXPAND_DIMS": Rule(),
    "FULLY_CONNECTED": Rule((c.flat_output, c.one_scale)),
    "L2_NORMALIZATION": Rule((c.fixed_output_scale,)),
    "LOGISTIC": Rule((c.fixed_output_scale,)),
    "MAXIMUM": Rule(),
    "MAX_POOL_2D": Rule((c.no_fused_activation,)),
    "MEAN": Rule((c.not_over_batch, c.channels_in_fours, c.mean_in_reach)),
    "MINIMUM": Rule(),
    "MUL": Rule(),
    "PACK": Rule((c.not_over_batch,)),
    "PAD": Rule((c.pads_no_batch,)),
    "PRELU": Rule((c.prelu_innermost,)),
    "QUANTIZE": Rule(),
    "REDUCE_MAX": Rule((c.not_over_batch,)),
    "REDUCE_MIN": Rule((c.not_over_batch,)),
    "RELU": Rule(),
    "RELU6": Rule(),
    "RELU_N1_TO_1": Rule(),
    "RESHAPE": Rule((c.reshapes_little,)),
    "RESIZE_BILINEAR": Rule((c.no_half_pixel_before_14, c.resizes_gently)),
    "RESIZE_NEAREST_NEIGHBOR": Rule((c.no_half_pixel_before_14, c.resizes_gently)),
    "RSQRT": Rule((), "recalled"),
    "SLICE": Rule(),
    "SOFTMAX": Rule((c.softmax_is_short, c.fixed_output_scale)),
    "SPACE_TO_DEPTH": Rule(),
    "SPLIT": Rule((c.not_over_batch,)),
    "SQUARED_DIFFERENCE": Rule((), "recalled"),
    "SQUEEZE": Rule((c.leading_ones,)),
    "STRIDED_SLICE": Rule((c.strides_are_one,)),
    "SUB": Rule(),
    "SUM": Rule((c.not_over_batch,), "recalled"),
    "TANH": Rule((c.fixed_output_scale,)),
    "TILE": Rule((), "seen"),
    "TRANSPOSE": Rule((c.transposes_little,), "seen"),
    "TRANSPOSE_CONV": Rule((c.no_fused_activation,)),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": Rule(),
}


def findings(site: Site) -> list[Finding]:
    """Return what an operator's own conditions say, and that a rule is not documented where it is not."""
    rule = RULES.get(site.operator.kind)
    if rule is None:
        return []
    found = [finding for condition in rule.conditions if (finding := condition(site)) is not None]
    if rule.source != "documented" and not found:
        found.append(Finding("likely", "", f"mapping it is {rule.source}, not documented"))
    return found
