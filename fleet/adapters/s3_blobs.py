# SPDX-License-Identifier: Apache-2.0
"""Content-addressed files in an S3-compatible object store: ``<prefix>/ab/abcd…``.

An object of S3 appears as a whole when its upload is completed, and the upload is completed only after the digest was
compared; so a reader never sees half of a file, and what is cut short is aborted. Reference: Amazon S3 API, actions
PutObject, UploadPart, CompleteMultipartUpload, GetObject, ListObjectsV2.
"""

import contextlib
import hashlib
import importlib
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import MissingDependencyError, StoreError, UsageError
from fleet.adapters.blobs import CHUNK, MAX_BLOB_BYTES, Blobs, BlobStore, check_name

__all__ = ["Place", "S3Blobs", "open_blobs", "read_place"]

PART_BYTES: Final = 8 << 20
"""S3 asks for at least 5 MiB in every part but the last."""
_PLACE: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([A-Za-z0-9._/-]{0,200}))?")
_MISSING: Final = ("404", "NoSuchKey", "NotFound")


@dataclass(frozen=True)
class Place:
    """A bucket and what stands before each key."""

    bucket: str
    prefix: str


def read_place(url: str) -> Place:
    """Return the place that ``s3://bucket/prefix`` names.

    Raises:
        UsageError: Another form.

    Example:
        >>> read_place("s3://models/strop/blobs/")
        Place(bucket='models', prefix='strop/blobs/')
    """
    found = _PLACE.fullmatch(url)
    if found is None or ".." in url:
        raise UsageError(f"{url[:80]!r} names no bucket", where="blobs", fix="write blobs = 's3://bucket/prefix'")
    prefix = (found[2] or "").strip("/")
    return Place(found[1], f"{prefix}/" if prefix else "")


def open_blobs(data: Path, url: str = "", endpoint: str = "") -> Blobs:
    """Return where a server keeps the files of bundles.

    Args:
        data: The data folder; ``blobs/`` below it where no URL is given.
        url: ``s3://bucket/prefix``, or empty.
        endpoint: Address of an S3-compatible store, such as ``http://127.0.0.1:9000``; empty for Amazon's.

    Raises:
        UsageError: The URL names no bucket.
        MissingDependencyError: boto3 is not installed.
        StoreError: The bucket is not there, or refuses us.
    """
    if not url:
        return BlobStore(data / "blobs")
    return S3Blobs(read_place(url), _client(endpoint), data / "blobs")


def _client(endpoint: str) -> Any:
    try:
        boto3, config = importlib.import_module("boto3"), importlib.import_module("botocore.config")
    except ImportError as error:
        raise MissingDependencyError("boto3 is not installed", fix="pip install 'strop[s3]'") from error
    # Many stores that speak S3 know no trailing checksums; ours is the SHA-256 in the name, which is compared.
    checks = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
    settings = config.Config(retries={"max_attempts": 4, "mode": "standard"}, connect_timeout=10, **checks)
    session = boto3.session.Session()
    region = session.region_name or "us-east-1"
    return session.client("s3", endpoint_url=endpoint or None, region_name=region, config=settings)


