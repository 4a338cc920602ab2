# SPDX-License-Identifier: Apache-2.0
"""Channels, lineage, rules and teams against a real server: what a person types, and what is refused."""

import hashlib
import json
from urllib.parse import quote

import httpx
import pytest
from typer.testing import CliRunner

from edge_contract import canonical
from edge_contract.errors import StropError
from export.keys import signing, teams
from fleet.cli import app
from tests.support.registry import PARITY, contents_of, manifest_of, wilson

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def strop(server):
    """A function that runs a verb of ``strop fleet`` here; its last argument may be the error that is expected."""

    def run(*words, fails=None):
        result = CliRunner().invoke(app, [*map(str, words), "--data", str(server.data)])
        if fails is not None:
            assert isinstance(result.exception, StropError), result.output
            assert "\n" not in str(result.exception)
            assert fails in str(result.exception)
            return ""
        assert result.exit_code == 0, result.output or repr(result.exception)
        return result.output

    return run


def write(folder, model, version, lineage=None):
    contents = contents_of(version, parity=PARITY)
    manifest = manifest_of(model, version, contents, lineage)
    folder.mkdir(parents=True)
    for name, data in {**contents, "manifest.json": manifest.to_bytes()}.items():
        (folder / name).write_bytes(data)
    return manifest.bundle_id


def test_a_person_moves_versions_and_looks_at_their_history(strop, bundles):
    forced = ("--to", "candidate", "--force", "--reason", "first of all")
    assert "digits candidate: nothing → " in strop("model", "promote", "digits", "1.0.0", *forced)
    strop(
        "channel", "set", "digits", "production", "1.0.0", fails="the rules of production are not met: the bundle has"
    )
    strop("channel", "set", "digits", "site-b", "1.1.0", "--reason", "pilot")
    strop("channel", "set", "digits", "site-b", bundles["1.2.0"][1][:10])
    assert "site-b  " in strop("channel", "list")
    said = strop("channel", "history", "digits").splitlines()
    assert "1.1.0  1.2.0" in said[1]
    assert said[2].split()[-1] == "pilot"
    assert "forced: the bundle has no parity.json: not met" in said[3]
    assert strop("channel", "demote", "digits", "site-b").startswith("digits site-b: ")
    strop("model", "delete", "digits", "1.0.0", fails="in use: channel candidate")
    strop("model", "retire", "digits", "1.2.0", "--reason", "not wanted")
    strop("model", "promote", "digits", "1.2.0", fails="it is retired")
    strop("model", "retire", "digits", "1.2.0", "--undo")
    assert "registered by  " in strop("model", "show", "digits", "1.0.0")
    assert json.loads(strop("model", "show", "digits", "1.0.0", "--json"))["channels"].keys() == {"candidate"}


def test_a_version_with_proofs_is_candidate_by_itself_is_found_and_told_apart(strop, server, tmp_path):
    score = {"accuracy": {"int8": wilson(960, 1000)}, "recipe": "ab" * 32, "data": "cd" * 32}
    for version, more in (("3.0", {}), ("3.1", {"parent": ""})):
        folder = tmp_path / version
        bundle = write(folder, "proven", version, score | more)
        signing.sign_bundle(server.keys, folder)
        said = strop("model", "add", folder, "--targets", server.keys / "targets.json")
        assert "by the rules, it is candidate now" in said
    held = json.loads(strop("channel", "list", "--json"))
    assert {one["model"]: one["channels"] for one in held}["proven"]["candidate"]["bundle"] == bundle
    assert " rules " in strop("channel", "history", "proven").splitlines()[1]
    said = strop("model", "search", "recipe:abababab and precision:int8 and size<50000 and channel:candidate")
    assert "3.1" in said
    assert "3.0" not in said
    strop("model", "search", "recipe:", fails="column 8: expected a word")
    assert "▶ proven 3.0" in strop("model", "lineage", "proven", "3.0")
    assert "model.tflite" in strop("model", "diff", "proven", "3.0", "3.1")
    check = strop("model", "check", "proven", "3.1")
    assert "candidate: stands there, by itself" in check
    assert "  1 pairs of runtimes are within their bounds, 0 steps at most: met" in check
    assert "  0 < 1 approvals: not met" in check
    (tmp_path / "bench.json").write_text(json.dumps(_bench(tmp_path / "3.1" / "model.tflite")))
    assert "attached" in strop("model", "attach", "proven", "3.1", tmp_path / "bench.json")
    strop("model", "attach", "proven", "3.0", tmp_path / "bench.json", fails="which the bundle does not hold")
    strop("model", "approve", "proven", "3.1", fails="registered it; another person must approve it")
    strop("model", "delete", "proven", "3.0")
    assert "deleted 0 files" in strop("model", "sweep")
    assert "3.0" not in strop("model", "search", "model:proven")


def _bench(path):
    artefact = hashlib.sha256(path.read_bytes()).hexdigest()
    device = {"board": "Raspberry Pi 4 Model B", "arch": "aarch64"}
    latency = {"total": {"p50": 900.0, "p90": 1000.0}}
    return {"schema": "edgebench/1", "status": "valid", "artifact": {"sha256": artefact}, "device": device,
            "latency_us": latency}  # fmt: skip


