# SPDX-License-Identifier: Apache-2.0
"""The operators' API over real HTTP, with devices that speak over real MQTT."""

import base64
import json
import time

import httpx
import pytest

from edge_agent.adapters.enrol import enrol
from edge_contract.batches import encode_batch
from edge_contract.errors import EnrolmentError
from edge_contract.messages import DesiredState
from edge_contract.states import Phase, Status
from export.keys import signing
from tests.support.fleet_bundle import window, write_bundle
from tests.support.fleet_server import until

pytestmark = pytest.mark.broker


def start(server, bundles, version, names, **more):
    waves = [{"devices": [name]} for name in names]
    document = {"model": "digits", "bundle": bundles[version][1], "waves": waves, "timeout_s": 60, **more}
    return server.call("POST", "/rollouts", document)["id"]


def ended(server, rollout):
    def state():
        found = server.call("GET", f"/rollouts/{rollout}")
        return found if found["state"] not in ("RUNNING", "PAUSED") else None

    return until(state, f"the end of {rollout}")


def test_a_rollout_by_waves_then_a_bad_one_that_stops_at_its_canary(server, devices, bundles):
    one, two = devices("wave-1", "wave-2")
    first = start(server, bundles, "1.0.0", ["wave-1", "wave-2"])
    job = one.order()
    assert (job.bundle, job.version, job.device, job.rollout) == (bundles["1.0.0"][1], "1.0.0", "wave-1", first)
    assert server.call("GET", "/devices/wave-1")["desired"]["models"] == {"digits": job.bundle}
    one.install(job)
    two.install(two.order())
    assert ended(server, first)["reason"] == "2 devices updated"
    assert one.order("none").job_id == job.job_id
    shown = server.call("GET", "/devices/wave-1")
    assert (shown["in_sync"], shown["models"]["digits"]["running"]) == (True, job.bundle)

    bad = start(server, bundles, "1.1.0", ["wave-1", "wave-2"])
    one.fail(one.order(), "agreement 0.31 < 0.80 over 100 inferences")
    found = ended(server, bad)
    assert (found["state"], [w["state"] for w in found["waves"]]) == ("ABORTED", ["FAILED", "SKIPPED"])
    assert found["reason"] == "wave-1 rolled back: agreement 0.31 < 0.80 over 100 inferences"
    assert [e["device"] for e in found["executions"]] == ["wave-1"]
    # The failed device is wanted where it stands again, and the other one was never touched.
    for name in ("wave-1", "wave-2"):
        assert server.call("GET", f"/devices/{name}")["desired"]["models"] == {"digits": job.bundle}


def test_success_without_the_running_bundle_is_not_believed(server, devices, bundles):
    (liar,) = devices("liar")
    rollout = start(server, bundles, "1.0.0", ["liar"], timeout_s=1.0, grace_s=1.0)
    job = liar.order()
    liar.report(running=bundles["1.1.0"][1], active=bundles["1.1.0"][1], version="1.1.0")
    liar.status(job.job_id, Status.SUCCEEDED, Phase.DONE, 9)
    found = ended(server, rollout)
    assert found["reason"].startswith(f"liar timed out: said SUCCEEDED but runs {bundles['1.1.0'][1][:12]}")


def test_pause_resume_abort(server, devices, bundles):
    devices("quiet")
    rollout = start(server, bundles, "1.0.0", ["quiet"])
    for verb, state in (("pause", "PAUSED"), ("pause", "PAUSED"), ("resume", "RUNNING"), ("abort", "ABORTED")):
        assert server.call("POST", f"/rollouts/{rollout}/{verb}")["state"] == state
    again = server.send("POST", f"/api/v1/rollouts/{rollout}/abort")
    assert (again.status_code, again.json()["kind"]) == (409, "RolloutError")
    assert server.call("GET", f"/rollouts/{rollout}")["executions"][0]["status"] == "CANCELED"


