# SPDX-License-Identifier: Apache-2.0
"""Sign job documents with the server's online job key (ed25519).

A job names its device, its rollout and its end, so a captured one is worth nothing elsewhere or later. The key
can only order bundles that the offline targets key has signed: who steals it cannot bring in a foreign model.
"""

import hashlib
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_contract import durable
from edge_contract.errors import StoreError
from edge_contract.jobs import JobDocument, Signed

__all__ = ["JobSigner"]

_KEY_NAME = "job.key"


class JobSigner:
    """The job key of a folder (``job.key``, 0600).

    Attributes:
        public_key: Raw ed25519 public key in hex, as ``EnrolmentAnswer.job_public_key`` carries it.
        keyid: SHA-256 of the raw public key, in hex.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / _KEY_NAME
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            fix = "make one with 'strop fleet init', or restore it from a backup"
            raise StoreError(f"the job key cannot be read: {error}", where=str(path), fix=fix) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise StoreError("the job key is not ed25519", where=str(path))
        self._key = key
        raw = key.public_key().public_bytes_raw()
        self.public_key, self.keyid = raw.hex(), hashlib.sha256(raw).hexdigest()

    @classmethod
    def create(cls, folder: Path) -> "JobSigner":
        """Make a job key in a folder.

        Raises:
            StoreError: The folder holds one already; it is left as it is.
        """
        if (folder / _KEY_NAME).exists():
            raise StoreError("a job key is here already", where=str(folder), fix="use it, or choose an empty folder")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        form = serialization.PrivateFormat.PKCS8
        pem = Ed25519PrivateKey.generate().private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        durable.write(folder / _KEY_NAME, pem, mode=durable.PRIVATE)
        return cls(folder)

    def sign(self, job: JobDocument) -> Signed:
        """Return the envelope that travels on ``job/next``: the job's canonical bytes and their signature."""
        return self.sign_bytes(job.to_bytes())

    def sign_bytes(self, payload: bytes) -> Signed:
        """Return the envelope of another document's canonical bytes, such as an order to capture."""
        return Signed(payload, self.keyid, self._key.sign(payload).hex())
