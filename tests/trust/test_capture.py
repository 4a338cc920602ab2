# SPDX-License-Identifier: Apache-2.0
"""A capture from the order to the deletion: who may ask, what is kept, who can read it, and that it is forgotten."""

import json
import shutil
import stat
import time

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.adapters.enrol import enrol
from edge_agent.adapters.trust import TrustHelper
from edge_agent.capture import errand, ring
from edge_agent.capture.courier import Courier
from edge_agent.capture.keeper import Keeper
from edge_agent.capture.sealing import seal
from edge_agent.config import load
from edge_agent.core.capture import Kept, Seen, may_keep, why_kept
from edge_agent.runner.answering import Answering
from edge_agent.runner.model import Model
from edge_agent.runner.proving import Settings
from edge_contract.capture import MAGIC, CaptureOrder, CapturePolicy, join_content, split_content, split_sealed
from edge_contract.errors import DownloadError, MessageError, SignatureError, UsageError
from fleet.adapters import unsealing
from fleet.core import capture as rules
from tests.edge_agent.runner import bundles, tiny

NOW = 1_800_000_000.0
KEY = X25519PrivateKey.generate()


def order(**changes):
    fields = {
        "campaign": "c1", "device": "pi-01", "model": "", "policy": CapturePolicy(random=1.0), "max_samples": 5,
        "max_bytes": 100_000, "issued_at": NOW, "expires_at": NOW + 3600.0,
        "public_key": KEY.public_key().public_bytes_raw().hex(),
    }  # fmt: skip
    return CaptureOrder(**{**fields, **changes})


IMAGE = np.arange(12, dtype=np.uint8).reshape(3, 4)


# Which inputs, within which bounds.

POLICIES = {
    "the shadow answers otherwise": (CapturePolicy(disagreeing=True), Seen("m", 0.9, disagrees=True), "disagreeing"),
    "both answer alike": (CapturePolicy(disagreeing=True), Seen("m", 0.9), ""),
    "drift": (CapturePolicy(drifted=True), Seen("m", 0.9, is_drifted=True), "drifted"),
    "a doubtful answer": (CapturePolicy(low_confidence=0.5), Seen("m", 0.4), "low confidence"),
    "a sure answer": (CapturePolicy(low_confidence=0.5), Seen("m", 0.5), ""),
    "an answer without confidence": (CapturePolicy(low_confidence=0.5), Seen("m", None), ""),
    "by chance": (CapturePolicy(random=0.1), Seen("m", 0.9, share=0.09), "random"),
    "not by chance": (CapturePolicy(random=0.1), Seen("m", 0.9, share=0.1), ""),
    "the rarest reason": (
        CapturePolicy(1.0, 1.0, True, True),
        Seen("m", 0.1, is_drifted=True, disagrees=True, share=0.0),
        "disagreeing",
    ),
}


@pytest.mark.parametrize("case", POLICIES)
def test_an_input_is_kept_for_a_reason(case):
    policy, seen, why = POLICIES[case]
    assert why_kept(policy, seen) == why


@given(st.lists(st.integers(1, 60_000), max_size=40))
def test_no_sequence_of_inputs_breaks_a_bound(sizes):
    asked, kept = order(), Kept()
    for size in sizes:
        if may_keep(asked, "m", kept, size, NOW + 1):
            kept = kept.plus(size)
    assert kept.samples <= asked.max_samples
    assert kept.size <= asked.max_bytes


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"random": 0.0},
        {"random": 1.5},
        {"random": -0.1},
        {"low_confidence": 2},
        {"random": "all"},
        {"drifted": 1},
    ],
)
def test_a_policy_that_asks_for_nothing_or_for_nonsense_is_refused(document):
    with pytest.raises(MessageError):
        CapturePolicy.from_json(document)


def test_an_order_survives_the_wire_and_names_no_folder_of_others():
    assert CaptureOrder.from_bytes(order().to_bytes()) == order()
    for name in ("../identity", "a/b", "", ".."):
        with pytest.raises(MessageError):
            CaptureOrder.from_bytes(order(campaign=name).to_bytes())


