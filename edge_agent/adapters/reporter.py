# SPDX-License-Identifier: Apache-2.0
"""The heavy commands ``logs`` and ``diagnostics``: a process collects, and its text goes out on ``log/<id>``."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import BrokerError, MessageError, StropError

__all__ = ["commands"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_TIMEOUT_S: Final = 120.0
_MOST_KB: Final = 1000

Command = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def commands(data: Path, publish: Callable[[str, bytes], bool]) -> dict[str, Command]:
    """Return the commands by name; each takes ``{"id": …, "kb": …}`` and answers with the number of pieces.

    Args:
        data: The device's data folder.
        publish: Sends on a channel; False where there is no connection.
    """

    def of(kind: str) -> Command:
        def command(body: Mapping[str, Any]) -> Mapping[str, Any]:
            kb = body.get("kb", 64)
            if isinstance(kb, bool) or not isinstance(kb, int) or not 1 <= kb <= _MOST_KB:
                raise MessageError(f"kb = {kb!r:.40} is not a count from 1 to {_MOST_KB}", where=f"command.{kind}")
            text = _collect(kind, data, kb)
            return {"parts": _send(kind, text, f"log/{body['id']}", publish), "bytes": len(text)}

        return command

    return {kind: of(kind) for kind in ("logs", "diagnostics")}


def _collect(kind: str, data: Path, kb: int) -> bytes:
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    words = [sys.executable, "-P", "-m", "edge_agent.diagnostics", kind, str(data), str(kb)]
    try:
        done = subprocess.run(
            words, capture_output=True, timeout=_TIMEOUT_S, env={**os.environ, "PYTHONPATH": path}, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StropError(f"cannot be collected: {error}", where=kind) from error
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it wrote nothing"]
        raise StropError(f"cannot be collected: {last[0][:300]}", where=kind)
    return done.stdout


def _send(kind: str, text: bytes, channel: str, publish: Callable[[str, bytes], bool]) -> int:
    from edge_contract.log_chunks import split

    pieces = split(kind, text)
    for piece in pieces:
        if not publish(channel, piece):
            raise BrokerError("the connection ended before everything was sent", where=channel, fix="ask again")
    return len(pieces)
