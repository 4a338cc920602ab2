# SPDX-License-Identifier: Apache-2.0
"""One errand of the helper process: which order is in force, seal what was kept, send it, forget it."""

import hashlib
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

from edge_agent.adapters import identity, jobs, time_hint, tls
from edge_agent.capture import ring
from edge_agent.capture.sealing import seal
from edge_contract import canonical
from edge_contract.capture import CaptureOrder
from edge_contract.errors import ContractError, DownloadError, EnrolmentError, SignatureError, StropError
from edge_contract.jobs import Signed

__all__ = ["run"]

_NEWS_BYTES = 1_000_000


def run(data: Path, device: str, system_time: float, *, allowed: bool, may_send: bool) -> dict[str, Any]:
    """Carry out one errand.

    Args:
        data: The device's data folder.
        device: This device's name.
        system_time: The system's clock, seconds since 1970.
        allowed: The person at the device allows captures; if not, everything is forgotten and nothing is asked.
        may_send: The network may be used for samples now: not metered, inside the window.

    Returns:
        ``{"campaign", "sent", "waiting", "forgotten", "refused"}``; ``refused`` says why an order was not taken.

    Raises:
        DownloadError, EnrolmentError: No way to the server.
    """
    if not allowed:
        return _said("", forgotten=ring.forget_all(data))
    now = time_hint.now(data, identity.server_urls(data), system_time)
    present = ring.read_order(data)
    forgotten = ring.forget_all(data) if present is not None and now >= present.expires_at else 0
    connection = tls.connect(str(identity.endpoints(data).get("device_url", "")), tls.device_context(data / "identity"))
    try:
        order, refused = _news(connection, data, device, now)
        if order is None:
            return _said("", forgotten=forgotten + ring.forget_all(data), refused=refused)
        if order != ring.read_order(data):
            ring.write_order(data, order)
        _seal(data, order)
        sent = _send(connection, data, order) if may_send else 0
    finally:
        connection.close()
    left = sum(1 for _ in ring.Ring(data, order.campaign).files())
    return _said(order.campaign, sent=sent, waiting=left, forgotten=forgotten, refused=refused)


def _said(campaign: str, *, sent: int = 0, waiting: int = 0, forgotten: int = 0, refused: str = "") -> dict[str, Any]:
    return {"campaign": campaign, "sent": sent, "waiting": waiting, "forgotten": forgotten, "refused": refused}


def _news(connection: HTTPSConnection, data: Path, device: str, now: float) -> tuple[CaptureOrder | None, str]:
    """Return the order that counts now, and why others were not taken."""
    status, body = tls.exchange(connection, "GET", "/captures", limit=_NEWS_BYTES)
    if status == 404:  # a server of before
        return None, ""
    if status != 200:
        raise DownloadError(f"HTTP {status}", where="captures", fix="it is tried again later")
    found: list[CaptureOrder] = []
    refused = ""
    document = canonical.loads(body, where="captures")
    for text in document.get("orders", []) if isinstance(document, dict) else []:
        try:
            found.append(_verified(str(text).encode(), data, device, now))
        except (SignatureError, ContractError) as error:
            refused = str(error)
    return max(found, key=lambda order: order.issued_at, default=None), refused


def _verified(envelope: bytes, data: Path, device: str, now: float) -> CaptureOrder:
    signed = Signed.from_bytes(envelope)
    jobs.check_signature(signed, data)
    order = CaptureOrder.from_bytes(signed.payload)
    where = f"capture {order.campaign}"
    if order.device != device:
        raise SignatureError(f"is for device '{order.device}', this is '{device}'", where=where)
    if now >= order.expires_at:
        raise SignatureError("has ended", where=where)
    return order


def _seal(data: Path, order: CaptureOrder) -> None:
    for path in ring.Ring(data, order.campaign).files(".raw"):
        sealed = path.with_suffix(".sealed")
        if not sealed.exists():
            temporary = path.with_suffix(".part")
            temporary.touch(mode=0o600)
            temporary.write_bytes(seal(path.read_bytes(), order, int(path.stem)))
            temporary.replace(sealed)
        path.unlink()


def _send(connection: HTTPSConnection, data: Path, order: CaptureOrder) -> int:
    """Send what is sealed and forget what the server has a receipt for; what it will never take is forgotten, too."""
    sent = 0
    for path in ring.Ring(data, order.campaign).files(".sealed"):
        content = path.read_bytes()
        status, body = tls.exchange(connection, "PUT", f"/captures/{order.campaign}/{path.stem}", content)
        if status == 200 and _receipt(body) == hashlib.sha256(content).hexdigest():
            path.unlink()
            sent += 1
        elif status in (400, 409, 413):
            path.unlink()
        elif status in (403, 404):
            raise EnrolmentError(f"the server takes no samples of {order.campaign}: HTTP {status}", where="captures")
        else:
            raise DownloadError(f"HTTP {status}, or no receipt", where="captures", fix="it is tried again later")
    return sent


def _receipt(body: bytes) -> str:
    try:
        document = canonical.loads(body)
    except StropError:
        return ""
    return str(document.get("sha256", "")) if isinstance(document, dict) else ""