# Sealing.


def test_only_the_campaigns_key_opens_a_sample_and_every_flipped_bit_is_noticed():
    content = join_content({"why": "random", "confidence": 0.25}, b"array")
    sealed = seal(content, order(), 7)
    facts, array = unsealing.unseal(sealed, KEY)
    assert (array, facts["device"], facts["number"], facts["why"]) == (b"array", "pi-01", 7, "random")
    assert b"random" not in sealed
    with pytest.raises(SignatureError, match="another key"):
        unsealing.unseal(sealed, X25519PrivateKey.generate())
    for at in range(len(sealed)):
        with pytest.raises((SignatureError, MessageError)):
            unsealing.unseal(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], KEY)


def test_two_seals_of_one_content_share_nothing():
    one, two = (split_sealed(seal(b"\0\0\0\0same", order(), 1)) for _ in range(2))
    assert one[0] != two[0]
    assert one[2] != two[2]


@given(st.binary(max_size=200))
def test_no_bytes_break_the_readers(data):
    for read in (split_sealed, split_content):
        for form in (data, MAGIC + data):
            try:
                read(form)
            except MessageError:
                continue


# The runner's part.


class Clock:
    def __init__(self):
        self.wall, self.mono = NOW + 10.0, 0.0

    def keeper(self, data, model="m", share=0.5):
        return Keeper(data, model, share=lambda: share, wall=lambda: self.wall, mono=lambda: self.mono)


def test_a_runner_keeps_what_is_asked_for_until_the_bounds_and_nothing_without_an_order(tmp_path):
    clock = Clock()
    keeper = clock.keeper(tmp_path)
    assert keeper.offer(IMAGE) == ""
    ring.write_order(tmp_path, order(max_samples=3, policy=CapturePolicy(low_confidence=0.6)))
    assert keeper.offer(IMAGE, confidence=0.1) == ""  # it looks once a second
    clock.mono += 1.0
    assert [keeper.offer(IMAGE, confidence=c, cls=2) for c in (0.1, 0.9, 0.2, 0.3, 0.4)] == [
        "low confidence", "", "low confidence", "low confidence", "",
    ]  # fmt: skip
    files = list(ring.Ring(tmp_path, "c1").files(".raw"))
    assert [path.name for path in files] == ["1.raw", "2.raw", "3.raw"]
    facts, array = split_content(files[0].read_bytes())
    assert (facts["class"], facts["why"], facts["model"]) == (2, "low confidence", "m")
    path = tmp_path / "one.npy"
    path.write_bytes(array)
    assert np.array_equal(np.load(path), IMAGE)
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in files)
    assert stat.S_IMODE((tmp_path / "capture").stat().st_mode) == 0o700


def test_bounds_hold_over_a_restart_and_over_samples_that_were_sent(tmp_path):
    clock = Clock()
    ring.write_order(tmp_path, order(max_samples=2))
    assert clock.keeper(tmp_path).offer(IMAGE) == "random"
    for path in ring.Ring(tmp_path, "c1").files(".raw"):
        path.unlink()  # sent and forgotten
    keeper = clock.keeper(tmp_path)
    assert [keeper.offer(IMAGE) for _ in range(3)] == ["random", "", ""]
    (tmp_path / "capture" / "c1" / "kept.json").write_bytes(b"torn")
    assert clock.keeper(tmp_path).offer(IMAGE) == ""


@pytest.mark.parametrize(
    ("changes", "wall"),
    [({"model": "other"}, NOW), ({}, NOW + 3600.0), ({}, NOW - 2 * 86_400.0), ({"max_bytes": 100}, NOW)],
    ids=["another model", "ended", "not begun", "too large"],
)
def test_an_order_keeps_nothing_outside_its_bounds(tmp_path, changes, wall):
    clock = Clock()
    clock.wall = wall
    ring.write_order(tmp_path, order(**changes))
    assert clock.keeper(tmp_path).offer(IMAGE) == ""


