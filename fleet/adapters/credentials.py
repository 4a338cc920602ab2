# SPDX-License-Identifier: Apache-2.0
"""The keys of a data folder, made once: CA, online TUF key, job key, operator's token."""

import secrets
from collections.abc import Callable
from pathlib import Path

from edge_contract import durable
from edge_contract.errors import StoreError
from fleet.adapters import ca
from fleet.adapters.desk import Trust
from fleet.adapters.job_signing import JobSigner
from fleet.adapters.tuf_repo import TufRepository

__all__ = ["init", "open_trust", "operator_token"]


def init(data: Path, *, now: float) -> bool:
    """Make what is missing in a data folder; what is there stays. True if anything was made.

    Each part is made whole or not at all, so an interrupted ``init`` is finished by the next one.

    Raises:
        StoreError: The folder cannot be written.
    """
    parts: tuple[tuple[Path, Callable[[], object]], ...] = (
        (data / "ca" / "ca.crt", lambda: ca.create_ca(data / "ca", now=now)),
        (data / "tuf" / "online.pub", lambda: _create_tuf(data / "tuf")),
        (data / "job" / "job.key", lambda: JobSigner.create(data / "job")),
        (data / "operator.token", lambda: _create_token(data / "operator.token")),
    )
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        missing = [make for path, make in parts if not path.exists()]
        for make in missing:
            make()
    except OSError as error:
        raise StoreError(f"cannot be written: {error.strerror}", where=str(data)) from error
    return bool(missing)


def _create_tuf(folder: Path) -> object:
    (folder / "online.key").unlink(missing_ok=True)  # without online.pub nobody has seen this key
    return TufRepository.create(folder)


def _create_token(path: Path) -> None:
    durable.write(path, secrets.token_hex(32).encode() + b"\n", mode=durable.PRIVATE)


def operator_token(data: Path) -> str:
    """Return the operator's token; raises StoreError when it cannot be read."""
    try:
        return (data / "operator.token").read_text().strip()
    except OSError as error:
        fix = f"strop fleet init --data {data}"
        raise StoreError("the operator's token cannot be read", where=str(data / "operator.token"), fix=fix) from error


def open_trust(data: Path) -> Trust:
    """Return what the server signs with; raises StoreError when a part is missing or damaged."""
    return Trust(data / "ca", TufRepository(data / "tuf"), JobSigner(data / "job"))
