# SPDX-License-Identifier: Apache-2.0
"""The steps of an install against a real HTTP server and real bundles. What is signed is stated by a table here;
the TUF client behind the real helper has its own tests.
"""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge_agent.adapters.download import Cancelled
from edge_agent.adapters.install import Installer, memory_kb, needed_files
from edge_agent.adapters.slots import SlotStore
from edge_agent.adapters.trust import SignedBlob
from edge_contract.artefact import Artefact
from edge_contract.errors import BundleError, DownloadError, ManifestError, SlotError
from edge_contract.manifest import MANIFEST_NAME, Manifest
from tests.edge_agent.runner import bundles
from tests.support.device_sim import job

GO_ON = lambda _seconds: False  # noqa: E731


class Blobs(ThreadingHTTPServer):
    """Blobs by hash, over plain HTTP; ``asked`` remembers which were fetched."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []

    def add(self, folder: Path) -> Manifest:
        for path in folder.rglob("*"):
            if path.is_file():
                self.blobs[hashlib.sha256(path.read_bytes()).hexdigest()] = path.read_bytes()
        return Manifest.from_bytes((folder / MANIFEST_NAME).read_bytes())


class Handler(BaseHTTPRequestHandler):
    server: Blobs

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        name = self.path.removeprefix("/blobs/")
        self.server.asked.append(name)
        data = self.server.blobs.get(name)
        self.send_response(200 if data is not None else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")


class Signed:
    """Answers as the trust helper does, from a table."""

    def __init__(self) -> None:
        self.facts: dict[str, SignedBlob] = {}
        self.runs = 0

    def add(self, manifest: Manifest) -> None:
        self.facts[manifest.bundle_id] = SignedBlob(len(manifest.to_bytes()), {"model": manifest.model})
        self.facts.update({f.sha256: SignedBlob(f.size, {}) for f in manifest.files})

    def refresh(self, _base_url: str, targets: list[str], *, model: str, **_: Any) -> dict[str, SignedBlob]:
        self.runs += 1
        assert len(targets) == 1
        assert model  # without it a team's signature is not looked at
        return dict(self.facts)


class Bench:
    def __init__(self, folder: Path, server: Blobs) -> None:
        self.server, self.signed = server, Signed()
        self.slots = SlotStore(folder / "models")
        self.slots.root.mkdir()
        self.installer = self.fresh()

    def fresh(self, runtime: str = "litert") -> Installer:
        """An installer as after a restart."""
        address = f"http://127.0.0.1:{self.server.server_port}"
        return Installer(self.slots, self.signed, address, runtime, lambda: None)  # type: ignore[arg-type]

    def order(self, manifest: Manifest) -> Any:
        return job(bundle=manifest.bundle_id, model=manifest.model)

    def install(self, manifest: Manifest) -> None:
        order = self.order(manifest)
        self.installer.preflight(order, GO_ON)
        self.installer.download(order, GO_ON, lambda _d, _t: None)
        self.installer.verify(order)


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two bundles with the same network and another version: only small files differ."""
    folder = tmp_path_factory.mktemp("bundles")
    first = bundles.build(folder / "v1", profile=True)
    return first, bundles.build(folder / "v2", version="2.0.0", profile=True)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    server = Blobs()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield Bench(tmp_path, server)
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def first(bench: Bench, two: tuple[Path, Path]) -> Manifest:
    manifest = bench.server.add(two[0])
    bench.signed.add(manifest)
    return manifest


def test_a_bundle_becomes_a_slot_with_only_what_our_runtime_needs(bench: Bench, first: Manifest) -> None:
    bench.install(first)
    folder = bench.slots.folder(first.model, first.bundle_id)
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert "model.tflite" in names
    assert "model.tflite.profile.json" in names
    assert not {"model.onnx", "model.onnx.profile.json"} & names
    assert names == {MANIFEST_NAME, *(entry.path for entry in needed_files(first, "litert"))}
    assert bench.signed.runs == 1, "one run of the helper for the whole bundle"


def test_the_next_bundle_copies_what_did_not_change(bench: Bench, first: Manifest, two: tuple[Path, Path]) -> None:
    bench.install(first)
    bench.slots.flip(first.model, first.bundle_id, "")
    second = bench.server.add(two[1])
    bench.signed.add(second)
    bench.server.asked.clear()
    bench.install(second)
    assert bench.server.asked == [second.bundle_id], "only the manifest differs"
    assert bench.slots.folder(second.model, second.bundle_id).is_dir()


def test_after_a_restart_nothing_is_fetched_twice(bench: Bench, first: Manifest) -> None:
    order = bench.order(first)
    bench.installer.preflight(order, GO_ON)
    bench.installer.download(order, GO_ON, lambda _d, _t: None)
    count = len(bench.server.asked)
    again = bench.fresh()
    again.download(order, GO_ON, lambda _d, _t: None)
    again.verify(order)
    again.verify(order)
    assert len(bench.server.asked) == count