def test_drift_marks_and_ends(tmp_path):
    clock = Clock()
    ring.drift_mark(tmp_path, is_drifted=True)  # nothing is captured, so nothing is written
    assert not (tmp_path / "capture").exists()
    ring.write_order(tmp_path, order(policy=CapturePolicy(drifted=True)))
    keeper = clock.keeper(tmp_path)
    for is_drifted, why in [(False, ""), (True, "drifted"), (False, "")]:
        ring.drift_mark(tmp_path, is_drifted=is_drifted)
        clock.mono += 1.0
        assert keeper.offer(IMAGE) == why


def test_a_disk_that_refuses_costs_the_sample_and_not_the_answer(tmp_path):
    ring.write_order(tmp_path, order())
    (tmp_path / "capture" / "c1").write_text("a file where the folder should be")
    clock = Clock()
    keeper = clock.keeper(tmp_path)
    assert keeper.offer(IMAGE) == ""


def test_another_campaign_forgets_the_one_before(tmp_path):
    clock = Clock()
    ring.write_order(tmp_path, order())
    assert clock.keeper(tmp_path).offer(IMAGE)
    ring.write_order(tmp_path, order(campaign="c2"))
    assert not (tmp_path / "capture" / "c1").exists()
    assert ring.forget_all(tmp_path) == 0
    assert not (tmp_path / "capture").exists()


# The whole way, over real TLS.


def run(data, *, allowed=True, may_send=True, now=None):
    return errand.run(data, "pi-01", time.time() if now is None else now, allowed=allowed, may_send=may_send)


def start(fleet, **changes):
    document = {"devices": ["pi-01"], "policy": {"random": 1.0}, "hours": 2, "max_samples": 4, "max_bytes": 50_000}
    return fleet.captures.start({**document, **changes}, "operator")


def keep(data, n=1):
    keeper = Keeper(data, "m")
    return [keeper.offer(np.full((2, 3), i, np.float32), confidence=0.5) for i in range(n)]


def test_inputs_travel_sealed_from_the_runner_to_an_npz_and_are_forgotten_by_the_device(fleet, device, tmp_path):
    campaign = start(fleet)
    done = TrustHelper(device).capture("pi-01", allowed=True, may_send=True)
    assert (done["campaign"], done["sent"]) == (campaign.id, 0)
    assert keep(device, 3) == ["random"] * 3
    assert run(device, may_send=False) == errand._said(campaign.id, waiting=3)
    assert not list((device / "capture").glob("*/*.raw"))
    assert run(device) == errand._said(campaign.id, sent=3)
    assert [p.name for p in (device / "capture" / campaign.id).iterdir()] == ["kept.json"]
    key = unsealing.load_key(fleet.captures.key_path(campaign.id))
    rows = fleet.captures.samples(campaign.id)
    opened = [unsealing.unseal(fleet.captures.sealed(campaign.id, r["device"], r["number"]), key) for r in rows]
    assert unsealing.write_npz(tmp_path / "out.npz", opened) == 3
    found = np.load(tmp_path / "out.npz", allow_pickle=False)
    assert np.array_equal(found["pi-01_2"], np.full((2, 3), 1.0, np.float32))
    index = [json.loads(line) for line in found["index"]]
    assert [(one["name"], one["confidence"], one["why"]) for one in index][2] == ("pi-01_3", 0.5, "random")
    assert keep(device, 3) == ["random", "", ""]  # four in all, also those that were sent


def test_without_the_consent_of_the_person_at_the_device_nothing_is_asked_kept_or_left(fleet, device):
    start(fleet)
    run(device)
    assert keep(device, 2) == ["random"] * 2
    fleet.requests.clear()
    assert run(device, allowed=False)["forgotten"] == 2
    assert fleet.requests == []
    assert not (device / "capture").exists()
    assert keep(device) == [""]


def test_a_stopped_campaign_and_one_that_ended_offline_are_forgotten(fleet, device):
    campaign = start(fleet)
    run(device)
    keep(device)
    fleet.captures.stop(campaign.id, "operator")
    assert run(device)["forgotten"] == 1
    again = start(fleet)
    run(device)
    keep(device)
    fleet.close()
    with pytest.raises(DownloadError):
        run(device, now=again.expires_at + 1)
    assert not (device / "capture").exists()


