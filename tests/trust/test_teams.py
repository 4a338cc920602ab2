# SPDX-License-Identifier: Apache-2.0
"""Delegations: a team signs the models of its family, a device believes it for those and for nothing else."""

import json
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, TargetFile, Targets
from typer.testing import CliRunner

from edge_agent.adapters.tuf_client import refresh
from edge_contract.delegations import may_sign, name_of, path_of, split
from edge_contract.errors import SignatureError, UsageError
from export.keys import signing, teams
from export.keys.cli import app
from export.keys.folder import all_signers, at
from fleet.adapters.tuf_repo import TufRepository
from tests.support.registry import contents_of, manifest_of

DAY = 86_400.0


def make_bundle(folder, model, version="1.0"):
    """Write a small bundle of a model and return its folder and id."""
    contents = contents_of(f"{model} {version}")
    manifest = manifest_of(model, version, contents)
    folder.mkdir(parents=True)
    for name, data in {**contents, "manifest.json": manifest.to_bytes()}.items():
        (folder / name).write_bytes(data)
    return folder, manifest.bundle_id


class Team:
    """A team's folder beside a fleet: signs, and hands in what it signed."""

    def __init__(self, fleet, folder, name="vision", models=("vision-*",)):
        self.fleet, self.folder, self.name, self.models = fleet, folder, name, models
        teams.create_team(folder, name, models)

    def delegated(self):
        self.publish(teams.delegate(self.fleet.keys, self.name, self.models, self.public))
        return self

    @property
    def public(self):
        return (self.folder / f"{self.name}.pub").read_bytes()

    @property
    def signed(self):
        return (self.folder / f"{self.name}.json").read_bytes()

    def publish(self, data=None):
        self.fleet.repository.publish_targets(data or self.signed, now=time.time())

    def forge(self, *targets):
        """Sign any names with the team's real key, and show them to devices as a server that was taken over would."""
        version = Metadata[Targets].from_bytes(self.signed).signed.version + 1
        files = {name: TargetFile(size, {"sha256": sha256}, name) for name, sha256, size in targets}
        made = Metadata(Targets(version, expires=at(None).replace(year=2035), targets=files))
        for signer in all_signers(self.folder):
            made.sign(signer, append=True)
        repository = self.fleet.repository
        (self.fleet.data / "tuf" / f"{version}.{self.name}.json").write_bytes(made.to_bytes())
        repository._teams[self.name] = made
        repository._sign_snapshot(time.time())


@pytest.fixture
def team(fleet, tmp_path):
    return Team(fleet, tmp_path / "team").delegated()


@pytest.fixture
def vision(tmp_path):
    return make_bundle(tmp_path / "vision-1", "vision-1")


def asked(device, fleet, bundle_id, model):
    return refresh(device, fleet.device_url, [bundle_id], time.time(), model)


def test_a_device_believes_a_team_for_its_own_models(fleet, device, team, vision):
    folder, bundle_id = vision
    teams.sign(team.folder, folder)
    team.publish()
    facts = asked(device, fleet, bundle_id, "vision-1")
    files = {path for path in folder.iterdir() if path.name != "manifest.json"}
    assert len(facts) == 1 + len(files)
    assert facts[bundle_id]["custom"]["model"] == "vision-1"
    assert fleet.repository.authorises(bundle_id)
    assert fleet.repository.shown()["teams"]["vision"]["models"] == ["vision-*"]


def test_the_helper_process_asks_for_the_model_of_the_order(fleet, device, team, vision, helper):
    folder, bundle_id = vision
    teams.sign(team.folder, folder)
    team.publish()
    found = helper(device).refresh(fleet.device_url, [bundle_id], model="vision-1")
    assert found[bundle_id].custom["version"] == "1.0"
    with pytest.raises(SignatureError, match="is not signed in targets version"):
        helper(device).refresh(fleet.device_url, [bundle_id], model="audio")


def test_a_teams_signature_is_worth_nothing_for_an_order_of_another_model(fleet, device, team, vision):
    folder, bundle_id = vision
    teams.sign(team.folder, folder)
    team.publish()
    for model in ("audio", "", "strop-agent", "vision-2", "../vision-1"):
        with pytest.raises(SignatureError, match="is not signed in targets version"):
            asked(device, fleet, bundle_id, model)


def test_a_team_cannot_sign_a_model_of_others_at_its_desk_at_the_server_or_before_a_device(
    fleet, device, team, tmp_path
):
    folder, bundle_id = make_bundle(tmp_path / "audio", "audio")
    size = (folder / "manifest.json").stat().st_size
    with pytest.raises(SignatureError, match=r"team 'vision' signs vision-\*, not 'audio'"):
        teams.sign(team.folder, folder)
    # A team that lies to its own tool is refused by the server …
    lying = Team(fleet, tmp_path / "liar", "liar", ("*",))
    fleet.repository.publish_targets(teams.delegate(fleet.keys, "liar", ["vision-*"], lying.public), now=time.time())
    teams.sign(lying.folder, folder)
    with pytest.raises(SignatureError, match="team 'liar' may not sign model 'audio'"):
        lying.publish()
    # … and a server that was taken over cannot make a device believe it.
    lying.forge((f"models/audio/{bundle_id}", bundle_id, size), (f"blobs/{bundle_id}", bundle_id, size))
    with pytest.raises(SignatureError, match="is not signed"):
        asked(device, fleet, bundle_id, "audio")
    assert not fleet.repository.authorises(bundle_id)


