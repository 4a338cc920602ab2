# SPDX-License-Identifier: Apache-2.0
"""Files by their SHA-256, on disk and in an object store: whole or not at all, read in ranges, swept, never half."""

import asyncio
import contextlib
import hashlib
import itertools
import subprocess
import sys
import time

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from edge_agent.adapters import tls
from edge_agent.adapters.download import Downloader, Throttle
from edge_agent.adapters.tuf_client import refresh
from edge_contract.errors import StoreError, UsageError
from fleet.adapters.blob_sweep import sweep
from fleet.adapters.blobs import BlobStore, DiskFullError
from fleet.adapters.s3_blobs import PART_BYTES, S3Blobs, open_blobs, read_place
from fleet.web.blob_response import blob_response, range_of
from fleet.web.faults import HANDLERS, fault_of, not_found

SMALL = b"weights " * 700
NAME = hashlib.sha256(SMALL).hexdigest()
NOBODY = "0" * 64
_prefixes = itertools.count()


@pytest.fixture(scope="module")
def store_url():
    """An S3-compatible server on loopback."""
    pytest.importorskip("boto3", reason="pip install 'strop[s3]'")
    server = pytest.importorskip("moto.server", reason="pip install 'moto[s3,server]'")
    made = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    made.start()
    url = "http://{}:{}".format(*made.get_host_and_port())
    assert httpx.put(f"{url}/bucket").status_code == 200
    yield url
    made.stop()