def test_an_order_for_another_device_or_signed_by_another_key_is_refused(fleet, device, new_fleet):
    other = order(device="pi-02", expires_at=time.time() + 60)
    mine = order(expires_at=time.time() + 60)
    for envelope, said in [
        (fleet.jobs.sign_bytes(other.to_bytes()), "is for device 'pi-02'"),
        (new_fleet("foreign").jobs.sign_bytes(mine.to_bytes()), "unknown key"),
        (fleet.jobs.sign(fleet.job("pi-01")), "missing"),
        (fleet.jobs.sign_bytes(order(expires_at=time.time() - 1).to_bytes()), "has ended"),
    ]:
        body = json.dumps({"orders": [envelope.to_bytes().decode()]}).encode()
        fleet.overrides["/captures"] = body
        done = run(device)
        assert (done["campaign"], said in done["refused"]) == ("", True), done


def test_a_receipt_that_does_not_fit_keeps_the_sample(fleet, device):
    campaign = start(fleet)
    run(device)
    keep(device)
    fleet.overrides[f"/captures/{campaign.id}/1"] = b'{"sha256":"0"}'
    with pytest.raises(DownloadError, match="no receipt"):
        run(device)
    del fleet.overrides[f"/captures/{campaign.id}/1"]
    assert run(device)["sent"] == 1


def test_samples_of_others_and_more_than_was_asked_for_are_not_taken(fleet, device, tmp_path):
    campaign = start(fleet, max_samples=1, max_bytes=2_000)
    asked = rules.order_for(campaign, "pi-01")
    take = fleet.captures.take
    assert len(take(campaign.id, "pi-01", 1, seal(b"\0" * 100, asked, 1))) == 64
    assert take(campaign.id, "pi-01", 2, seal(b"\0" * 100, asked, 2)).status == 409
    assert take("c9", "pi-01", 1, seal(b"\0", order(campaign="c9"), 1)).status == 404
    with pytest.raises(MessageError, match="names another campaign, device or number"):
        take(campaign.id, "pi-02", 1, seal(b"\0", asked, 1))
    with pytest.raises(MessageError, match="not a sealed sample"):
        take(campaign.id, "pi-01", 1, b"plain")
    assert fleet.captures.sealed(campaign.id, "../../ca", 1) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"devices": []}, "names no device"),
        ({"devices": ["nobody"]}, "device 'nobody' is not enrolled"),
        ({"hours": 0}, "hours = 0"),
        ({"hours": 10_000}, "at most 744"),
        ({"max_samples": 10**7}, "max_samples"),
        ({"policy": {}}, "asks for no input"),
    ],
)
def test_a_campaign_without_bounds_is_not_started(shared_fleet, shared_device, changes, said):
    with pytest.raises((UsageError, MessageError), match=said):
        start(shared_fleet, **changes)
    assert not list(shared_fleet.data.glob("captures/*.key"))


def test_deleting_a_campaign_leaves_a_proof_and_nothing_else(fleet, device):
    campaign = start(fleet)
    run(device)
    keep(device, 2)
    run(device)
    key = shutil.copy(fleet.captures.key_path(campaign.id), fleet.data / "kept.key")
    sealed = fleet.captures.sealed(campaign.id, "pi-01", 1)
    proof = fleet.captures.delete(campaign.id, "operator")
    assert (proof["samples"], proof["public_key"]) == (2, campaign.public_key)
    assert list((fleet.data / "captures").iterdir()) == []
    assert fleet.captures.shown() == []
    with pytest.raises(UsageError, match="is not known"):
        fleet.captures.delete(campaign.id, "operator")
    rows = fleet.store.read(lambda db: db.execute("SELECT action, detail FROM audit ORDER BY number").fetchall())
    assert json.loads(rows[-1]["detail"]) == proof
    assert rows[-1]["action"] == "capture.delete"
    assert unsealing.unseal(sealed, unsealing.load_key(key))  # a key that was copied before still opens: guard it
    run(device)
    assert not (device / "capture").exists()