def test_the_agents_own_software_is_never_a_teams_however_wide_its_pattern(fleet, device, tmp_path):
    wide = Team(fleet, tmp_path / "wide", "wide", ("*",)).delegated()
    wide.forge(("models/strop-agent/" + "a" * 64, "a" * 64, 10))
    with pytest.raises(SignatureError, match="is not signed"):
        asked(device, fleet, "a" * 64, "strop-agent")
    assert not fleet.repository.authorises("a" * 64)


def test_what_the_fleet_signs_stays_good_while_a_team_has_handed_in_nothing(fleet, device, tmp_path, vision):
    Team(fleet, tmp_path / "team").delegated()
    folder, bundle_id = vision
    fleet.publish(folder)
    assert bundle_id in asked(device, fleet, bundle_id, "vision-1")
    with pytest.raises(SignatureError, match="was delegated but is not part of snapshot"):
        asked(device, fleet, "b" * 64, "vision-1")


def test_a_team_whose_delegation_ended_signs_nothing_any_more_and_the_snapshot_forgets_nothing(
    fleet, device, team, vision
):
    folder, bundle_id = vision
    teams.sign(team.folder, folder)
    team.publish()
    asked(device, fleet, bundle_id, "vision-1")
    team.publish(teams.delegate(fleet.keys, "vision", [], None))
    with pytest.raises(SignatureError, match="is not signed"):
        asked(device, fleet, bundle_id, "vision-1")
    assert not fleet.repository.authorises(bundle_id)
    with pytest.raises(SignatureError, match="team 'vision' signs nothing here"):
        teams.delegate(fleet.keys, "vision", [], None)
    with pytest.raises(SignatureError, match="signed by nobody whom we trust"):
        team.publish(teams.sign_for_team(team.folder, folder, now=time.time() + 300 * DAY))


def test_a_new_key_of_a_team_takes_over_and_the_old_one_ends(fleet, device, team, vision):
    folder, bundle_id = vision
    teams.sign(team.folder, folder)
    team.publish()
    old = all_signers(team.folder)
    teams.create_team(team.folder, "vision", ["vision-*"])
    assert {s.public_key.keyid for s in all_signers(team.folder)}.isdisjoint(s.public_key.keyid for s in old)
    team.publish(teams.delegate(fleet.keys, "vision", ["vision-*"], team.public))
    with pytest.raises(SignatureError, match="vision was signed by 0/1 keys"):
        asked(device, fleet, bundle_id, "vision-1")
    team.publish()
    assert bundle_id in asked(device, fleet, bundle_id, "vision-1")


def test_old_metadata_of_a_team_is_refused_by_the_server_and_by_a_device(fleet, device, team, vision, tmp_path):
    folder, bundle_id = vision
    first = teams.sign(team.folder, folder)
    other, other_id = make_bundle(tmp_path / "vision-2", "vision-2")
    team.publish(teams.sign(team.folder, other))
    asked(device, fleet, other_id, "vision-2")
    with pytest.raises(SignatureError, match="version 2 is not newer than 3"):
        team.publish(first)
    version = Metadata[Targets].from_bytes(first).signed.version
    fleet.repository._teams["vision"] = Metadata[Targets].from_bytes(first)
    (fleet.data / "tuf" / f"{version}.vision.json").write_bytes(first)
    fleet.repository._sign_snapshot(time.time())
    with pytest.raises(SignatureError, match="rolled back"):
        asked(device, fleet, bundle_id, "vision-1")


def test_a_rotation_a_signature_and_a_withdrawal_keep_the_teams(fleet, device, team, vision, bundle):
    folder, bundle_id = vision
    teams.sign(team.folder, folder)
    team.publish()
    fleet.publish(bundle[0])
    signing.rotate_keys(fleet.keys, new_targets=True)
    rotated = {name: (fleet.keys / f"{name}.json").read_bytes() for name in ("root", "targets")}
    fleet.repository.install_root(rotated["root"], now=time.time(), targets=rotated["targets"])
    team.publish(signing.withdraw_bundle(fleet.keys, bundle[1]))
    assert bundle_id in asked(device, fleet, bundle_id, "vision-1")
    assert signing.describe_keys(fleet.keys)["teams"]["vision"]["paths"] == ["models/vision-*/*"]
    again = TufRepository(fleet.data / "tuf")  # a restart reads the same
    assert again.authorises(bundle_id)
    assert again.shown()["teams"] == fleet.repository.shown()["teams"]


