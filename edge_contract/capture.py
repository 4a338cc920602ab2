# SPDX-License-Identifier: Apache-2.0
r"""The words of a capture: the signed order for one device, and the sealed form of one sample.

A capture is the only way by which raw inputs leave a device. The order is signed like a job, names its device, ends by
itself, and is bounded in samples and bytes; the person at the device has the last word (``[capture] allowed``).

A sealed sample::

    b"STROPCAP1\n"  ephemeral X25519 public key (32 bytes)  length of the head (4 bytes, big endian)
    head: canonical JSON {"campaign", "device", "number", "v"}
    ChaCha20-Poly1305 of the content; the head is authenticated with it

    key = HKDF-SHA256(X25519(ephemeral, campaign's key), salt = both public keys, info = b"strop capture 1"), 32 bytes;
    nonce = 12 zero bytes: each key is used once

and its content is ``length of the facts (4 bytes) | facts: canonical JSON | array in NumPy's .npy form``. References:
RFC 7748, RFC 5869, RFC 8439; the construction is that of HPKE's base mode (RFC 9180) with a fixed suite.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from edge_contract import PROTOCOL_VERSION, canonical
from edge_contract.errors import MessageError
from edge_contract.fields import Fields
from edge_contract.messages import Message, load_message, open_message
from edge_contract.topics import is_name

__all__ = [
    "MAGIC",
    "MAX_SAMPLE_BYTES",
    "CaptureOrder",
    "CapturePolicy",
    "join_content",
    "split_content",
    "split_sealed",
]

MAGIC: Final = b"STROPCAP1\n"
MAX_SAMPLE_BYTES: Final = 16_000_000
"""Longest sealed sample: a 2K camera frame fits."""
_KEY_BYTES: Final = 32
_MAX_HEAD: Final = 4_096


@dataclass(frozen=True)
class CapturePolicy:
    """Which inputs are asked for; an input is kept if any of these asks for it.

    Attributes:
        random: Share of all inputs, 0 to 1.
        low_confidence: Keep what is answered with less; 0 switches it off.
        drifted: Keep inputs while this device's drift verdict is an alarm.
        disagreeing: Keep inputs on which the shadow answers otherwise.
    """

    random: float = 0.0
    low_confidence: float = 0.0
    drifted: bool = False
    disagreeing: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "random": self.random,
            "low_confidence": self.low_confidence,
            "drifted": self.drifted,
            "disagreeing": self.disagreeing,
        }

    @classmethod
    def from_json(cls, document: Any, where: str = "policy") -> "CapturePolicy":
        f = Fields(document, where, MessageError)
        shares = f.number("random", 0.0), f.number("low_confidence", 0.0)
        made = cls(*shares, f.flag("drifted", False), f.flag("disagreeing", False))
        if any(not 0.0 <= share <= 1.0 for share in shares):
            raise MessageError("a share is from 0 to 1", where=where)
        if made == cls():
            raise MessageError("asks for no input", where=where, fix="set random, low_confidence, drifted, disagreeing")
        return made


@dataclass(frozen=True)
class CaptureOrder(Message):
    """An order to one device; travels inside ``Signed``.

    Attributes:
        campaign: Id of the campaign.
        device, model: Whose inputs; an empty model means any.
        policy: Which inputs.
        max_samples, max_bytes: Most that this device keeps and sends, all in all; bytes are of plain contents.
        issued_at, expires_at: Seconds since 1970; at the end everything is forgotten.
        public_key: The campaign's X25519 key, raw, in hex: what is sealed to it, only its private half opens.
    """

    campaign: str
    device: str
    model: str
    policy: CapturePolicy
    max_samples: int
    max_bytes: int
    issued_at: float
    expires_at: float
    public_key: str
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "v": PROTOCOL_VERSION,
            "campaign": self.campaign,
            "device": self.device,
            "model": self.model,
            "policy": self.policy.to_json(),
            "max_samples": self.max_samples,
            "max_bytes": self.max_bytes,
            "issued_at": self.issued_at,
            "expires_at": self.expires_at,
            "public_key": self.public_key,
        }

    @classmethod
    def from_bytes(cls, data: bytes) -> "CaptureOrder":
        f = open_message(load_message(data, "capture order"), "capture order")
        order = cls(
            f.text("campaign"),
            f.text("device"),
            f.text("model", ""),
            CapturePolicy.from_json(f.object("policy"), "capture order.policy"),
            f.integer("max_samples", minimum=1),
            f.integer("max_bytes", minimum=1),
            f.number("issued_at"),
            f.number("expires_at"),
            f.digest("public_key"),
            f.rest(),
        )
        if not is_name(order.campaign):  # it becomes the name of a folder
            raise MessageError(f"{order.campaign[:70]!r} is not a name", where="capture order.campaign")
        return order


def join_content(facts: dict[str, Any], array: bytes) -> bytes:
    """Return a sample's content: its facts, and the array in ``.npy`` form.

    Example:
        >>> split_content(join_content({"class": 3}, b"array"))
        ({'class': 3}, b'array')
    """
    head = canonical.dumps(facts)
    return len(head).to_bytes(4, "big") + head + array


def split_content(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return facts and array of a content; raises MessageError when it is malformed."""
    length = int.from_bytes(content[:4], "big")
    if len(content) < 4 or length > len(content) - 4:
        raise MessageError("cut short", where="sample")
    facts = load_message(content[4 : 4 + length], "sample")
    if not isinstance(facts, dict):
        raise MessageError("the facts are no object", where="sample")
    return facts, content[4 + length :]


def split_sealed(sealed: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the ephemeral key, the head's bytes and the ciphertext of a sealed sample.

    Raises:
        MessageError: Not a sealed sample, or cut short.
    """
    start = len(MAGIC) + _KEY_BYTES
    if sealed[: len(MAGIC)] != MAGIC or len(sealed) < start + 4:
        raise MessageError("not a sealed sample", where="capture")
    length = int.from_bytes(sealed[start : start + 4], "big")
    if length > _MAX_HEAD or len(sealed) < start + 4 + length + 16:
        raise MessageError("cut short", where="capture")
    body = start + 4 + length
    return sealed[len(MAGIC) : start], sealed[start + 4 : body], sealed[body:]