def test_a_newer_rollout_supersedes_the_order_of_an_older_one(server, devices, bundles):
    (device,) = devices("double")
    older = start(server, bundles, "1.0.0", ["double"])
    first = device.order()
    newer = start(server, bundles, "1.1.0", ["double"])
    second = device.order()
    assert second.job_id > first.job_id
    assert server.call("GET", f"/rollouts/{older}")["executions"][0]["status"] == "SUPERSEDED"
    device.install(second)
    assert ended(server, newer)["state"] == "COMPLETED"


def test_config_reaches_the_device_as_the_retained_desired_state(server, devices):
    (device,) = devices("twin")
    answer = server.call("PUT", "/devices/twin/config", {"source": "other", "heartbeat_s": 2.5})
    assert answer["version"] == 1
    heard = DesiredState.from_bytes(device.wait("twin/desired", lambda p: b'"version":1' in p))
    assert heard.config["source"] == "other"
    assert server.call("PUT", "/devices/twin/config", {"source": "other"})["version"] == 1
    assert server.call("PUT", "/devices/twin/config", {"source": None})["config"] == {"heartbeat_s": 2.5}
    until(lambda: server.call("GET", "/devices/twin")["desired"]["config"] == {"heartbeat_s": 2.5})


def test_a_device_that_vanishes_is_offline_by_its_will(server, devices):
    (device,) = devices("gone")
    until(lambda: server.call("GET", "/devices/gone")["online"], "online")
    device.vanish()
    until(lambda: not server.call("GET", "/devices/gone")["online"], "offline")


def test_drift_estimate_stands_beside_the_truth_once_labels_come(server, devices, bundles, matcher, profile):
    (device,) = devices("stray")
    bundle = bundles["1.0.0"][1]
    device.report(running=bundle, active=bundle, version="1.0.0")
    for number in (1, 2, 3):
        summary, rows, labels = window(matcher, profile, "stray", bundle, number, seed=40 + number, shift=0.33)
        device.send_batch(device.rows("result", [{"bundle": bundle, "first": 1, "rows": rows}]))
        text = base64.b64encode(summary.encode()).decode()
        device.send_batch(device.rows("drift", [{"bundle": bundle, "summary": text}]))
        assert server.call("POST", "/labels", {"device": "stray", "labels": labels}) == {"stored": 200}
    drift = server.call("GET", "/devices/stray/drift")
    assert (drift["level"], drift["windows"], len(drift["history"])) == ("ALARM", 3, 3)
    assert drift["moved"]
    assert drift["estimated_accuracy"] < drift["reference_accuracy"]
    assert drift["true"]["n"] == 200
    assert drift["true_accuracy"] == drift["true"]["value"] < 0.8
    listed = next(one for one in server.call("GET", "/devices") if one["device"] == "stray")
    assert listed["drift"]["level"] == "ALARM"
    assert 'strop_drift_level{device="stray",level="ALARM"} 1' in server.send("GET", "/metrics").text


def test_telemetry_is_paged_by_arrival(server, devices):
    (device,) = devices("pager")
    for part in range(3):
        device.send_batch(device.rows("metric", [{"n": 10 * part + i, "share": 0.5} for i in range(10)]))
    seen, after = [], 0
    while rows := (page := server.call("GET", f"/devices/pager/telemetry?class=metric&after={after}&limit=7"))["rows"]:
        seen += [row["body"]["n"] for row in rows]
        after = page["after"]
        assert rows[0]["body"]["share"] == 0.5
    assert seen == list(range(30))


def test_an_offline_device_delivers_late_complete_and_once(server, devices):
    (device,) = devices("late")
    kept = [
        device.rows("result", [{"bundle": "b", "first": i, "rows": [[f"s:{i}", i % 10, 0.5]]}], after=0)
        for i in range(20)
    ]
    device.close()
    device.connect()
    for batch in reversed(kept):
        device.say("tm/result", encode_batch(batch))
        device.say("tm/result", encode_batch(batch))
    until(lambda: b'"up_to_seq":20' in device.wait("tm/ack"), "the last acknowledgement")
    found = server.call("GET", "/devices/late")
    assert (found["rows"], found["results"]) == ({"result": 20}, 20)


