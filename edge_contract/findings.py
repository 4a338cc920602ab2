# SPDX-License-Identifier: Apache-2.0
"""What is found about a window, and what is remembered between windows; both with one JSON form."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from edge_contract.counts import Counters
from edge_contract.errors import MessageError
from edge_contract.fields import Fields
from edge_contract.priors import PriorShift
from edge_contract.summary import CHANNELS, DriftSummary

__all__ = ["ChannelVerdict", "DriftState", "Level", "Verdict"]


class Level(StrEnum):
    """What an operator should think of a window."""

    INSUFFICIENT = "INSUFFICIENT"
    OK = "OK"
    WARN = "WARN"
    ALARM = "ALARM"


@dataclass(frozen=True)
class ChannelVerdict:
    """One channel of one window.

    Attributes:
        name: One of ``CHANNELS``.
        p: Two-sample p-value of this window; None when the channel was not tested.
        effect: Squared standardised distance beyond what chance explains.
        cusum: CUSUM after this window; it alarms at 10.
        text: What moved, in plain words.
    """

    name: str
    p: float | None
    effect: float
    cusum: float
    text: str


@dataclass(frozen=True)
class Verdict:
    """What a window says.

    Attributes:
        level: See ``Level``.
        reason: One sentence for the operator.
        window: The window's number.
        n, n_eff: Samples judged (carried windows included), and how many independent ones they are worth.
        p_family: Holm's family p-value over the channels; 1 when none was tested.
        channels: Every channel.
        reference_accuracy: Accuracy of the artefact on its reference.
        estimated_accuracy, low, high: Without labels; None when there is nothing to estimate from.
        valid: Whether the estimate may be believed; False under a strong shift.
        since_ms: Start of the window in which the evidence behind the level began to rise, Unix ms; 0 when OK.
        moved: What moved, in plain words, most telling first; empty when nothing did.
        prior: Estimated mix of the classes, of a classifier's window that is not OK; else None.
    """

    level: Level
    reason: str
    window: int
    n: int
    n_eff: float
    p_family: float
    channels: tuple[ChannelVerdict, ...]
    reference_accuracy: float
    estimated_accuracy: float | None
    low: float | None
    high: float | None
    valid: bool
    since_ms: int = 0
    moved: tuple[str, ...] = ()
    prior: PriorShift | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, for an alarm row of the outbox or a page."""
        document: dict[str, Any] = {
            "level": self.level.value,
            "reason": self.reason,
            "window": self.window,
            "n": self.n,
            "n_eff": self.n_eff,
            "p_family": self.p_family,
            "channels": [[c.name, c.p, c.effect, c.cusum, c.text] for c in self.channels],
            "reference_accuracy": self.reference_accuracy,
            "valid": self.valid,
            "since_ms": self.since_ms,
            "moved": list(self.moved),
        }
        if self.estimated_accuracy is not None:
            document |= {"estimated_accuracy": self.estimated_accuracy, "low": self.low, "high": self.high}
        if self.prior is not None:
            document["prior"] = self.prior.to_json()
        return document

    @classmethod
    def from_json(cls, document: Any) -> "Verdict":
        """Return the verdict of a JSON form; raises MessageError when malformed."""
        f = Fields(document, "verdict", MessageError)
        estimated = [f.number(k) if k in document else None for k in ("estimated_accuracy", "low", "high")]
        return cls(
            Level(f.text("level", among=tuple(Level))),
            f.text("reason"),
            f.integer("window"),
            f.integer("n", minimum=0),
            f.number("n_eff"),
            f.number("p_family"),
            tuple(_channel(item) for item in f.items("channels")),
            f.number("reference_accuracy"),
            estimated[0],
            estimated[1],
            estimated[2],
            f.flag("valid"),
            f.integer("since_ms", 0),
            f.texts("moved"),
            PriorShift.from_json(document["prior"]) if "prior" in document else None,
        )


@dataclass(frozen=True)
class DriftState:
    """What is remembered of a device between windows. ``DriftState()`` is the beginning.

    Attributes:
        profile_crc: The profile that the memory belongs to; another one starts afresh.
        cusum: One per channel.
        rising_ms: Start of the window in which each CUSUM last left 0; 0 while it is 0.
        windows: Windows judged.
        is_strong: Whether the last judged window had p_family < 1e-6.
        is_alarmed: Whether the alarm stands.
        since_ms: Since when, 0 when it does not.
        carried: Counters of windows too small to be judged, and how many.
    """

    profile_crc: int = 0
    cusum: tuple[float, ...] = (0.0,) * len(CHANNELS)
    rising_ms: tuple[int, ...] = (0,) * len(CHANNELS)
    windows: int = 0
    is_strong: bool = False
    is_alarmed: bool = False
    since_ms: int = 0
    carried: Counters | None = None
    carried_windows: int = 0

    def stamp(self, summary: DriftSummary) -> DriftSummary:
        """Return the summary with the CUSUM after its window, ready to be sent."""
        return replace(summary, cusum=self.cusum, cusum_windows=self.windows)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, for the device's journal and the server's store."""
        return {
            "profile_crc": self.profile_crc,
            "cusum": list(self.cusum),
            "rising_ms": list(self.rising_ms),
            "windows": self.windows,
            "is_strong": self.is_strong,
            "is_alarmed": self.is_alarmed,
            "since_ms": self.since_ms,
            "carried": [] if self.carried is None else self.carried.to_list(),
            "carried_windows": self.carried_windows,
        }

    @classmethod
    def from_json(cls, document: Any) -> "DriftState":
        """Return the state of a JSON form.

        Raises:
            ContractError: Malformed; begin anew.
        """
        f = Fields(document, "drift state", MessageError)
        cusum, rising, carried = f.numbers("cusum"), f.integers("rising_ms"), f.integers("carried")
        if len(cusum) != len(CHANNELS) or len(rising) != len(CHANNELS):
            raise MessageError(f"{len(cusum)} CUSUM values, not {len(CHANNELS)}", where="drift state")
        return cls(
            f.integer("profile_crc"),
            cusum,
            rising,
            f.integer("windows", minimum=0),
            f.flag("is_strong"),
            f.flag("is_alarmed"),
            f.integer("since_ms", 0),
            Counters.from_list(carried) if carried else None,
            f.integer("carried_windows", 0),
        )


def _channel(item: Any) -> ChannelVerdict:
    if not isinstance(item, list) or len(item) != 5:
        raise MessageError("expected [name, p, effect, cusum, text]", where="verdict.channels")
    f = Fields(dict(zip(("name", "p", "effect", "cusum", "text"), item, strict=True)), "verdict.channels", MessageError)
    p = None if item[1] is None else f.number("p")
    return ChannelVerdict(f.text("name"), p, f.number("effect"), f.number("cusum"), f.text("text"))
