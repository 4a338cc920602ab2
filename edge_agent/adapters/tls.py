# SPDX-License-Identifier: Apache-2.0
"""TLS between device and server: three contexts, one exchange, and each failure in one clear line. Standard library."""

import datetime as dt
import http.client
import ssl
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from edge_agent.adapters import time_floor
from edge_contract.errors import DownloadError, EnrolmentError, StropError, UsageError

__all__ = [
    "TIMEOUT_S",
    "certificate_life",
    "connect",
    "dateless",
    "device_context",
    "doubts_clock",
    "exchange",
    "explain",
    "unverified_context",
    "verified_context",
]

TIMEOUT_S: Final = 15.0
"""Longest wait for one answer of the socket, in seconds."""

_NOT_YET_VALID, _EXPIRED = 9, 10  # OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and _CERT_HAS_EXPIRED
_WRONG_HOST: Final = (62, 64)  # … _HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH
_NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which Python has no name for
_REFUSALS: Final = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE")


def _context() -> ssl.SSLContext:
    context = _DatedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def verified_context(ca_pem: str, clock: Path | None = None) -> ssl.SSLContext:
    """Return a context that believes servers of one CA, without a client certificate.

    Args:
        ca_pem: The CA's certificate.
        clock: Folder of ``time_floor``; its time then judges the dates where the system's clock is off.
    """
    context = _context()
    context.load_verify_locations(cadata=ca_pem)
    return context if clock is None else _by_our_clock(context, clock)


