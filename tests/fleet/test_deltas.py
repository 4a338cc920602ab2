# SPDX-License-Identifier: Apache-2.0
"""Patches all the way: made by the server for what devices run, fetched over HTTP with Range, applied by the helper,
blamed by a device, offered to nobody any more. Only TLS and the broker are left out; they have their own tests.
"""

import hashlib
import socket
import threading
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import uvicorn

from edge_agent.adapters.install import Installer
from edge_agent.adapters.slots import SlotStore
from edge_agent.adapters.trust import SignedBlob
from edge_contract.batches import TelemetryBatch, TelemetryRow
from edge_contract.deltas import EMPTY, Offer, offers_from
from edge_contract.errors import DownloadError, MessageError, StoreError, StropError
from edge_contract.manifest import BundleFile, Manifest
from edge_contract.messages import ModelState, ReportedState
from export.delta.coding import Step
from export.delta.container import Plan, write
from fleet.adapters import delta_maker, tables, telemetry
from fleet.adapters.delta_maker import DeltaMaker
from fleet.adapters.deltas import DeltaStore, PatchProcess
from fleet.core.deltas import FilePair, blocked_pairs, file_pairs, goals
from fleet.core.inventory import DeviceRecord
from fleet.web.devices_api import devices_app
from tests.edge_agent.delta.conftest import digest, nudged, weights
from tests.fleet.test_operations import Office
from tests.support.device_sim import job
from tests.support.fleet_bundle import write_bundle

GO_ON = lambda _seconds: False  # noqa: E731
MODEL = weights(60_000)
VERSIONS = {"1.0.0": MODEL, "2.0.0": nudged(MODEL, 0.05)}


def bundle(folder: Path, version: str, profile, model: bytes) -> tuple[Path, str]:
    """A bundle whose model file holds these bytes."""
    write_bundle(folder, version, profile)
    manifest = Manifest.from_bytes((folder / "manifest.json").read_bytes())
    files = tuple(
        BundleFile(f.path, len(model), digest(model)) if f.path == "model.tflite" else f for f in manifest.files
    )
    manifest = replace(manifest, files=files)
    (folder / "model.tflite").write_bytes(model)
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return folder, manifest.bundle_id


class Signed:
    """Answers as the trust helper does, from a table."""

    def __init__(self, manifests):
        self.facts = {m.bundle_id: SignedBlob(len(m.to_bytes()), {}) for m in manifests}
        self.facts.update({f.sha256: SignedBlob(f.size, {}) for m in manifests for f in m.files})

    def refresh(self, _base_url, _targets, **_):
        return dict(self.facts)