def test_withdrawing_a_teams_bundle_leaves_what_its_others_need(team, vision, tmp_path):
    folder, bundle_id = vision
    other, _ = make_bundle(tmp_path / "two", "vision-1", "2.0")
    teams.sign(team.folder, folder)
    teams.sign(team.folder, other)
    assert teams.sign(team.folder, other) == team.signed  # again: the same bytes
    left = Metadata[Targets].from_bytes(teams.withdraw_for_team(team.folder, bundle_id)).signed.targets
    assert len(left) == len(list(other.iterdir()))
    with pytest.raises(SignatureError, match="no bundle"):
        teams.withdraw_for_team(team.folder, bundle_id)


@pytest.mark.parametrize(
    ("name", "models", "line"),
    [
        ("targets", ["a"], "'targets' is not a team's name"),
        ("../x", ["a"], "is not a team's name"),
        ("vision", [], "'' is not a pattern on model names"),
        ("vision", ["a/b"], "'a/b' is not a pattern"),
        ("vision", ["ok", "x" * 64], "is not a pattern"),
    ],
)
def test_odd_names_and_patterns_are_refused(tmp_path, name, models, line):
    with pytest.raises(UsageError, match=line):
        teams.create_team(tmp_path / "t", name, models)
    assert not (tmp_path / "t").exists()


def test_two_teams_cannot_share_a_key_and_a_folder_of_other_keys_is_left_alone(fleet, team):
    with pytest.raises(SignatureError, match="another team has this key"):
        teams.delegate(fleet.keys, "audio", ["audio-*"], team.public)
    with pytest.raises(SignatureError, match="not a public key in PEM"):
        teams.delegate(fleet.keys, "audio", ["audio-*"], b"junk")
    for folder in (fleet.keys, team.folder):
        with pytest.raises(SignatureError, match="other keys are here already"):
            teams.create_team(folder, "audio", ["audio-*"])


@pytest.mark.parametrize("paths", [["blobs/*"], ["models/*"], ["*"], ["models/a*/b/*"], ["models/v*/*", "root.json"]])
def test_the_server_publishes_no_delegation_of_other_names(fleet, paths):
    """Signed by the fleet's own key, but with another tool: devices would believe it."""
    pem = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    from export.keys.folder import online_key

    key = online_key(pem)
    role = DelegatedRole("vision", [key.keyid], 1, False, paths)
    made = Targets(9, expires=at(time.time() + DAY), delegations=Delegations({key.keyid: key}, {"vision": role}))
    metadata = Metadata(made)
    for signer in all_signers(fleet.keys):
        metadata.sign(signer, append=True)
    with pytest.raises(SignatureError, match=r"team 'vision' is given .*, not models/<pattern>/\*"):
        fleet.repository.publish_targets(metadata.to_bytes(), now=time.time())


def test_the_verbs_of_a_team_and_of_the_fleet(tmp_path):
    TufRepository.create(tmp_path / "tuf")
    keys, folder, online = tmp_path / "keys", tmp_path / "team", tmp_path / "tuf" / "online.pub"
    bundle, bundle_id = make_bundle(tmp_path / "b", "vision-1")

    def run(*words):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output or result.exception
        return result.output

    run("init", keys, "--online", online)
    assert "team          vision signs vision-*, audio" in run(
        "team", folder, "vision", "--model", "vision-*", "--model", "audio"
    )
    said = run("delegate", keys, "vision", "--model", "vision-*", "--public", folder / "vision.pub")
    assert "team          vision signs models/vision-*/*" in said
    assert f"bundle        {bundle_id[:16]}  vision-1 1.0" in run("sign", folder, bundle)
    assert json.loads(run("show", folder, "--json"))["bundles"][0]["bundle"] == bundle_id
    assert "bundle" not in run("withdraw", folder, bundle_id)
    assert "team" not in run("undelegate", keys, "vision")
    assert oct((next(folder.glob("*.key"))).stat().st_mode)[-3:] == "600"


LETTERS = st.text("abv-.1*?", min_size=1, max_size=6)


@given(pattern=LETTERS, model=st.text("abv-.1", min_size=1, max_size=6))
def test_what_the_server_lets_a_team_sign_is_what_the_specification_delegates(pattern, model):
    role = DelegatedRole("vision", ["k"], 1, False, [path_of(pattern)])
    assert may_sign(role.paths, model) == role.is_delegated_path(name_of(model, "a" * 64))
    assert not may_sign([path_of("*"), path_of(pattern)], "strop-agent")
    assert not role.is_delegated_path(f"blobs/{'a' * 64}")


@given(name=st.text(max_size=80))
def test_only_names_of_models_and_digests_are_split(name):
    said = split(name)
    assert said is None or name_of(*said) == name
    assert split(f"models/digits/{name}") is None or len(name) == 64