def test_enrolment_is_once_and_names_are_not_taken_over(server, tmp_path):
    url, token = server.endpoints["enrol"], server.call("POST", "/tokens")["token"]
    enrol(tmp_path / "a", url, token, "unique")
    with pytest.raises(EnrolmentError, match="already used by device 'unique'"):
        enrol(tmp_path / "b", url, token, "unique-2")
    fresh = server.call("POST", "/tokens", {"ttl_s": 60})["token"]
    with pytest.raises(EnrolmentError, match="device 'unique' is enrolled already"):
        enrol(tmp_path / "c", url, fresh, "unique")
    with pytest.raises(EnrolmentError, match="the server's own"):
        enrol(tmp_path / "d", url, fresh, "strop-server")
    assert server.call("DELETE", "/devices/unique") == {"removed": "unique"}
    enrol(tmp_path / "e", url, fresh, "unique")
    server.call("DELETE", "/devices/unique")
    assert server.send("GET", "/api/v1/devices/unique").status_code == 404
    expired = server.call("POST", "/tokens", {"ttl_s": 0.001})["token"]
    with pytest.raises(EnrolmentError, match="expired"):
        enrol(tmp_path / "f", url, expired, "unique-3")


def test_removing_a_device_lets_its_rollout_go_on(server, devices, bundles, tmp_path):
    (stays,) = devices("stays")
    server.device(tmp_path / "leaves", "leaves")
    rollout = start(server, bundles, "1.0.0", ["leaves", "stays"])
    server.call("DELETE", "/devices/leaves")
    stays.install(stays.order())
    found = ended(server, rollout)
    assert [e["status"] for e in found["executions"]] == ["REMOVED", "SUCCEEDED"]


def test_the_same_model_again_is_fine_and_another_one_under_its_name_is_not(server, bundles, profile, tmp_path):
    assert server.register(bundles["1.0.0"][0])["bundle"] == bundles["1.0.0"][1]
    write_bundle(tmp_path / "forged", "1.0.0", profile, model="digits")
    (tmp_path / "forged" / "labels.txt").write_bytes(b"x")
    manifest = json.loads((tmp_path / "forged" / "manifest.json").read_bytes())
    from edge_contract import canonical
    from edge_contract.manifest import Manifest

    for entry in manifest["files"]:
        if entry["path"] == "labels.txt":
            entry.update(size=1, sha256=canonical.digest(b"x"))
    (tmp_path / "forged" / "manifest.json").write_bytes(Manifest.from_json(manifest).to_bytes())
    with pytest.raises(AssertionError, match=r"version 1.0.0 is already bundle"):
        server.register(tmp_path / "forged")


def test_a_bundle_signed_by_other_keys_is_refused(server, bundles, tmp_path):
    signing.create_keys(tmp_path / "thief", (server.data / "tuf" / "online.pub").read_bytes())
    targets = signing.sign_bundle(tmp_path / "thief", bundles["1.2.0"][0]).decode()
    answer = server.send("POST", "/api/v1/models", {"bundle": bundles["1.2.0"][1], "targets": targets})
    assert (answer.status_code, answer.json()["kind"]) == (422, "SignatureError")
    root = server.send("PUT", "/api/v1/trust/root", content=(tmp_path / "thief" / "root.json").read_bytes())
    assert root.status_code == 422