class S3Blobs:
    """Blobs in one bucket; the methods are those of ``Blobs``. Credentials are found as boto3 finds them.

    Args:
        place: Bucket and prefix.
        client: Of boto3.
        scratch: Folder for copies that a local program needs.

    Raises:
        StoreError: The bucket is not there, or refuses us.
    """

    def __init__(self, place: Place, client: Any, scratch: Path) -> None:
        self._place, self._client, self._scratch = place, client, scratch
        scratch.mkdir(parents=True, exist_ok=True)
        with self._told(f"bucket {place.bucket}"):
            client.head_bucket(Bucket=place.bucket)

    def path(self, sha256: str) -> Path | None:
        """Return None: nothing lies on this machine."""
        check_name(sha256)
        return None

    def size(self, sha256: str) -> int | None:
        """Return a blob's size in bytes, None if it is not held."""
        key = self._key(sha256)
        with self._told(f"blob {sha256[:12]}"):
            try:
                return int(self._client.head_object(**key)["ContentLength"])
            except self._client.exceptions.ClientError as error:
                if error.response["Error"]["Code"] in _MISSING:
                    return None
                raise

    def read(self, sha256: str) -> bytes:
        """Return a blob's bytes; raises StoreError if it is not held or is not what its name says."""
        found = b"".join(self.part(sha256, 0, MAX_BLOB_BYTES))
        if hashlib.sha256(found).hexdigest() != sha256:
            raise StoreError("is not what its name says", where=f"blob {sha256[:12]}", fix="upload it again")
        return found

    def part(self, sha256: str, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from ``start`` up to but not including ``end``; raises StoreError if it is not held."""
        with self._told(f"blob {sha256[:12]}"):
            body = self._client.get_object(**self._key(sha256), Range=f"bytes={start}-{end - 1}")["Body"]
            with contextlib.closing(body):
                yield from body.iter_chunks(CHUNK)

    @contextlib.contextmanager
    def local(self, sha256: str) -> Iterator[Path | None]:
        """Give a copy of a blob for as long as it is needed."""
        if self.size(sha256) is None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="copy-", dir=self._scratch) as folder:
            path = Path(folder) / sha256
            with path.open("wb") as file:
                file.writelines(self.part(sha256, 0, MAX_BLOB_BYTES))
            yield path

    def touch(self, sha256: str) -> bool:
        """Let a blob count as sent just now; False if it is not held."""
        if self.size(sha256) is None:
            return False
        key = self._key(sha256)
        with self._told(f"blob {sha256[:12]}"):
            self._client.copy_object(**key, CopySource=key, MetadataDirective="REPLACE")
        return True

    def delete(self, sha256: str) -> bool:
        """Delete a blob; False if it was not held."""
        was_held = self.size(sha256) is not None
        with self._told(f"blob {sha256[:12]}"):
            self._client.delete_object(**self._key(sha256))
        return was_held

    def held(self) -> Iterator[tuple[str, int, float]]:
        """Yield every blob: SHA-256, size in bytes, when it was sent or touched in seconds since 1970."""
        pages = self._client.get_paginator("list_objects_v2")
        with self._told(f"bucket {self._place.bucket}"):
            for page in pages.paginate(Bucket=self._place.bucket, Prefix=self._place.prefix):
                for entry in page.get("Contents", []):
                    name = entry["Key"].rpartition("/")[2]
                    if entry["Key"] == f"{self._place.prefix}{name[:2]}/{name}" and len(name) == 64:
                        yield name, int(entry["Size"]), entry["LastModified"].timestamp()

    def put(self, sha256: str, chunks: Iterable[bytes]) -> int:
        """Store a blob and return its size in bytes; a wrong digest leaves nothing behind.

        Raises:
            StoreError: The bytes have another digest, are too many, or the store refuses.
        """
        upload = _Upload(self._client, self._key(sha256))
        digest, size = hashlib.sha256(), 0
        with self._told(f"blob {sha256[:12]}"):
            try:
                for chunk in chunks:
                    size += len(chunk)
                    if size > MAX_BLOB_BYTES:
                        raise StoreError(f"more than {MAX_BLOB_BYTES} bytes", where="blob")
                    digest.update(chunk)
                    upload.add(chunk)
                if digest.hexdigest() != sha256:
                    what = f"the bytes have digest {digest.hexdigest()[:12]}"
                    raise StoreError(what, where=f"blob {sha256[:12]}", fix="send again")
                upload.complete()
            except BaseException:
                upload.abort()
                raise
        return size

    def _key(self, sha256: str) -> dict[str, str]:
        check_name(sha256)
        return {"Bucket": self._place.bucket, "Key": f"{self._place.prefix}{sha256[:2]}/{sha256}"}

    @contextlib.contextmanager
    def _told(self, where: str) -> Iterator[None]:
        """Turn boto3's errors into ours, without what they may say of credentials."""
        exceptions = importlib.import_module("botocore.exceptions")
        try:
            yield
        except exceptions.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "error"))[:60]
            is_missing = code in _MISSING and where.startswith("blob ")
            fix = "upload it first" if is_missing else "check bucket, endpoint and credentials"
            raise StoreError(f"the object store refused: {code}", where=where, fix=fix) from error
        except exceptions.BotoCoreError as error:
            fix = "check blobs_endpoint and the credentials in the server's environment"
            raise StoreError(f"the object store: {type(error).__name__}", where=where, fix=fix) from error


class _Upload:
    """One object: in one request if it is small, else in parts as they come."""

    def __init__(self, client: Any, key: dict[str, str]) -> None:
        self._client, self._key = client, key
        self._waiting, self._parts, self._id = bytearray(), list[dict[str, Any]](), ""

    def add(self, chunk: bytes) -> None:
        self._waiting += chunk
        while len(self._waiting) >= PART_BYTES:
            self._send(bytes(self._waiting[:PART_BYTES]))
            del self._waiting[:PART_BYTES]

    def complete(self) -> None:
        """Let the object appear."""
        if not self._id:
            self._client.put_object(**self._key, Body=bytes(self._waiting))
            return
        if self._waiting:
            self._send(bytes(self._waiting))
        parts = {"Parts": self._parts}
        self._client.complete_multipart_upload(**self._key, UploadId=self._id, MultipartUpload=parts)
        self._id = ""

    def abort(self) -> None:
        """Forget what was sent; a store that cannot be reached any more clears it by its own rule."""
        if self._id:
            with contextlib.suppress(Exception):
                self._client.abort_multipart_upload(**self._key, UploadId=self._id)

    def _send(self, data: bytes) -> None:
        self._id = self._id or self._client.create_multipart_upload(**self._key)["UploadId"]
        number = len(self._parts) + 1
        answer = self._client.upload_part(**self._key, UploadId=self._id, PartNumber=number, Body=data)
        self._parts.append({"ETag": answer["ETag"], "PartNumber": number})