@pytest.fixture
def credentials(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-a-test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(params=["disk", "s3"])
def blobs(request, tmp_path):
    if request.param == "disk":
        return BlobStore(tmp_path / "blobs", reserve=0)
    request.getfixturevalue("credentials")
    return in_bucket(tmp_path, request.getfixturevalue("store_url"))


def in_bucket(tmp_path, url):
    return open_blobs(tmp_path, f"s3://bucket/{next(_prefixes)}/blobs", url)


def test_a_blob_comes_back_as_it_was_sent(blobs):
    assert blobs.size(NAME) is None
    assert blobs.put(NAME, [SMALL[:100], SMALL[100:]]) == len(SMALL)
    assert (blobs.size(NAME), blobs.read(NAME)) == (len(SMALL), SMALL)
    assert b"".join(blobs.part(NAME, 8, 16)) == b"weights "
    with blobs.local(NAME) as path:
        assert path.read_bytes() == SMALL
    with blobs.local(NOBODY) as path:
        assert path is None
    ((name, size, touched),) = blobs.held()
    assert (name, size) == (NAME, len(SMALL))
    assert abs(touched - time.time()) < 3600


def test_a_blob_in_many_parts_comes_back(blobs):
    data = b"".join(bytes([i % 251]) * 65_536 for i in range((PART_BYTES * 2 + 300_000) // 65_536))
    name = hashlib.sha256(data).hexdigest()
    blobs.put(name, (data[i : i + 1_000_000] for i in range(0, len(data), 1_000_000)))
    assert blobs.size(name) == len(data)
    assert b"".join(blobs.part(name, PART_BYTES - 5, PART_BYTES + 5)) == data[PART_BYTES - 5 : PART_BYTES + 5]
    assert blobs.read(name) == data


@pytest.mark.parametrize("size", [10, PART_BYTES + 10])
def test_bytes_of_another_digest_leave_nothing_behind(blobs, size):
    with pytest.raises(StoreError, match=r"the bytes have digest .*send again"):
        blobs.put(NAME, [b"x" * size])
    assert blobs.size(NAME) is None
    assert list(blobs.held()) == []
    if isinstance(blobs, S3Blobs):
        left = blobs._client.list_multipart_uploads(Bucket=blobs._place.bucket).get("Uploads", [])
        assert left == []


def test_an_upload_that_is_cut_short_leaves_nothing_behind_and_hides_what_is_there_never(blobs):
    def broken():
        yield b"y" * (PART_BYTES + 1)
        raise ConnectionResetError

    with pytest.raises((ConnectionResetError, StoreError)):
        blobs.put(NAME, broken())
    assert list(blobs.held()) == []
    blobs.put(NAME, [SMALL])
    with contextlib.suppress(ConnectionResetError, StoreError):
        blobs.put(NAME, broken())
    assert blobs.read(NAME) == SMALL


ODD_NAMES = ["../" * 21 + "x", "A" * 64, "", "g" * 64, NAME + "\n", "a/" * 32, "\0" * 64]


def test_a_name_that_is_no_sha256_is_never_looked_up(blobs):
    asks = (blobs.size, blobs.read, blobs.path, blobs.touch, blobs.delete, lambda name: blobs.put(name, [b""]))
    for name, ask in itertools.product(ODD_NAMES, asks):
        with pytest.raises(StoreError, match="is not a SHA-256"):
            ask(name)


def test_what_nobody_needs_goes_after_its_grace_and_the_rest_stays(blobs):
    other = hashlib.sha256(b"other").hexdigest()
    blobs.put(NAME, [SMALL])
    blobs.put(other, [b"other"])
    assert sweep(blobs, {NAME}, before=time.time() - 100) == {"files": 0, "bytes": 0}
    assert sweep(blobs, {NAME}, before=time.time() + 100) == {"files": 1, "bytes": 5}
    assert [name for name, _, _ in blobs.held()] == [NAME]
    assert blobs.touch(NAME)
    assert not blobs.touch(other)
    assert blobs.delete(NAME)
    assert not blobs.delete(NAME)


def served(blobs):
    def blob(request: Request):
        found = blob_response(request, blobs, request.path_params["name"])
        if found is None:
            raise not_found("blob")
        return found

    transport = httpx.ASGITransport(Starlette(routes=[Route("/{name}", blob)], exception_handlers=HANDLERS))

    async def ask(method, name, **headers):
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(
                method, f"/{name}", headers={k.replace("_", "-"): v for k, v in headers.items()}
            )

    return lambda method, name, **headers: asyncio.run(ask(method, name, **headers))


def test_a_device_resumes_by_ranges(blobs):
    blobs.put(NAME, [SMALL])
    ask, etag = served(blobs), f'"{NAME}"'
    whole = ask("GET", NAME)
    assert (whole.status_code, whole.content, whole.headers["etag"]) == (200, SMALL, etag)
    part = ask("GET", NAME, range="bytes=100-199", if_range=etag)
    assert (part.status_code, part.content) == (206, SMALL[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(SMALL)}"
    rest = ask("GET", NAME, range=f"bytes={len(SMALL) - 3}-")
    assert (rest.status_code, rest.content) == (206, SMALL[-3:])
    other = ask("GET", NAME, range="bytes=100-199", if_range='"other"')
    assert (other.status_code, other.content) == (200, SMALL)
    behind = ask("GET", NAME, range=f"bytes={len(SMALL)}-")
    assert (behind.status_code, behind.headers["content-range"]) == (416, f"bytes */{len(SMALL)}")
    head = ask("HEAD", NAME)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(SMALL)))
    assert ask("GET", NOBODY).status_code == 404


NUMBERS = st.one_of(st.just(""), st.integers(0, 40).map(str))


@settings(max_examples=60)
@given(first=NUMBERS, last=NUMBERS, size=st.integers(1, 30))
def test_a_range_gives_the_bytes_that_it_names(first, last, size):
    data = bytes(range(size))
    try:
        found = range_of(f"bytes={first}-{last}", size)
    except ValueError:
        assert (first and int(first) >= size) or (not first and last == "0")
        return
    start, end = found or (0, size)
    assert 0 <= start < end <= size
    if found and first:
        assert data[start:end] == data[int(first) : (int(last) + 1 if last else size)]
    if found and not first:
        assert data[start:end] == data[-int(last) :]


@given(header=st.text(max_size=20))
def test_any_header_is_a_range_or_the_whole_or_refused(header):
    with contextlib.suppress(ValueError):
        found = range_of(header, 9)
        assert found is None or 0 <= found[0] < found[1] <= 9


FULL = """
import hashlib, resource, sys
from pathlib import Path
from fleet.adapters.blobs import BlobStore, DiskFullError
store = BlobStore(Path(sys.argv[1]), reserve=0)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
data = b"z" * 1_000_000
try:
    store.put(hashlib.sha256(data).hexdigest(), (data[i:i + 65536] for i in range(0, len(data), 65536)))
except DiskFullError as error:
    print(error)
left = [str(p) for p in Path(sys.argv[1]).rglob("*") if p.is_file()]
print(left)
"""


def test_a_disk_that_fills_during_an_upload_is_a_clear_refusal_and_leaves_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "blobs")], capture_output=True, text=True, check=True, timeout=60
    )
    line, left = done.stdout.splitlines()
    assert "the server's disk is full; free space on the server" in line
    assert "nothing of the file was kept" in line
    assert left == "[]"