def test_the_first_committed_model_is_pinned(bench: Bench, first: Manifest) -> None:
    bench.install(first)
    bench.slots.flip(first.model, first.bundle_id, "")
    assert bench.installer.commit(bench.order(first)).factory == first.bundle_id


def test_a_bundle_that_is_not_signed_is_refused_before_a_byte_is_fetched(bench: Bench, two: tuple[Path, Path]) -> None:
    manifest = bench.server.add(two[0])
    with pytest.raises(BundleError, match="is not among the signed targets"):
        bench.installer.preflight(bench.order(manifest), GO_ON)
    assert bench.server.asked == []


def test_a_file_that_is_not_signed_is_refused(bench: Bench, first: Manifest) -> None:
    order = bench.order(first)
    del bench.signed.facts[first.file("model.tflite").sha256]
    bench.installer.preflight(order, GO_ON)
    with pytest.raises(
        BundleError, match=r"file 'model.tflite' is not among the signed targets; sign the bundle again"
    ):
        bench.installer.download(order, GO_ON, lambda _d, _t: None)
    assert first.file("model.tflite").sha256 not in bench.server.asked


def test_a_device_without_an_artefact_says_what_the_bundle_has(bench: Bench, first: Manifest) -> None:
    with pytest.raises(ManifestError, match=r"no artefact for runtime 'edgetpu'; it has litert, onnxruntime"):
        bench.fresh("edgetpu").preflight(bench.order(first), GO_ON)


def test_a_bundle_of_another_model_is_refused(bench: Bench, first: Manifest) -> None:
    with pytest.raises(BundleError, match="the order says 'faces'"):
        bench.installer.preflight(replace(bench.order(first), model="faces"), GO_ON)


def test_a_full_disk_is_said_before_the_download(
    bench: Bench, first: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.adapters.install.free_bytes", lambda _folder: 1_000_000)
    with pytest.raises(SlotError, match=r"1000000 are free; free some space"):
        bench.installer.preflight(bench.order(first), GO_ON)


def test_a_full_table_of_inodes_is_said_before_the_download(
    bench: Bench, first: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.adapters.install.free_inodes", lambda _folder: 100)
    with pytest.raises(SlotError, match="100 inodes are free; delete some files"):
        bench.installer.preflight(bench.order(first), GO_ON)


def test_verify_tells_the_slots_and_what_memory_the_model_will_take(bench: Bench, first: Manifest) -> None:
    bench.install(first)
    slots, need_kb = bench.installer.verify(bench.order(first))
    assert slots.active == ""
    size = first.file(first.artefact_for("litert").path).size
    assert need_kb == 4000 + 4 * size // 1000
    assert memory_kb(replace(first, artefacts=tuple(_told(a) for a in first.artefacts)), "litert") == 700


def _told(artefact: Artefact) -> Artefact:
    return replace(artefact, unrecognized={"memory_kb": 700})


def test_a_file_that_changed_on_disk_is_found_and_the_download_thrown_away(bench: Bench, first: Manifest) -> None:
    order = bench.order(first)
    bench.installer.preflight(order, GO_ON)
    bench.installer.download(order, GO_ON, lambda _d, _t: None)
    folder = bench.slots.partial(first.model, first.bundle_id)
    data = bytearray((folder / "model.tflite").read_bytes())
    data[100] ^= 1
    (folder / "model.tflite").write_bytes(data)
    with pytest.raises(BundleError, match=r"file 'model.tflite' is missing or changed"):
        bench.installer.verify(order)
    assert not folder.exists()


def test_a_blob_that_the_server_lost_may_come_back(bench: Bench, first: Manifest) -> None:
    order = bench.order(first)
    lost = bench.server.blobs.pop(first.file("model.tflite").sha256)
    bench.installer.preflight(order, GO_ON)
    with pytest.raises(DownloadError, match="404"):
        bench.installer.download(order, GO_ON, lambda _d, _t: None)
    bench.server.blobs[first.file("model.tflite").sha256] = lost
    bench.installer.download(order, GO_ON, lambda _d, _t: None)
    bench.installer.verify(order)


def test_on_a_metered_link_the_order_is_judged_and_its_files_wait(bench: Bench, first: Manifest) -> None:
    order = bench.order(first)
    bench.installer.throttle.held = "the link is metered"
    bench.installer.preflight(order, GO_ON)
    with pytest.raises(DownloadError, match="the link is metered"):
        bench.installer.download(order, GO_ON, lambda _d, _t: None)
    bench.installer.throttle.held = ""
    bench.install(first)


def test_a_cancel_between_two_files_is_obeyed(bench: Bench, first: Manifest) -> None:
    order = bench.order(first)
    bench.installer.preflight(order, GO_ON)
    with pytest.raises(Cancelled):
        bench.installer.download(order, lambda _s: True, lambda _d, _t: None)
