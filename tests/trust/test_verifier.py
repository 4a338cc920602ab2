# SPDX-License-Identifier: Apache-2.0
"""The device's verifier against a repository in memory that can lie in every way: the attacks of the TUF specification.

The same class answers the public conformance suite (``make tuf-conformance SUITE=path``); what is here is what must
never break unseen: rollback, freeze, fast-forward and the way out of it, mix and match, root rotation, thresholds,
delegations, wrong sizes and hashes, endless data, and key kinds.
"""

import datetime as dt
import http.server
import threading
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from securesystemslib.signer import CryptoSigner
from tuf.api import exceptions
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.ngclient.fetcher import FetcherInterface

from edge_agent import tuf_conformance
from edge_agent.adapters.tuf_client import DeviceUpdater

NOW = 1_800_000_000.0
DAY = 86_400.0
TOP = ("root", "targets", "snapshot", "timestamp")


def at(seconds):
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


class Repo(FetcherInterface):
    """A repository whose next edition anything may be changed in before ``publish``.

    ``served`` maps a file's name to its bytes; ``asked`` is what was fetched.
    """

    def __init__(self, *, signers=None, consistent=True):
        self.end = at(NOW + 30 * DAY)
        self.signers = signers or {role: [CryptoSigner.generate_ed25519()] for role in TOP}
        self.root = Root(1, expires=self.end, consistent_snapshot=consistent)
        for role in TOP:
            self.root.roles[role] = Role([], 1)
            for signer in self.signers[role]:
                self.root.add_key(signer.public_key, role)
        self.targets = Targets(1, expires=self.end)
        self.roles: dict[str, Targets] = {}
        self.snapshot = Snapshot(1, expires=self.end)
        self.timestamp = Timestamp(1, expires=self.end)
        self.served, self.asked = {}, []
        self.publish_root()
        self.publish(bump=False)

    def _fetch(self, url):
        name = url.removeprefix("http://repo/")
        self.asked.append(name)
        if name not in self.served:
            raise exceptions.DownloadHTTPError(f"no {name}", 404)
        return iter((self.served[name],))

    def signed(self, part, *signers):
        metadata = Metadata(part)
        for signer in signers:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def publish_root(self, *more):
        self.served[f"{self.root.version}.root.json"] = self.signed(self.root, *self.signers["root"], *more)

    def put(self, role, part):
        data = self.signed(part, *self.signers[role])
        prefix = f"{part.version}." if self.root.consistent_snapshot and role != "timestamp" else ""
        self.served[f"{prefix}{role}.json"] = data
        return MetaFile(part.version, len(data), {"sha256": _sha256(data)})

    def publish(self, *, bump=True, roles=()):
        if bump:
            self.targets.version += 1
            self.snapshot.version += 1
            self.timestamp.version += 1
        self.snapshot.meta["targets.json"] = self.put("targets", self.targets)
        for role in roles or self.roles:
            self.snapshot.meta[f"{role}.json"] = self.put(role, self.roles[role])
        self.timestamp.snapshot_meta = self.put("snapshot", self.snapshot)
        self.put("timestamp", self.timestamp)

    def renew_root(self, role=None, *, also=()):
        """Publish the next root; with ``role`` that role gets one new key in place of all."""
        old = self.signers["root"]
        if role:
            for keyid in list(self.root.roles[role].keyids):
                self.root.revoke_key(keyid, role)
            self.signers[role] = [CryptoSigner.generate_ed25519()]
            self.root.add_key(self.signers[role][0].public_key, role)
        self.root.version += 1
        self.publish_root(*(old if role == "root" else ()), *also)

    def delegate(self, name, paths, *, parent=None, threshold=1, keys=1, terminating=False):
        parent = self.targets if parent is None else self.roles[parent]
        if parent.delegations is None:
            parent.delegations = Delegations({}, {})
        assert parent.delegations.roles is not None
        self.roles.setdefault(name, Targets(1, expires=self.end))
        parent.delegations.roles[name] = DelegatedRole(name, [], threshold, terminating, paths)
        made = [CryptoSigner.generate_ed25519() for _ in range(keys)]
        for signer in made:
            parent.add_key(signer.public_key, name)
        self.signers.setdefault(name, []).extend(made)
        return made

    def add(self, path, data, role=None):
        part = self.targets if role is None else self.roles[role]
        part.targets[path] = TargetFile.from_data(path, data, ["sha256"])


def _sha256(data):
    import hashlib

    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def repo():
    return Repo()


@pytest.fixture
def client(repo, tmp_path):
    """A function that starts the verifier as the helper does: (now, repo) → updater."""
    anchor = repo.served["1.root.json"]

    def start(now=NOW, of=repo):
        return DeviceUpdater(tmp_path / "tuf", "http://repo/", of, anchor, now)

    return start