def test_rules_are_shown_checked_and_taken_over_without_a_restart(strop, server, tmp_path):
    assert "the packaged default" in strop("rules", "show")
    (server.data / "rules.toml").write_text("[[rule]]\nchannel = 'production'\napprovals = 2\n")
    assert "approvals = 2" in strop("rules", "show")
    result = CliRunner().invoke(app, ["rules", "check", str(server.data / "rules.toml")])
    assert "production of *: approvals" in result.output
    (server.data / "rules.toml").write_text("[[rule]]\nchannel = 'production'\napproval = 2\n")
    strop("rules", "show", fails="[rule 1]: unknown key 'approval'; write 'approvals'")
    strop("model", "check", "digits", "1.0.0", fails="unknown key 'approval'")
    strop("channel", "set", "digits", "production", "1.0.0", fails="unknown key 'approval'")
    (server.data / "rules.toml").unlink()
    strop("rules", "show")


def test_a_team_signs_its_own_models_and_the_operator_publishes(strop, server, tmp_path):
    team = tmp_path / "team"
    teams.create_team(team, "vision", ["vision-*"])
    teams.delegate(server.keys, "vision", ["vision-*"], (team / "vision.pub").read_bytes())
    strop("keys", "publish", server.keys / "targets.json")
    assert "team        vision signs vision-*: nothing published" in strop("keys", "show")
    bundle = write(tmp_path / "b", "vision-1", "1.0")
    teams.sign(team, tmp_path / "b")
    assert bundle in strop("model", "add", tmp_path / "b", "--targets", team / "vision.json")
    assert "team        vision signs vision-*: version 2" in strop("keys", "show")
    write(tmp_path / "audio", "audio", "1.0")
    strop("model", "add", tmp_path / "audio", "--targets", team / "vision.json", fails="is not in the signed targets")
    strop("keys", "publish", team / "vision.pub", fails="not TUF metadata")


def test_bytes_of_another_digest_and_a_huge_manifest_are_refused_and_leave_nothing(server):
    before = server.call("POST", "/blobs/sweep", {"grace_hours": 1000})
    assert before["files"] == 0
    name = "b" * 64
    answer = server.send("PUT", f"/api/v1/blobs/{name}", content=b"something else")
    assert (answer.status_code, "the bytes have digest" in answer.json()["error"]) == (422, True)
    assert server.send("GET", f"/api/v1/blobs/{name}").status_code == 404
    huge = canonical.dumps({"model": "x" * 300_000})
    name = hashlib.sha256(huge).hexdigest()
    server.call("PUT", f"/blobs/{name}", content=huge)
    targets = (server.keys / "targets.json").read_text()
    answer = server.send("POST", "/api/v1/models", {"bundle": name, "targets": targets})
    assert (answer.status_code, "more than 262144" in answer.json()["error"]) == (400, True)


ODD = [
    "..%2f..%2fetc",
    "../../etc/passwd",
    "a\r\nset-cookie: x=y",
    "<script>",
    "%00",
    "x" * 300,
    "'; DROP TABLE models; --",
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_odd_names_in_paths_and_documents_are_refused_in_one_line(server, odd):
    name = quote(odd, safe="")
    asks = [
        ("GET", f"/models/{name}/channels", None),
        ("GET", f"/models/digits/versions/{name}", None),
        ("GET", f"/models/{name}/versions/1.0.0/lineage", None),
        ("GET", f"/models/digits/diff?old={name}&new={name}", None),
        ("PUT", f"/models/digits/channels/{name}", {"version": "1.0.0"}),
        ("PUT", "/models/digits/channels/gold", {"version": odd}),
        ("POST", "/models/digits/versions/1.0.0/promote", {"to": odd or "x"}),
        ("DELETE", f"/models/digits/versions/{name}", None),
        ("GET", f"/versions?q={name}", None),
    ]
    for method, path, document in asks:
        answer = server.send(method, f"/api/v1{path}", document)
        assert 400 <= answer.status_code < 500, (path, answer.text)
        assert "set-cookie" not in answer.headers
        assert "\n" not in answer.json()["error"]
    assert server.call("GET", "/models")


BODIES = [[], "x", {"version": 3}, {"version": "1.0.0", "force": "yes"}, {"version": "1.0.0", "reason": ["a"]}, None]


@pytest.mark.parametrize("document", BODIES, ids=range(len(BODIES)))
def test_a_document_of_another_form_is_a_400(server, document):
    answer = server.send("PUT", "/api/v1/models/digits/channels/gold", document)
    assert (answer.status_code, "\n" in answer.json()["error"]) == (400, False)


def test_reasons_cannot_break_lines_or_outgrow_the_log(server, strop):
    reason = "line\r\nset-cookie: a=b " + "x" * 5000
    moved = server.call("PUT", "/models/digits/channels/gold", {"version": "1.1.0", "reason": reason})
    assert moved["reason"].startswith("line set-cookie")
    assert len(moved["reason"]) == 500
    assert strop("audit", "--json")


CHANGES = [
    ("PUT", "/models/digits/channels/gold"),
    ("POST", "/models/digits/channels/gold/demote"),
    ("DELETE", "/models/digits/versions/1.0.0"),
    ("POST", "/rules/check"),
    ("POST", "/blobs/sweep"),
    ("PUT", "/trust/targets"),
    *(("POST", f"/models/digits/versions/1.0.0/{verb}") for verb in ("promote", "retire", "approve", "measurements")),
]


def test_every_change_needs_a_token(server):
    for method, path in CHANGES:
        url = f"{server.endpoints['http']}/api/v1{path}"
        assert httpx.request(method, url, json={}, trust_env=False).status_code == 401, path
        assert server.send(method, f"/api/v1{path}", {}, token="wrong").status_code == 401, path
