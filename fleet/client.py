# SPDX-License-Identifier: Apache-2.0
"""The client's half of the operators' API: what the command line calls."""

import json
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_contract import canonical, errors
from edge_contract.errors import BundleError, StropError, UsageError
from edge_contract.manifest import MANIFEST_NAME
from edge_contract.software import read
from fleet.adapters.credentials import operator_token
from fleet.config import read_endpoints

if TYPE_CHECKING:
    import httpx

__all__ = ["FleetClient", "connect"]

_CHUNK = 1 << 20
_END = "-----END CERTIFICATE-----"


def _file_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


@dataclass(frozen=True)
class FleetClient:
    """A server's address and the operator's token.

    Attributes:
        server: ``http://host:port``.
        token: Empty for reading only.
        certificate: The one certificate that the server may show; empty asks the system's authorities, or those of
            the file that ``STROP_FLEET_CA`` names.
    """

    server: str
    token: str = ""
    certificate: str = ""

    def call(self, method: str, path: str, document: Any = None, *, content: Any = None) -> Any:
        """Return the decoded JSON answer.

        Raises:
            StropError: The server is not there; or it refused: then its own kind of error with its own line.
        """
        answer = self._send(method, path, document, content)
        if answer.is_error:
            raise _refusal(answer.status_code, answer.content)
        return answer.json()

    def listed(self, path: str, limit: int = 0) -> tuple[list[Any], int]:
        """Return the rows of a list that comes in pages, and how many there are; raises as ``call``.

        Args:
            path: With or without a query.
            limit: Most rows, 0 for all.
        """
        rows: list[Any] = []
        more = "&" if "?" in path else "?"
        cursor = ""
        while True:
            size = min(1000, limit - len(rows)) if limit else 1000
            answer = self._send("GET", f"{path}{more}limit={size}{'&cursor=' if cursor else ''}{cursor}")
            if answer.is_error:
                raise _refusal(answer.status_code, answer.content)
            rows += answer.json()
            total, cursor = int(answer.headers.get("x-total-count", len(rows))), answer.headers.get("x-next-cursor", "")
            if not cursor or len(rows) >= limit > 0:
                return rows, total

    def fetch(self, path: str) -> bytes:
        """Return the bytes of an answer; raises as ``call``."""
        answer = self._send("GET", path)
        if answer.is_error:
            raise _refusal(answer.status_code, answer.content)
        return answer.content

    def _send(self, method: str, path: str, document: Any = None, content: Any = None) -> "httpx.Response":
        import httpx

        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        body = {"content": content} if content is not None else {"json": document} if document is not None else {}
        url = f"{self.server}/api/v1{path}"
        try:
            # Plain HTTP has nothing to verify, and reading the system's authorities takes longer than the call.
            plain: dict[str, Any] = {"verify": False} if self.server.startswith("http:") else {}
            more = {**body, **plain, **trust_of(self.server, self.certificate)}
            return httpx.request(method, url, headers=headers, timeout=60.0, trust_env=False, **more)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise StropError(f"no answer: {error}", where=self.server, fix="is 'strop fleet serve' running?") from error

    def add_model(self, bundle: Path, targets: Path) -> dict[str, Any]:
        """Upload a bundle folder's files and register it; files that the server holds are not sent again.

        Raises:
            BundleError: The folder's files are not what its manifest says.
            UsageError: A file cannot be read.
            StropError: The server refused.
        """
        manifest_path = bundle / MANIFEST_NAME
        try:
            manifest_bytes, targets_text = manifest_path.read_bytes(), targets.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            where = str(getattr(error, "filename", None) or targets)
            raise UsageError(f"cannot be read: {error}", where=where) from error
        manifest = read(manifest_bytes)
        for entry in manifest.files:
            _check(bundle / entry.path, entry.sha256)
        # Asked before anything is sent: a refused bundle must leave no files behind on the server.
        self.call("POST", "/models/check", {"manifest": manifest_bytes.decode(), "targets": targets_text})
        for entry in manifest.files:
            self._upload(bundle / entry.path, entry.sha256)
        bundle_id = canonical.digest(manifest_bytes)
        self._upload(manifest_path, bundle_id)
        answer: dict[str, Any] = self.call("POST", "/models", {"bundle": bundle_id, "targets": targets_text})
        return answer

    def _upload(self, path: Path, sha256: str) -> None:
        if self._send("GET", f"/blobs/{sha256}").is_error:
            self.call("PUT", f"/blobs/{sha256}", content=_file_chunks(path))


def _check(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise BundleError("the file is missing", where=str(path), fix="build the bundle again")
    found = canonical.digest(path.read_bytes())
    if found != sha256:
        what = f"has digest {found[:12]}, the manifest says {sha256[:12]}"
        raise BundleError(what, where=str(path), fix="build the bundle again")


def _refusal(status: int, content: bytes) -> StropError:
    try:
        document = json.loads(content)
        line, kind = str(document["error"]), getattr(errors, str(document.get("kind")), StropError)
    except (ValueError, KeyError, TypeError):
        return StropError(f"the server answered {status}")
    return kind(line) if isinstance(kind, type) and issubclass(kind, StropError) else StropError(line)


def trust_of(server: str, certificate: str) -> dict[str, Any]:
    """Return how a server's certificate is checked: that one alone, or one of an authority.

    Raises:
        UsageError: The file cannot be read.
    """
    authorities = os.environ.get("STROP_FLEET_CA", "")
    if not server.startswith("https:") or not (certificate or authorities):
        return {}
    path = Path(certificate or authorities)
    try:
        text = path.read_text(encoding="ascii")
        # Of a chain only the first: whatever else its issuer has signed is not this server.
        mine = text[: text.index(_END) + len(_END)] if certificate else text
        context = ssl.create_default_context(cadata=mine)
    except (OSError, ValueError, ssl.SSLError) as error:
        raise UsageError(f"no certificate: {error}", where=str(path)) from error
    if certificate:
        context.check_hostname = False
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    return {"verify": context}


def connect(data: Path | None, server: str = "", token_file: Path | None = None) -> FleetClient:
    """Return a client for a data folder's running server, or for a server's address.

    Raises:
        UsageError: Neither is given, or the token file cannot be read.
        StoreError: No server runs on the data folder.
    """
    if server:
        try:
            token = token_file.read_text().strip() if token_file else operator_token(data) if data else ""
        except OSError as error:
            raise UsageError(f"cannot be read: {error.strerror}", where=str(token_file)) from error
        return FleetClient(server.rstrip("/"), token)
    if data is None:
        raise UsageError("which server?", fix="give --data FOLDER, or --server URL with --token-file FILE")
    found = read_endpoints(data)
    return FleetClient(found.http, operator_token(data), found.page_certificate)