def kept(tmp_path, role):
    return Metadata.from_file(str(tmp_path / "tuf" / f"{role}.json")).signed.version


# Rollback, freeze, mix and match.


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_lower_version_of_any_role_is_refused_and_the_newer_one_is_kept(repo, client, tmp_path, role):
    repo.publish()
    client().refresh()
    part = getattr(repo, role)
    part.version -= 1
    if role == "snapshot":
        repo.timestamp.version += 1
    if role == "targets":
        repo.snapshot.version, repo.timestamp.version = 3, 3
    repo.publish(bump=False)
    with pytest.raises(exceptions.BadVersionNumberError):
        client().refresh()
    assert kept(tmp_path, role) == 2


def test_a_snapshot_that_forgets_a_role_is_refused(repo, client):
    repo.delegate("family", ["digits/*"])
    repo.publish()
    client().refresh()
    repo.roles.clear()
    del repo.snapshot.meta["family.json"]
    repo.publish()
    with pytest.raises(exceptions.RepositoryError, match=r"missing info for 'family\.json'"):
        client().refresh()


def test_a_repository_that_is_frozen_is_refused_when_its_timestamp_ends(repo, client):
    repo.timestamp.expires = at(NOW + DAY)
    repo.publish()
    client().refresh()
    with pytest.raises(exceptions.ExpiredMetadataError, match="timestamp"):
        client(NOW + 2 * DAY).refresh()


@pytest.mark.parametrize("role", ["root", "snapshot", "targets"])
def test_every_role_has_an_end(repo, client, role):
    getattr(repo, role).expires = at(NOW - 1)
    if role == "root":
        repo.root.version += 1
        repo.publish_root()
    repo.publish()
    with pytest.raises(exceptions.ExpiredMetadataError):
        client().refresh()


def test_an_expired_root_in_the_middle_of_the_chain_is_only_a_step(repo, client):
    repo.root.expires = at(NOW - 1)
    repo.renew_root()
    repo.root.expires = repo.end
    repo.renew_root()
    client().refresh()


def test_parts_of_two_editions_are_not_mixed(repo, client):
    repo.add("blobs/a", b"one")
    repo.publish()
    first = dict(repo.served)
    repo.add("blobs/b", b"two")
    repo.publish()
    repo.served["3.targets.json"] = first["2.targets.json"]  # the old targets under the new edition's name
    with pytest.raises(exceptions.RepositoryError):
        client().refresh()
    repo.served["3.snapshot.json"] = first["2.snapshot.json"]
    with pytest.raises(exceptions.RepositoryError):
        client().refresh()


# Fast forward: a thief of the online key writes version 2**31; the way out is a new key for that role.


@pytest.mark.parametrize("roles", [("timestamp",), ("timestamp", "snapshot")])
def test_the_fleet_recovers_from_a_fast_forward_by_rotating_the_stolen_keys(repo, client, tmp_path, roles):
    for role in roles:
        getattr(repo, role).version = 2**31
    repo.publish(bump=False)
    client().refresh()
    for role in roles:
        getattr(repo, role).version = 2
    repo.targets.version = 2
    repo.publish(bump=False)
    with pytest.raises(exceptions.BadVersionNumberError):
        client().refresh()  # the honest edition looks like a rollback …
    for role in roles:
        repo.renew_root(role)
    repo.publish(bump=False)
    client().refresh()  # … until the root no longer knows the thief's key
    assert [kept(tmp_path, role) for role in roles] == [2] * len(roles)


# The chain of roots.


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_root_keys_that_were_rotated_while_the_device_was_offline_are_walked_step_by_step(repo, client, steps):
    client().refresh()
    for _ in range(steps):
        repo.renew_root("root")
    repo.publish()
    repo.asked.clear()
    client().refresh()
    assert repo.asked[: steps + 1] == [f"{n + 2}.root.json" for n in range(steps + 1)]


def test_a_chain_with_a_missing_root_stops_before_the_gap(repo, client, tmp_path):
    for _ in range(3):
        repo.renew_root("root")
    del repo.served["3.root.json"]
    client().refresh()
    assert kept(tmp_path, "root") == 2


ROOTS = {
    "a version that was left out": lambda repo: setattr(repo.root, "version", repo.root.version + 2),
    "the same version again": lambda repo: None,
}


@pytest.mark.parametrize("case", ROOTS)
def test_the_next_root_must_be_the_next(repo, client, case):
    ROOTS[case](repo)
    repo.served["2.root.json"] = repo.signed(repo.root, *repo.signers["root"])
    with pytest.raises(exceptions.BadVersionNumberError):
        client().refresh()