def test_a_device_that_is_enrolled_elsewhere_gets_no_orders_of_ours(fleet, device, tmp_path):
    start(fleet)
    enrol(tmp_path / "pi-02", fleet.enrol_url, fleet.new_token(), "pi-02")
    assert errand.run(tmp_path / "pi-02", "pi-02", time.time(), allowed=True, may_send=True) == errand._said("")


def test_a_real_runner_keeps_what_its_model_answers_without_confidence(tmp_path):
    bundle, said = bundles.build(tmp_path / "v1", profile=True), []
    answering = Answering(Settings("onnxruntime", tmp_path / "counters.bin"), said.append, time.monotonic)
    answering.take("active", Model.open(bundle, runtime="onnxruntime"))
    images = tiny.images(6, seed=3)
    answers = [answering.answer(str(n), raw) for n, raw in enumerate(images)]
    assert not (tmp_path / "capture").exists()
    sure = sorted(answer.confidence for answer in answers)[2]
    policy = CapturePolicy(low_confidence=sure)
    ring.write_order(
        tmp_path, order(model="compass", policy=policy, issued_at=time.time(), expires_at=time.time() + 60)
    )
    answering.active.keeper._looked = 0.0  # it looks once a second
    for n, raw in enumerate(images):
        answering.answer(str(n), raw)
    answering.close()
    kept = [split_content(path.read_bytes())[0] for path in ring.Ring(tmp_path, "c1").files(".raw")]
    doubtful = [answer for answer in answers if answer.confidence < sure]
    assert [(one["model"], one["class"]) for one in kept] == [("compass", answer.cls) for answer in doubtful]


def test_a_device_allows_captures_only_by_a_plain_true(tmp_path):
    def allowed(line):
        (tmp_path / "agent.toml").write_text(f'device = "pi"\n[capture]\n{line}\n')
        return load(tmp_path).capture

    assert [allowed(""), allowed("allowed = false"), allowed("allowed = true")] == [False, False, True]
    for line in ("allowed = 1", 'allowed = "yes"', "allow = true"):
        with pytest.raises(UsageError):
            allowed(line)


class Errands:
    """A helper that is a list of what it was asked: the real one is another process."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def capture(self, device, **words):
        self.asked.append(words)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def courier(data, helper, said, *, allowed=True):
    wishes = {"allowed": allowed, "may_send": lambda: False, "is_drifted": lambda: True}
    return Courier(data, "pi-01", helper, lambda *line: said.append(line), **wishes)


def test_the_courier_runs_errands_now_and_then_and_says_what_was_sent(tmp_path):
    (tmp_path / "identity").mkdir()
    (tmp_path / "identity" / "device.crt").touch()
    said, sent = [], errand._said("c1", sent=2, waiting=1)
    helper = Errands(sent, DownloadError("no way"), DownloadError("no way"), errand._said("", refused="foreign key"))
    one = courier(tmp_path, helper, said)
    for mono in (0.0, 10.0, 1000.0, 1001.0, 1100.0, 1500.0):
        one.look(mono)
    assert [words["may_send"] for words in helper.asked] == [False] * 4
    assert said == [
        ("info", "capture c1: 2 samples sent, 1 wait, 0 forgotten"),
        ("info", "captures wait: no way"),
        ("warning", "an order to capture is refused: foreign key"),
    ]
    ring.write_order(tmp_path, order())
    one.look(1501.0)
    assert (tmp_path / "capture" / "drifted").exists()


def test_at_a_device_that_allows_nothing_an_old_campaign_is_forgotten_at_the_start(tmp_path):
    said = []
    ring.write_order(tmp_path, order())
    assert Clock().keeper(tmp_path).offer(IMAGE)
    courier(tmp_path, Errands(), said, allowed=False).start()
    assert said == [("info", "captures are not allowed: 1 samples forgotten")]
    assert not (tmp_path / "capture").exists()
