# SPDX-License-Identifier: Apache-2.0
"""Capture campaigns: what an operator may ask for, and what is taken from a device. Pure."""

from dataclasses import dataclass, replace
from typing import Any, Final

from edge_contract.capture import MAX_SAMPLE_BYTES, CaptureOrder, CapturePolicy
from edge_contract.errors import MessageError, UsageError
from edge_contract.fields import Fields

__all__ = ["Campaign", "Refusal", "order_for", "read_request", "stopped", "why_refused"]

MAX_HOURS: Final = 24 * 31
MAX_SAMPLES: Final = 100_000
MAX_BYTES: Final = 10_000_000_000
_GRACE_S: Final = 3600.0  # what was on its way at the end may still arrive


@dataclass(frozen=True)
class Campaign:
    """One campaign; times in seconds since 1970.

    Attributes:
        devices: Whose inputs, by name.
        max_samples, max_bytes: Bounds for each device.
        public_key: X25519, raw, in hex.
        stopped_at: 0 while it runs.
    """

    id: str
    model: str
    devices: tuple[str, ...]
    policy: CapturePolicy
    max_samples: int
    max_bytes: int
    started_at: float
    expires_at: float
    public_key: str
    stopped_at: float = 0.0

    def is_live(self, now: float) -> bool:
        """True while devices are asked to keep inputs."""
        return not self.stopped_at and now < self.expires_at

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "model": self.model,
            "devices": list(self.devices),
            "policy": self.policy.to_json(),
            "max_samples": self.max_samples,
            "max_bytes": self.max_bytes,
            "started_at": self.started_at,
            "expires_at": self.expires_at,
            "public_key": self.public_key,
            "stopped_at": self.stopped_at,
        }

    @classmethod
    def from_json(cls, document: Any) -> "Campaign":
        f = Fields(document, "campaign", MessageError)
        return cls(
            f.text("id"),
            f.text("model"),
            f.texts("devices"),
            CapturePolicy.from_json(f.object("policy")),
            f.integer("max_samples"),
            f.integer("max_bytes"),
            f.number("started_at"),
            f.number("expires_at"),
            f.digest("public_key"),
            f.number("stopped_at", 0.0),
        )


def read_request(document: Any, known: frozenset[str], campaign: str, public_key: str, now: float) -> Campaign:
    """Return the campaign that an operator's request asks for.

    Args:
        document: ``{"devices": [...], "model", "policy": {...}, "max_samples", "max_bytes", "hours"}``.
        known: Names of the enrolled devices.
        campaign: Its id.
        public_key: Its key.
        now: Seconds since 1970.

    Raises:
        UsageError: A bound that is missing or too large, or a device that is not enrolled.
        MessageError: Malformed.
    """
    f = Fields(document, "capture", MessageError)
    devices = tuple(dict.fromkeys(f.texts("devices")))
    strangers = sorted(set(devices) - known)
    if strangers or not devices:
        what = f"device '{strangers[0]}' is not enrolled" if strangers else "names no device"
        raise UsageError(what, where="capture", fix="strop fleet device list")
    hours = f.number("hours")
    _within("hours", hours, MAX_HOURS)
    samples, size = f.integer("max_samples", 200), f.integer("max_bytes", 50_000_000)
    _within("max_samples", samples, MAX_SAMPLES)
    _within("max_bytes", size, MAX_BYTES)
    policy = CapturePolicy.from_json(f.object("policy"), "capture.policy")
    ends = now + hours * 3600
    return Campaign(campaign, f.text("model", ""), devices, policy, samples, size, now, ends, public_key)


def _within(name: str, value: float, most: float) -> None:
    if not 0 < value <= most:
        raise UsageError(f"{name} = {value:g} is not above 0 and at most {most:g}", where="capture")


def order_for(campaign: Campaign, device: str) -> CaptureOrder:
    """Return the order that a device of a campaign gets."""
    return CaptureOrder(
        campaign.id,
        device,
        campaign.model,
        campaign.policy,
        campaign.max_samples,
        campaign.max_bytes,
        campaign.started_at,
        campaign.expires_at,
        campaign.public_key,
    )


def stopped(campaign: Campaign, now: float) -> Campaign:
    """Return the campaign after its end; stopping a stopped one changes nothing."""
    return campaign if campaign.stopped_at else replace(campaign, stopped_at=now)


@dataclass(frozen=True)
class Refusal:
    """Why a sample is not taken: an HTTP status, and the words."""

    status: int
    why: str


def why_refused(campaign: Campaign | None, device: str, held: tuple[int, int], size: int, now: float) -> Refusal | None:
    """Return why a sealed sample is not taken, None if it is.

    Args:
        campaign: The campaign, None if nobody knows it.
        device: Who sends, by its certificate.
        held: Samples and bytes of this device that are held already.
        size: Bytes of this one, sealed.
        now: Seconds since 1970.
    """
    if campaign is None or device not in campaign.devices:
        return Refusal(404, "no such campaign for this device")
    if now >= campaign.expires_at + _GRACE_S or (campaign.stopped_at and now >= campaign.stopped_at + _GRACE_S):
        return Refusal(409, "the campaign has ended")
    if size > MAX_SAMPLE_BYTES:
        return Refusal(413, f"{size} bytes, more than {MAX_SAMPLE_BYTES}")
    # Sealing adds less than a kilobyte to a sample.
    if held[0] >= campaign.max_samples or held[1] + size > campaign.max_bytes + 1024 * (held[0] + 1):
        return Refusal(409, "this device has sent all that was asked for")
    return None