def test_a_root_needs_the_old_and_the_new_threshold(repo, client):
    old = repo.signers["root"]
    new = [CryptoSigner.generate_ed25519() for _ in range(3)]
    for signer in new:
        repo.root.add_key(signer.public_key, "root")
    repo.root.revoke_key(old[0].public_key.keyid, "root")
    repo.root.roles["root"].threshold = 2
    repo.root.version = 2
    for signers, is_enough in [(new, False), (old, False), ([*old, new[0]], False), ([*old, *new[:2]], True)]:
        repo.served["2.root.json"] = repo.signed(repo.root, *signers)
        if is_enough:
            client().refresh()
        else:
            with pytest.raises(exceptions.UnsignedMetadataError):
                client().refresh()


# Thresholds and keys.


def test_one_key_that_signs_twice_is_one_of_two(repo, client):
    second = CryptoSigner.generate_ed25519()
    repo.root.add_key(second.public_key, "targets")
    repo.root.roles["targets"].threshold = 2
    repo.renew_root()
    repo.signers["targets"] = [repo.signers["targets"][0]] * 2
    repo.publish()
    with pytest.raises(exceptions.UnsignedMetadataError, match="1/2 keys"):
        client().refresh()
    repo.signers["targets"] = [repo.signers["targets"][0], second]
    repo.publish()
    client().refresh()


@pytest.mark.parametrize("role", TOP)
def test_metadata_without_a_signature_is_refused(repo, client, role):
    repo.signers[role] = []
    if role == "root":
        repo.renew_root()
    repo.publish()
    with pytest.raises(exceptions.UnsignedMetadataError):
        client().refresh()