class Place:
    """A fleet server's database, blobs, patches and devices' listener, and one device."""

    def __init__(self, folder: Path, profile):
        self.bundles = {v: bundle(folder / v, v, profile, data) for v, data in VERSIONS.items()}
        self.office = Office(folder / "server", self.bundles)
        self.deltas = DeltaStore(folder / "server" / "deltas")
        operations = self.office.operations
        self.maker = DeltaMaker(self.office.store, operations.blobs, self.deltas, folder / "server" / "deltas")
        self.manifests = {
            v: Manifest.from_bytes((path / "manifest.json").read_bytes()) for v, (path, _) in self.bundles.items()
        }
        self.slots = SlotStore(folder / "device" / "models")
        self.slots.root.mkdir(parents=True)
        self._serve(devices_app(operations.trust.tuf, operations.blobs, self.deltas))
        self.seq = 0

    def _serve(self, app):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.asked: list[tuple[str, str]] = []

        async def watched(scope, receive, send):
            if scope["type"] == "http":
                self.asked.append((scope["path"], dict(scope["headers"]).get(b"range", b"").decode()))
            await app(scope, receive, send)

        self.server = uvicorn.Server(uvicorn.Config(watched, log_config=None, lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()

    def close(self):
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()
        self.maker.stop()
        self.office.store.close()

    def device_runs(self, version: str, name: str = "pi"):
        self.office.enrolled(name)
        slots = ModelState(self.bundles[version][1], self.bundles[version][1], "", "", version)
        self.office.hear(name, "twin/reported", ReportedState(name, "b", 0, {"digits": slots}, {}, {}, {}, 1.0))

    def install(self, version: str, url: str = "") -> dict:
        """Install a version on the device; return what it tells of its downloads."""
        manifest = self.manifests[version]
        signed = Signed(self.manifests.values())
        installer = Installer(self.slots, signed, url or self.url, "litert", lambda: None)  # type: ignore[arg-type]
        order = job(bundle=manifest.bundle_id, model="digits")
        installer.preflight(order, GO_ON)
        installer.download(order, GO_ON, lambda _d, _t: None)
        installer.verify(order)
        standby = self.slots.read("digits").active
        self.slots.flip("digits", manifest.bundle_id, "" if standby == manifest.bundle_id else standby)
        return installer.fetcher.facts(manifest.bundle_id)

    def hear_event(self, body: dict):
        self.seq += 1
        batch = TelemetryBatch("pi", "b", "event", self.seq - 1, (TelemetryRow(self.seq, 1.0, body),))
        self.office.store.write(lambda db: telemetry.keep_batch(db, batch, 1.0, lambda *_: ("ok", {})))

    def offers(self, version: str) -> tuple[Offer, ...]:
        target = digest(VERSIONS[version])
        return offers_from(httpx.get(f"{self.url}/deltas/{target}", trust_env=False).content, target)


@pytest.fixture
def place(tmp_path, profile):
    made = Place(tmp_path, profile)
    yield made
    made.close()


def test_a_device_gets_the_next_version_by_the_patch_that_the_server_made_for_it(place):
    assert place.install("1.0.0")["fetched"] > len(MODEL), "nothing is held yet: the full files"
    place.device_runs("1.0.0")
    assert place.maker.look() == 1
    assert place.maker.look() == 0, "once is enough"
    (offer,) = place.offers("2.0.0")
    assert (offer.base, offer.codec) == (digest(MODEL), "tensors")
    place.asked.clear()
    told = place.install("2.0.0")
    (row,) = [row for row in told["files"] if row["path"] == "model.tflite"]
    assert (row["codec"], row["fetched"], row["base"]) == ("tensors", offer.size, digest(MODEL))
    assert told["fetched"] < 0.1 * told["full"]
    assert told["delta_failed"] is False
    assert f"/blobs/{digest(VERSIONS['2.0.0'])}" not in [path for path, _ in place.asked]
    slot = place.slots.folder("digits", place.bundles["2.0.0"][1])
    assert digest((slot / "model.tflite").read_bytes()) == digest(VERSIONS["2.0.0"])
    assert {path.name for path in slot.parent.iterdir()} == {b for _, b in place.bundles.values()}, "no scratch is left"


def lying_patch(target: bytes) -> bytes:
    """A sound container that promises the target and gives the base."""
    honest = write("tensors", MODEL, MODEL, Plan([Step(0, len(MODEL), 0)], []))  # type: ignore[arg-type]
    first, _, rest = honest.partition(hashlib.sha256(MODEL).digest())
    return first + hashlib.sha256(MODEL).digest() + rest.replace(
        hashlib.sha256(MODEL).digest(), hashlib.sha256(target).digest()
    )  # fmt: skip


def test_a_patch_that_lies_costs_its_bytes_once_and_is_then_offered_to_nobody(place, tmp_path):
    target = VERSIONS["2.0.0"]
    (tmp_path / "lie").write_bytes(lying_patch(target))
    pair = FilePair(digest(MODEL), digest(target))
    place.deltas.add(pair, tmp_path / "lie", {"codec": "tensors", "base": pair.base})
    place.install("1.0.0")
    told = place.install("2.0.0")
    (row,) = [row for row in told["files"] if row["path"] == "model.tflite"]
    assert (row["blame"], told["delta_failed"]) == ("patch", True)
    assert "other bytes than it promises" in row["reason"]
    assert row["fetched"] == len(target) + (tmp_path / "lie").stat().st_size
    slot = place.slots.folder("digits", place.bundles["2.0.0"][1])
    assert (slot / "model.tflite").read_bytes() == target, "the full file came instead"
    assert len(place.offers("2.0.0")) == 1
    place.office.enrolled("pi")
    place.hear_event({"kind": "fetched", "bundle": place.bundles["2.0.0"][1], **told})
    place.device_runs("1.0.0", "another")
    assert place.maker.look() == 0
    assert place.offers("2.0.0") == ()
    # The device itself has not forgotten either, whatever the server says.
    place.deltas.add(pair, tmp_path / "lie", {"codec": "tensors", "base": pair.base})
    place.slots.flip("digits", place.bundles["1.0.0"][1], "")
    place.slots.forget("digits")
    again = place.install("2.0.0")
    assert [row for row in again["files"] if "reason" in row] == []


def test_a_server_that_knows_no_patches_and_one_that_talks_nonsense_cost_nothing(place, tmp_path):
    place.install("1.0.0")
    pair = FilePair(digest(MODEL), digest(VERSIONS["2.0.0"]))
    (tmp_path / "gone").write_bytes(b"x" * 500)
    place.deltas.add(pair, tmp_path / "gone", {"codec": "tensors", "base": pair.base})
    place.deltas.path(place.offers("2.0.0")[0].sha256).unlink()
    told = place.install("2.0.0")
    (row,) = [row for row in told["files"] if row["path"] == "model.tflite"]
    assert (row["blame"], row["fetched"]) == ("here", len(VERSIONS["2.0.0"])), "an offer that leads nowhere"


def test_a_patch_that_was_cut_is_resumed_with_range(place, monkeypatch):
    place.install("1.0.0")
    place.device_runs("1.0.0")
    place.maker.look()
    (offer,) = place.offers("2.0.0")
    scratch = place.slots.folder("digits", place.bundles["2.0.0"][1]).with_name("delta.partial")
    scratch.mkdir(parents=True)
    data = place.deltas.path(offer.sha256).read_bytes()
    (scratch / offer.sha256).write_bytes(data[:700])
    (scratch / "left over").write_bytes(b"of another patch")
    place.asked.clear()
    told = place.install("2.0.0")
    assert (f"/deltas/blobs/{offer.sha256}", "bytes=700-") in place.asked
    assert told["delta_failed"] is False


def test_a_network_that_dies_in_the_middle_keeps_what_came(place, tmp_path):
    """The first attempt gets some bytes and ends as any download does; it is not blamed on anybody."""
    from edge_agent.delta.attempt import FailedPairs, try_delta

    wanted = (digest(VERSIONS["2.0.0"]), len(VERSIONS["2.0.0"]))
    offer = Offer(digest(MODEL), "tensors", "ab" * 32, 900)

    class Dying:
        bytes_per_try = 300

        def offers(self, sha256):
            from edge_contract.deltas import offers_to_bytes

            return offers_to_bytes(sha256, [offer])

        def fetch(self, _sha256, _size, path):
            with path.open("ab") as file:
                file.write(b"x" * self.bytes_per_try)
            raise DownloadError("cut")

    (tmp_path / "base").write_bytes(MODEL)
    source, words = Dying(), {"work": tmp_path / "work", "failed": FailedPairs(tmp_path / "failed.json")}
    with pytest.raises(DownloadError):
        try_delta(wanted, tmp_path / "out", {digest(MODEL): tmp_path / "base"}, source, **words)
    assert (tmp_path / "work" / offer.sha256).stat().st_size == 300
    source.bytes_per_try = 0
    outcome = try_delta(wanted, tmp_path / "out", {digest(MODEL): tmp_path / "base"}, source, **words)
    assert (outcome.is_there, outcome.blame, outcome.reason) == (False, "here", "cut")
    assert not (tmp_path / "work").exists()
    assert FailedPairs(tmp_path / "failed.json").read() == []


def test_a_device_without_the_codec_sees_it_before_it_pays_for_a_patch(place, monkeypatch):
    place.install("1.0.0")
    place.device_runs("1.0.0")
    place.maker.look()
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    place.asked.clear()
    told = place.install("2.0.0")
    assert (told["codecs"], told["delta_failed"]) == (["full"], False)
    assert not [path for path, _ in place.asked if path.startswith("/deltas")]


def test_only_releases_are_spoken_of(place):
    stranger = digest(b"an upload that no targets name")
    place.office.operations.models.put_blob(stranger, [b"an upload that no targets name"], "op")
    for path in (f"/deltas/{stranger}", "/deltas/x", f"/deltas/blobs/{stranger}", "/deltas/blobs/..%2f..%2ffleet.db"):
        assert httpx.get(f"{place.url}{path}", trust_env=False).status_code in (404, 422), path
    assert httpx.get(f"{place.url}/deltas/{stranger}", trust_env=False).status_code == 404
    empty = httpx.get(f"{place.url}/deltas/{digest(VERSIONS['2.0.0'])}", trust_env=False)
    assert offers_from(empty.content, digest(VERSIONS["2.0.0"])) == ()


def test_patches_towards_what_nobody_may_fetch_are_swept_but_what_is_blocked_stays(place, tmp_path):
    place.device_runs("1.0.0")
    place.maker.look()
    (offer,) = place.offers("2.0.0")
    old, bad = FilePair("ab" * 32, "cd" * 32), FilePair("ef" * 32, "cd" * 32)
    for pair in (old, bad):
        (tmp_path / "patch").write_bytes(bytes.fromhex(pair.base))
        place.deltas.add(pair, tmp_path / "patch", {"codec": "tensors", "base": pair.base})
    assert place.deltas.block(bad)
    before = [place.deltas.path(sha256) for sha256 in (offer.sha256, digest(bytes.fromhex(old.base)))]
    assert all(path.exists() for path in before)
    place.maker.look()
    assert [path.exists() for path in before] == [True, False]
    assert (place.deltas.is_known(old), place.deltas.is_known(bad)) == (False, True)
    assert place.offers("2.0.0") == (offer,)


def test_patches_start_from_what_most_devices_run(place):
    versions = place.office.store.read(tables.models)
    one, two = (next(v for v in versions if v.version == name) for name in VERSIONS)

    def device(name, bundle_id):
        slots = ModelState(bundle_id, bundle_id, "", "", "")
        return DeviceRecord(name, 0.0, reported=ReportedState(name, "b", 0, {"digits": slots}, {}, {}, {}, 1.0))

    assert goals([two, one], []) == [two]
    assert goals([two, one], [one.bundle]) == [two, one], "a rollout of an older one counts, too"
    many = {one.bundle: one, two.bundle: two}
    fleet = [device("a", one.bundle), device("b", two.bundle), device("c", ""), device("d", "f" * 64)]
    assert file_pairs(two, many, fleet) == [FilePair(digest(MODEL), digest(VERSIONS["2.0.0"]))]
    assert file_pairs(two, many, [device("b", two.bundle)]) == []


def test_without_the_packages_it_is_said_once_and_devices_get_full_files(place, monkeypatch, caplog):
    place.device_runs("1.0.0")
    monkeypatch.setattr(place.maker, "_process", PatchProcess("/usr/bin/env"))  # a Python without export.delta
    assert place.maker.look() == 0
    assert "no patch from" in caplog.text
    assert place.offers("2.0.0") == ()
    assert place.maker.look() == 0
    assert caplog.text.count("no patch from") == 1, "a pair that failed is not tried again and again"


def test_a_server_that_stops_ends_the_process_that_makes_a_patch(tmp_path):
    process = PatchProcess()
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(weights(3_000_000, seed=ord(name)))
    timer = threading.Timer(0.3, process.stop)
    timer.start()
    with pytest.raises(StropError):
        process.make(tmp_path / "a", tmp_path / "b", tmp_path / "out")
    timer.join()
    with pytest.raises(StropError, match="stops"):
        process.make(tmp_path / "a", tmp_path / "b", tmp_path / "out")
    assert delta_maker.LOOK_S > 1


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"<html>log in</html>", b'{"schema":"strop.deltas/9"}', b"[" * 3000, b"x" * 20_000],
    ids=["nothing", "empty", "portal", "schema", "deep", "long"],
)
def test_a_list_of_patches_that_is_none_is_one_error_of_ours(data):
    with pytest.raises(StropError):
        offers_from(data, EMPTY)


def test_events_of_any_form_block_nothing_by_accident(tmp_path):
    store = DeltaStore(tmp_path)
    for body in ({}, {"kind": "fetched", "files": 3}, {"kind": "fetched", "files": [1, {"blame": "patch"}]}):
        for pair in blocked_pairs(body):
            assert store.block(pair) is False
    with pytest.raises(StoreError):
        store.path("../../etc/passwd")
    with pytest.raises(MessageError):
        Offer.from_json({"base": EMPTY, "codec": "rar", "sha256": EMPTY, "size": 1}, "x")


def test_the_workstation_foretells_what_an_update_of_a_bundle_costs(tmp_path, profile):
    from export.delta import files

    first, second = (bundle(tmp_path / v, v, profile, data)[0] for v, data in VERSIONS.items())
    (made,) = files.between(first, second)
    assert (made.name, made.patch.codec, made.patch.result) == ("model.tflite", "tensors", digest(VERSIONS["2.0.0"]))
    assert files.between(first, first) == []
    (path,) = files.write([made], tmp_path / "patches").values()
    assert Path(path).read_bytes() == made.patch.data
