# SPDX-License-Identifier: Apache-2.0
"""The control process's way to trust: starts the helper, waits for its one answer. Standard library only."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_contract import canonical, errors
from edge_contract.errors import BundleError, DownloadError, StropError
from edge_contract.jobs import JobDocument

if TYPE_CHECKING:
    from edge_contract.bench_job import BenchJob

__all__ = ["SignedBlob", "TrustHelper"]

TIMEOUT_S: Final = 120.0
BUILD_S: Final = 3600.0
"""A board with a slow card installs some thousand files."""
_ROOT: Final = Path(__file__).resolve().parents[2]  # the folder from which this very edge_agent was imported


@dataclass(frozen=True)
class SignedBlob:
    """What the signed targets say of a blob.

    Attributes:
        length: Its size in bytes.
        custom: ``{"model", "version", "files"}`` on a bundle's manifest, empty on other blobs.
    """

    length: int
    custom: dict[str, Any]


class TrustHelper:
    """Asks ``python -m edge_agent.trust_helper`` and turns its refusals into our errors.

    Every call blocks until the helper has ended, at most ``timeout_s``: use a thread where that matters.

    Args:
        data: The device's data folder.
        python: An interpreter with the ``agent`` extra.
        timeout_s: After so many seconds the helper is killed.
    """

    def __init__(self, data: Path, python: str = sys.executable, *, timeout_s: float = TIMEOUT_S) -> None:
        self._data, self._python, self._timeout_s = data, python, timeout_s

    def enrol(self, server: str, token: str, device: str, *, replace: bool = False) -> dict[str, Any]:
        """Enrol this device and return its endpoints: tenant, broker, device_url, enrol_url.

        Raises:
            EnrolmentError, DownloadError: As ``edge_agent.adapters.enrol.enrol``.
        """
        reply = self._ask("enrol", server=server, token=token, device=device, replace=replace)
        return dict(reply["endpoints"])

    def refresh(
        self, base_url: str, targets: Iterable[str], *, model: str = "", now: float | None = None
    ) -> dict[str, SignedBlob]:
        """Return what is signed about these blobs and, for a bundle's manifest, about every file of the bundle.

        Args:
            base_url: The server's device URL, without ``/tuf``.
            targets: SHA-256 of each blob.
            model: The model that they are wanted for; empty asks for what the fleet's own key signed.
            now: The system's clock in seconds since 1970, if not the helper's own.

        Raises:
            SignatureError, DownloadError, EnrolmentError: As ``edge_agent.adapters.tuf_client.refresh``.
        """
        reply = self._ask("refresh", base_url=base_url, targets=list(targets), model=model, **_given(now))
        return {
            sha256: SignedBlob(int(facts["length"]), dict(facts["custom"] or {}))
            for sha256, facts in reply["targets"].items()
        }

    def verify_job(self, envelope: bytes, device: str, *, now: float | None = None) -> JobDocument:
        """Return the job of a signed envelope.

        Raises:
            SignatureError, MessageError, EnrolmentError: As ``edge_agent.adapters.jobs.verify``.
        """
        text = envelope.decode(errors="replace")
        return JobDocument.from_json(self._ask("verify_job", envelope=text, device=device, **_given(now))["job"])

    def care(self, device: str, *, now: float | None = None, force: bool = False) -> dict[str, Any]:
        """Learn the time where the clock is not set, renew the certificate where that is due; its serial and dates.

        Raises:
            EnrolmentError, DownloadError: As ``edge_agent.adapters.renewal.care``.
        """
        reply = self._ask("care", device=device, force=force, **_given(now))
        return {name: reply[name] for name in ("renewed", "serial", "not_before", "not_after")}

    def capture(self, device: str, *, allowed: bool, may_send: bool) -> dict[str, Any]:
        """Run one errand of a capture: campaign, and how many samples were sent, wait and were forgotten.

        Raises:
            EnrolmentError, DownloadError: As ``edge_agent.capture.errand.run``.
        """
        reply = self._ask("capture", device=device, allowed=allowed, may_send=may_send)
        return {name: reply[name] for name in ("campaign", "sent", "waiting", "forgotten", "refused")}

    def check_bench(self, envelope: bytes, device: str, *, now: float | None = None) -> "BenchJob":
        """Return the order of a benchmark in a signed envelope.

        Raises:
            SignatureError, MessageError, EnrolmentError, DownloadError: As ``edge_agent.bench.errand.check``.
        """
        from edge_contract.bench_job import BenchJob  # with the first order

        text = envelope.decode(errors="replace")
        return BenchJob.from_json(self._ask("check_bench", envelope=text, device=device, **_given(now))["job"])

    def send_bench(self) -> dict[str, Any]:
        """Send what the benchmark in hand gave: how many files, and why the server wants them no more.

        Raises:
            EnrolmentError, DownloadError: As ``edge_agent.bench.errand.send``.
        """
        reply = self._ask("send_bench")
        return {name: reply[name] for name in ("sent", "refused")}

    def build(self, release: str, version: str, python: str, wheels: list[dict[str, str]]) -> dict[str, Any]:
        """Make the environment of a release of the agent; what it says of itself after a look at this device.

        Raises:
            BundleError, SlotError: As ``edge_agent.software.build.build``.
        """
        words = {"release": release, "version": version, "python": python, "wheels": wheels}
        try:
            return self._ask("build", limit_s=BUILD_S, **words)
        except DownloadError as error:  # no network is needed: too slow a board will be too slow again
            raise BundleError(error.what, where=error.where) from error

    def _ask(self, operation: str, *, limit_s: float = 0.0, **fields: Any) -> dict[str, Any]:
        request = canonical.dumps({"op": operation, "data": str(self._data), **fields})
        reply = _read_reply(self._run(operation, request, limit_s or self._timeout_s), operation)
        if reply.get("ok") is True:
            return reply
        raise _error(reply)

    def _run(self, operation: str, request: bytes, limit_s: float) -> "subprocess.CompletedProcess[bytes]":
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
        try:
            return subprocess.run(
                [self._python, "-P", "-m", "edge_agent.trust_helper"],  # -P: never import from the working directory
                input=request,
                capture_output=True,
                timeout=limit_s,
                env={**os.environ, "PYTHONPATH": path},
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            what = f"no answer to '{operation}' within {limit_s:g} s"
            raise DownloadError(what, where="trust helper", fix="it is tried again later") from error
        except OSError as error:
            fix = "set the agent's python to one that has 'strop[agent]'"
            raise StropError(f"cannot start {self._python}: {error}", where="trust helper", fix=fix) from error


def _given(now: float | None) -> dict[str, float]:
    return {} if now is None else {"now": float(now)}


def _read_reply(ended: "subprocess.CompletedProcess[bytes]", operation: str) -> dict[str, Any]:
    try:
        reply = json.loads(ended.stdout)
    except ValueError as error:
        last = ended.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it wrote nothing"]
        what = f"ended with code {ended.returncode} during '{operation}': {last[0][:200]}"
        raise StropError(what, where="trust helper") from error
    return dict(reply)


def _error(reply: dict[str, Any]) -> StropError:
    kind = getattr(errors, str(reply.get("error")), StropError)
    if not (isinstance(kind, type) and issubclass(kind, StropError)):
        kind = StropError
    return kind(str(reply.get("what")), where=str(reply.get("where", "")), fix=str(reply.get("fix", "")))