CHANGES = [
    ("POST", "/tokens"),
    ("PUT", "/devices/x/config"),
    ("DELETE", "/devices/x"),
    ("PUT", "/trust/root"),
    ("PUT", f"/blobs/{'a' * 64}"),
    ("POST", "/models"),
    ("POST", "/models/check"),
    ("POST", "/rollouts"),
    ("POST", "/rollouts/r1/abort"),
    ("POST", "/labels"),
    ("POST", "/devices/x/revoke"),
    ("POST", "/devices/x/forgive"),
    ("POST", "/trust/online-key"),
    ("POST", "/captures"),
    ("POST", "/captures/c1/stop"),
    ("DELETE", "/captures/c1"),
]


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize("token", ["", "wrong", "tökèn"])
def test_every_change_needs_the_token(server, method, path, token):
    headers = {"authorization": f"Bearer {token}".encode()} if token else {}
    url = f"{server.endpoints['http']}/api/v1{path}"
    answer = httpx.request(method, url, json={}, headers=headers, trust_env=False)
    assert answer.status_code == 401
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "document", "status", "words"),
    [
        ("GET", "/devices/x", None, 404, "device 'x' is not known"),
        ("GET", "/devices/%3Cscript%3E", None, 404, "is not known"),
        ("GET", "/devices/x/drift", None, 404, "device 'x' is not known"),
        ("GET", "/devices/x/telemetry?class=nope", None, 400, "unknown class 'nope'"),
        ("GET", "/devices/x/telemetry?after=-1", None, 400, "query.after"),
        ("GET", "/rollouts/r999", None, 404, "rollout 'r999' is not known"),
        ("GET", "/nothing", None, 404, "Not Found"),
        ("PATCH", "/devices", None, 405, "Method Not Allowed"),
        ("POST", "/rollouts", {"model": "digits"}, 409, "field 'bundle' is missing"),
        ("POST", "/rollouts", {"model": "digits", "bundle": "a" * 64}, 409, "is not registered"),
        ("POST", "/rollouts/r999/pause", None, 404, "is not known"),
        ("POST", "/models", {"bundle": "zz"}, 400, "is not a SHA-256"),
        ("POST", "/models", {"bundle": "a" * 64, "targets": "{}"}, 409, "manifest.json is missing"),
        ("POST", "/tokens", {"ttl_s": -5}, 403, "a token cannot live for -5"),
        ("POST", "/labels", {"device": "x"}, 400, "labels"),
        ("PUT", "/devices/x/config", {"a": 1}, 400, "device 'x' is not enrolled"),
        ("PUT", "/devices/x/config", [1], 400, "expected an object of settings"),
        ("PUT", f"/blobs/{'a' * 64}", None, 422, "the bytes have digest"),
        ("PUT", "/blobs/short", None, 422, "is not a SHA-256"),
        ("PUT", "/trust/root", {"not": "a root"}, 422, "root"),
        ("DELETE", "/devices/x", None, 400, "device 'x' is not enrolled"),
    ],
)
def test_bad_input_is_one_line_of_json(server, method, path, document, status, words):
    answer = server.send(method, f"/api/v1{path}", document)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_a_body_that_is_no_json_is_refused(server):
    headers = {"authorization": f"Bearer {server.token}", "content-type": "application/json"}
    url = f"{server.endpoints['http']}/api/v1/rollouts"
    answer = httpx.post(url, content=b"{", headers=headers, trust_env=False)
    assert answer.status_code == 400
    assert "body" in answer.json()["error"]


def test_the_audit_log_tells_who_did_what(server):
    found = server.call("GET", "/audit?limit=10000")
    assert found["broken_at"] is None
    actions = {entry["action"] for entry in found["entries"]}
    assert {"trust.root", "blob.put", "model.add"} <= actions
    assert all(entry["time"] <= time.time() for entry in found["entries"])


def test_metrics_are_prometheus_text(server):
    lines = server.send("GET", "/metrics").text.splitlines()
    assert "# TYPE strop_devices gauge" in lines
    assert all(line.startswith("#") or len(line.rsplit(" ", 1)) == 2 for line in lines)


def test_pages_send_their_protection(server):
    answer = server.send("GET", "/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "http" not in answer.text.replace(server.endpoints["http"], "")  # nothing is loaded from elsewhere