KINDS = {
    "ed25519": CryptoSigner.generate_ed25519,
    "ecdsa p-256": lambda: CryptoSigner(ec.generate_private_key(ec.SECP256R1())),
    "rsa 2048": lambda: CryptoSigner(rsa.generate_private_key(65537, 2048)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_keys_of_every_kind_of_the_specification_are_verified(tmp_path, kind):
    signer = KINDS[kind]()
    repo = Repo(signers={role: [signer] for role in TOP})
    anchor = repo.served["1.root.json"]
    DeviceUpdater(tmp_path / "tuf", "http://repo/", repo, anchor, NOW).refresh()
    repo.served["timestamp.json"] = repo.signed(repo.timestamp, KINDS[kind]())
    with pytest.raises(exceptions.UnsignedMetadataError):
        DeviceUpdater(tmp_path / "new", "http://repo/", repo, anchor, NOW).refresh()


# Sizes, hashes, endless data.


@pytest.mark.parametrize("role", ["snapshot", "targets"])
@pytest.mark.parametrize("change", [{"length": 10}, {"hashes": {"sha256": "0" * 64}}, {"version": 9}])
def test_a_file_of_another_length_digest_or_version_than_was_signed_is_refused(repo, client, role, change):
    holder = repo.timestamp.snapshot_meta if role == "snapshot" else repo.snapshot.meta["targets.json"]
    for name, value in change.items():
        setattr(holder, name, value)
    repo.served["9.targets.json"] = repo.served["1.targets.json"]
    repo.served["9.snapshot.json"] = repo.served["1.snapshot.json"]
    if role == "targets":
        repo.timestamp.snapshot_meta = repo.put("snapshot", repo.snapshot)
    repo.put("timestamp", repo.timestamp)
    with pytest.raises((exceptions.RepositoryError, exceptions.DownloadLengthMismatchError)):
        client().refresh()


@pytest.mark.parametrize("name", ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"])
def test_endless_data_ends_in_every_role(repo, client, name):
    repo.served[name] = b" " * 5_000_001
    with pytest.raises(exceptions.DownloadLengthMismatchError):
        client().refresh()


# Consistent snapshots: names with versions, so that an edition in the making is never half seen.


def test_names_carry_versions_exactly_when_the_root_says_so(tmp_path):
    for consistent, names in [
        (True, ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]),
        (False, ["2.root.json", "timestamp.json", "snapshot.json", "targets.json"]),
    ]:
        repo = Repo(consistent=consistent)
        anchor = repo.served["1.root.json"]
        DeviceUpdater(tmp_path / str(consistent), "http://repo/", repo, anchor, NOW).refresh()
        assert repo.asked == names


# Delegations: a family of models with keys of its own.


def test_a_family_signs_below_its_own_paths_only(repo, client):
    repo.delegate("digits", ["digits/*"])
    repo.add("digits/a", b"ours", "digits")
    repo.add("faces/a", b"not ours", "digits")
    repo.publish()
    assert client().get_targetinfo("digits/a") is not None
    assert client().get_targetinfo("faces/a") is None


def test_a_family_needs_its_own_threshold_and_no_other_familys_key(repo, client):
    first, second = repo.delegate("digits", ["digits/*"], threshold=2, keys=2)
    foreign = repo.delegate("faces", ["faces/*"])
    repo.add("digits/a", b"ours", "digits")
    for signers, is_enough in [([first], False), ([first, *foreign], False), ([first, second], True)]:
        repo.signers["digits"] = signers
        repo.publish()
        if is_enough:
            assert client().get_targetinfo("digits/a") is not None
        else:
            with pytest.raises(exceptions.UnsignedMetadataError):
                client().get_targetinfo("digits/a")


def test_the_first_family_that_knows_a_target_wins_and_a_terminating_one_ends_the_search(repo, client):
    repo.delegate("first", ["*"], terminating=True)
    repo.delegate("second", ["*"])
    repo.add("b", b"second", "second")
    repo.publish()
    assert client().get_targetinfo("b") is None
    repo.targets.delegations.roles["first"].terminating = False
    repo.publish()
    assert client().get_targetinfo("b").length == len(b"second")
    repo.roles["first"].version += 1
    repo.add("b", b"first", "first")
    repo.publish()
    assert client().get_targetinfo("b").length == len(b"first")


def test_a_family_that_the_snapshot_does_not_know_is_refused(repo, client):
    repo.delegate("digits", ["digits/*"])
    repo.publish()
    del repo.snapshot.meta["digits.json"]
    repo.roles.clear()
    repo.publish()
    with pytest.raises(exceptions.RepositoryError, match="digits"):
        client().get_targetinfo("digits/a")


def test_a_role_that_one_parent_vouches_for_is_not_trusted_through_another(repo, client):
    repo.delegate("a", ["a/*"])
    repo.delegate("b", ["b/*"])
    (key_a,) = repo.delegate("release", ["a/*"], parent="a")
    repo.delegate("release", ["b/*"], parent="b")
    repo.signers["release"] = [key_a]
    repo.add("a/x", b"good", "release")
    repo.add("b/x", b"bad", "release")
    repo.publish()
    updater = client()
    assert updater.get_targetinfo("a/x") is not None
    with pytest.raises(exceptions.UnsignedMetadataError):
        updater.get_targetinfo("b/x")


def test_delegations_in_a_circle_end(repo, client):
    repo.delegate("a", ["*"])
    repo.delegate("b", ["*"], parent="a")
    repo.delegate("a", ["*"], parent="b")
    repo.publish()
    assert client().get_targetinfo("nothing") is None


# The three commands of the conformance suite.


@pytest.fixture
def web(repo):
    """The repository on loopback; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            """Keep quiet."""

        def do_GET(self):
            repo.asked.append(self.path)
            data = repo.served.get(self.path.removeprefix("/m/").removeprefix("/t/"))
            self.send_response(404 if data is None else 200)
            self.end_headers()
            self.wfile.write(data or b"")

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_init_refresh_and_download_keep_the_words_of_the_suite(repo, web, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)
    data = b"weights"
    repo.add("a b/ü.bin", data)
    repo.publish()
    served = f"a%20b/{_sha256(data)}.%C3%BC.bin"
    repo.served[served] = data
    (tmp_path / "root").write_bytes(repo.served["1.root.json"])
    where = ["--metadata-dir", str(tmp_path / "m"), "--metadata-url", f"{web}/m"]
    get = ["--target-name", "a b/ü.bin", "--target-base-url", f"{web}/t", "--target-dir", str(tmp_path / "t")]
    assert tuf_conformance.main([*where[:2], "init", str(tmp_path / "root")]) == 0
    assert repo.asked == []
    assert tuf_conformance.main([*where, "refresh"]) == 0
    assert (tmp_path / "m" / "targets.json").read_bytes() == repo.served["2.targets.json"]
    assert tuf_conformance.main([*where, *get, "download"]) == 0
    assert [path.read_bytes() for path in (tmp_path / "t").iterdir()] == [data]
    repo.asked.clear()
    assert tuf_conformance.main([*where, *get, "download"]) == 0  # it is here already
    assert f"/t/{served}" not in repo.asked
    assert tuf_conformance.main([*where, *get[2:], "--target-name", "none", "download"]) == 1
    assert "error: SignatureError" in capsys.readouterr().err
    repo.served[served] = b"changed"
    next((tmp_path / "t").iterdir()).unlink()
    assert tuf_conformance.main([*where, *get, "download"]) == 1
    assert not list((tmp_path / "t").iterdir())