def test_an_upload_never_takes_the_last_bytes_that_the_database_needs(tmp_path):
    store = BlobStore(tmp_path / "blobs", reserve=1 << 60)
    with pytest.raises(DiskFullError, match="disk is full"):
        store.put(NAME, [SMALL])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_server_that_starts_again_forgets_uploads_that_a_crash_cut_short(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0a1b.part").write_bytes(b"half")
    assert list(BlobStore(tmp_path / "blobs").held()) == []
    assert not (tmp_path / "blobs" / "0a1b.part").exists()


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///x", "http://bucket", "s3://Bucket/x", "s3://b/../x", "s3://bucket/a b"]
)
def test_a_url_that_names_no_bucket_is_refused(url):
    with pytest.raises(UsageError, match="names no bucket; write blobs"):
        read_place(url)


def test_a_store_that_is_not_there_or_has_no_such_bucket_is_one_line_without_credentials(
    tmp_path, store_url, credentials
):
    with pytest.raises(StoreError, match=r"bucket nobody: the object store refused: \w+; check bucket"):
        open_blobs(tmp_path, "s3://nobody", store_url)
    closed = "http://127.0.0.1:9"
    with pytest.raises(StoreError, match="the object store: EndpointConnectionError; check blobs_endpoint") as refused:
        open_blobs(tmp_path, "s3://bucket-x", closed)
    assert "of-a-test" not in str(refused.value)


def test_bytes_that_changed_in_the_store_are_noticed(tmp_path, store_url, credentials):
    blobs = in_bucket(tmp_path, store_url)
    blobs.put(NAME, [SMALL])
    blobs._client.put_object(**blobs._key(NAME), Body=b"changed")
    with pytest.raises(StoreError, match="is not what its name says; upload it again"):
        blobs.read(NAME)


@pytest.mark.broker
def test_a_server_whose_files_lie_in_an_object_store_serves_devices_as_before(
    new_server, store_url, credentials, bundles, tmp_path
):
    (tmp_path / "server").mkdir()
    settings_text = f'blobs = "s3://bucket/fleet"\nblobs_endpoint = "{store_url}"\n'
    (tmp_path / "server" / "fleet.toml").write_text(settings_text)
    server = new_server("server")
    server.trust()
    folder, bundle = bundles["1.0.0"]
    server.register(folder)
    assert [path for path in (tmp_path / "server" / "blobs").rglob("*") if path.is_file()] == []
    device = server.device(tmp_path / "pi", "pi-s3")
    facts = refresh(tmp_path / "pi", server.endpoints["device"], [bundle], time.time())
    model = (folder / "model.tflite").read_bytes()
    sha256 = hashlib.sha256(model).hexdigest()
    kept = tmp_path / "model.tflite"
    kept.write_bytes(model[:3000])  # what an earlier attempt left
    context = tls.device_context(tmp_path / "pi" / "identity")
    source = Downloader(server.endpoints["device"], context, Throttle(), lambda _: False)
    source.fetch(sha256, facts[sha256]["length"], kept)
    assert kept.read_bytes() == model
    assert server.call("POST", "/blobs/sweep", {"grace_hours": 0}) == {"files": 0, "bytes": 0}
    device.close()


def test_a_full_disk_is_507_and_not_the_callers_fault():
    assert fault_of(DiskFullError("the server's disk is full"))[0] == 507