def dateless(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return a context that no longer looks at dates: only to ask a server of the pinned CA what time it is."""
    context.verify_flags = ssl.VerifyFlags(context.verify_flags | _NO_CHECK_TIME)
    return context


class _DatedSocket(ssl.SSLSocket):
    """A TLS socket that judges the server's certificate by the time that we trust, not by the system's clock."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the form of the standard library
        super().do_handshake(block)
        context = self.context
        assert isinstance(context, _DatedContext)
        now = time_floor.trusted_now(context.clock, time.time())
        begins, ends = certificate_life(self)
        if begins <= now <= ends:
            return
        error = ssl.SSLCertVerificationError("certificate verify failed")
        error.verify_code = _NOT_YET_VALID if now < begins else _EXPIRED
        error.verify_message = "judged by the time that the server told"
        raise error


class _DatedContext(ssl.SSLContext):
    clock = Path()


def certificate_life(connected: ssl.SSLSocket) -> tuple[float, float]:
    """Return begin and end of the server's certificate, in seconds since 1970; zeros without one."""
    seen: dict[str, Any] = connected.getpeercert() or {}
    begins, ends = seen.get("notBefore"), seen.get("notAfter")
    if not isinstance(begins, str) or not isinstance(ends, str):
        return 0.0, 0.0
    return float(ssl.cert_time_to_seconds(begins)), float(ssl.cert_time_to_seconds(ends))


def _by_our_clock(context: ssl.SSLContext, clock: Path) -> ssl.SSLContext:
    """Where a server's hint is in force, let dates be judged by it; elsewhere OpenSSL judges by the system's clock."""
    if time_floor.hinted(clock, time.time()) is None:
        return context
    assert isinstance(context, _DatedContext)
    context.clock = clock
    context.sslsocket_class = _DatedSocket
    return dateless(context)


def unverified_context() -> ssl.SSLContext:
    """Return a context that believes anybody: only to fetch a CA whose digest is known beforehand."""
    context = _context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def device_context(identity: Path, pair: Path | None = None) -> ssl.SSLContext:
    """Return the context of an enrolled device: our CA, our certificate, our key.

    Args:
        identity: Folder with ``ca.crt``, ``device.crt`` and ``device.key``.
        pair: Folder of another certificate and key, to try them.

    Raises:
        EnrolmentError: The folder is missing or damaged.
    """
    context = _context()
    try:
        context.load_verify_locations(cafile=str(identity / "ca.crt"))
        context.load_cert_chain(str((pair or identity) / "device.crt"), str((pair or identity) / "device.key"))
    except (OSError, ssl.SSLError) as error:
        fix = "enrol this device: strop agent enrol"
        raise EnrolmentError(f"no usable identity: {error}", where=str(identity), fix=fix) from error
    return _by_our_clock(context, identity.parent / "tuf")


def connect(url: str, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    """Return a connection, not yet opened, to the host and port of a URL.

    Raises:
        UsageError: Not an https URL.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise UsageError(f"'{url}' has no valid port", fix="write https://HOST:PORT") from error
    if parts.scheme != "https" or not parts.hostname:
        raise UsageError(f"'{url}' is not an https address", fix="write https://HOST:PORT")
    return http.client.HTTPSConnection(parts.hostname, port, timeout=TIMEOUT_S, context=context)


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    limit: int = 1_000_000,
) -> tuple[int, bytes]:
    """Return status and body of one request.

    Args:
        connection: From ``connect``; it stays open for the next request when the server lets it.
        method: ``GET``, ``POST`` or ``PUT``.
        path: Path and query on the server.
        body: JSON to post, or bytes to put.
        limit: Longest answer that is read, in bytes.

    Raises:
        DownloadError: No way to the server, a foreign server, or an answer that is too long.
        EnrolmentError: The server refuses this device's certificate.
    """
    scheme = "https" if isinstance(connection, http.client.HTTPSConnection) else "http"
    where = f"{scheme}://{connection.host}:{connection.port}{path}"
    kind = "application/json" if method == "POST" else "application/octet-stream"
    headers = {"Content-Type": kind} if body is not None else {}
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        data = answer.read(limit + 1)
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise explain(error, where) from error
    if len(data) > limit:
        connection.close()
        raise DownloadError(f"the answer is longer than {limit} bytes", where=where)
    return answer.status, data


def explain(error: Exception, where: str) -> StropError:
    """Return our error for a failure of the network or of TLS, to be raised from it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _foreign_server(error, where)
    reason = str(getattr(error, "reason", "") or "")
    if isinstance(error, ssl.SSLError) and any(word in reason for word in _REFUSALS):
        fix = "enrol the device again with a new token; inference goes on"
        return EnrolmentError(f"the server refuses this device's certificate ({_plain(reason)})", where=where, fix=fix)
    if isinstance(error, (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected, ssl.SSLEOFError)):
        fix = "if it stays so, the server refuses this device's certificate: enrol again"
        return DownloadError("the server closed the connection", where=where, fix=fix)
    if isinstance(error, ssl.SSLError):
        return DownloadError(f"no TLS with this server ({_plain(reason)})", where=where, fix="check address and port")
    text = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return DownloadError(f"no way to the server: {text}", where=where, fix="it is tried again later; inference goes on")


def doubts_clock(error: Exception) -> bool:
    """True if a failure came from dates: not yet valid, or expired, by the clock that judged."""
    cause = error.__cause__
    return isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in (_NOT_YET_VALID, _EXPIRED)


def _plain(reason: str) -> str:
    return reason.lower().replace("_", " ")


def _foreign_server(error: ssl.SSLCertVerificationError, where: str) -> StropError:
    today = dt.datetime.fromtimestamp(time.time(), dt.UTC).strftime("%Y-%m-%d")
    if error.verify_code == _NOT_YET_VALID:
        what = f"clock not set: it says {today}, before the server's certificate begins"
        return DownloadError(what, where=where, fix="set the clock (NTP); inference goes on")
    if error.verify_code == _EXPIRED:
        what = f"the server's certificate has expired, by this clock ({today})"
        return DownloadError(what, where=where, fix="restart the fleet server, which renews it, or set the clock")
    if error.verify_code in _WRONG_HOST:
        what = "the server's certificate names other hosts"
        return DownloadError(what, where=where, fix="start the fleet server with --host and this name")
    what = f"the server's certificate is not from our fleet's CA ({error.verify_message})"
    return DownloadError(what, where=where, fix="check the address; another fleet needs another enrolment")
