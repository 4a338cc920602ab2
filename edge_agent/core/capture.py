# SPDX-License-Identifier: Apache-2.0
"""Which inputs a capture keeps, within its bounds. Pure."""

from dataclasses import dataclass, replace

from edge_contract.capture import CaptureOrder, CapturePolicy

__all__ = ["Kept", "Seen", "may_keep", "why_kept"]


@dataclass(frozen=True)
class Seen:
    """What is known of one input when its answer is there.

    Attributes:
        model: Name of the model that answered.
        confidence: Of the answer; None for a model that tells none.
        is_drifted: This device's drift verdict is an alarm.
        disagrees: The shadow answered otherwise.
        share: A uniform random number in [0, 1), drawn for this input.
    """

    model: str
    confidence: float | None
    is_drifted: bool = False
    disagrees: bool = False
    share: float = 1.0


@dataclass(frozen=True)
class Kept:
    """What one campaign has kept on this device so far, sent or not: samples, and bytes of their contents."""

    samples: int = 0
    size: int = 0

    def plus(self, size: int) -> "Kept":
        """Return the count after one more sample of so many bytes."""
        return replace(self, samples=self.samples + 1, size=self.size + size)


def why_kept(policy: CapturePolicy, seen: Seen) -> str:
    """Return why an input is asked for, empty if it is not; the rarest reason first.

    Example:
        >>> policy = CapturePolicy(random=0.5, low_confidence=0.6)
        >>> [why_kept(policy, Seen("m", 0.9, share=share)) for share in (0.4, 0.5)]
        ['random', '']
        >>> why_kept(policy, Seen("m", 0.59)), why_kept(policy, Seen("m", None))
        ('low confidence', '')
    """
    if policy.disagreeing and seen.disagrees:
        return "disagreeing"
    if policy.drifted and seen.is_drifted:
        return "drifted"
    if seen.confidence is not None and seen.confidence < policy.low_confidence:
        return "low confidence"
    return "random" if seen.share < policy.random else ""


def may_keep(order: CaptureOrder, model: str, kept: Kept, size: int, now: float) -> bool:
    """True if a sample of so many bytes stays within the order's time and bounds.

    Example:
        >>> order = CaptureOrder("c", "d", "", CapturePolicy(random=1.0), 2, 100, 0.0, 50.0, "0" * 64)
        >>> [may_keep(order, "m", Kept(n, 0), 40, 10.0) for n in (0, 1, 2)]
        [True, True, False]
        >>> may_keep(order, "m", Kept(1, 61), 40, 10.0), may_keep(order, "m", Kept(), 40, 50.0)
        (False, False)
    """
    if order.model not in ("", model) or not order.issued_at - 86_400 <= now < order.expires_at:
        return False
    return kept.samples < order.max_samples and kept.size + size <= order.max_bytes
